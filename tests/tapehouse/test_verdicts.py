"""Verdicts on curves whose answer is known, Holm's correction by hand, and a judge that noise does not fool."""

from datetime import date, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.bootstrap import block_length, quantiles, resample, sharpe_draws
from tapehouse.trials import daily_sharpe, fit_trials, trial_rows
from tapehouse.verdicts import (
    BEATS,
    INCONCLUSIVE,
    LOSES,
    VERDICTS,
    Curve,
    Paired,
    corrected,
    curves,
    number_of_trials,
    paired,
    strongest,
    trial_ratios,
    verdicts,
)
from tapehouse.verdicts import judged as word

DAYS = tuple(date(2010, 1, 1) + timedelta(days=i) for i in range(1000))


def curve(name: str, drift: float, trades: int = 100, seed: int = 0, sessions: int = 1000) -> Curve:
    """Returns of one percent a day around a drift, exactly: the same noise less its mean."""
    noise = np.random.default_rng(seed).normal(0, 0.01, sessions)
    return Curve(name, noise - noise.mean() + drift, DAYS[:sessions], 2, trades)


def judged(found: list[Curve], baselines: list[str], others: int = 0) -> dict[str, dict]:
    """Rows of the verdicts by subject, with a log of their trials and of `others` that earned nothing."""
    tried = [{"subject": c.subject, "fold": "f", "kind": "fit", "state": "complete", "returns": c.ret.tolist()} for c in found]
    for seed in range(others):
        ret = np.random.default_rng(1000 + seed).normal(0, 0.01, 300).tolist()
        of = {"subject": "search", "fold": "f", "kind": "tuning", "state": "complete", "params": {"n": seed}}
        tried.append(of | {"returns": ret})
    rows = verdicts({c.subject: c for c in found}, {}, baselines, trial_rows(tried), 5)
    assert dict(rows.schema) == VERDICTS
    return {row["subject"]: row for row in rows.iter_rows(named=True)}


def test_a_true_edge_beats_and_a_true_loss_loses():
    cash = Curve("cash", np.zeros(1000), DAYS, 2, 0)
    rows = judged([cash, curve("good", 0.003), curve("bad", -0.001, seed=1), curve("none", 0.0, seed=2)], ["cash"])
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "good": BEATS,
        "bad": LOSES,
        "none": INCONCLUSIVE,
        "cash": INCONCLUSIVE,
    }
    assert rows["good"]["difference_low"] > 0 > rows["bad"]["difference_high"]
    assert rows["good"]["sharpe"] == pytest.approx(0.003 / 0.01 * np.sqrt(252), rel=0.05)
    assert rows["cash"]["sharpe"] is None and rows["cash"]["baseline"] is None  # nothing else to be measured against
    assert rows["good"]["scope"] == "2 test blocks, one universe of 5 instruments"


def test_who_never_traded_is_not_judged_however_good_the_others_are():
    cash = Curve("cash", np.zeros(1000), DAYS, 2, 0)
    row = judged([cash, curve("held", 0.003)], ["cash", "held"])["cash"]
    assert row["difference_high"] < 0 and (row["verdict"], row["reason"]) == (INCONCLUSIVE, "no trades")


def test_few_trades_and_many_trials_prove_nothing():
    cash = Curve("cash", np.zeros(1000), DAYS, 2, 0)
    noise = curve("noise", 0.0, seed=9)
    few = judged([cash, noise, curve("good", 0.002, trades=29)], ["cash"])["good"]
    assert few["verdict"] == INCONCLUSIVE and "29 trades, of 30" in few["reason"]
    alone = judged([cash, noise, curve("good", 0.0018)], ["cash"])["good"]
    among = judged([cash, noise, curve("good", 0.0018)], ["cash"], others=200)["good"]
    assert alone["deflated_sharpe"] > 0.95 > among["deflated_sharpe"]
    assert among["verdict"] == INCONCLUSIVE and "deflated" in among["reason"] and among["trials"] == 203


def test_the_strongest_baseline_is_the_one_over_the_subjects_own_sessions():
    ours = curve("ours", 0.001, sessions=100)
    first, last = (np.repeat(drifts, (100, 900)) for drifts in ((0.004, -0.001), (-0.004, 0.003)))
    early = Curve("early", first + curve("", 0.0, seed=3).ret, DAYS, 2, 50)
    late = Curve("late", last + curve("", 0.0, seed=4).ret, DAYS, 2, 50)
    short = curve("short", 0.01, sessions=50)  # does not cover them
    pair = strongest(ours, [early, late, short])
    assert pair.baseline == "early"
    assert strongest(early, [early]) is None


def test_two_that_move_together_are_told_apart_by_pairing():
    """A drift of 5 bps a day is lost in a deviation of 1 %, and plain where the other has the same noise."""
    same, other = (np.random.default_rng(seed).normal(0, 0.01, 1000) for seed in (1, 2))
    ours = same + 0.0005 + np.random.default_rng(3).normal(0, 0.0005, 1000)
    assert paired(ours, same, "same").low > 0.5
    assert paired(ours, other - other.mean() + same.mean(), "other").low < 0


