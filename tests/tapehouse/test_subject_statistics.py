"""Figures of joined blocks on paper, beside empyrical's, and draws that are the figure of the resampled returns."""

import math
from datetime import date, timedelta

import empyrical
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tapehouse.bootstrap import block_length, resample, tail
from tapehouse.metrics import sharpe, sharpe_interval
from tapehouse.statistics.drawdowns import annual_return, calmar, drawdowns, sortino, tail_ratio
from tapehouse.statistics.path_draws import path_draws, tail_ratio_draws
from tapehouse.statistics.ratios import standard_error
from tapehouse.subject_statistics import MEANING, ROWS, statistics_rows

DAYS = [date(2010, 1, 1) + timedelta(days=i) for i in range(2000)]
RETURNS = arrays(np.float64, st.integers(31, 90), elements=st.integers(-200_000, 200_000).map(lambda count: count * 1e-6))
TRADES = {"subject": pl.String, "exit_session": pl.Date, "pnl": pl.Float64, "shares": pl.Float64, "entry_price": pl.Float64}


def equity(ret: np.ndarray, subject: str = "a", fold: str = "f", first: int = 0, **columns) -> pl.DataFrame:
    """Sessions of one block: that of its opening, then one for each return."""
    rows = len(ret) + 1
    return pl.DataFrame(
        {
            "subject": [subject] * rows,
            "fold": [fold] * rows,
            "session": DAYS[first : first + rows],
            "ret": [0.0, *ret],
            "gross_exposure": [0.0, *np.full(len(ret), 0.5)],
            "net_exposure": [0.0, *np.full(len(ret), -0.5)],
            "turnover": [0.0, *np.full(len(ret), 0.1)],
        }
    ).with_columns(**columns)


def trades(rows: list[tuple[int, float]], subject: str = "a") -> pl.DataFrame:
    """Trades of 10 shares at 100 from (session of the exit, gain)."""
    return pl.DataFrame([(subject, DAYS[t], pnl, 10.0, 100.0) for t, pnl in rows], schema=TRADES, orient="row")


def figures(days: pl.DataFrame, closed: pl.DataFrame, subject: str = "a") -> dict[str, dict]:
    rows = statistics_rows(days, closed)
    assert dict(rows.schema) == ROWS
    return {row["metric"]: row for row in rows.filter(subject=subject).iter_rows(named=True)}


def test_two_blocks_on_paper():
    """Equity 1, 1.1, 0.99 in the first block, 1.0395, 0.98752… in the second: one fall of three sessions from 1.1 to 0.9875."""
    days = pl.concat([equity(np.array([0.1, -0.1])), equity(np.array([0.05, -0.05]), fold="g", first=3)])
    found = {name: row["value"] for name, row in figures(days, trades([(1, 30.0), (2, -10.0), (5, -10.0)])).items()}
    assert list(found) == list(MEANING)
    grown = 1.1 * 0.9 * 1.05 * 0.95
    assert found["return"] == pytest.approx(grown - 1)
    assert found["max_drawdown"] == found["mean_drawdown"] == pytest.approx(grown / 1.1 - 1)
    assert (found["longest_drawdown"], found["mean_drawdown_length"]) == (3.0, 3.0)
    assert found["annual_return"] == pytest.approx(grown**63 - 1)
    assert found["calmar"] == pytest.approx((grown**63 - 1) / (1 - grown / 1.1))
    assert found["sharpe"] == pytest.approx(0.0, abs=1e-12) == found["sortino"]
    assert found["volatility"] == pytest.approx(math.sqrt((2 * 0.01 + 2 * 0.0025) / 3 * 252))
    # Percentiles of -0.1, -0.05, 0.05, 0.1 at ranks 0.15 and 2.85: -0.0925 and 0.0925.
    assert found["tail_ratio"] == pytest.approx(1.0)
    assert (found["exposure"], found["net_exposure"], found["turnover"]) == pytest.approx((0.5, -0.5, 25.2))
    assert (found["trades"], found["hit_rate"], found["profit_factor"]) == pytest.approx((3.0, 1 / 3, 1.5))
    assert found["mean_trade_bps"] == pytest.approx((300 - 100 - 100) / 3)


def test_few_observations_have_no_interval_and_idle_accounts_no_ratio():
    ret = np.random.default_rng(1).normal(0, 0.01, 60)
    found = figures(equity(ret), trades([(t, 1.0) for t in range(1, 30)]))
    assert found["sharpe"]["low"] < found["sharpe"]["value"] < found["sharpe"]["high"] and found["sharpe"]["n"] == 60
    assert found["hit_rate"]["low"] is None and found["hit_rate"]["n"] == 29  # of 30 trades
    assert found["profit_factor"]["value"] is None  # nothing was lost
    short = figures(equity(ret[:29]), trades([(1, 1.0)] * 40))
    assert all(row["low"] is None for row in short.values()) and short["sharpe"]["value"] is not None
    idle = figures(equity(np.zeros(60)), trades([]))
    defined = {name for name, row in idle.items() if row["value"] is not None}
    undefined = {"sharpe", "sharpe_standard_error", "sortino", "calmar", "annual_return", "volatility", "tail_ratio"}
    assert set(MEANING) - defined == undefined | {"hit_rate", "profit_factor", "mean_trade_bps"}
    assert idle["return"]["value"] == 0.0 == idle["max_drawdown"]["value"]


