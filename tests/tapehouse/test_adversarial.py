"""Telling a test block from its window: pairs by hand, a planted shift found, persistence not taken for a shift."""

from datetime import UTC, datetime, time

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from tapehouse.adversarial import (
    ADVERSARIAL,
    ALL,
    FEATURE,
    GAP_SESSIONS,
    INSIDE,
    PARTS,
    Side,
    adversarial_rows,
    declared_features,
    held_out_scores,
    learned_features,
    pairs,
    side_of,
)
from tapehouse.calendars import sessions
from tapehouse.folds import Fold, FoldSpec, walk_forward
from tapehouse.recipes import FOLDER, load_recipes
from tests.house import ROOT

STAMP = pl.Datetime("us", "UTC")
DAYS = sessions(datetime(2020, 1, 1).date(), datetime(2021, 9, 1).date())
FOLD: Fold = walk_forward(DAYS, FoldSpec(test_sessions=100, min_train_sessions=300, min_test_sessions=90, count=1))[0]
FEATURES = ["ret_1d", "rsi_14"]


def world(seed: int, persistence: float = 0.0, shift: float = 0.0, symbols: str = "AB") -> pl.DataFrame:
    """Two features of each symbol, as autoregressions; the second is `shift` higher in the test block."""
    rng = np.random.default_rng(seed)
    values = np.empty((DAYS.height, len(symbols), 2))
    level = rng.normal(size=values.shape[1:])
    for day in range(DAYS.height):
        level = persistence * level + np.sqrt(1 - persistence**2) * rng.normal(size=level.shape)
        values[day] = level
    stamps = [datetime.combine(day, time(22), UTC) for day in DAYS["session"]]
    frame = pl.concat(
        pl.DataFrame(
            {"symbol": s, "interval": "1d", "decision_at": pl.Series(stamps).cast(STAMP), "session": DAYS["session"],
             "close": 1.0, "ret_1d": values[:, i, 0], "rsi_14": values[:, i, 1]}
        )
        for i, s in enumerate(symbols)
    )  # fmt: skip
    return frame.with_columns(
        rsi_14=pl.col("rsi_14") + pl.when(pl.col("decision_at") >= FOLD.test_start).then(shift).otherwise(0.0)
    )


def side(values: list[float], place: list[int], part: list[int]) -> Side:
    return Side(np.array(values)[:, None], np.array(place), np.arange(len(part)), np.array(part), 1)


def test_pairs_by_hand():
    # Two sessions of the block, (3, 1) and (2), against two of the window, (2) and (0, 4).
    block, window = side([3, 1, 2], [0, 0, 1], [0, 1]), side([2, 0, 4], [0, 1, 1], [0, 1])
    found = pairs(window.values[:, 0], block.values[:, 0], window, block, within=False)
    assert found.count.tolist() == [[2, 4], [1, 2]]
    assert found.higher.tolist() == [[1, 2], [0.5, 1]]  # 3 > 2; 3, 1 > 0; the even pair counts one half; 2 > 0
    assert found.auc == 0.5
    # Within their parts alone: the first sessions of both, and the second.
    within = pairs(window.values[:, 0], block.values[:, 0], window, block)
    assert within.count.tolist() == [[2, 0], [0, 2]] and within.auc == 0.5
    # What is not known is in no pair.
    unknown = pairs(np.array([2.0, np.nan, 4.0]), block.values[:, 0], window, block, within=False)
    assert unknown.count.tolist() == [[2, 2], [1, 1]]
    assert pairs(np.full(3, np.nan), block.values[:, 0], window, block).auc is None


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=20),
    st.lists(st.integers(-3, 3), min_size=1, max_size=20),
)
def test_the_area_is_that_of_scikit_learn(ours, theirs):
    window, block = side(ours, list(range(len(ours))), [0] * len(ours)), side(theirs, [0] * len(theirs), [0])
    wanted = roc_auc_score([0] * len(ours) + [1] * len(theirs), ours + theirs)
    assert pairs(np.array(ours, float), np.array(theirs, float), window, block).auc == pytest.approx(wanted, abs=1e-6)


