"""The regime of each decision, from one of three sources, none of which knows more than the decision does.

`rule`: bullish, bearish or sideways, as in features.decision_points. `hidden`: the likeliest hidden state of the fold's model
(models.regimes; made for the folds of adapters). `volatility`: low, middle or high by thirds of the market's volatility over
the decisions that the fold is fitted on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tapehouse.folds import fitted_until
from tapehouse.predictions import KEYS
from tapehouse.strategies.sections import REGIMES, RegimeSource

if TYPE_CHECKING:
    from tapehouse.folds import Fold

THIRDS: Final = (1 / 3, 2 / 3)
FEWEST: Final = 60  # decisions of the market that thirds are fitted on


def states_of(source: RegimeSource, points: pl.DataFrame, hidden: pl.DataFrame | None, fold: Fold) -> pl.DataFrame:
    """`KEYS` and `regime` of every row of `points`; null where the source does not say.

    Args:
        points: rows of features.decision_points; for `volatility` with those of the training window.
        hidden: rows of models.regimes of the fold, for `hidden`.
    """
    if source == "rule":
        return points.select(*KEYS, "regime")
    if source == "hidden":
        assert hidden is not None
        return points.select(KEYS).join(hidden.select(*KEYS, "regime"), on=KEYS, how="left", maintain_order="left")
    low, middle, high = REGIMES["volatility"]
    seen = points.filter(pl.col("decision_at") < fitted_until(fold)).unique("decision_at")["market_vol_20d"].drop_nulls()
    if len(seen) < FEWEST:
        return points.select(*KEYS, regime=pl.lit(None, pl.String))
    below, above = np.quantile(np.sort(seen.to_numpy()), THIRDS)
    value = pl.col("market_vol_20d")
    named = pl.when(value <= below).then(pl.lit(low)).when(value <= above).then(pl.lit(middle)).when(value > above)
    return points.select(*KEYS, regime=named.then(pl.lit(high)))
