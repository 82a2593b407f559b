"""Buys or sells by the toss of a coin, with the limit orders of an adapter: what execution earns without any view.

Adapters place limits, other baselines send market orders, and the two pay differently. This control has the orders of the ones
and the foresight of neither. The coin is a hash of the decision and of the recipe's seed: whichever fold asks, the side is the
same.
"""

from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from tapehouse.keyed import keyed_uniform
from tapehouse.predictions import BUY, KEYS, SELL
from tapehouse.recipe_sections import ClassicalRecipe, Section


class Params(Section):
    """Where the limits lie."""

    limit_atr: float = Field(0.0, ge=0, description="Distance from the close of the decision, in ATR, on the better side.")
    valid_sessions: int = Field(3, ge=1, description="A limit rests so long.")


class Recipe(ClassicalRecipe):
    """A fair coin with limit orders."""

    method: Literal["coin_limits"]
    params: Params = Params()


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """BUY or SELL at every decision, at a limit; nothing of the features but the close and the ATR is read."""
    points = inputs["features.decision_points"]
    heads = keyed_uniform(points, f"coin_limits {recipe.seed}") < 0.5
    better = np.where(heads, -1.0, 1.0) * recipe.params.limit_atr
    return points.select(
        *KEYS,
        action=pl.Series(np.where(heads, BUY, SELL).tolist(), dtype=pl.String),
        limit_price=pl.col("close") + pl.Series(better) * pl.col("atr_14"),
        limit_valid_sessions=pl.lit(recipe.params.valid_sessions, pl.Int32),
    )
