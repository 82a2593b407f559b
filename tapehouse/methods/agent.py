"""An agent with one idea: a trend goes on, a stretch snaps back, or calm is worth buying. It has nothing to fit.

Each has a score s in [-1, 1]; it is sure of a side with probability |s| and holds with the rest, before calibration:
trend, the drift of twenty sessions in its own deviations, over two; reversion, how far the close lies from the middle of its
Bollinger bands (Bollinger 2001), to the other side; volatility, a target over the symbol's volatility of twenty sessions, never
short (Moreira and Muir, Volatility-managed portfolios, 2017, hold in inverse proportion to the variance).
"""

from typing import Literal

import polars as pl
from pydantic import Field

from tapehouse.predictions import KEYS
from tapehouse.recipe_sections import ClassicalRecipe, Section

DRIFT_OF_CERTAINTY = 2.0  # deviations of its mean that a trend is sure at


class Params(Section):
    """The idea, and what it takes for calm."""

    idea: Literal["trend", "reversion", "volatility"]
    target_volatility: float = Field(0.2, gt=0, description="A year; at or below it the volatility agent is sure.")


class Recipe(ClassicalRecipe):
    """One of three rules."""

    method: Literal["agent"]
    params: Params

    def idle(self) -> dict[str, str]:
        """The target, of the ideas that have none."""
        idea = self.params.idea
        return {} if idea == "volatility" else {"params.target_volatility": f"params.idea {idea!r} has no target"}


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """Probabilities at every decision; HOLD where the feature is not known."""
    score = {
        "trend": pl.col("drift_score_20d") / DRIFT_OF_CERTAINTY,
        "reversion": 1.0 - 2.0 * pl.col("bollinger_position_20d"),
        "volatility": recipe.params.target_volatility / pl.col("realised_vol_20d"),
    }[recipe.params.idea]
    rows = inputs["features.decision_points"].select(*KEYS, score=score.clip(-1.0, 1.0).fill_nan(None).fill_null(0.0))
    sure = pl.col("score")
    return rows.select(
        *KEYS,
        p_sell=pl.when(sure < 0).then(-sure).otherwise(0.0),
        p_hold=1.0 - sure.abs(),
        p_buy=pl.when(sure > 0).then(sure).otherwise(0.0),
    )
