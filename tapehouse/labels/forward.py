"""Forward returns: what a share bought at the next session's open is worth some sessions later, dividends included.

The horizon counts from the entry, whose own session is the first, as with the triple barrier: over one session the return
runs from the entry's open to the same session's close. A later close is restated to the entry's basis by the actions since.
The index's return runs over the same sessions, from open to close, without dividends.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.labels.horizons import sessions_around
from tapehouse.labels.triple_barrier import KEY, UTC_DATETIME, entries
from tapehouse.paths import SETTLEMENT_LAG, Paths, settled_paths

HORIZONS = (1, 5, 10, 30)
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "horizon": pl.Int32,
    "entry_at": UTC_DATETIME,
    "entry_price": pl.Float64,
    "ret": pl.Float64,
    "index_ret": pl.Float64,
    "excess_ret": pl.Float64,
    "label_end_at": UTC_DATETIME,
    "label_known_at": UTC_DATETIME,
}


def forward_returns(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    decisions: pl.DataFrame,
    start: datetime,
    end: datetime,
    sessions: pl.DataFrame,
    index: str,
    horizons: Sequence[int] = HORIZONS,
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> pl.DataFrame:
    """Returns after every decision in [start, end), once for each horizon.

    Args:
        versions: `staging.bars` of one interval, with the index's, as far beyond `end` as the longest horizon reaches.
        actions: `raw.corporate_actions` of the same span.
        decisions: `symbol, interval, decision_at, session` of the decisions to label.
        start, end: UTC bounds of `decision_at`.
        sessions: `session, open_at, close_at` of the exchange, over the decisions and their horizons.
        index: the symbol whose return is taken off for `excess_ret`.
        horizons: sessions from the entry, its own being the first.
        settlement_lag: how long after a session's close its records still count (`tapehouse.paths`).

    Returns:
        One row per (symbol, interval, decision_at, horizon), sorted by it. Returns are simple, as fractions. Without a bar
        on the session after the decision the row has no entry. Where the horizon's last bar is missing, or still to come,
        the returns and the label's times are null; `index_ret` and `excess_ret` also where the index lacks one of its bars.

    Raises:
        TapehouseError: for a decision on a day that is no session.
    """
    rows = decisions.filter((pl.col("decision_at") >= start) & (pl.col("decision_at") < end)).sort(KEY)
    sessions = sessions_around(sessions, rows["session"].min(), rows["session"].max(), max(horizons))
    symbols = [*rows["symbol"].unique().sort(), index]
    paths = settled_paths(versions, actions, sessions, list(dict.fromkeys(symbols)), settlement_lag)
    row, decided = paths.places(rows)
    column, entry = entries(paths, row, decided)
    frames = []
    for horizon in horizons:
        ret = returns_after(paths, row, column, horizon)
        ended = ~np.isnan(ret)
        market = returns_after(paths, np.full_like(row, paths.symbols.index(index)), np.where(ended, column, -1), horizon)
        frames.append(
            rows.select(KEY).with_columns(
                horizon=pl.lit(horizon),
                entry_at=paths.times("open_at", column),
                entry_price=pl.Series(entry).fill_nan(None),
                ret=pl.Series(ret).fill_nan(None),
                index_ret=pl.Series(market).fill_nan(None),
                excess_ret=pl.Series(ret - market).fill_nan(None),
                label_end_at=paths.times("close_at", np.where(ended, column + horizon - 1, -1)),
            )
        )
    return (
        pl.concat(frames)
        .with_columns(label_known_at=pl.col("label_end_at") + settlement_lag)
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        .sort(*KEY, "horizon")
    )


def returns_after(paths: Paths, row: np.ndarray, column: np.ndarray, horizon: int) -> np.ndarray:
    """Simple return from the open of `column` to the close `horizon` sessions on, its own being the first.

    Args:
        row: (d,) row of each path. column: (d,) column of each entry, negative without one.

    Returns:
        (d,) fractions, NaN without an entry or where the last bar is missing or outside the grid.
    """
    return _returns_after(row, column, horizon, paths.open, paths.close, paths.shares, paths.cash)


@njit(cache=True)
def _returns_after(rows, columns, horizon, opens, closes, shares_step, cash_step):
    out = np.full(rows.size, math.nan)
    for i in range(rows.size):
        row, entered = rows[i], columns[i]
        last = entered + horizon - 1
        if entered < 0 or last >= opens.shape[1]:
            continue
        shares, cash = 1.0, 0.0
        for t in range(entered + 1, last + 1):
            cash += shares * cash_step[row, t]
            shares *= shares_step[row, t]
        out[i] = (closes[row, last] * shares + cash) / opens[row, entered] - 1.0
    return out
