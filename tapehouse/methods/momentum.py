"""Buys what has risen and sells what has fallen: the sign of one feature decides (Jegadeesh and Titman 1993)."""

from typing import Literal

import polars as pl
from pydantic import Field

from tapehouse.predictions import BUY, HOLD, KEYS, SELL
from tapehouse.recipe_sections import ClassicalRecipe, Section


class Params(Section):
    """The sign of one column decides, beyond a threshold."""

    column: str = "momentum_30d"
    threshold: float = Field(0.0, ge=0)


class Recipe(ClassicalRecipe):
    """Follows one feature."""

    method: Literal["momentum"]
    params: Params = Params()


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """BUY above the threshold, SELL below its negative, else HOLD."""
    signal, threshold = pl.col(recipe.params.column), recipe.params.threshold
    action = pl.when(signal > threshold).then(pl.lit(BUY)).when(signal < -threshold).then(pl.lit(SELL)).otherwise(pl.lit(HOLD))
    return inputs["features.decision_points"].select(*KEYS, action=action)
