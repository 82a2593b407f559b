"""On prices that nobody can foretell no kind of order earns anything: neither fills nor exits are a source of profit."""

from datetime import date, timedelta

import numpy as np
import pytest

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.panel import Orders, Panel
from tapehouse.backtest.run import simulate_orders

SESSIONS, SYMBOLS, STEPS, DEVIATION = 750, 5, 100, 0.02
FREE = BacktestConfig(commission_bps=0, slippage_bps=0, gross_limit=10.0)
DAYS = tuple(date(2000, 1, 1) + timedelta(days=i) for i in range(SESSIONS))


def martingale(draw: np.random.Generator) -> tuple[Panel, np.ndarray]:
    """Bars of a geometric random walk without drift, a gap of 30 % of the variance overnight, and their average true range."""
    night, step = np.sqrt(0.3) * DEVIATION, np.sqrt(0.7 / STEPS) * DEVIATION
    gaps = night * draw.standard_normal((SESSIONS, SYMBOLS)) - night**2 / 2
    paths = np.cumsum(step * draw.standard_normal((SESSIONS, SYMBOLS, STEPS)) - step**2 / 2, axis=2)
    closed = np.cumsum(gaps + paths[:, :, -1], axis=0)
    opened = np.concatenate([np.zeros((1, SYMBOLS)), closed[:-1]]) + gaps
    prices = 100.0 * np.exp(opened[:, :, None] + np.concatenate([np.zeros((SESSIONS, SYMBOLS, 1)), paths], axis=2))
    high, low, close = prices.max(axis=2), prices.min(axis=2), prices[:, :, -1].copy()
    before = np.concatenate([close[:1], close[:-1]])
    ranges = np.maximum(high, before) - np.minimum(low, before)
    width = np.array([ranges[max(0, t - 13) : t + 1].mean(axis=0) for t in range(SESSIONS)])
    ones, none, idle = np.ones(close.shape), np.full(close.shape, np.nan), np.zeros(SESSIONS)
    free = np.zeros(SYMBOLS)
    panel = Panel(
        tuple("ABCDE"), DAYS, prices[:, :, 0].copy(), high, low, close, ones, 0.0 * ones, none, none, ones, none, idle, idle,
        free, free,
    )  # fmt: skip
    return panel, width


@pytest.mark.parametrize("distance", [None, 0.0, 0.25, 1.0])
def test_no_kind_of_order_earns_on_a_martingale(distance):
    """Random sides by market orders and by limits so many ATR from the close: |t| < 4 over some thousands of trades."""
    gains = []
    for seed in range(4):
        draw = np.random.default_rng(seed)
        panel, width = martingale(draw)
        shape = panel.close.shape
        side, blocked = np.where(draw.random(shape) < 0.5, 1, -1), np.full(shape, -1)
        limit = np.full(shape, np.nan) if distance is None else panel.close - side * distance * width
        decided = {(t, s): DAYS[t] for t in range(SESSIONS) for s in range(SYMBOLS)}
        orders = Orders(
            side, limit, np.full(shape, 3), width, np.full(shape, 0.2), np.zeros(shape, np.int64), blocked, blocked, decided
        )
        trades = simulate_orders(panel, orders, FREE).trades
        gains.append((trades["pnl"] / (trades["shares"] * trades["entry_price"])).to_numpy())
    gained = np.concatenate(gains)
    assert len(gained) > 1_500
    assert abs(gained.mean() / gained.std(ddof=1) * np.sqrt(len(gained))) < 4
