"""Directional returns and rank correlations over several horizons: by hand, against scipy, and without skill."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tapehouse.evaluations.core import EVALUATIONS, measure
from tapehouse.evaluations.horizons import HORIZON_PARTS, MEANING, apart, daily_correlations, directional
from tapehouse.evaluations.reading import pooled
from tapehouse.evaluations.rows import Rows
from tapehouse.labels.forward import HORIZONS
from tapehouse.statistics.panels import overlapping_t

OUTCOMES = frozenset(f"forward_{h}" for h in HORIZONS)


def rows_of(dates, action, returns, score=None) -> Rows:
    """Rows with the same returns over every horizon, `action` 0 SELL, 1 HOLD, 2 BUY."""
    score = np.full(len(dates), np.nan) if score is None else np.asarray(score, float)
    columns = {"action": np.asarray(action, float), "p_buy": score, "p_sell": np.zeros(len(dates))}
    columns |= {name: np.asarray(returns, float) for name in OUTCOMES}
    return Rows(columns, np.asarray(dates), int(max(dates)) + 1, OUTCOMES)


def whole(rows: Rows) -> dict[str, dict]:
    found = measure(rows, HORIZON_PARTS).filter(slice="all")
    return {row["metric"]: row for row in found.iter_rows(named=True)}


def test_four_answers_on_paper():
    """BUY +2 %, SELL of what rose by 1 %, HOLD, BUY of what is not known yet."""
    found = whole(rows_of([0, 0, 1, 1], [2, 0, 1, 2], [0.02, 0.01, 0.05, np.nan], [0.4, 0.2, 0.1, 0.3]))
    assert set(found) == set(MEANING)
    for h in HORIZONS:
        assert found[f"hit_rate_{h}d"]["value"] == 0.5 and found[f"hit_rate_{h}d"]["n"] == 2
        assert found[f"mean_ret_{h}d"]["value"] == pytest.approx(0.005)
        assert found[f"sd_ret_{h}d"]["value"] == pytest.approx(np.std([0.02, -0.01], ddof=1))
        # Two observations have neither interval nor t-statistic, and a cross-section of two names no correlation.
        assert found[f"mean_ret_{h}d"]["low"] is None and found[f"t_ret_{h}d"]["value"] is None
        assert found[f"daily_rank_ic_{h}d"]["value"] is None
    # Over one session three decisions do not overlap: scores .4, .2, .1 rank 3, 2, 1 and returns 2, 1, 3.
    assert found["rank_ic_1d"]["value"] == pytest.approx(-0.5)
    assert found["rank_ic_5d"]["n"] == 2 and found["rank_ic_5d"]["value"] is None


def test_a_direction_earns_what_it_took():
    rows = rows_of([0, 1, 2, 3], [0, 1, 2, 2], [0.1, 0.1, 0.1, np.nan])
    assert np.array_equal(directional(rows, 5), [-0.1, np.nan, 0.1, np.nan], equal_nan=True)


def test_decisions_that_do_not_overlap_start_with_the_block():
    dates = np.repeat(np.arange(31), 2)
    rows = rows_of(dates, np.full(62, 2), np.ones(62), np.ones(62))
    known = {h: np.unique(dates[~np.isnan(apart(rows, h)[1])]).tolist() for h in HORIZONS}
    assert known[1] == list(range(31)) and known[5] == [0, 5, 10, 15, 20, 25, 30]
    assert known[10] == [0, 10, 20, 30] and known[30] == [0, 30]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(10, 14))
def test_rank_correlations_are_scipys(seed, names):
    rng = np.random.default_rng(seed)
    dates = np.repeat(np.arange(12), names)
    score, ret = rng.integers(0, 6, dates.size).astype(float), np.round(rng.normal(0, 0.02, dates.size), 2)
    ret[rng.random(dates.size) < 0.05] = np.nan
    rows = rows_of(dates, np.full(dates.size, 2), ret, score)
    found = whole(rows)
    for h in HORIZONS:
        on = (dates % h == 0) & ~np.isnan(ret)
        assert found[f"rank_ic_{h}d"]["value"] == pytest.approx(spearmanr(score[on], ret[on]).statistic, abs=1e-12)
        sections = [spearmanr(score[on & (dates == d)], ret[on & (dates == d)]).statistic
                    for d in np.unique(dates[on]) if (on & (dates == d)).sum() >= 10]  # fmt: skip
        sections = [value for value in sections if not np.isnan(value)]
        assert found[f"daily_rank_ic_{h}d"]["n"] == len(sections)
        if sections:
            assert found[f"daily_rank_ic_{h}d"]["value"] == pytest.approx(np.mean(sections), abs=1e-12)


def test_nine_names_are_no_cross_section():
    dates = np.repeat(np.arange(40), 9)
    score = np.tile(np.arange(9.0), 40)
    nine = rows_of(dates, np.full(360, 2), score, score)
    assert np.isnan(daily_correlations(nine, score, score)).all()
    ten = rows_of(np.repeat(np.arange(40), 10), np.full(400, 2), np.tile(np.arange(10.0), 40), np.tile(np.arange(10.0), 40))
    found = whole(ten)["daily_rank_ic_1d"]
    assert (found["value"], found["n"], found["low"]) == (pytest.approx(1.0), 40, pytest.approx(1.0))


def test_skill_at_one_horizon_decays_and_its_twin_has_none():
    """Scores that know the next session's return alone, five names, 240 sessions: the correlation falls with the horizon."""
    rng = np.random.default_rng(8)
    daily = rng.normal(0, 0.02, (280, 5))
    score = np.sign(daily[:240]).ravel()
    sums = np.cumsum(np.vstack([np.zeros(5), daily]), axis=0)
    returns = {f"forward_{h}": (sums[h : h + 240] - sums[:240]).ravel() for h in HORIZONS}
    dates = np.repeat(np.arange(240), 5)
    columns = {"action": np.where(score > 0, 2.0, 0.0), "p_buy": score, "p_sell": np.zeros(1200), **returns}
    found = whole(Rows(columns, dates, 240, OUTCOMES))
    assert found["rank_ic_1d"]["value"] > 0.8
    assert found["rank_ic_1d"]["value"] > found["rank_ic_5d"]["value"] > found["rank_ic_30d"]["value"]
    assert found["hit_rate_1d"]["value"] == 1.0 and found["t_ret_1d"]["value"] > 20
    assert found["hit_rate_1d"]["shuffled"] == pytest.approx(0.5, abs=0.02)
    for h in HORIZONS:
        mean = found[f"mean_ret_{h}d"]
        assert mean["low"] < mean["value"] < mean["high"]
        assert abs(mean["shuffled"]) < 0.003


