"""Multinomial logistic regression on the features that the prompts show, trained on the triple-barrier labels.

The scaler is fitted with it, on the same rows: a feature less its mean, over its deviation, within `clip` deviations; one that
is not known stands at its mean. The model is an array file and a JSON file.
"""

import json
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from tapehouse.feature_matrix import feature_names, labelled, matrix
from tapehouse.predictions import ACTIONS, CHANCES, KEYS
from tapehouse.recipe_sections import ClassicalRecipe, Section
from tapehouse.tables import Read

ARRAYS_FILE, FACTS_FILE = "model.safetensors", "model.json"
STEPS = 200  # of Newton's method, which takes about ten


class Params(Section):
    """Columns of features.decision_points; empty `features` means all of them."""

    l2: float = Field(1000.0, gt=0, description="Weight of half the squared coefficients against the summed log loss.")
    clip: float = Field(5.0, gt=0, description="Deviations from the mean beyond which a feature says no more.")
    features: list[str] = Field([])


class Recipe(ClassicalRecipe):
    """Multinomial logistic regression."""

    method: Literal["linear"]
    params: Params = Params()


def fit_reads(recipe: Recipe) -> tuple[Read, ...]:
    """Labels of the training window."""
    return (Read("labels.triple_barrier", window="train"),)


def fit(recipe: Recipe, inputs, fold, folder, report=None) -> dict:
    """Fit on the labelled rows of the training window; `rows`, `features` and `base_rates` of the classes.

    Raises:
        ValueError: all labels are of one class.
    """
    from safetensors.numpy import save_file
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    points = inputs["features.decision_points"]
    features = feature_names(recipe.name, recipe.params.features, points)
    rows = labelled(points, inputs["labels.triple_barrier"], fold)
    classes = rows["label"].to_numpy() + 1
    present = np.unique(classes)
    if present.size < 2:
        raise ValueError(
            f"{recipe.name} {fold.id}: all {rows.height} labels are {ACTIONS[present[0]]}; nothing tells them apart"
        )
    values = matrix(rows, features).astype(np.float64)
    mean, deviation = moments(values)
    # Newton's steps end at the one optimum of a convex loss; threads would sum in any order.
    with threadpool_limits(1):
        model = LogisticRegression(C=1 / recipe.params.l2, solver="newton-cholesky", max_iter=STEPS)
        model.fit(scaled(values, mean, deviation, recipe.params.clip), classes)
    arrays = {"mean": mean, "deviation": deviation, **_scores_of(model, present)}
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / ARRAYS_FILE)
    facts = {"features": features, "clip": recipe.params.clip, "classes": ACTIONS}
    (folder / FACTS_FILE).write_text(json.dumps(facts, indent=1) + "\n")
    shares = np.bincount(classes, minlength=3) / len(classes)
    return {"rows": rows.height, "features": features, "base_rates": dict(zip(ACTIONS, shares.tolist(), strict=True))}


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """Class probabilities at every decision."""
    from safetensors.numpy import load_file

    points = inputs["features.decision_points"]
    arrays, facts = load_file(folder / ARRAYS_FILE), json.loads((folder / FACTS_FILE).read_text())
    rows = scaled(matrix(points, facts["features"]).astype(np.float64), arrays["mean"], arrays["deviation"], facts["clip"])
    # Row by row: a product of matrices rounds a row by what is around it.
    scores = np.einsum("rf,cf->rc", rows, arrays["coefficients"]) + arrays["intercepts"]
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    return points.select(KEYS).with_columns(pl.Series(name, chances[:, place]) for place, name in enumerate(CHANCES))


def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (features,) of what is known of each column of `values` (rows, features); 0 and 1 where none is."""
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, values, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(axis=0) / count)
    return mean, np.where(deviation > 0, deviation, 1.0)


def scaled(values: np.ndarray, mean: np.ndarray, deviation: np.ndarray, clip: float) -> np.ndarray:
    """`values` (rows, features) in deviations from the mean, within `clip` of it; 0 where one is not known."""
    return np.nan_to_num(np.clip((values - mean) / deviation, -clip, clip), nan=0.0)


def _scores_of(model, present: np.ndarray) -> dict[str, np.ndarray]:
    """Coefficients (3, features) and intercepts (3,) by class; a class that no label has is left without probability."""
    coefficients, intercepts = model.coef_, model.intercept_
    if present.size == 2:  # scikit-learn then scores the second class alone
        coefficients = np.vstack([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([[0.0], intercepts])
    whole, at = np.zeros((3, coefficients.shape[1])), np.full(3, -np.inf)
    whole[present], at[present] = coefficients, intercepts
    return {"coefficients": whole, "intercepts": at}