def test_a_planted_shift_is_found_and_named():
    rows = adversarial_rows(world(1, shift=2.0), FOLD, FEATURES)
    assert rows.schema == pl.Schema(ADVERSARIAL)
    assert rows.select("kind", "level").rows() == [(ALL, ""), (FEATURE, "ret_1d"), (FEATURE, "rsi_14"), (INSIDE, "")]
    by = {(r["kind"], r["level"]): r for r in rows.iter_rows(named=True)}
    whole, shifted, same = by[ALL, ""], by[FEATURE, "rsi_14"], by[FEATURE, "ret_1d"]
    # Two normal values that lie two deviations apart: P(difference > 0) = Φ(2 / √2) = 0.921.
    assert shifted["auc"] == pytest.approx(0.921, abs=0.03) and whole["auc"] == pytest.approx(0.921, abs=0.04)
    assert whole["low"] > 0.85 and whole["low"] < whole["auc"] < whole["high"] <= 1.0
    assert shifted["gain"] > 0.9 > 0.1 > same["gain"] and shifted["gain"] + same["gain"] == pytest.approx(1.0)
    assert same["low"] < 0.5 < same["high"]
    assert abs(by[INSIDE, ""]["auc"] - 0.5) < 0.1  # nothing shifted inside the window
    assert whole["n_test"] == 200 and whole["n_train"] == 2 * 288


def test_persistence_is_not_taken_for_a_shift():
    # Each value is nearly that of the session before, so neighbours look alike; by parts that nothing near was fitted on, a
    # block is no more like itself than like the window.
    found = [adversarial_rows(world(seed, persistence=0.9), FOLD, FEATURES).filter(kind=ALL)["auc"][0] for seed in range(12)]
    assert abs(np.mean(found) - 0.5) < 0.08, found


def test_nothing_near_a_part_is_fitted_on():
    # The feature is the day itself: trees that had seen a neighbour would know a part of the block by it.
    points = world(0).with_columns(day=pl.col("session").rank("dense").cast(pl.Int64))
    points = points.with_columns(ret_1d=pl.col("day") % (2 * GAP_SESSIONS + 1), rsi_14=0.0)
    window = side_of(points.filter(pl.col("decision_at") < FOLD.train_end).sort("decision_at"), FEATURES)
    block = side_of(points.filter(pl.col("decision_at") >= FOLD.test_start).sort("decision_at"), FEATURES)
    scores, _ = held_out_scores(window, block)
    assert all(np.isfinite(part).all() for part in scores)
    # Moving what lies within the gap of a part changes nothing of what is said of the part.
    first, last = block.days[block.part == 2].min(), block.days[block.part == 2].max()
    near = (np.abs(block.days - first) <= GAP_SESSIONS) | (np.abs(block.days - last) <= GAP_SESSIONS)
    near &= block.part != 2
    assert near.sum() == 2 * GAP_SESSIONS
    moved = Side(np.where(near[block.place][:, None], 99.0, block.values), block.place, block.days, block.part, block.step)
    again, _ = held_out_scores(window, moved)
    own = (block.part == 2)[block.place]
    assert np.array_equal(again[1][own], scores[1][own])
    assert not np.array_equal(again[1][~own], scores[1][~own])


def test_a_long_window_is_thinned_evenly():
    points = world(0).with_columns(day=pl.col("session").rank("dense").cast(pl.Int64)).sort("decision_at")
    thin = side_of(points, FEATURES, most=100)
    assert thin.step == -(-DAYS.height // 100) and set(np.diff(thin.days)) == {thin.step}
    assert thin.values.shape == (2 * thin.days.size, 2) and np.bincount(thin.part).size == PARTS


def test_without_rows_on_one_side_it_refuses():
    points = world(0)
    with pytest.raises(ValueError, match=r"fold 2021.*: 576 decisions in the training window and 0 in the test block"):
        adversarial_rows(points.filter(pl.col("decision_at") < FOLD.test_start), FOLD, FEATURES)


def test_of_a_handful_of_rows_there_is_no_interval():
    few = world(0, symbols="A").filter(
        (pl.col("decision_at") < FOLD.train_end) | (pl.col("session") > FOLD.test_last_session - pl.duration(days=14))
    )
    rows = adversarial_rows(few, FOLD, FEATURES)
    assert rows.filter(kind=FEATURE)["low"].null_count() == 2 and rows.filter(kind=FEATURE)["auc"].null_count() == 0
    assert rows.filter(kind=ALL).select("auc", "low", "high").row(0) == (None, None, None)  # too near each other to learn from


def test_features_are_those_that_recipes_learn_from():
    recipes = load_recipes(ROOT / FOLDER)
    points = pl.DataFrame({name: [1.0] for name in recipes["gbm"].params.features} | {"oil_usd": [1.0], "close": [1.0]})
    found = learned_features(recipes.values(), points)
    assert set(found) == set(recipes["gbm"].params.features) | set(recipes["linear"].params.features)
    assert "oil_usd" not in found and found == [name for name in points.columns if name in found]
    assert "gbm=" in declared_features(ROOT)
