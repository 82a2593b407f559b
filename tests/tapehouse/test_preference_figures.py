"""Figures of preference pairs, by hand."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.bootstrap import block_length, resample, tail
from tapehouse.evaluations.core import FIGURES
from tapehouse.evaluations.preferences import MEANING, preference_figures

START = datetime(2012, 1, 3, 22, tzinfo=UTC)
NAMES = ("chosen_logp", "rejected_logp", "chosen_logp_before", "rejected_logp_before", "chosen_tokens", "rejected_tokens")


def pairs(rows) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Pairs of what `NAMES` says, one a day, and their decision points."""
    days = [START + timedelta(days=day) for day in range(len(rows))]
    keys = {"symbol": "IBM", "interval": "1d", "decision_at": pl.Series(days, dtype=pl.Datetime("us", "UTC"))}
    frame = pl.DataFrame({"decision_at": keys["decision_at"]}).with_columns(symbol=pl.lit("IBM"), interval=pl.lit("1d"))
    columns = {name: pl.Series([float(row[place]) for row in rows], dtype=pl.Float64) for place, name in enumerate(NAMES)}
    objective = pl.Series([("patient", "aggressive")[day % 2] for day in range(len(rows))], dtype=pl.String)
    return (
        frame.with_columns(**columns, objective=objective, placement=pl.lit(1)),
        frame.with_columns(regime=pl.lit("bullish")),
    )


def whole(rows) -> dict[str, float | None]:
    found = preference_figures(*pairs(rows)).filter(slice="all")
    return dict(found.select("metric", "value").iter_rows())


def test_figures_on_paper():
    found = preference_figures(*pairs([(-10, -12, -11, -11, 10, 10), (-9, -6, -10, -5, 9, 3), (-4, -4, -4, -6, 4, 5)]))
    assert dict(found.schema) == FIGURES and found.filter(slice="all")["metric"].to_list() == list(MEANING)
    value = dict(found.filter(slice="all").select("metric", "value").iter_rows())
    assert value["preference_accuracy"] == 0.5  # right, wrong, and a tie
    assert value["preference_margin"] == pytest.approx((2 - 3 + 0) / 3)
    assert value["preference_accuracy_normalised"] == pytest.approx(2 / 3)  # -1.0 above -1.2, -1.0 above -2.0, -1.0 below -0.8
    assert value["preference_margin_normalised"] == pytest.approx((0.2 + 1.0 - 0.2) / 3)
    assert value["preference_accuracy_before"] == pytest.approx(0.5)  # a tie, wrong, right
    assert value["preference_margin_before"] == pytest.approx((0 - 5 + 2) / 3)
    assert value["preference_accuracy_gained"] == pytest.approx(2 / 3)
    assert value["preference_margin_gained"] == pytest.approx((2 + 2 - 2) / 3)
    by = found.filter(metric="preference_accuracy", slice="objective").select("level", "value", "n").rows()
    assert by == [("aggressive", 0.0, 1), ("patient", 0.75, 2)]
    assert set(found["low"]) == {None}  # fewer than 30
    assert dict(found.filter(slice="all").select("metric", "shuffled").iter_rows())["preference_accuracy"] == 0.5


LOGS = st.floats(-50, -0.5).map(lambda x: round(x, 3))


@settings(max_examples=25)
@given(st.lists(st.tuples(LOGS, LOGS, LOGS, LOGS, st.integers(1, 40), st.integers(1, 40)), min_size=30, max_size=60))
def test_to_exchange_all_answers_turns_every_figure_around(rows):
    turned = [(row[1], row[0], row[3], row[2], row[5], row[4]) for row in rows]
    there, back = whole(rows), whole(turned)
    for name, value in there.items():
        assert back[name] == pytest.approx(1 - value if "accuracy" in name else -value, abs=1e-9)
    figures = preference_figures(*pairs(rows)).filter(slice="all")
    assert figures.select((pl.col("low") <= pl.col("value") + 1e-12).all()).item()
    assert figures.select((pl.col("value") <= pl.col("high") + 1e-12).all()).item()


def test_blocks_are_as_long_as_right_pairs_keep_together():
    """Runs of 60 days right or wrong alike ask for blocks longer than a label's horizon."""
    right = np.arange(180) // 60 % 2
    found = preference_figures(*pairs([(-2 + 2 * r, -1, -1, -1, 3, 3) for r in right]))
    ends = found.filter(slice="all", metric="preference_accuracy").select("low", "high").row(0)
    drawn = resample(180, block_length(right))
    assert drawn.block > 10
    assert ends == pytest.approx(np.quantile(drawn.sums(right.astype(float)) / 180, [tail(drawn), 1 - tail(drawn)]))


def test_a_block_without_pairs_has_no_values():
    found = preference_figures(*pairs([]))
    assert found["metric"].to_list() == list(MEANING) and set(found["value"]) == {None} and set(found["n"]) == {0}


def test_points_twice_are_refused():
    rows, points = pairs([(-1, -2, -1, -2, 3, 3)])
    with pytest.raises(pl.exceptions.ComputeError, match="m:1"):
        preference_figures(rows, pl.concat([points, points]))
