"""Buys an equal share of each symbol at its first decision of the test block, and keeps it."""

from typing import Literal

import polars as pl

from tapehouse.folds import block_rows
from tapehouse.predictions import BUY, HOLD, KEYS
from tapehouse.recipe_sections import ClassicalRecipe

EXIT_RULE = "hold"  # no barriers: it keeps what it has to the end of the block


class Recipe(ClassicalRecipe):
    """Buys each tradable symbol once."""

    method: Literal["buy_and_hold"]


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """BUY at the first decision of each symbol in the test block, HOLD at all others."""
    points = inputs["features.decision_points"]
    first = block_rows(points, fold).group_by("symbol").agg(pl.col("decision_at").min(), action=pl.lit(BUY))
    rows = points.select(KEYS).join(first, on=["symbol", "decision_at"], how="left", maintain_order="left")
    return rows.with_columns(pl.col("action").fill_null(HOLD))
