"""Permutation importance: by hand on a model that can be written down, what matters found, what does not at nothing."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.cross_fitting import fitting_points
from tapehouse.declared_splits import declared_splits
from tapehouse.examination_assets import importance_scheme, is_quick, learns_from_features, paths_scheme
from tapehouse.folds import FoldSpec, read_spec
from tapehouse.importance import ALL, FEATURE, GROUP, IMPORTANCE, SEED, correlated, disordered, importance_rows, levels_of
from tapehouse.methods import linear
from tapehouse.recipes import FOLDER, load_recipes
from tests.house import ROOT
from tests.tapehouse.classical import KEYS, LABELS, POINTS, SPLITS, make_fold, make_inputs, recipe

FEATURES = ["momentum_30d", "noise"]


@pytest.fixture(scope="module")
def fold():
    return make_fold()


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


def found(of, inputs, fold, folder, **options) -> pl.DataFrame:
    rows = fitting_points(inputs, fold)
    splits = declared_splits(inputs[SPLITS], rows, "tuning", fold.id)
    return importance_rows(of, inputs, fold, rows, splits, folder, **options)


@pytest.mark.parametrize("method", ["gbm", "linear"])
def test_what_foretells_the_label_matters_and_noise_does_not(method, fold, inputs, tmp_path):
    params = {"features": FEATURES} | ({"n_estimators": 30, "max_depth": 2} if method == "gbm" else {"l2": 1.0})
    rows = found(recipe(method, params=params, seed=3), inputs, fold, tmp_path)
    assert rows.schema == pl.Schema(IMPORTANCE)
    assert rows.select("kind", "level").rows() == [(ALL, ""), (FEATURE, "momentum_30d"), (FEATURE, "noise")]
    whole, signal, noise = rows.iter_rows(named=True)
    assert signal["low"] > 0.2 and whole["low"] > 0.2, rows
    assert abs(noise["value"]) < 0.1 * signal["value"], rows
    assert signal["low"] < signal["value"] < signal["high"]
    # Without the signal it knows no more than the shares of the labels do; with it much more.
    assert signal["log_loss"] < 0.7 * signal["base_log_loss"]
    assert rows["n"].unique().to_list() == [fitting_points(inputs, fold).height] and rows["blocks"].unique().to_list() == [3]


def test_by_hand_it_is_the_mean_rise_of_the_log_loss_over_the_blocks(fold, inputs, tmp_path):
    of = recipe("linear", params={"features": FEATURES, "l2": 1.0})
    made = found(of, inputs, fold, tmp_path / "asked", repeats=2).filter(level="momentum_30d").row(0, named=True)
    rows = fitting_points(inputs, fold)
    rises, losses, sides = [], [], []
    for number, split in enumerate(declared_splits(inputs[SPLITS], rows, "tuning", fold.id)):
        folder = tmp_path / split.name
        folder.mkdir()
        train, test = rows[split.train], rows[split.test]
        labels = inputs[LABELS].join(train.select(KEYS), on=KEYS, how="semi")
        linear.fit(of, {POINTS: inputs[POINTS].join(train, on=KEYS, how="semi"), LABELS: labels}, fold, folder)

        def losses_of(points, folder=folder, test=test):
            chances = linear.predict(of, {POINTS: points}, fold, folder).select("p_sell", "p_hold", "p_buy").to_numpy()
            return np.array([-math.log(row[label + 1]) for row, label in zip(chances, test["label"], strict=True)])

        before = losses_of(test)
        rng = np.random.default_rng((SEED, number))
        orders = [rng.permutation(test.height) for _ in range(2)]
        after = [losses_of(test.with_columns(momentum_30d=test["momentum_30d"][order])) for order in orders]
        rises.append(np.mean(after, axis=0) - before)
        losses.append(before)
        sides += [
            -math.log((up if label > 0 else down) / (up + down))
            for down, up, label in zip(
                *(linear.predict(of, {POINTS: test}, fold, folder)[p] for p in ("p_sell", "p_buy")), test["label"], strict=True
            )
            if label
        ]
    assert made["value"] == pytest.approx(np.concatenate(rises).mean(), rel=1e-12)
    assert made["deviation"] == pytest.approx(np.std([block.mean() for block in rises], ddof=1), rel=1e-12)
    assert made["log_loss"] == pytest.approx(np.concatenate(losses).mean(), rel=1e-12)
    assert made["side_log_loss"] == pytest.approx(np.mean(sides), rel=1e-12)
    assert made["side_log_loss"] < 0.5 < made["base_side_log_loss"]


def test_the_same_again_to_the_bit_and_no_row_from_beyond_the_window(fold, inputs, tmp_path):
    of = recipe("linear", params={"features": FEATURES, "l2": 1.0})
    first = found(of, inputs, fold, tmp_path / "a")
    late = pl.col("label_known_at") >= fold.validation_start
    labels = inputs[LABELS].with_columns(label=pl.when(late).then(-pl.col("label")).otherwise("label"))
    later = pl.col("decision_at") >= fold.validation_start
    points = inputs[POINTS].with_columns(noise=pl.when(later).then(99.0).otherwise("noise"))
    assert found(of, inputs | {POINTS: points, LABELS: labels}, fold, tmp_path / "b").equals(first)


@given(st.lists(st.floats(1, 100), min_size=2, max_size=12), st.randoms(use_true_random=False))
def test_disorder_moves_values_within_the_rows_and_leaves_the_rest(closes, random):
    n = len(closes)
    points = pl.DataFrame({"close": closes, "atr_14": [0.01 * c * (i + 1) for i, c in enumerate(closes)], "ret_1d": range(n)})
    order = np.array(random.sample(range(n), n))
    moved = disordered(points, ["atr_14", "ret_1d"], order)
    assert moved["ret_1d"].to_list() == [points["ret_1d"][int(i)] for i in order]
    assert moved["close"].equals(points["close"])
    # In currency it is moved as a share of the close, which is what a model sees.
    assert np.allclose((moved["atr_14"] / moved["close"]).to_numpy(), 0.01 * (order + 1))


def test_features_that_go_together_are_a_group():
    rng = np.random.default_rng(2)
    base, other = rng.normal(size=400), rng.normal(size=400)
    values = np.stack([base, np.exp(base), other, -base + 0.1 * rng.normal(size=400), np.full(400, 3.0)], axis=1)
    values[::7, 1] = np.nan
    names = ["a", "b", "c", "d", "e"]
    assert correlated(values, names) == [["a", "b", "d"], ["c"], ["e"]]
    assert correlated(values[:, :1], ["a"]) == [["a"]]
    levels = levels_of(names, correlated(values, names))
    assert levels[-2:] == [(GROUP, ("a", "b", "d")), (ALL, ("a", "b", "c", "d", "e"))]
    assert [kind for kind, _ in levels[:5]] == [FEATURE] * 5


def test_what_has_no_features_or_no_blocks_is_refused(fold, inputs, tmp_path):
    rows = fitting_points(inputs, fold)
    with pytest.raises(ValueError, match=r"gbm \d{4}.*: no split has rows to train and to test on"):
        importance_rows(recipe("gbm", params={"features": FEATURES}), inputs, fold, rows, [], tmp_path)
    market = inputs[POINTS].filter(symbol="A").with_columns(ret_20d=0.01, realised_vol_20d=0.2, known_at="decision_at")
    of = recipe("regime", params={"symbol": "A"})
    with pytest.raises(ValueError, match=r"regime: regime says no features that it learns from"):
        found(of, inputs | {"features.price": market}, fold, tmp_path)


def test_which_recipes_are_examined_follows_from_their_methods():
    recipes = load_recipes(ROOT / FOLDER)
    examined = {name for name, of in recipes.items() if learns_from_features(of)}
    assert {"gbm", "gbm_shuffled", "linear"} <= examined
    quick = {name for name, of in recipes.items() if is_quick(of)}
    assert examined < quick and {"regime", "momentum", "buy_and_hold"} <= quick
    # The auditor splits its window itself; networks and language models take too long.
    assert not quick & {"auditor", "sequence", "ranking", "sft_orders", "dpo_orders"}


def test_schemes_follow_from_the_declared_folds():
    spec = read_spec(ROOT / "models_registry/folds.yaml")
    assert importance_scheme(spec) == "tuning" and paths_scheme(spec) == "combinatorial_paths"
    assert importance_scheme(FoldSpec()) is None and paths_scheme(FoldSpec()) is None
