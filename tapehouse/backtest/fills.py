"""Where an order fills in a bar, where a position leaves it, and what either pays: what knows one bar alone."""

import numpy as np
from numba import njit

from tapehouse.backtest.layout import (
    AT_OPEN,
    INSIDE_BAR,
    NOT_NOW,
    STOP,
    TAKE,
)
from tapehouse.kernels import kernel

# A price on the tick up to rounding stays there.
ROUNDING = 1e-6  # ticks
ULPS = 1e-15  # of a price of very many ticks


@kernel("tapehouse.backtest.layout", inline="always")
def fill_of_order(side, level, price, low, high, first, pushed, whole):
    """When an order fills (NOT_NOW, AT_OPEN, INSIDE_BAR), the price before costs, and the price that is paid.

    Args:
        side: 1.0 buy, -1.0 sell. level: its limit, NaN for a market order. price: the open. first: the first session that could
            fill it. pushed: what taking liquidity costs, a fraction of the price. whole: whether prices are in ticks.
    """
    if np.isnan(level):
        return AT_OPEN, price, paid_price(price * (1.0 + side * pushed), side, whole)
    if side * (level - price) > 0.0:
        if not first:
            return AT_OPEN, price, price
        # Sent through the market: it takes liquidity, though never beyond its limit.
        taken = paid_price(price * (1.0 + side * pushed), side, whole)
        return AT_OPEN, price, min(level, taken) if side > 0.0 else max(level, taken)
    if (side > 0.0 and low < level) or (side < 0.0 and high > level):
        return INSIDE_BAR, level, level
    return NOT_NOW, np.nan, np.nan


@kernel("tapehouse.backtest.layout", inline="always")
def exit_of_bar(quantity, start, low, high, lower, upper, young):
    """Price and reason of an exit at stop or target; NaN for none.

    Args:
        quantity: signed shares. start: the open, or the fill of an entry of this bar. lower, upper: the levels, infinite for
            none.
        young: how the position was entered in this bar, NOT_NOW for an older one.
    """
    side = 1.0 if quantity > 0.0 else -1.0
    stop = lower if side > 0.0 else upper
    take = upper if side > 0.0 else lower
    worst = low if side > 0.0 else high
    best = high if side > 0.0 else low
    if side * (start - stop) <= 0.0:
        return start, STOP
    if young == NOT_NOW and side * (start - take) >= 0.0:
        return start, TAKE
    if side * (worst - stop) <= 0.0:
        return stop, STOP
    if young != INSIDE_BAR and side * (best - take) >= 0.0:
        return take, TAKE
    return np.nan, STOP


@njit(cache=True, inline="always")
def down(price, whole):
    """The tick at or below a price in ticks; as it is without ticks."""
    return np.floor(price * (1.0 + ULPS) + ROUNDING) if whole else price


@njit(cache=True, inline="always")
def up(price, whole):
    """The tick at or above a price in ticks; as it is without ticks."""
    return np.ceil(price * (1.0 - ULPS) - ROUNDING) if whole else price


@njit(cache=True, inline="always")
def paid_price(price, side, whole):
    """The tick that is no better for a buyer (1.0) or seller (-1.0), at least one; as it is without ticks."""
    if not whole:
        return price
    return max(up(price, whole) if side > 0.0 else down(price, whole), 1.0)


@njit(cache=True, inline="always")
def in_lots(quantity, lot):
    """Whole lots of a quantity; as it is without lots."""
    return np.floor(quantity / lot + 1e-9) * lot if lot > 0.0 else quantity


@njit(cache=True, inline="always")
def charged(quantity, executed, fill, commission, fx):
    """Commission, and what was paid beyond the price before costs, both in account currency."""
    return quantity * executed * commission * fx, quantity * abs(executed - fill) * fx
