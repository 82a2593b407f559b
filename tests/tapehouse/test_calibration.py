import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calibration import BOUNDS, FEWEST, SPREAD, best_temperature, calibrated, log_loss
from tapehouse.folds import Fold
from tapehouse.predictions import ACTIONS, CHANCES, as_predictions

START = datetime(2012, 1, 2, tzinfo=UTC)


def day(number: int) -> datetime:
    return START + timedelta(days=number)


FOLD = Fold("2012-07-20", day(0), day(180), day(200), day(260), day(280), 12, day(200).date(), day(259).date(), day(100))


def answers(first: int, last: int, seed: int, sharpness: float) -> pl.DataFrame:
    """Decisions by day, their probabilities too sure by `sharpness`, and the `label` drawn from what they should be."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1, (last - first, 3))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    told = np.exp(logits * sharpness) / np.exp(logits * sharpness).sum(axis=1, keepdims=True)
    label = [int(draw.choice(3, p=row)) - 1 for row in true]
    return pl.DataFrame(
        {"symbol": "IBM", "interval": "1d", "decision_at": [day(number) for number in range(first, last)], "label": label}
    ).with_columns(pl.Series(name, told[:, place]) for place, name in enumerate(CHANCES))


def labels(rows: pl.DataFrame, known_after: int = 5) -> pl.DataFrame:
    known = pl.col("decision_at") + pl.duration(days=known_after)
    return rows.select(
        "symbol",
        "interval",
        "decision_at",
        "label",
        label_known_at=known,
        sessions_held=pl.lit(4, pl.Int32),
        side=pl.lit(0, pl.Int32),
    )


def test_two_classes_have_the_temperature_of_the_closed_form():
    # One answer throughout, three quarters of them right: its logit d over T has to be ln 3.
    d = 2.0
    logs = np.log([[1 / (1 + math.exp(d)), 1 / (1 + math.exp(-d))]] * 4)
    truth = np.array([1, 1, 1, 0])
    found = best_temperature(logs, truth, decisions=1e9)
    assert found == pytest.approx(d / math.log(3), rel=1e-4)
    assert log_loss(logs, truth, found) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), abs=1e-8)


def test_the_fewer_decisions_the_nearer_the_temperature_stays_to_one():
    rows = answers(0, 200, 7, 4.0)
    logs, truth = np.log(rows.select(CHANCES).to_numpy()), rows["label"].to_numpy() + 1
    few, some, many = (best_temperature(logs, truth, count) for count in (0.1, 10, 1e6))
    assert 1.0 < few < 1.1 < some < many
    # Where cost is least its slope is none: decisions * d loss / d log T = - log T / SPREAD^2.
    step = 1e-5
    slope = (log_loss(logs, truth, some * math.exp(step)) - log_loss(logs, truth, some * math.exp(-step))) / (2 * step)
    assert 10 * slope == pytest.approx(-math.log(some) / SPREAD**2, abs=1e-3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([0.5, 1.0, 3.0]))
def test_a_planted_temperature_is_found_and_never_costs(seed, sharpness):
    rows = answers(0, 3000, seed, sharpness)
    logs, truth = np.log(rows.select(CHANCES).to_numpy()), rows["label"].to_numpy() + 1
    found = best_temperature(logs, truth, decisions=3000)
    assert found == pytest.approx(sharpness, rel=0.25)
    assert log_loss(logs, truth, found) <= log_loss(logs, truth, 1.0) + 1e-9


def test_rows_of_both_splits_are_changed_by_the_tail_alone():
    rows = answers(100, 260, seed=3, sharpness=4.0)
    told = as_predictions(rows.drop("label"), "mine", FOLD)
    found, fits = calibrated(told, labels(rows), FOLD)
    values = dict(fits.select("key", "value").iter_rows())
    # Of the tail's eighty days all labels are known by the test block; what is decided in the gap after it is of no use.
    assert fits["rows"].unique().to_list() == [80] and fits["fold"].unique().to_list() == [FOLD.id]
    assert values["decisions"] == 80 / 4
    assert values["temperature"] > 1.5 and values["log_loss_after"] < values["log_loss_before"]
    before, after = (frame.select(CHANCES).to_numpy() for frame in (told, found))
    powered = before ** (1 / values["temperature"])
    assert after == pytest.approx(powered / powered.sum(axis=1, keepdims=True), abs=1e-9)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    assert found["action"].equals(told["action"]) and found["action"].to_list() == [ACTIONS[k] for k in after.argmax(axis=1)]
    assert (found["split"] == "test").sum() == 60
    # Other labels of the test block, or of another side, change nothing.
    flipped = labels(rows).with_columns(
        label=pl.when(pl.col("decision_at") >= FOLD.validation_start + timedelta(days=80))
        .then(-pl.col("label"))
        .otherwise("label")
    )
    other_side = labels(rows).with_columns(label=-pl.col("label"), side=pl.lit(1, pl.Int32))
    again, same = calibrated(told, pl.concat([flipped, other_side]), FOLD)
    assert again.equals(found) and same.equals(fits)


def test_labels_that_are_not_known_by_the_test_block_are_not_used():
    rows = answers(100, 260, seed=3, sharpness=4.0)
    _, fits = calibrated(as_predictions(rows.drop("label"), "mine", FOLD), labels(rows, known_after=60), FOLD)
    assert fits["rows"].unique().to_list() == [40]  # decided in days 100 to 139, known before day 200


def test_too_few_rows_or_none_leave_everything_as_it_is():
    rows = answers(100, 100 + FEWEST - 1, seed=1, sharpness=4.0)
    told = as_predictions(rows.drop("label"), "mine", FOLD)
    found, fits = calibrated(told, labels(rows), FOLD)
    assert found.equals(told) and fits.filter(key="temperature")["value"].to_list() == [1.0]
    assert fits.filter(key="log_loss_after")["value"].to_list() == [None]
    none, fits = calibrated(told.clear(), labels(rows), FOLD)
    assert none.is_empty() and fits["rows"].to_list() == [0, 0, 0, 0]


def test_a_rule_without_probabilities_has_none_afterwards():
    rows = answers(100, 260, seed=1, sharpness=1.0).with_columns(action=pl.lit("HOLD")).drop(CHANCES)
    found, fits = calibrated(as_predictions(rows.drop("label"), "rule", FOLD), labels(rows), FOLD)
    assert found.select(CHANCES).null_count().row(0) == (160, 160, 160)
    assert fits.filter(key="temperature")["value"].to_list() == [1.0]


def test_rows_without_probabilities_among_others_keep_theirs_null():
    rows = answers(100, 260, seed=3, sharpness=4.0)
    gap = pl.col("decision_at") == day(230)
    holed = rows.with_columns(pl.when(gap).then(None).otherwise(name).alias(name) for name in CHANCES)
    holed = holed.with_columns(action=pl.lit("HOLD"))
    found, _ = calibrated(as_predictions(holed.drop("label"), "mine", FOLD), labels(rows), FOLD)
    assert found.filter(gap).select(CHANCES).row(0) == (None, None, None)
    assert found.filter(~gap).select(CHANCES).null_count().row(0) == (0, 0, 0)


def test_what_is_sure_and_wrong_ends_at_the_bound():
    logs = np.log(np.tile([1 - 2e-9, 1e-9, 1e-9], (50, 1)))
    found = best_temperature(logs, np.full(50, 2), decisions=50)
    assert found == pytest.approx(math.exp(BOUNDS[1]), rel=1e-3)