def test_an_account_of_before_turnover_was_logged_has_none():
    ret = np.random.default_rng(1).normal(0, 0.01, 60)
    found = figures(equity(ret, turnover=pl.lit(None, pl.Float64)), trades([(1, 1.0)]))
    assert found["turnover"]["value"] is None and found["exposure"]["value"] == 0.5


def test_intervals_are_those_of_the_verdicts_and_hold_the_truth():
    """The Sharpe ratio as drawn elsewhere; a hit rate of one half in 1,200 trades within about 1.96 · 0.5 / √1200."""
    rng = np.random.default_rng(3)
    ret = rng.normal(0.0005, 0.01, 1500)
    closed = trades(
        [(int(t), float(sign)) for t, sign in zip(rng.integers(1, 1500, 1200), rng.choice([-1, 1], 1200), strict=True)]
    )
    found = figures(equity(ret), closed)
    assert (found["sharpe"]["low"], found["sharpe"]["high"]) == sharpe_interval(ret)
    error = standard_error(ret) * math.sqrt(252)
    assert found["sharpe_standard_error"]["value"] == error
    assert found["sharpe"]["high"] - found["sharpe"]["low"] == pytest.approx(2 * 1.96 * error, rel=0.15)
    width = found["hit_rate"]["high"] - found["hit_rate"]["low"]
    assert width == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(1200), rel=0.2)
    for row in found.values():
        assert row["low"] is None or row["low"] <= row["high"]


def test_every_interval_is_as_wide_as_its_few_blocks_ask():
    """Six blocks of ten: ends of draws that plain percentiles would not reach."""
    ret = np.random.default_rng(8).normal(0, 0.01, 60)
    found, drawn = figures(equity(ret), trades([(t, (-1.0) ** t) for t in range(1, 60)])), resample(60, 10)
    assert block_length(ret) == 10 and tail(drawn) < 0.0025
    for metric, values in (("return", path_draws(ret, drawn).grown - 1.0), ("tail_ratio", tail_ratio_draws(ret, drawn))):
        ends = np.quantile(values, [tail(drawn), 1 - tail(drawn)])
        assert (found[metric]["low"], found[metric]["high"]) == pytest.approx(ends)
    assert found["hit_rate"]["low"] <= found["hit_rate"]["value"] <= found["hit_rate"]["high"]


@settings(max_examples=25, deadline=None)
@given(RETURNS, st.integers(1, 20))
def test_a_draw_is_the_figure_of_the_resampled_returns(ret, block):
    drawn = resample(len(ret), block, 8)
    paths, tails = path_draws(ret, drawn), tail_ratio_draws(ret, drawn)
    for i, order in enumerate(drawn.indices):
        falls = drawdowns(ret[order])
        assert paths.grown[i] == pytest.approx(np.prod(1 + ret[order]))
        assert (paths.deepest[i], paths.longest[i]) == (falls.deepest, falls.longest)
        assert (paths.mean[i], paths.mean_length[i]) == pytest.approx((falls.mean, falls.mean_length), rel=1e-12)
        expected = tail_ratio(ret[order])
        assert np.isnan(tails[i]) if expected is None else tails[i] == pytest.approx(expected, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(RETURNS)
def test_ratios_are_empyricals(ret):
    """To 1e-12 of the figure, or of what a cancelling mean leaves of it: adding in another order moves the last bits."""
    spread = ret.std(ddof=1)
    if not spread > 1e-9:
        return
    close = {"rel": 1e-12, "abs": 1e-12}
    assert sharpe(ret) == pytest.approx(empyrical.sharpe_ratio(ret), **close)
    assert spread * math.sqrt(252) == pytest.approx(empyrical.annual_volatility(ret), **close)
    assert annual_return(ret) == pytest.approx(empyrical.annual_return(ret), **close)
    assert float(np.prod(1 + ret) - 1) == pytest.approx(empyrical.cum_returns_final(ret), **close)
    if sortino(ret) is not None:
        assert sortino(ret) == pytest.approx(empyrical.sortino_ratio(ret), **close)
    if calmar(ret) is not None and drawdowns(ret).deepest < -1e-3:  # a smaller fall is a difference of nearly equal numbers
        assert calmar(ret) == pytest.approx(empyrical.calmar_ratio(ret), **close)


def test_a_subject_is_not_moved_by_its_neighbours_or_the_order_of_rows():
    rng = np.random.default_rng(5)
    one, two = equity(rng.normal(0, 0.01, 200)), equity(rng.normal(0, 0.01, 90), "b")
    closed = trades([(int(t), float(g)) for t, g in zip(rng.integers(1, 200, 50), rng.normal(size=50), strict=True)])
    alone = statistics_rows(one, closed)
    both = pl.concat([two, one]).sample(fraction=1.0, shuffle=True, seed=2)
    assert statistics_rows(both, closed).filter(subject="a").equals(alone)


def test_blocks_are_as_long_as_the_returns_ask():
    smooth = np.convolve(np.random.default_rng(6).normal(0, 0.01, 700), np.ones(60) / 60, "valid")
    assert block_length(smooth) > 30
    found = figures(equity(smooth), trades([(1, 1.0)]))
    assert (found["sharpe"]["low"], found["sharpe"]["high"]) == sharpe_interval(smooth)
