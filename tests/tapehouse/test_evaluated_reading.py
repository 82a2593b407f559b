"""Looking figures up: wide by metric, pooled over folds by hand, and a meaning for everything that is measured."""

import math

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.evaluations.agreement import AGREEMENT
from tapehouse.evaluations.core import EVALUATIONS, Derived, Ratio
from tapehouse.evaluations.judgement import ANSWERS, PAIRS
from tapehouse.evaluations.preferences import PREFERENCES
from tapehouse.evaluations.reading import COUNTED, MEANING, figures, pooled
from tapehouse.evaluations.table import PARTS

EVERY = [metric for part in (*PARTS, AGREEMENT, PAIRS, ANSWERS, PREFERENCES) for metric in part.metrics]


def rows(*lines: tuple) -> pl.DataFrame:
    """Rows of the table from (fold, metric, value, low, high, n, shuffled) of one subject, whole test blocks."""
    return pl.DataFrame([("us", fold, "test", "all", "", *rest) for fold, *rest in lines], schema=EVALUATIONS, orient="row")


def test_wide_by_metric():
    known, unsure = ("a", "accuracy", 0.4, 0.3, 0.5, 100, 0.33), ("b", "accuracy", 0.6, None, None, 20, 0.3)
    given = rows(known, unsure, ("a", "other", 1, 1, 1, 9, 1))
    parts = given.with_columns(slice=pl.lit("symbol"), level=pl.lit("IBM"), value=pl.lit(0.9))
    tail = given.with_columns(split=pl.lit("validation"), value=pl.lit(0.8))
    everything = pl.concat([given, parts, tail])
    wide = figures(everything)
    assert wide.columns == ["subject", "fold", "level", *MEANING, "other"]
    assert wide.select("fold", "accuracy", "mcc").rows() == [("a", 0.4, None), ("b", 0.6, None)]
    assert figures(everything, what="high")["accuracy"].to_list() == [0.5, None]
    assert figures(everything, "symbol").select("level", "accuracy").rows() == [("IBM", 0.9)] * 2
    assert figures(everything, split="validation")["accuracy"].to_list() == [0.8] * 2
    assert figures(everything.clear()).columns == ["subject", "fold", "level", *MEANING]


def test_pooled_by_hand():
    found = pooled(
        rows(
            ("a", "accuracy", 0.4, 0.3, 0.6, 100, 0.30),
            ("b", "accuracy", 0.6, 0.5, 0.7, 300, 0.40),
            ("c", "accuracy", None, None, None, 0, None),
            ("a", "n", 100, None, None, 100, None),
            ("b", "n", 300, None, None, 300, None),
        )
    )
    accuracy, count = found.rows(named=True)
    assert (accuracy["value"], accuracy["n"], accuracy["folds"]) == (pytest.approx(0.55), 400, 2)
    assert accuracy["shuffled"] == pytest.approx(0.375)
    # A quarter and three quarters of the distances, in squares.
    assert accuracy["low"] == pytest.approx(0.55 - math.hypot(0.25 * 0.1, 0.75 * 0.1))
    assert accuracy["high"] == pytest.approx(0.55 + math.hypot(0.25 * 0.2, 0.75 * 0.1))
    assert (count["value"], count["low"], count["shuffled"]) == (400, None, None)


def test_a_pooled_interval_needs_half_of_the_observations():
    sparse = ("a", "accuracy", 0.4, None, None, 29, None)
    (row,) = pooled(rows(sparse, ("b", "accuracy", 0.5, 0.4, 0.6, 40, None))).rows(named=True)
    # As if the second block were all there is: wider than it need be.
    assert row["value"] - row["low"] == pytest.approx(0.1) and row["value"] == pytest.approx((0.4 * 29 + 0.5 * 40) / 69)
    (row,) = pooled(rows(sparse, ("b", "accuracy", 0.5, 0.4, 0.6, 28, None))).rows(named=True)
    assert row["low"] is None and row["high"] is None and row["value"] is not None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0, 1), st.integers(30, 500)), min_size=1, max_size=8))
def test_a_pooled_figure_lies_among_its_folds_and_is_surer_than_the_widest(folds):
    lines = [(str(i), "mcc", value, value - off, value + off, n, None) for i, (value, off, n) in enumerate(folds)]
    (row,) = pooled(rows(*lines)).rows(named=True)
    values, widths = [f[0] for f in folds], [2 * f[1] for f in folds]
    assert min(values) - 1e-9 <= row["value"] <= max(values) + 1e-9
    assert -1e-9 <= row["high"] - row["low"] <= max(widths) + 1e-9


def test_everything_that_is_measured_has_a_meaning():
    assert {metric.name for metric in EVERY} == set(MEANING)
    assert all(text.endswith(".") for text in MEANING.values())


def test_counts_add_up_and_nothing_else_does():
    counts = {m.name for m in EVERY if isinstance(m, Ratio | Derived) and not m.interval}
    assert counts == COUNTED
