"""Sample weights of a fold's training rows: raw weights scaled, time decay, the effective number of samples.

M. López de Prado, Advances in Financial Machine Learning (2018), chapter 4. What a label alone says (uniqueness, attributed
return) is in `labels.concurrency`; what depends on which rows train is computed here, per fold and after purging. Sums run
over sorted values, so that the order in which rows come changes no bit.
"""

from typing import Literal

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold, fitting_rows

# The column of `labels.concurrency` that each kind of weight is made of.
COLUMNS = {"uniqueness": "uniqueness", "attribution": "attributed_ret"}
# Of `decay` in models.sample_weights: what the oldest label weighs beside the newest.
OLDEST = 0.5
WEIGHT_SCHEMA = {
    "fold": pl.String,
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": pl.Datetime("us", "UTC"),
    "side": pl.Int32,
    "uniqueness": pl.Float64,
    "uniqueness_weight": pl.Float64,
    "attribution_weight": pl.Float64,
    "decay": pl.Float64,
    "known_at": pl.Datetime("us", "UTC"),
}


def fold_weights(
    rows: pl.DataFrame,
    by: Literal["uniqueness", "attribution"] = "uniqueness",
    oldest: float = 1.0,
    time: str = "decision_at",
) -> pl.Series:
    """Weights of one fold's training rows, after purging: raw weight times decay, scaled to sum to the number of rows.

    Args:
        rows: rows of `labels.concurrency` that are left to train on, in any order, of one side.
        by: the raw weight: average uniqueness, or absolute attributed return.
        oldest: the decay of the oldest row, as `time_decay` takes it; 1 for none.
        time: the column that orders the rows.

    Returns:
        (n,) Float64 in the order of `rows`, zero or more, with the sum n.

    Raises:
        TapehouseError: a row without a raw weight (its label is not known), or weights that are all zero.
    """
    column = COLUMNS[by]
    if empty := rows.filter(pl.any_horizontal(pl.col(column, "uniqueness").is_null())).height:
        raise TapehouseError(f"labels.concurrency: {empty} rows to weigh have no {column}; purge rows whose label is not known")
    if not rows.height:
        return pl.Series("weight", [], dtype=pl.Float64)
    raw = rows[column].to_numpy()
    decay = time_decay(rows["uniqueness"], rows[time], oldest).to_numpy() if oldest != 1.0 else np.ones(rows.height)
    weights = raw * decay
    # Summed in an order that does not depend on how the rows came.
    total = _sum(np.sort(weights))
    if total <= 0.0:
        raise TapehouseError(f"labels.concurrency: the weights of {rows.height} rows by {by} are all zero; weigh by uniqueness")
    return pl.Series("weight", weights * (rows.height / total))


def weight_rows(rows: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    """Rows of `models.sample_weights`: the labels that may train for a fold, with weights scaled side by side.

    Args:
        rows: rows of `labels.concurrency`. Those outside the training window or whose label was not known when the test
            block began, or the validation tail where there is one, are purged here, and only then is anything scaled.
    """
    frames = [
        own.with_columns(
            fold=pl.lit(fold.id),
            uniqueness_weight=fold_weights(own, "uniqueness"),
            attribution_weight=fold_weights(own, "attribution"),
            decay=time_decay(own["uniqueness"], own["decision_at"], OLDEST),
            known_at=pl.lit(fold.validation_start or fold.test_start).cast(pl.Datetime("us", "UTC")),
        )
        for own in fitting_rows(rows, fold).sort("symbol", "interval", "decision_at", "side").partition_by("side")
    ]
    if not frames:
        return pl.DataFrame(schema=WEIGHT_SCHEMA)
    return pl.concat(frames).select(pl.col(name).cast(kind) for name, kind in WEIGHT_SCHEMA.items())


def time_decay(uniqueness: pl.Series, at: pl.Series, oldest: float) -> pl.Series:
    """Linear decay with cumulated uniqueness, not with the clock (4.7): 1 for the newest rows.

    Args:
        uniqueness: (n,) average uniqueness. at: (n,) when each was decided; rows of one instant decay alike.
        oldest: in (-1, 1]. From 0 to 1 the weight at no cumulated uniqueness; 0 decays to nothing at the start; below
            zero, the oldest share |oldest| of cumulated uniqueness weighs nothing.

    Returns:
        (n,) in [0, 1], in the order of the input.

    Raises:
        TapehouseError: `oldest` outside (-1, 1].
    """
    if not -1.0 < oldest <= 1.0:
        raise TapehouseError(f"time decay: oldest is {oldest}; it must lie in (-1, 1]")
    frame = pl.DataFrame({"at": at, "uniqueness": uniqueness}).with_row_index("row")
    ordered = frame.sort("at", "uniqueness", "row")
    reached = np.cumsum(ordered["uniqueness"].to_numpy())
    whole = reached[-1] if reached.size else 1.0
    slope = (1.0 - oldest) / whole if oldest >= 0 else 1.0 / ((oldest + 1.0) * whole)
    decay = np.maximum(1.0 - slope * (whole - reached), 0.0)
    # All rows of an instant have the decay of its last.
    same = ordered.with_columns(decay=pl.Series(decay)).with_columns(pl.col("decay").last().over("at"))
    return same.sort("row")["decay"]


def effective_labels(uniqueness: pl.Series) -> float:
    """How many labels without overlap say as much: the sum of their average uniqueness (4.5: n times its mean)."""
    return _sum(np.sort(uniqueness.to_numpy()))


def effective_samples(weights: pl.Series) -> float:
    """Kish's effective sample size of weighted rows, (sum w)^2 / sum w^2: n when all weigh the same, 0 for no rows.

    L. Kish, Survey Sampling (1965), 11.7.
    """
    values = np.sort(weights.to_numpy())
    squares = _sum(values * values)
    return _sum(values) ** 2 / squares if squares > 0.0 else 0.0


@njit(cache=True)
def _sum(values):
    total = 0.0
    for i in range(values.size):
        total += values[i]
    return total
