"""Never trades: what the costs of trading have to beat."""

from typing import Literal

import polars as pl

from tapehouse.predictions import HOLD, KEYS
from tapehouse.recipe_sections import ClassicalRecipe


class Recipe(ClassicalRecipe):
    """Never trades."""

    method: Literal["always_hold"]


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """HOLD at every decision."""
    return inputs["features.decision_points"].select(*KEYS, action=pl.lit(HOLD))