def test_a_horizon_that_is_missing_is_named():
    rows = rows_of([0, 1], [2, 2], [0.1, 0.1])
    less = Rows({k: v for k, v in rows.columns.items() if k != "forward_30"}, rows.dates, rows.sessions)
    with pytest.raises(KeyError, match="forward_30"):
        measure(less, HORIZON_PARTS)


def test_blocks_and_t_statistics_are_those_of_the_horizon():
    metrics = {metric.name: metric for part in HORIZON_PARTS for metric in part.metrics}
    for h in HORIZONS:
        assert {metrics[f"{name}_{h}d"].horizon for name in ("hit_rate", "mean_ret", "sd_ret", "rank_ic")} == {max(h, 10)}
    rng = np.random.default_rng(6)
    returns, action = rng.normal(0.001, 0.02, (130, 3)), rng.choice([0, 2], (130, 3))
    rows = rows_of(np.repeat(np.arange(130), 3), action.ravel(), returns.ravel())
    sums, counts = ((action - 1) * returns).sum(axis=1)[:, None], np.full((130, 1), 3.0)
    for h in HORIZONS:
        assert whole(rows)[f"t_ret_{h}d"]["value"] == pytest.approx(overlapping_t(sums, counts, h)[0])
        assert whole(rows)[f"t_ret_{h}d"]["n"] == 390


def test_statistics_of_two_blocks_become_one_that_is_as_wide():
    """Weights are the roots of 100 and 300: (10 * 1 + 17.32 * 3) / 20."""
    lines = [
        ("us", fold, "test", "all", "", "t_ret_5d", t, None, None, n, None) for fold, t, n in (("a", 1.0, 100), ("b", 3.0, 300))
    ]
    found = pooled(pl.DataFrame(lines, schema=EVALUATIONS, orient="row"))
    assert found["value"].to_list() == [pytest.approx((10 + 3 * 300**0.5) / 20)] and found["low"].to_list() == [None]
