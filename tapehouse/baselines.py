"""The mandatory baselines: predictors without a language model that write the same rows of `models.predictions`.

Each has two steps, like an adapter: `fit` makes what it needs in a folder (nothing, for a rule) and `predict` reads it
back for the test block of a fold. Orders are at market; probabilities are null where a rule has none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tapehouse.folds import Fold, block_rows, training_rows

if TYPE_CHECKING:
    from tapehouse.recipes import GbmRecipe, Recipe

METHODS = ("always_hold", "buy_and_hold", "momentum", "gbm")
OBJECTIVE = "direction"  # a baseline is asked for a side, not for a placement
ACTIONS = ("SELL", "HOLD", "BUY")  # classes 0, 1, 2: label + 1
MODEL_FILE = "model.ubj"
KEYS = ("symbol", "interval", "decision_at")
# Describe the row or repeat the bar: everything else in features.decision_points is a feature.
NOT_FEATURES = (*KEYS, "session", "known_at", "open", "high", "low", "close", "volume", "bars_of_history")
# In currency: over the close they mean the same for every symbol and year.
PRICE_UNITS = ("atr_14", "macd", "macd_signal", "macd_hist")

PREDICTIONS = {
    "adapter": pl.String,
    "fold": pl.String,
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": pl.Datetime("us", "UTC"),
    "objective": pl.String,
    "action": pl.String,
    "limit_price": pl.Float64,
    "confidence": pl.Float64,
    "p_sell": pl.Float64,
    "p_hold": pl.Float64,
    "p_buy": pl.Float64,
    "text": pl.String,
    "parse_state": pl.String,
    "limit_valid_sessions": pl.Int32,
}


def exit_rule(method: str) -> str:
    """The exit rule of a method's backtest: buy-and-hold has no barriers, everything else exits at its decision's."""
    return "hold" if method == "buy_and_hold" else "barrier"


def fit(recipe: Recipe, decisions: pl.DataFrame, labels: pl.DataFrame, fold: Fold, folder: Path) -> dict:
    """Fit a baseline on the training window of `fold` and leave its file in `folder`.

    Args:
        recipe: a recipe whose method is one of `METHODS`.
        decisions: rows of `features.decision_points`; those of the training window are used.
        labels: rows of `labels.triple_barrier`; side 0 is the target, and a label not known by the block's start is
            left out.
        folder: created where absent.

    Returns:
        `rows` trained on, `digest` of the file (of nothing for a rule), and for a tree the `features` in their order and
        `base_rates`, the share of each class in training.

    Raises:
        ValueError: no labelled training rows, or a declared feature that the table does not have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.method != "gbm":
        return {"rows": 0, "digest": hashlib.sha256(b"").hexdigest()}
    features = feature_names(recipe, decisions)
    known = training_rows(labels.filter(pl.col("side") == 0), fold).drop_nulls("label").select(*KEYS, "label")
    rows = decisions.join(known, on=KEYS, how="inner", validate="1:1").sort("decision_at", "symbol", "interval")
    if rows.is_empty():
        raise ValueError(f"fold {fold.id}: no decision before {fold.train_end:%Y-%m-%d} has a label known by its start")
    classes = rows["label"].to_numpy() + 1
    booster = _train(recipe, _matrix(rows, features), classes)
    path = folder / MODEL_FILE
    booster.save_model(path)
    shares = np.bincount(classes, minlength=3) / len(classes)
    return {
        "rows": rows.height,
        "digest": hashlib.sha256(path.read_bytes()).hexdigest(),
        "features": features,
        "base_rates": dict(zip(ACTIONS, shares.tolist(), strict=True)),
    }


