"""Logistic regression against its own optimality conditions, its scaler on paper, and fits that must be refused."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits

from tapehouse.feature_matrix import labelled, matrix
from tapehouse.methods import linear
from tapehouse.predictions import CHANCES
from tapehouse.training.manifest import files_digest
from tests.tapehouse.classical import KEYS, LABELS, POINTS, answers, fit, make_fold, make_inputs, recipe


@pytest.fixture(scope="module")
def fold():
    return make_fold()


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


def test_the_scaler_on_paper():
    values = np.array([[1.0, np.nan, 7.0], [3.0, np.nan, 7.0], [np.nan, np.nan, 7.0]])
    mean, deviation = linear.moments(values)
    assert mean.tolist() == [2.0, 0.0, 7.0] and deviation.tolist() == [1.0, 1.0, 1.0]
    assert linear.scaled(np.array([[9.0, np.nan, 6.5]]), mean, deviation, 5.0).tolist() == [[5.0, 0.0, -0.5]]


@given(arrays(np.float64, (12, 3), elements=st.floats(-1e6, 1e6)), st.floats(0.5, 10))
def test_scaled_rows_lie_within_the_clip(values, clip):
    rows = linear.scaled(values, *linear.moments(values), clip)
    assert np.abs(rows).max() <= clip


def test_the_fit_is_the_optimum_of_the_penalised_loss(fold, inputs, tmp_path):
    """At the optimum the gradient of the log loss is minus the penalty's: X'(p - y) = -l2 W, and sum(p - y) = 0."""
    of = recipe("linear", params={"l2": 3.0, "clip": 4.0})
    made = fit(of, inputs, fold, tmp_path)
    assert made["features"] == ["momentum_30d", "noise", "atr_14"] and made["rows"] == 2 * 53
    rows = labelled(inputs[POINTS], inputs[LABELS], fold)
    stored = load_file(tmp_path / "model.safetensors")
    values = linear.scaled(matrix(rows, made["features"]).astype(float), stored["mean"], stored["deviation"], 4.0)
    chances = linear.predict(of, {POINTS: rows}, fold, tmp_path).select(CHANCES).to_numpy()
    over = chances - np.eye(3)[rows["label"].to_numpy() + 1]
    assert np.allclose(over.T @ values, -3.0 * stored["coefficients"], atol=1e-3)
    assert np.allclose(over.sum(axis=0), 0, atol=1e-3)
    assert np.allclose(chances.sum(axis=1), 1)


def test_it_learns_what_is_there_and_repeats(fold, inputs, tmp_path):
    of = recipe("linear", params={"l2": 1.0})
    fit(of, inputs, fold, tmp_path / "a")
    fit(of, inputs, fold, tmp_path / "b")
    assert files_digest(tmp_path / "a") == files_digest(tmp_path / "b")
    rows = answers(of, inputs, fold, tmp_path / "a").join(inputs[LABELS].filter(side=0).select(*KEYS, "label"), on=KEYS)
    said = rows["action"].replace_strict({"SELL": -1, "HOLD": 0, "BUY": 1}, return_dtype=pl.Int32)
    assert (said == rows["label"]).mean() > 0.7


def test_threads_change_no_bit(fold, inputs, tmp_path):
    for threads in (1, 2):
        with threadpool_limits(threads):
            fit(recipe("linear"), inputs, fold, tmp_path / str(threads))
    assert files_digest(tmp_path / "1") == files_digest(tmp_path / "2")


def test_an_answer_does_not_depend_on_the_rows_around_it(fold, inputs, tmp_path):
    of = recipe("linear")
    fit(of, inputs, fold, tmp_path)
    together = linear.predict(of, inputs, fold, tmp_path)
    for place in (0, 57, 239):
        alone = linear.predict(of, {POINTS: inputs[POINTS][place : place + 1]}, fold, tmp_path)
        assert alone.rows() == together[place : place + 1].rows()


def test_never_sees_what_was_known_after_the_tail_began(fold, inputs, tmp_path):
    late = pl.col("label_known_at") >= fold.validation_start
    labels = inputs[LABELS].with_columns(label=pl.when(late).then(-pl.col("label")).otherwise(pl.col("label")))
    later = pl.col("decision_at") >= fold.validation_start
    points = inputs[POINTS].with_columns(noise=pl.when(later).then(99.0).otherwise(pl.col("noise")))
    fit(recipe("linear"), inputs, fold, tmp_path / "a")
    fit(recipe("linear"), {POINTS: points, LABELS: labels}, fold, tmp_path / "b")
    assert files_digest(tmp_path / "a") == files_digest(tmp_path / "b")


@pytest.mark.parametrize(("gone", "place"), [(-1, 0), (0, 1), (1, 2)])
def test_a_class_without_a_label_gets_no_probability(fold, inputs, tmp_path, gone, place):
    two = inputs | {LABELS: inputs[LABELS].filter(pl.col("label") != gone)}
    fit(recipe("linear"), two, fold, tmp_path)
    chances = linear.predict(recipe("linear"), two, fold, tmp_path).select(CHANCES).to_numpy()
    assert (chances[:, place] == 0).all() and np.allclose(chances.sum(axis=1), 1)


def test_labels_of_one_class_and_unknown_features_are_refused(fold, inputs, tmp_path):
    with pytest.raises(ValueError, match="labels are BUY; nothing tells them apart"):
        fit(recipe("linear"), inputs | {LABELS: inputs[LABELS].with_columns(label=pl.lit(1, pl.Int32))}, fold, tmp_path)
    with pytest.raises(ValueError, match=r"params.features: no feature \['momentum_3d'\]"):
        fit(recipe("linear", params={"features": ["momentum_3d"]}), inputs, fold, tmp_path)
