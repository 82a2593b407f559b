"""The same decisions later, dearer and with more capital: on paper, over a split, and beside the backtest itself."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapehouse.backtest.config import BacktestConfig
from tapehouse.backtest.run import simulate_orders
from tapehouse.sensitivity import CAPITAL, COST, Grid, at_capital, at_cost, delayed, joined, sensitivity_rows
from tapehouse.strategies.schema import Strategy
from tapehouse.strategies.trading import trade
from tests.tapehouse.strategy_market import FOLD, predictions
from tests.tapehouse.strategy_market import market as made_up
from tests.tapehouse.test_account import flat, orders, panel

FREE = BacktestConfig(commission_bps=0, slippage_bps=0, initial_cash=10_000, weight=0.5, barrier_atr=1000)
FULL = {
    "signals": {"predictors": {"p": 1.0}},
    "gates": {"confidence": {"least": 0.1}},
    "vetoes": {"consecutive_losses": {}, "drawdown": {}, "resistance": {}},
    "orders": {"trail_atr": 1.0, "exit_on_opposite": True, "entry": "limit", "limit_atr": 0.1},
    "costs": {"half_spread_bps": 2.0, "impact": 0.3, "participation": 0.05},
    "tail": {"loss": 0.002, "rate": 0.1},
}


@pytest.mark.parametrize("sections", [{"signals": {"predictors": {"p": 1.0}}}, FULL], ids=["plain", "full"])
def test_the_declared_cell_is_the_backtest(sections):
    declared = Strategy.model_validate({"name": "s", "description": "x", **sections})
    traded = trade(declared, FOLD, {"p": predictions()}, made_up())
    rows = sensitivity_rows(traded.panel, traded.orders, traded.result.config)
    cell = rows.filter("declared").row(0, named=True)
    equity = traded.result.equity["equity"]
    ret = traded.result.equity["ret"].to_numpy()[1:]
    assert rows["declared"].sum() == 1 and cell["trades"] == traded.result.trades.height > 5
    assert cell["return"] == equity[-1] / traded.result.config.initial_cash - 1.0
    assert (cell["sessions"], cell["mean_ret"], cell["sd_ret"]) == (len(ret), ret.mean(), ret.std(ddof=1))
    # 15 bps are declared (17 with the half-spread) and stand beside the six of the grid, at each of four lags.
    assert rows["kind"].value_counts(sort=True).rows() == [(COST, 28), (CAPITAL, 9)]
    assert rows.select("kind", "lag", "cost_bps", "capital").is_unique().all()


def test_a_session_later_on_paper():
    # Decided after day 0. The open rises by one a day: bought at 101 on time, at 102 and 103 one and two days later.
    market = panel([(100.0 + t, 101.0 + t, 99.0 + t, 100.0 + t) for t in range(6)])
    sent = orders(market, [(0, 0, 1, 1.0, None, 0)], FREE)
    paid = [simulate_orders(market, delayed(sent, market, lag), FREE).trades["entry_price"][0] for lag in (0, 1, 2)]
    assert paid == [101.0, 102.0, 103.0]
    # Sized by the close before it is sent: half of 10,000 over 101.
    assert simulate_orders(market, delayed(sent, market, 1), FREE).trades["shares"][0] == pytest.approx(5000 / 101)
    assert delayed(sent, market, 5).signal.sum() == 1 and delayed(sent, market, 6).signal.sum() == 0
    late = sensitivity_rows(market, sent, FREE, Grid(lags=(0, 5), costs_bps=(0.0,), capital=()))
    assert late["trades"].to_list() == [1, 0]


def test_a_level_is_restated_over_a_split_and_a_dividend():
    # Ten in cash on 110 go on day 1, two for one on day 2: a limit of 100 is (100 - 10) / 2.
    bars = [(110.0,) * 4, (100.0,) * 4, (50.0, 51.0, 40.0, 50.0), (50.0, 51.0, 40.0, 50.0)]
    dividend, ratio = np.array([[0.0], [10.0], [0.0], [0.0]]), np.array([[1.0], [1.0], [2.0], [1.0]])
    market = panel(bars, dividend=dividend, ratio=ratio)
    sent = orders(market, [(0, 0, 1, 4.4, 100.0, 3)], FREE)
    later = delayed(sent, market, 2)
    assert later.limit[2, 0] == 45.0 and later.atr[2, 0] == pytest.approx(4.4 * (1 - 10 / 110) / 2)
    assert later.valid[2, 0] == 3 and np.isnan(later.limit[:2, 0]).all()
    assert simulate_orders(market, later, FREE).trades.select("entry_price", "shares").row(0) == (45.0, 5000 / 45.0)
    # One whose level the cash uses up is not sent.
    low = delayed(orders(market, [(0, 0, 1, 4.4, 9.0, 3)], FREE), market, 1)
    assert low.signal.sum() == 0


def test_costs_are_scaled_in_their_parts():
    config = BacktestConfig(commission_bps=5, half_spread_bps=1, slippage_bps=4, borrow_bps=30)
    dear = at_cost(config, 30)
    assert (dear.commission_bps, dear.half_spread_bps, dear.slippage_bps, dear.borrow_bps) == (15, 3, 12, 30)
    assert at_cost(config, 10) is config and at_cost(config, 0).commission_bps == 0
    assert at_cost(FREE, 20).commission_bps == 20  # of nothing there are no parts


def test_capital_pays_impact_and_stops_at_its_share_on_paper():
    # Volume 500, volatility 1 %. Half of 10,000 at 100 is 50 shares, a tenth of it: √0.1 of a percent a side.
    market = panel(flat(100, 4), volume=np.full((4, 1), 500.0), volatility=np.full((4, 1), 0.01))
    sent = orders(market, [(0, 0, 1, 1.0, None, 0)], FREE)
    grid = Grid(lags=(0,), costs_bps=(), capital=(10_000, 100_000), impact=1.0, participation=0.1)
    rows = sensitivity_rows(market, sent, FREE, grid).filter(kind=CAPITAL)
    a_side = 50 * 100 * 0.01 * np.sqrt(0.1)
    # Ten times the capital is cut to the same 50 shares, and they pay the same impact: a tenth of the loss.
    assert rows["return"].to_list() == pytest.approx([-2 * a_side / 10_000, -2 * a_side / 100_000])
    own = at_capital(FREE.model_copy(update={"impact": 0.2, "participation": 0.5}), 5.0, grid)
    assert (own.initial_cash, own.impact, own.participation) == (5.0, 0.2, 0.5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), lag=st.integers(0, 3))
def test_dearer_is_never_better_and_nothing_trades_before_it_is_sent(seed, lag):
    """One symbol, whose positions follow one another: there costs can only take from what the next one starts with."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 50)))
    opened = np.r_[100.0, close[:-1]] * np.exp(rng.normal(0, 0.01, 50))
    high, low = np.maximum(opened, close) * 1.005, np.minimum(opened, close) * 0.995
    bars, daily = list(zip(opened, high, low, close, strict=True)), np.ones((50, 1))
    market = panel(bars, volume=1e4 * daily, volatility=0.02 * daily)
    config = BacktestConfig(initial_cash=10_000, weight=0.5, barrier_atr=1.0)
    said = [(t, 0, int(rng.choice([-1, 1])), 0.03 * close[t], None, 0) for t in range(50) if rng.random() < 0.4]
    sent = orders(market, said, config)
    rows = sensitivity_rows(market, sent, config, Grid(lags=(lag,), capital=(10_000.0,)))
    earned = rows.filter(kind=COST).sort("cost_bps")["return"].to_numpy()
    assert (np.diff(earned) <= 0).all()
    if lag == 0:  # impact on top of the declared costs
        assert rows.filter(kind=CAPITAL)["return"][0] <= rows.filter("declared")["return"][0]
    at = {day: t for t, day in enumerate(market.sessions)}
    trades = simulate_orders(market, delayed(sent, market, lag), config).trades
    told = trades.select(pl.col("decision_at").dt.date(), "entry_session")  # orders made up here are dated by their session
    assert all(at[filled] - at[decided] == lag + 1 for decided, filled in told.iter_rows())


