"""Scores of a reward model against rewards: pairs by hand."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-5, 5)] * 6), min_size=1, max_size=12))
def test_a_constant_added_to_all_scores_changes_nothing(rows):
    moved = [(row[0] + 3, *row[1:3], row[3] + 3, *row[4:]) for row in rows]
    assert judged(pairs(rows)) == judged(pairs(moved))


def test_a_block_without_pairs_has_no_figures():
    figures = judged(pairs([]))
    assert figures.pop("n_pairs") == 0.0 and set(figures.values()) == {None}
    assert judgement_rows("a", "2012", pairs([])).height == len(MEANING)