def predict(recipe: Recipe, decisions: pl.DataFrame, fold: Fold, folder: Path) -> pl.DataFrame:
    """Rows of `models.predictions`: one for every decision point in the test block of `fold`, sorted by the grain.

    Args:
        recipe, folder: as given to `fit`.
        decisions: rows of `features.decision_points`, at least those of the test block.
    """
    rows = block_rows(decisions, fold).sort("symbol", "interval", "decision_at")
    probabilities = None
    if recipe.method == "always_hold":
        actions = pl.Series(["HOLD"] * rows.height, dtype=pl.String)
    elif recipe.method == "buy_and_hold":
        first = pl.col("decision_at") == pl.col("decision_at").min().over("symbol")
        actions = rows.select(pl.when(first).then(pl.lit("BUY")).otherwise(pl.lit("HOLD"))).to_series()
    elif recipe.method == "momentum":
        signal, threshold = pl.col(recipe.params.column), recipe.params.threshold
        actions = rows.select(
            pl.when(signal > threshold)
            .then(pl.lit("BUY"))
            .when(signal < -threshold)
            .then(pl.lit("SELL"))
            .otherwise(pl.lit("HOLD"))
        ).to_series()
    elif recipe.method == "gbm":
        probabilities = _probabilities(folder / MODEL_FILE, _matrix(rows, feature_names(recipe, decisions)))
        actions = pl.Series([ACTIONS[i] for i in probabilities.argmax(axis=1)], dtype=pl.String)
    else:
        raise ValueError(f"{recipe.name}: method {recipe.method!r} is no baseline; one of {METHODS}")
    if probabilities is None:
        probabilities = np.full((rows.height, 3), np.nan)
    chances = {f"p_{action.lower()}": pl.Series(probabilities[:, i]).fill_nan(None) for i, action in enumerate(ACTIONS)}
    return rows.with_columns(
        adapter=pl.lit(recipe.name),
        fold=pl.lit(fold.id),
        objective=pl.lit(OBJECTIVE),
        action=actions,
        limit_price=pl.lit(None),
        confidence=pl.lit(None),
        text=pl.lit(None),
        parse_state=pl.lit("ok"),
        limit_valid_sessions=pl.lit(None),
        **chances,
    ).select(pl.col(name).cast(kind) for name, kind in PREDICTIONS.items())


def feature_names(recipe: GbmRecipe, decisions: pl.DataFrame) -> list[str]:
    """The features of a tree: those that its recipe names, or every feature of `features.decision_points`.

    Raises:
        ValueError: a declared feature that the table does not have.
    """
    available = [name for name in decisions.columns if name not in NOT_FEATURES]
    unknown = sorted(set(recipe.params.features) - set(available))
    if unknown:
        raise ValueError(f"{recipe.name}: params.features: no feature {unknown}; there are {available}")
    return list(recipe.params.features) or available


def _matrix(rows: pl.DataFrame, features: list[str]) -> np.ndarray:
    columns = [pl.col(f) / pl.col("close") if f in PRICE_UNITS else pl.col(f) for f in features]
    return rows.select(c.cast(pl.Float32) for c in columns).to_numpy()


def _train(recipe: GbmRecipe, matrix: np.ndarray, classes: np.ndarray):
    """Multi-class trees (T. Chen, C. Guestrin, XGBoost, KDD 2016); one thread, since threads sum in any order."""
    import xgboost

    params = recipe.params
    settings = {
        "objective": "multi:softprob",
        "num_class": 3,
        "tree_method": "hist",
        "max_depth": params.max_depth,
        "learning_rate": params.learning_rate,
        "subsample": params.subsample,
        "seed": recipe.seed,
        "nthread": 1,
    }
    data = xgboost.DMatrix(matrix, label=classes, nthread=1)
    return xgboost.train(settings, data, num_boost_round=params.n_estimators)


def _probabilities(path: Path, matrix: np.ndarray) -> np.ndarray:
    """Class probabilities, (rows, 3), of the model stored at `path`."""
    import xgboost

    booster = xgboost.Booster({"nthread": 1}, model_file=path)
    return booster.predict(xgboost.DMatrix(matrix, nthread=1)).astype(np.float64)
