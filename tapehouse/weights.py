"""Sample weights of labels that overlap in time: uniqueness, attributed returns, time decay, effective sample size.

M. López de Prado, Advances in Financial Machine Learning (2018), chapter 4. What a row alone says (`average_uniqueness`,
`attributed_returns`) is stored with it; what depends on which rows train (scaling, decay) is computed per fold after
purging. Sums run in plain loops over a row's own window, oldest first: its bits do not depend on where the arrays begin.
Time is linear in the labels.
"""

import math
from typing import Literal

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError

# The column of `labels.concurrency` that each kind of weight is made of.
COLUMNS = {"uniqueness": "uniqueness", "attribution": "attributed_ret"}


@njit(cache=True)
def concurrent_labels(first, last, bars):
    """How many labels span each bar (4.2).

    Args:
        first, last: (d,) first and last bar of each label, both counted, in 0..bars-1; `first` negative: no label.
        bars: how many bars there are. A label that ends beyond them counts to the last.

    Returns:
        (bars,) counts.
    """
    change = np.zeros(bars + 1, np.int64)
    for i in range(first.size):
        if first[i] >= 0:
            change[first[i]] += 1
            change[min(last[i], bars - 1) + 1] -= 1
    counts = np.empty(bars, np.int64)
    alive = 0
    for t in range(bars):
        alive += change[t]
        counts[t] = alive
    return counts


@njit(cache=True)
def average_uniqueness(first, last, counts):
    """Mean of 1 / concurrency over each label's bars (4.3).

    Args:
        first, last: (d,) as in `concurrent_labels`. counts: (bars,) what it returned.

    Returns:
        (d,) in (0, 1], NaN where there is no label or it ends beyond the bars.
    """
    shares = 1.0 / np.maximum(counts, 1)
    out = np.full(first.size, math.nan)
    for i in range(first.size):
        if first[i] < 0 or last[i] >= counts.size:
            continue
        total = 0.0
        for t in range(first[i], last[i] + 1):
            total += shares[t]
        out[i] = total / (last[i] - first[i] + 1)
    return out


@njit(cache=True)
def attributed_returns(first, last, counts, held, entry):
    """Absolute sum of each label's log returns, each divided by the labels that share it (4.4, before scaling).

    Args:
        first, last: (d,) as in `concurrent_labels`. counts: (bars,) what it returned.
        held: (bars,) log return from the close before to the bar's close.
        entry: (bars,) log return from the bar's open to its close: what a label that begins on the bar has of it.

    Returns:
        (d,) NaN where there is no label or it ends beyond the bars. Without any overlap it is the absolute log return from
        the entry's open to the last bar's close.
    """
    out = np.full(first.size, math.nan)
    for i in range(first.size):
        if first[i] < 0 or last[i] >= counts.size:
            continue
        total = entry[first[i]] / counts[first[i]]
        for t in range(first[i] + 1, last[i] + 1):
            total += held[t] / counts[t]
        out[i] = abs(total)
    return out


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
