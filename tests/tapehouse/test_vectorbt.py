"""The account against orders and equity that vectorbt 1.2.0 gave for the same bars and signals.

`vectorbt_account.npz` holds the market and what `bench/peers/vectorbt/from_signals.py` made of it:
`Portfolio.from_signals(close, entries.shift(1), exits.shift(1), price=open)`, fees of 5 bps, slippage of 10.
`bench/backtest.py` makes the same comparison with the peer itself, over 100,000 bars.
"""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.layout import EXIT_NOW
from tapehouse.backtest.panel import Orders, Panel
from tapehouse.backtest.run import simulate_orders

STORED = Path(__file__).with_name("vectorbt_account.npz")


@pytest.fixture(scope="module")
def peer() -> dict[str, np.ndarray]:
    with np.load(STORED) as stored:
        return dict(stored)


def account(peer: dict[str, np.ndarray], column: int, shift: int = 0):
    """One account, all cash in at each entry; `shift` moves signals by sessions."""
    opened, close = (np.ascontiguousarray(peer[name][:, column : column + 1]) for name in ("open", "close"))
    shape = close.shape
    nothing, ones, days = np.full(shape, np.nan), np.ones(shape), np.zeros(shape[0])
    sessions = tuple(date(2000, 1, 1) + timedelta(days=i) for i in range(shape[0]))
    panel = Panel(
        ("A",), sessions, opened, np.maximum(opened, close), np.minimum(opened, close), close, ones, np.zeros(shape), nothing,
        nothing, ones, nothing, days, days, np.zeros(1), np.zeros(1),
    )  # fmt: skip
    entries, exits = (np.roll(peer[name][:, column : column + 1], shift, axis=0) for name in ("entries", "exits"))
    none = np.full(shape, -1)
    orders = Orders(
        entries.astype(np.int64), nothing, np.zeros(shape, np.int64), ones, np.full(shape, 10.0), exits * EXIT_NOW, none, none,
        {(t, 0): sessions[t] for t in range(shape[0])},
    )  # fmt: skip
    config = BacktestConfig(initial_cash=float(peer["cash"]), commission_bps=5.0, slippage_bps=10.0, exit_rule="hold")
    return simulate_orders(panel, replace(orders), config)


@pytest.mark.parametrize("column", [0, 1])
def test_orders_and_equity_are_those_of_vectorbt(peer, column):
    result = account(peer, column)
    own = peer["column"] == column
    np.testing.assert_allclose(result.equity["equity"], peer["equity"][:, column], rtol=1e-9)
    prices = result.trades.select("entry_price", "exit_price").to_numpy().ravel()
    sizes = result.trades.select("shares", "exit_shares").to_numpy().ravel()
    np.testing.assert_allclose(prices, peer["price"][own], rtol=1e-9)
    np.testing.assert_allclose(sizes, peer["size"][own], rtol=1e-9)
    assert result.trades.height * 2 == own.sum() >= 20


def test_signals_of_another_session_are_other_orders(peer):
    assert not np.allclose(account(peer, 0, shift=1).equity["equity"], peer["equity"][:, 0], rtol=1e-6)
