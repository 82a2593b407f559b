"""Scores of a reward model against rewards: pairs by hand."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from tapehouse.bootstrap import block_length, resample, tail
from tapehouse.evaluations.core import EVALUATIONS
from tapehouse.evaluations.judgement import MEANING, judgement_rows

TYPES = {"symbol": pl.String, "objective": pl.String, "decision_at": pl.Datetime("us", "UTC")}
START = datetime(2012, 1, 3, tzinfo=UTC)


def pairs(rows) -> pl.DataFrame:
    """Pairs of (score, reward, offset) of the better paid answer and of the other, one a day."""
    names = [f"{side}_{what}" for side in ("chosen", "rejected") for what in ("score", "reward", "offset_atr")]
    columns = {name: [float(row[place]) for row in rows] for place, name in enumerate(names)}
    days = {
        "symbol": ["IBM"] * len(rows),
        "objective": ["calm"] * len(rows),
        "decision_at": [START + timedelta(days=day) for day in range(len(rows))],
    }
    return pl.DataFrame(days | columns, schema_overrides=dict.fromkeys(names, pl.Float64) | TYPES)


def judged(pairs: pl.DataFrame, slice: str = "all", what: str = "value") -> dict:
    """Figures of one slice by name."""
    found = judgement_rows("a", "2012", pairs)
    assert found.schema == EVALUATIONS
    return dict(found.filter(slice=slice).select("metric", what).rows())


def test_figures_on_paper():
    given = pairs([(0.9, 10, 0.1, 0.1, -50, 0.9), (0.3, 20, 0.9, 0.5, 5, 0.1), (0.8, 30, 0.2, 0.2, -10, 0.8)])
    figures = judged(given)
    assert set(figures) == set(MEANING)
    assert figures["n_pairs"] == 3.0 and figures["pair_accuracy"] == pytest.approx(2 / 3)
    # Scores .9 .3 .8 .1 .5 .2 rank 6 3 5 1 4 2, rewards 10 20 30 -50 5 -10 rank 4 5 6 1 3 2: 1 - 6 · 10 / 210.
    assert figures["reward_rank_ic"] == pytest.approx(1 - 60 / 210)
    # Nearer less farther: scores .8, .2 (the farther one was chosen) and .6; rewards 60, -15 and 40: the same order.
    assert figures["margin_rank_ic"] == pytest.approx(1.0)
    assert figures == judged(given, "symbol") == judged(given, "objective")
    assert set(judged(given, what="low").values()) == {None}  # fewer than 30
    assert judged(given, what="shuffled") == {"n_pairs": None, "pair_accuracy": 0.5, "reward_rank_ic": 0, "margin_rank_ic": 0}


def test_a_farther_limit_that_was_chosen_turns_its_pair_around():
    """As chosen: scores .1, .2, .3 beside rewards 30, 20, 10. Nearer less farther: .1, -.2, -.3 beside 30, -20, -10."""
    rows = [(0.6, 30, -0.1, 0.5, 0, 0.9), (0.7, 20, 0.9, 0.5, 0, -0.1), (0.8, 10, -0.9, 0.5, 0, -0.1)]
    assert judged(pairs(rows))["margin_rank_ic"] == pytest.approx(0.5)  # ranks 3, 2, 1 and 3, 1, 2


def test_a_tie_is_half_right():
    rows = [(0.5, 10, 0.1, 0.5, 0, 0.9), (0.6, 10, 0.1, 0.5, 0, 0.9), (0.4, 10, 0.1, 0.5, 0, 0.9), (0.5, 9, 0.1, 0.5, 0, 0.9)]
    assert judged(pairs(rows))["pair_accuracy"] == 0.5
    assert judged(pairs([rows[0]] * 5))["pair_accuracy"] == 0.5


def test_blocks_are_as_long_as_right_pairs_keep_together():
    """Runs of 60 days right or wrong alike ask for blocks longer than a label's horizon, of pairs and of answers."""
    rng = np.random.default_rng(3)
    right = np.arange(180) // 60 % 2
    rejected, reward = rng.normal(size=(2, 180))
    margin = np.where(right, 1, -1) * rng.random(180)
    rows = np.column_stack([rejected + margin, reward + 1 + right, right, rejected, reward, right + 1])
    found = judgement_rows("a", "2012", pairs(rows.tolist())).filter(slice="all")
    drawn = resample(180, block_length(right))
    assert drawn.block > 10
    days = np.tile(np.arange(180), 2)
    # Ranks of all 360 answers, added up by day.
    x, y = (rankdata(np.concatenate(rows.T[[place, place + 3]])) - 180.5 for place in (0, 1))
    n, sx, sy, xx, yy, xy = (drawn.sums(np.bincount(days, of)) for of in (x * 0 + 1, x, y, x * x, y * y, x * y))
    expected = {
        "pair_accuracy": drawn.sums(right.astype(float)) / 180,
        "reward_rank_ic": (n * xy - sx * sy) / np.sqrt((n * xx - sx**2) * (n * yy - sy**2)),
    }
    for metric, draws in expected.items():
        ends = found.filter(metric=metric).select("low", "high").row(0)
        assert ends == pytest.approx(np.quantile(draws, [tail(drawn), 1 - tail(drawn)]), rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-5, 5)] * 6), min_size=1, max_size=12))
def test_a_constant_added_to_all_scores_changes_nothing(rows):
    moved = [(row[0] + 3, *row[1:3], row[3] + 3, *row[4:]) for row in rows]
    assert judged(pairs(rows)) == judged(pairs(moved))


def test_a_block_without_pairs_has_no_figures():
    figures = judged(pairs([]))
    assert figures.pop("n_pairs") == 0.0 and set(figures.values()) == {None}
    assert judgement_rows("a", "2012", pairs([])).height == len(MEANING)
