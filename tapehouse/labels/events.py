"""Event sampling: the symmetric CUSUM filter over a symbol's decisions, restarting flat at calendar anchors.

M. López de Prado, Advances in Financial Machine Learning (2018), 2.5.2.1. Two sums follow the log returns, one held at or
above zero, one at or below; where one leaves the threshold the decision is an event and that sum starts again. To be the
same in a partition alone as in all of history, both start from zero at each anchor: 1 January of the year of the
decision's session.
"""

import math
from datetime import datetime

import numpy as np
import polars as pl
from numba import njit

from tapehouse.labels.triple_barrier import KEY, SESSIONS_PER_YEAR, UTC_DATETIME

# In trailing deviations of one session's return: moves that take a few sessions.
THRESHOLD = 2.0
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "known_at": UTC_DATETIME,
    "direction": pl.Int32,
    "moved": pl.Float64,
    "threshold": pl.Float64,
}


def cusum_events(decisions: pl.DataFrame, start: datetime, end: datetime, threshold: float = THRESHOLD) -> pl.DataFrame:
    """Decisions in [start, end) at which the CUSUM filter fires.

    Args:
        decisions: rows of `features.price` from the anchor before `start` on: `symbol, interval, decision_at, session,
            known_at, ret_1d, realised_vol_20d`. A row without a return adds none; without a volatility it is no event.
        start, end: UTC bounds of `decision_at`.
        threshold: in trailing 20-session deviations of one session's log return, as of each decision.

    Returns:
        One row per (symbol, interval, decision_at) that is an event, sorted by it: `direction` 1 or -1, `moved` the sum
        that left the threshold and the `threshold` itself, both as log returns; `known_at` is the latest since the anchor.
    """
    rows = decisions.filter(pl.col("decision_at") < end).sort("symbol", "interval", "decision_at")
    # A new run of the filter: another symbol or interval, or another year.
    rows = rows.with_columns(run=pl.struct("symbol", "interval", pl.col("session").dt.year()).rle_id().cast(pl.Int64))
    direction, moved, width = _cusum(
        rows["run"].to_numpy(writable=True),
        rows["ret_1d"].fill_null(0.0).to_numpy(writable=True),
        (rows["realised_vol_20d"] / math.sqrt(SESSIONS_PER_YEAR) * threshold).fill_null(math.nan).to_numpy(writable=True),
    )
    found = rows.select(*KEY, pl.col("known_at").cum_max().over("run")).with_columns(
        direction=pl.Series(direction), moved=pl.Series(moved), threshold=pl.Series(width)
    )
    kept = found.filter((pl.col("direction") != 0) & (pl.col("decision_at") >= start))
    return kept.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


@njit(cache=True)
def _cusum(runs, returns, thresholds):
    """Direction (0 for no event) and the sum that left the threshold, of each row; `thresholds` are passed through."""
    direction = np.zeros(runs.size, np.int64)
    moved = np.full(runs.size, math.nan)
    up = down = 0.0
    for t in range(runs.size):
        if t == 0 or runs[t] != runs[t - 1]:
            up = down = 0.0
        up = max(0.0, up + returns[t])
        down = min(0.0, down + returns[t])
        # A threshold of zero (a price that never moved) or none at all tells nothing apart.
        if not thresholds[t] > 0.0:
            continue
        if down < -thresholds[t]:
            direction[t], moved[t], down = -1, down, 0.0
        elif up > thresholds[t]:
            direction[t], moved[t], up = 1, up, 0.0
    return direction, moved, thresholds
