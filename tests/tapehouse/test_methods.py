"""Rules by hand, trees that repeat and that never see a label of the validation tail or of the test block."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tapehouse.predictions import PREDICTIONS
from tapehouse.recipe_sections import ClassicalRecipe
from tapehouse.recipes import load_recipes, method_module, methods
from tapehouse.training.manifest import files_digest
from tests.tapehouse.classical import KEYS, LABELS, POINTS, answers, fit, make_fold, make_inputs, recipe, stamp


@pytest.fixture(scope="module")
def fold():
    return make_fold()


@pytest.fixture(scope="module")
def inputs():
    return make_inputs()


def test_rules_on_paper(fold, inputs, tmp_path):
    for method in ("always_hold", "buy_and_hold", "momentum"):
        of = recipe(method)
        assert fit(of, inputs, fold, tmp_path / method) == {"rows": 0}
        rows = answers(of, inputs, fold, tmp_path / method)
        assert dict(rows.schema) == PREDICTIONS
        # 20 sessions of the tail, which ends 12 before the block, and 30 of the block; two symbols.
        assert dict(rows["split"].value_counts().iter_rows()) == {"validation": 40, "test": 60}
        assert rows["decision_at"].min() == stamp(58, 22) and rows.filter(split="test")["decision_at"].min() == stamp(90, 22)
        assert rows["p_buy"].null_count() == 100 and rows["limit_price"].null_count() == 100
        if method == "always_hold":
            assert set(rows["action"]) == {"HOLD"}
        elif method == "buy_and_hold":
            bought = rows.filter(action="BUY")
            assert bought["decision_at"].to_list() == [stamp(90, 22)] * 2 and "SELL" not in rows["action"]
        else:
            signal = rows.join(inputs[POINTS], on=KEYS, maintain_order="left")["momentum_30d"].to_list()
            assert rows["action"].to_list() == ["BUY" if x > 0 else "SELL" for x in signal]
    assert method_module("buy_and_hold").EXIT_RULE == "hold" and not hasattr(method_module("gbm"), "EXIT_RULE")


def test_momentum_holds_where_it_is_flat(fold, inputs, tmp_path):
    flat = inputs | {POINTS: inputs[POINTS].with_columns(momentum_30d=pl.lit(0.0))}
    assert set(answers(recipe("momentum"), flat, fold, tmp_path)["action"]) == {"HOLD"}


def test_tree_learns_what_is_there_and_repeats(fold, inputs, tmp_path):
    of = recipe("gbm", params={"n_estimators": 30, "max_depth": 2}, seed=3)
    made = fit(of, inputs, fold, tmp_path / "a")
    assert made["features"] == ["momentum_30d", "noise", "atr_14"]
    # 58 sessions lie before the tail, and the last five of them have a label that is known within it.
    assert made["rows"] == 2 * 53 and sum(made["base_rates"].values()) == pytest.approx(1.0)
    rows = answers(of, inputs, fold, tmp_path / "a")
    truth = rows.join(inputs[LABELS].filter(side=0), on=KEYS, maintain_order="left")["label"].to_list()
    said = [{"SELL": -1, "HOLD": 0, "BUY": 1}[a] for a in rows["action"]]
    assert np.mean([t == s for t, s in zip(truth, said, strict=True)]) > 0.8
    assert np.allclose(rows.select(pl.sum_horizontal("p_sell", "p_hold", "p_buy")).to_series(), 1.0)
    assert fit(of, inputs, fold, tmp_path / "b") == made
    assert files_digest(tmp_path / "b") == files_digest(tmp_path / "a")
    assert answers(of, inputs, fold, tmp_path / "b").equals(rows)


def test_tree_never_sees_what_was_known_after_the_tail_began(fold, inputs, tmp_path):
    of = recipe("gbm", params={"n_estimators": 5})
    fit(of, inputs, fold, tmp_path / "a")
    late = pl.col("label_known_at") >= fold.validation_start
    labels = inputs[LABELS].with_columns(label=pl.when(late).then(-pl.col("label")).otherwise(pl.col("label")))
    later = pl.col("decision_at") >= fold.validation_start
    points = inputs[POINTS].with_columns(noise=pl.when(later).then(99.0).otherwise(pl.col("noise")))
    fit(of, {POINTS: points, LABELS: labels}, fold, tmp_path / "b")
    assert files_digest(tmp_path / "a") == files_digest(tmp_path / "b")


def test_what_cannot_be_fitted_is_refused(fold, inputs, tmp_path):
    with pytest.raises(ValueError, match=r"params.features: no feature \['momentum_3d'\]"):
        fit(recipe("gbm", params={"features": ["momentum_3d"]}), inputs, fold, tmp_path)
    unlabelled = inputs | {LABELS: inputs[LABELS].with_columns(label=pl.lit(None, pl.Int32))}
    with pytest.raises(ValueError, match="no decision before"):
        fit(recipe("gbm"), unlabelled, fold, tmp_path)


def test_shipped_recipes_have_every_classical_method():
    folder = Path(__file__).parents[2] / "models_registry" / "adapters"
    shipped = {r.method for r in load_recipes(folder).values() if isinstance(r, ClassicalRecipe)}
    assert shipped == {m for m in methods() if issubclass(method_module(m).Recipe, ClassicalRecipe)}
