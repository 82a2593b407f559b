"""Buys where the regime that prompts print is bullish and sells where it is bearish, with the limit orders of an adapter.

A control: who reads that one word of the prompt, and no more, does as well as this. Its orders are those of `coin_limits`, so
that the two differ by the word alone.
"""

from typing import Literal

import polars as pl

from tapehouse.methods.coin_limits import Params
from tapehouse.predictions import BUY, HOLD, KEYS, SELL
from tapehouse.recipe_sections import ClassicalRecipe


class Recipe(ClassicalRecipe):
    """The printed regime with limit orders."""

    method: Literal["regime_limits"]
    params: Params = Params()


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """BUY in a bullish regime, SELL in a bearish one, each at a limit; HOLD in a sideways one and before one is known."""
    points, regime = inputs["features.decision_points"], pl.col("regime")
    side = pl.when(regime == "bullish").then(1).when(regime == "bearish").then(-1).otherwise(0)
    limit = pl.col("close") - pl.col("side") * recipe.params.limit_atr * pl.col("atr_14")
    sent = pl.col("side") != 0
    return points.with_columns(side=side).select(
        *KEYS,
        action=pl.col("side").replace_strict({1: BUY, -1: SELL, 0: HOLD}, return_dtype=pl.String),
        limit_price=pl.when(sent).then(limit),
        limit_valid_sessions=pl.when(sent).then(pl.lit(recipe.params.valid_sessions, pl.Int32)),
    )
