"""Meta-labelling: another recipe's model says which side to trade, and trees say whether to take the trade.

M. López de Prado, Advances in Financial Machine Learning (2018), 3.6 to 3.8. The trees learn from trades that the primary
model proposed without knowing them: it is fitted for each purged block of the training window on the other blocks. The primary
of the answers is fitted on the whole window, as its own recipe fits it. `confidence` is the probability that a trade is worth
taking; probabilities of the three actions are not given.
"""

import json
import tempfile
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from tapehouse.cross_fitting import check_answered_once, cross_fitted, fitting_points
from tapehouse.declared_splits import declared_splits
from tapehouse.feature_matrix import feature_names, matrix
from tapehouse.folds import fitting_rows
from tapehouse.inner_recipes import OuterRecipe, taken_over
from tapehouse.predictions import BUY, CHANCES, HOLD, KEYS, likeliest
from tapehouse.recipe_sections import Section
from tapehouse.recipes import method_module
from tapehouse.tables import Read

MODEL_FILE, FACTS_FILE, PRIMARY = "auditor.ubj", "auditor.json", "primary"
FEWEST_TRADES = 30  # below it nothing is learned, and every trade is taken


class Params(Section):
    """Trees on the features, the primary's probabilities and the side that it takes; empty `features` means all columns."""

    n_estimators: int = Field(60, ge=1)
    max_depth: int = Field(2, ge=1)
    learning_rate: float = Field(0.03, gt=0)
    subsample: float = Field(0.8, gt=0, le=1)
    hurdle_bps: float = Field(30.0, description="A trade was worth taking where it returned more: the cost of a round trip.")
    threshold: float = Field(0.5, ge=0, le=1, description="The least probability of that with which a trade is taken.")
    scheme: str = Field("tuning", description="One of cross_validation in models_registry/folds.yaml.")
    features: list[str] = Field([])


class Recipe(OuterRecipe):
    """Take the trade or not."""

    naming: ClassVar[str] = "audits"

    method: Literal["auditor"]
    audits: str
    params: Params = Params()


complete = taken_over


def fit_reads(recipe: Recipe) -> tuple[Read, ...]:
    """What the primary reads, and the splits."""
    return (*_asked(recipe, "fit_reads"), Read("models.splits"))


def predict_reads(recipe: Recipe) -> tuple[Read, ...]:
    """What the primary reads."""
    return _asked(recipe, "predict_reads")


def fit(recipe: Recipe, inputs, fold, folder, report=None) -> dict:
    """Fit the primary on the window and the trees on its answers out of fold.

    Returns:
        `rows`, the primary's; `trades` out of fold; `worth`, the share of them that were worth taking; `learned`, whether
        there were enough of both kinds to learn from.
    """
    import xgboost

    primary, params = recipe.inner_recipe, recipe.params
    rows = fitting_points(inputs, fold)
    check_answered_once(inputs["models.splits"], params.scheme, fold, recipe.name)
    splits = declared_splits(inputs["models.splits"], rows, params.scheme, fold.id)
    with tempfile.TemporaryDirectory() as aside:
        proposed = pl.concat(cross_fitted(primary, inputs, fold, rows, splits, Path(aside)))
    trades = worth_taking(proposed, fitting_rows(inputs["labels.triple_barrier"], fold), params.hurdle_bps)
    features = feature_names(recipe.name, params.features, inputs["features.decision_points"])
    truth = trades["worth"].to_numpy().astype(np.int64)
    learned = trades.height >= FEWEST_TRADES and len(set(truth.tolist())) == 2
    if learned:
        settings = {
            "objective": "binary:logistic",
            "tree_method": "hist",
            "max_depth": params.max_depth,
            "learning_rate": params.learning_rate,
            "subsample": params.subsample,
            "seed": recipe.seed,
            "nthread": 1,
        }
        shown = inputs["features.decision_points"].join(trades, on=KEYS, how="inner", maintain_order="right")
        data = xgboost.DMatrix(_shown(shown, features), label=truth, nthread=1)
        xgboost.train(settings, data, num_boost_round=params.n_estimators).save_model(folder / MODEL_FILE)
    (folder / PRIMARY).mkdir()
    made = method_module(primary.method).fit(primary, inputs, fold, folder / PRIMARY, report)
    facts = {"trades": trades.height, "worth": float(truth.mean()) if truth.size else None, "learned": learned}
    (folder / FACTS_FILE).write_text(json.dumps({**facts, "features": features}, indent=1) + "\n")
    return {"rows": made["rows"], **facts}


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """The primary's action where the trade is worth taking, else HOLD; `confidence` is the probability that it is."""
    import xgboost

    points = inputs["features.decision_points"]
    primary = recipe.inner_recipe
    answers = method_module(primary.method).predict(primary, inputs, fold, folder / PRIMARY)
    if "action" not in answers.columns:
        answers = answers.with_columns(action=likeliest(answers))
    facts = json.loads((folder / FACTS_FILE).read_text())
    chance = np.ones(answers.height)
    if facts["learned"]:
        shown = points.join(answers, on=KEYS, how="inner", maintain_order="right")
        booster = xgboost.Booster({"nthread": 1}, model_file=folder / MODEL_FILE)
        chance = booster.predict(xgboost.DMatrix(_shown(shown, facts["features"]), nthread=1)).astype(np.float64)
    taken = (pl.col("action") != HOLD) & (pl.col("confidence") >= recipe.params.threshold)
    return answers.select(*KEYS, "action", confidence=pl.Series(chance)).with_columns(
        action=pl.when(taken).then("action").otherwise(pl.lit(HOLD)),
        confidence=pl.when(pl.col("action") != HOLD).then("confidence"),
    )


def worth_taking(proposed: pl.DataFrame, labels: pl.DataFrame, hurdle_bps: float) -> pl.DataFrame:
    """The proposed trades whose outcome is known, with `worth`: whether the label of that side returned more than the hurdle.

    Args:
        proposed: `KEYS`, `action` and what else is shown. labels: of `labels.triple_barrier`, all sides.
    """
    side = pl.when(pl.col("action") == BUY).then(1).otherwise(-1).cast(pl.Int32)
    sided = labels.filter(pl.col("side") != 0).select(*KEYS, "side", taken="ret")
    return (
        proposed.filter(pl.col("action") != HOLD)
        .with_columns(side=side)
        .join(sided, on=[*KEYS, "side"], how="inner", validate="1:1")
        .drop_nulls("taken")
        .with_columns(worth=pl.col("taken") * 1e4 > hurdle_bps)
        .sort("decision_at", "symbol", "interval")
    )


def _shown(rows: pl.DataFrame, features: list[str]) -> np.ndarray:
    """(rows, features + 4): the features, the primary's probabilities (NaN where it gives none), and the side."""
    given = [pl.col(name) if name in rows.columns else pl.lit(None) for name in CHANCES]
    side = pl.when(pl.col("action") == BUY).then(1.0).otherwise(-1.0)
    proposal = rows.select(
        *(column.cast(pl.Float32).alias(name) for column, name in zip(given, CHANCES, strict=True)), side=side
    )
    return np.hstack([matrix(rows, features), proposal.to_numpy().astype(np.float32)])


def _asked(recipe: Recipe, name: str) -> tuple[Read, ...]:
    asked = getattr(method_module(recipe.inner_recipe.method), name, None)
    return asked(recipe.inner_recipe) if asked else ()