def test_holm_by_hand():
    found = corrected({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert corrected({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_the_order(p_values):
    found = corrected(p_values)
    assert all(p <= found[name] <= 1 for name, p in p_values.items())
    ordered = sorted(p_values, key=lambda name: (p_values[name], name))
    assert all(found[a] <= found[b] for a, b in pairwise(ordered))


def test_of_forty_that_know_nothing_none_beats():
    """Without the corrections one or two of forty would: each has one chance in forty."""
    cash = Curve("cash", np.zeros(1000), DAYS, 2, 0)
    rng = np.random.default_rng(5)
    noise = [Curve(f"n{i}", rng.normal(0, 0.01, 1000), DAYS, 2, 100) for i in range(40)]
    rows = judged([cash, *noise], ["cash"])
    assert [name for name, row in rows.items() if row["verdict"] == BEATS] == []
    assert sum(row["p_value"] < 0.05 for row in rows.values() if row["p_value"] is not None) >= 1
    assert 0.2 < rows["n0"]["overfitting_probability"] <= 1.0  # the best of them is no better elsewhere


def test_blocks_are_joined_without_their_first_session():
    equity = pl.DataFrame(
        {"subject": "a", "fold": ["f", "f", "g", "g"], "session": list(DAYS[:4]), "ret": [0.0, 0.1, 0.0, -0.1]}
    )
    found = curves(equity, {"a": 3})["a"]
    assert found.ret.tolist() == [0.1, -0.1] and found.sessions == (DAYS[1], DAYS[3]) and found.folds == 2 and found.trades == 3


def test_without_a_baseline_there_is_no_verdict():
    with pytest.raises(ValueError, match="no baseline was traded"):
        verdicts({"a": curve("a", 0.0)}, {}, ["gbm"], trial_rows([]), 5)


def test_versions_of_a_strategy_are_trials_of_their_own_and_what_was_tried_before_counts_whenever_it_is_said():
    equity = pl.DataFrame({"subject": "s", "fold": "f", "session": list(DAYS[:3]), "ret": [0.0, 0.01, 0.02]})
    logged = pl.concat([fit_trials(equity.with_columns(pl.col("ret") * k), {"s": f"v{k}"}, {}) for k in range(1, 21)])
    assert number_of_trials(logged) == 20 and len(trial_ratios(logged)) == 20
    assert number_of_trials(logged, {"s": 500, "other": 3}) == 523


def test_a_setting_that_earned_other_returns_on_other_data_is_a_trial_of_its_own():
    """Fold f was traded twice, g once and again as before: the second series has the second f and the only g."""
    first, again, g = [0.01, 0.02, -0.01], [0.03, 0.01, 0.02], [0.05, -0.02]
    of = {"subject": "s", "kind": "fit", "state": "complete", "params": {"setting": "h"}}
    logged = trial_rows([of | {"fold": fold, "returns": ret} for fold, ret in (("f", first), ("f", again), ("g", g), ("g", g))])
    assert logged.height == 3 and number_of_trials(logged) == 2
    assert sorted(trial_ratios(logged)) == pytest.approx(sorted(daily_sharpe(np.array(f + g)) for f in (first, again)))
    failed = trial_rows([of | {"fold": "f", "state": "failed", "returns": [], "reason": "no memory"}])
    assert number_of_trials(pl.concat([logged, failed])) == 2 and number_of_trials(failed) == 1 and trial_ratios(failed) == []


def test_the_effective_number_takes_the_subjects_correlation_for_that_of_all_trials():
    """Three curves of correlation ½ by construction: ½ + ½ · 203."""
    rows = np.random.default_rng(4).normal(0, 0.01, (1000, 4))
    common, *own = np.linalg.qr(rows - rows.mean(axis=0))[0].T  # without mean, of equal length, not correlated
    found = [Curve(name, (common + part) / 5, DAYS, 2, 100) for name, part in zip("abc", own, strict=True)]
    row = judged(found, ["a"], others=200)["b"]
    assert row["trials"] == 203 and row["effective_trials"] == pytest.approx(0.5 + 0.5 * 203)
    noise = [curve(f"n{i}", 0.001, seed=i) for i in range(2)]
    alike = [Curve(f"m{i}", noise[0].ret * (1 + i), DAYS, 2, 100) for i in range(3)]
    assert judged(alike, ["m0"], others=50)["m1"]["effective_trials"] == pytest.approx(1.0)


def test_ahead_takes_a_corrected_p_value_of_half_of_five_per_cent():
    ours, pair = curve("ours", 0.003), Paired("cash", 0.0, 1.0, 0.1, 2.0, 0.001)
    assert word(ours, pair, 0.025, 0.99)[0] == BEATS
    missed, reason = word(ours, pair, 0.026, 0.99)
    assert missed == INCONCLUSIVE and "corrected for all subjects" in reason
    assert word(ours, pair, 0.001, 0.949)[0] == INCONCLUSIVE
    assert word(ours, Paired("cash", 0.0, -1.0, -2.0, -0.1, 0.999), 1.0, 0.99)[0] == LOSES


def test_pairs_are_drawn_in_the_longer_of_their_blocks():
    rng = np.random.default_rng(6)
    ours, theirs = rng.normal(0, 0.01, 700), np.convolve(rng.normal(0, 0.01, 759), np.ones(60) / 60, "valid")
    short, long = block_length(ours), block_length(theirs)
    assert short < 20 < 30 < long
    drawn = resample(700, long)
    ends = quantiles((sharpe_draws(ours, drawn) - sharpe_draws(theirs, drawn)) * np.sqrt(252), drawn)
    pair, turned = paired(ours, theirs, "theirs"), paired(theirs, ours, "ours")
    assert (pair.low, pair.high) == ends
    assert (turned.low, turned.high) == pytest.approx((-pair.high, -pair.low))


def test_many_subjects_leave_room_for_a_verdict():
    """The smallest p-value, times the number of subjects, has to stay below the level that is asked for."""
    cash = Curve("cash", np.zeros(1000), DAYS, 2, 0)
    many = [curve(f"n{i}", 0.0, seed=10 + i) for i in range(80)]
    row = judged([cash, curve("good", 0.004), *many], ["cash"])["good"]
    assert row["p_holm"] < 0.025 and row["verdict"] == BEATS