def test_without_volume_capital_changes_nothing():
    bare = made_up()
    bare = replace(bare, bars=bare.bars.with_columns(volume=pl.lit(None, pl.Float64)))
    declared = Strategy.model_validate({"name": "s", "description": "x", "signals": {"predictors": {"p": 1.0}}})
    traded = trade(declared, FOLD, {"p": predictions()}, bare)
    rows = sensitivity_rows(traded.panel, traded.orders, traded.result.config)
    assert rows.filter(kind=CAPITAL)["return"].to_list() == pytest.approx([rows.filter("declared")["return"][0]] * 9)


def test_blocks_join_to_the_moments_of_all_their_returns():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(0.001, 0.01, 60), rng.normal(-0.002, 0.03, 40)]
    rows = pl.DataFrame(
        [
            {"subject": "a", "fold": str(i), "kind": COST, "lag": 0, "cost_bps": 15.0, "capital": 1e6, "declared": True,
             "sessions": len(ret), "mean_ret": ret.mean(), "sd_ret": ret.std(ddof=1), "return": np.prod(1 + ret) - 1,
             "trades": 3}
            for i, ret in enumerate(blocks)
        ]
    )  # fmt: skip
    whole = np.concatenate(blocks)
    cell = joined(rows).row(0, named=True)
    assert (cell["folds"], cell["sessions"], cell["trades"]) == (2, 100, 6)
    assert cell["mean_ret"] == pytest.approx(whole.mean()) and cell["sd_ret"] == pytest.approx(whole.std(ddof=1))
    assert cell["sharpe"] == pytest.approx(whole.mean() / whole.std(ddof=1) * np.sqrt(252))
    assert cell["return"] == pytest.approx(np.prod(1 + whole) - 1)
    assert cell["annual_return"] == pytest.approx(rows["return"].sum() / 100 * 252)
    assert joined(rows.with_columns(trades=pl.lit(0)))["sharpe"].to_list() == [None]


def test_a_lag_or_cost_below_zero_is_refused():
    market = panel(flat(100, 3))
    sent = orders(market, [], FREE)
    with pytest.raises(ValueError, match="trade before the decision"):
        delayed(sent, market, -1)
    with pytest.raises(ValueError, match="at least 0"):
        at_cost(FREE, -1.0)
