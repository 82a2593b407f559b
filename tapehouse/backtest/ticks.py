"""Prices in whole ticks: what the account counts in where a symbol's tick is declared, and back to currency.

A price of such a symbol is a whole number of ticks for the account, a float that holds it exactly (up to 2^53), so that
one kernel serves prices in currency as well: whether a bar reaches an order compares whole numbers, and 0.1 + 0.2 is 0.3.

- Bars go to the nearest tick. Most are on it; one that is not was restated, or traded when the tick was another.
- Levels of limits, stops and targets go to the tick that is harder to reach: a limit or target to buy down, one to sell up,
  a stop away from the price. They do so again where a dividend, a split or a trailing stop has moved them.
- What a taker pays goes to the worse tick, and is at least one.
- Dividends and the unit of stops are distances and marks are values: they stay fractions of a tick.

Money is ticks times tick. A price that comes out is the double that prints with the tick's decimals.
"""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from tapehouse.backtest.fills import ROUNDING, ULPS
from tapehouse.backtest.layout import ENTRY_PRICE, EXIT_PRICE
from tapehouse.backtest.panel import Orders, Panel

BARS = ("open", "high", "low", "close")
MOST = 2.0**53  # ticks; beyond it a float does not hold every whole number


def in_ticks(panel: Panel, orders: Orders) -> tuple[Panel, Orders]:
    """`panel` and `orders` with prices in ticks where one is declared, as they are where none is.

    `fx` becomes account currency for one tick.

    Raises:
        ValueError: a bar of less than half a tick, or of more than 2^53.
    """
    if not (panel.tick > 0.0).any():
        return panel, orders
    whole = panel.tick > 0.0
    numerator, denominator = _terms(panel.tick)

    def scaled(prices: np.ndarray) -> np.ndarray:
        return np.where(whole, prices * denominator / numerator, prices)

    bars = {name: np.where(whole, np.rint(scaled(getattr(panel, name))), getattr(panel, name)) for name in BARS}
    for name, prices in bars.items():
        if (off := whole & ((prices < 1.0) | (prices > MOST))).any():
            t, s = np.argwhere(off)[0]
            raise ValueError(
                f"{panel.symbols[s]} {panel.sessions[t]}: the {name} of {getattr(panel, name)[t, s]} is "
                f"{'less than half a tick' if prices[t, s] < 1.0 else 'too many ticks'} of {panel.tick[s]}; declare "
                "its tick_size in sources.yaml"
            )
    levels = scaled(orders.limit)
    floor, ceiling = np.floor(levels * (1.0 + ULPS) + ROUNDING), np.ceil(levels * (1.0 - ULPS) - ROUNDING)
    harder = np.where(orders.signal > 0, floor, ceiling)
    return (
        replace(panel, **bars, dividend=scaled(panel.dividend), fx=np.where(whole, panel.fx * panel.tick, panel.fx)),
        # A limit below one tick is none that a bar could reach, at one tick as little as below it.
        replace(orders, limit=np.where(whole, np.maximum(harder, 1.0), orders.limit), atr=scaled(orders.atr)),
    )


def in_currency(numbers: np.ndarray, symbols: np.ndarray, tick: np.ndarray) -> None:
    """Turn the prices among the trade numbers (trades, TRADE_NUMBERS) from ticks into currency, in place.

    Args:
        symbols: (trades,) column of each trade's symbol. tick: (symbols,) 0 for none.
    """
    if not (tick > 0.0).any():
        return
    numerator, denominator = _terms(tick)
    for column in (ENTRY_PRICE, EXIT_PRICE):
        numbers[:, column] = numbers[:, column] * numerator[symbols] / denominator[symbols]


def _terms(tick: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ticks as they are written, as fractions: 0.05 is 1 / 20. A whole number times that is rounded once."""
    written = [Fraction(repr(float(one))) if one > 0.0 else Fraction(1) for one in tick]
    return np.array([float(one.numerator) for one in written]), np.array([float(one.denominator) for one in written])
