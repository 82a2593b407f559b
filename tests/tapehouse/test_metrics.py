"""Figures of an account that can be worked out on paper, and what must hold of any account."""

import math
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.run import TRADES, BacktestResult
from tapehouse.metrics import (
    MEANING,
    backtest_rows,
    performance,
    sharpe,
    sharpe_interval,
)
from tapehouse.statistics.drawdowns import annual_return, drawdowns_of, sortino
from tapehouse.verdicts import paired

COUNTS = dict.fromkeys(("signals", "filled", "skipped", "expired", "unexecuted", "scaled", "refused", "vetoed"), 0)


def account(equity: list[float], trades: list[dict] = (), opening: float = 100.0) -> BacktestResult:
    """An account with these closes of equity; `trades` give pnl, shares, entry price, side and sessions."""
    days = [date(2024, 1, 1) + timedelta(days=i) for i in range(len(equity))]
    before = [opening, *equity[:-1]]
    frame = pl.DataFrame(
        {
            "session": days,
            "equity": equity,
            "cash": equity,
            "gross_exposure": [0.5] * len(equity),
            "net_exposure": [-0.5] * len(equity),
            "ret": [e / b - 1 for e, b in zip(equity, before, strict=True)],
        }
    )
    ledger = pl.DataFrame({"commission": [1.0] * len(equity), "slippage": [2.0] * len(equity)}).with_columns(
        dividends=pl.lit(0.5), traded=pl.lit(10.0), borrow=pl.lit(0.0)
    )
    rows = [
        {
            "pnl": pnl,
            "shares": 10.0,
            "entry_price": 5.0,
            "side": side,
            "entry_session": days[a],
            "exit_session": days[b],
        }
        for pnl, side, a, b in trades
    ]
    config = BacktestConfig(initial_cash=opening)
    return BacktestResult(pl.DataFrame(rows, schema=TRADES), frame, ledger, COUNTS, config, np.zeros((1, 1)))


def test_figures_on_paper():
    """Equity 100, 110, 99, 108.9: returns +10 %, -10 %, +10 %. Gains of 6 and 2, a loss of 4."""
    trades = [(6.0, "BUY", 0, 1), (-4.0, "SELL", 1, 3), (2.0, "BUY", 3, 3)]
    figures = performance(account([100.0, 110.0, 99.0, 108.9], trades))
    assert list(figures) == list(MEANING)
    assert figures["return"] == pytest.approx(0.089)
    assert figures["return_before_costs"] == pytest.approx(0.089 + 0.03)
    # Three returns: compounded 84 times to a year, as reports.statistics has it.
    assert (figures["annual_return"], figures["calmar"]) == pytest.approx((1.089**84 - 1, (1.089**84 - 1) / 0.1))
    assert figures["annual_return"] == pytest.approx(annual_return(np.array([0.1, -0.1, 0.1])))
    assert figures["max_drawdown"] == pytest.approx(-0.1) and figures["longest_drawdown"] == 2
    mean, deviation = 0.1 / 3, math.sqrt((2 * (0.1 - 0.1 / 3) ** 2 + (0.1 + 0.1 / 3) ** 2) / 2)
    assert figures["sharpe"] == pytest.approx(mean / deviation * math.sqrt(252))
    assert figures["sortino"] == pytest.approx(mean / math.sqrt(0.01 / 3) * math.sqrt(252))
    assert figures["hit_rate"] == pytest.approx(2 / 3) and figures["profit_factor"] == pytest.approx(2.0)
    assert figures["mean_trade_bps"] == pytest.approx(4 / 3 / 50 * 1e4)
    assert figures["turnover"] == pytest.approx(40 / 104.475)
    assert (figures["exposure"], figures["net_exposure"], figures["long_trades"]) == (0.5, -0.5, 2.0)
    assert figures["sessions_held"] == pytest.approx((2 + 3 + 1) / 3)
    assert figures["sharpe_low"] is None  # three returns are too few for an interval


def test_without_trades_there_is_no_ratio():
    figures = performance(account([100.0] * 5))
    undefined = {name for name, value in figures.items() if value is None}
    assert undefined == {
        *("sharpe", "sharpe_low", "sharpe_high", "sortino", "calmar"),
        *("hit_rate", "profit_factor", "mean_trade_bps", "sessions_held"),
    }
    assert figures["return"] == 0.0 and figures["max_drawdown"] == 0.0
    rows = backtest_rows("never", "2024-01-01", account([100.0] * 5))
    assert rows.columns == ["subject", "fold", "metric", "value"] and rows["value"].null_count() == len(undefined)
    assert not rows["value"].is_nan().any()


def test_ratios_that_are_not_defined():
    assert sharpe(np.zeros(10)) is None and sharpe(np.array([0.1])) is None
    assert sortino(np.array([0.1, 0.0])) is None


@settings(max_examples=100, deadline=None)
@given(arrays(float, st.integers(2, 60), elements=st.floats(-0.2, 0.2)))
def test_drawdown_against_its_definition(ret):
    equity = np.cumprod(np.concatenate([[1.0], 1.0 + ret]))
    falls = drawdowns_of(equity)
    depth, longest = falls.deepest, falls.longest
    assert depth == min(equity[i] / equity[: i + 1].max() - 1 for i in range(len(equity)))
    assert -1 < depth <= 0 and (longest == 0) == (depth == 0)


def test_intervals_hold_their_estimate_and_repeat():
    ret = np.random.default_rng(3).normal(0.001, 0.01, 250)
    low, high = sharpe_interval(ret)
    assert low < sharpe(ret) < high
    assert (low, high) == sharpe_interval(ret)
    same, better = paired(ret, ret, "same"), paired(ret + 0.002, ret, "better")
    assert (same.low, same.high) == (0.0, 0.0)
    assert 0 < better.low < better.high


def test_interval_covers_zero_in_about_95_of_100_worlds_without_skill():
    rng = np.random.default_rng(11)
    covered = sum(low < 0 < high for low, high in (sharpe_interval(rng.normal(0, 0.01, 240)) for _ in range(200)))
    assert 175 <= covered <= 198  # 10-session blocks of 240 sessions are known to run a little short of 95 %
