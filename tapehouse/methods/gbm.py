"""Gradient-boosted trees on the features that the prompts show, trained on the triple-barrier labels.

T. Chen, C. Guestrin, XGBoost: A Scalable Tree Boosting System (KDD 2016). One thread, since threads sum in any order.
"""

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from tapehouse.feature_matrix import feature_names, labelled, matrix
from tapehouse.predictions import ACTIONS, CHANCES, KEYS
from tapehouse.recipe_sections import ClassicalRecipe, Section
from tapehouse.tables import Read

MODEL_FILE = "model.ubj"


class Params(Section):
    """Trees on the columns of features.decision_points; empty `features` means all of them."""

    n_estimators: int = Field(200, ge=1)
    max_depth: int = Field(3, ge=1)
    learning_rate: float = Field(0.05, gt=0)
    subsample: float = Field(0.8, gt=0, le=1)
    features: list[str] = Field([])


class Recipe(ClassicalRecipe):
    """Gradient-boosted trees."""

    method: Literal["gbm"]
    params: Params = Params()


def fit_reads(recipe: Recipe) -> tuple[Read, ...]:
    """Labels of the training window."""
    return (Read("labels.triple_barrier", window="train"),)


def fit(recipe: Recipe, inputs, fold, folder, report=None) -> dict:
    """Fit on the labelled rows of the training window; `rows`, `features` and `base_rates` of the classes."""
    import xgboost

    points = inputs["features.decision_points"]
    features = feature_names(recipe.name, recipe.params.features, points)
    rows = labelled(points, inputs["labels.triple_barrier"], fold)
    classes = rows["label"].to_numpy() + 1
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
    data = xgboost.DMatrix(matrix(rows, features), label=classes, nthread=1)
    xgboost.train(settings, data, num_boost_round=params.n_estimators).save_model(folder / MODEL_FILE)
    shares = np.bincount(classes, minlength=3) / len(classes)
    return {"rows": rows.height, "features": features, "base_rates": dict(zip(ACTIONS, shares.tolist(), strict=True))}


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """Class probabilities at every decision."""
    import xgboost

    points = inputs["features.decision_points"]
    booster = xgboost.Booster({"nthread": 1}, model_file=folder / MODEL_FILE)
    features = feature_names(recipe.name, recipe.params.features, points)
    chances = booster.predict(xgboost.DMatrix(matrix(points, features), nthread=1)).astype(np.float64)
    return points.select(KEYS).with_columns(pl.Series(name, chances[:, place]) for place, name in enumerate(CHANCES))
