"""How much of a label is its own: concurrency of the triple-barrier labels of one symbol and side, and what follows from it.

A label spans the sessions from its entry to its exit. One that has not ended yet, or never will because its last bar is
missing, was open all the same: it spans its whole horizon. So how many labels span a session depends on what was known
when that session had settled, and a row on nothing later than its own `label_known_at`.
"""

import math
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError
from tapehouse.labels.barriers import BarrierSpec
from tapehouse.labels.horizons import sessions_around
from tapehouse.labels.overlap import attributed_returns, average_uniqueness, concurrent_labels
from tapehouse.labels.triple_barrier import BARRIERS, KEY, UTC_DATETIME, vertical_columns
from tapehouse.paths import SETTLEMENT_LAG, settled_paths

SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "side": pl.Int32,
    "uniqueness": pl.Float64,
    "attributed_ret": pl.Float64,
    "most_concurrent": pl.Int32,
    "label_end_at": UTC_DATETIME,
    "label_known_at": UTC_DATETIME,
}


def concurrency(
    labels: pl.DataFrame,
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    start: datetime,
    end: datetime,
    sessions: pl.DataFrame,
    spec: BarrierSpec = BARRIERS,
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> pl.DataFrame:
    """Uniqueness and attributed return of every label decided in [start, end).

    Args:
        labels: rows of `labels.triple_barrier`, as far before `start` and beyond `end` as labels overlap.
        versions: `staging.bars` of one interval over the labels' spans.
        actions: `raw.corporate_actions` of the same span.
        start, end: UTC bounds of `decision_at`.
        sessions: `session, open_at, close_at` of the exchange, over all of it.
        spec: what the labels were made with: its horizon is how long an unfinished one spans.
        settlement_lag: how long after a session's close its records still count (`tapehouse.paths`).

    Returns:
        One row per (symbol, interval, decision_at, side) with an entry, sorted by it; null until the label is known.

    Raises:
        TapehouseError: a label's times are no open and close of sessions within the horizon of `spec`.
    """
    entered = labels.filter(pl.col("entry_at").is_not_null()).sort(*KEY, "side")
    days = sessions.filter(pl.col("open_at").is_between(entered["entry_at"].min(), entered["entry_at"].max()))["session"]
    sessions = sessions_around(sessions, days.min(), days.max(), spec.horizon)
    paths = settled_paths(versions, actions, sessions, entered["symbol"].unique().sort().to_list(), settlement_lag)
    held, entry = _log_returns(paths.open, paths.close, paths.shares, paths.cash)
    # The sessions of each symbol, interval and side one behind the other: labels of two of them never share a place.
    width, series = len(sessions), ["symbol", "interval", "side"]
    entered = entered.sort(*series, "decision_at").with_columns(place=pl.struct(series).rle_id().cast(pl.Int64))
    of_series = entered.unique("place", keep="first", maintain_order=True)["symbol"].to_list()
    row = [paths.symbols.index(symbol) for symbol in of_series]
    first = _columns(sessions, "open_at", entered["entry_at"])
    ended = entered["label_end_at"].is_not_null().to_numpy()
    exits = np.where(ended, _columns(sessions, "close_at", entered["label_end_at"]), vertical_columns(sessions, first, spec))
    offset = entered["place"].to_numpy() * width
    begin, last = first + offset, np.minimum(exits, width - 1) + offset
    counts = concurrent_labels(begin, last, len(row) * width)
    rows = entered.select(*KEY, "side", "label_end_at", "label_known_at").with_columns(
        uniqueness=_known(average_uniqueness(begin, last, counts), ended),
        attributed_ret=_known(attributed_returns(begin, last, counts, held[row].ravel(), entry[row].ravel()), ended),
        most_concurrent=_known(_most(begin, last, counts), ended),
    )
    inside = (pl.col("decision_at") >= start) & (pl.col("decision_at") < end)
    return rows.filter(inside).select(pl.col(n).cast(t) for n, t in SCHEMA.items()).sort(*KEY, "side")


def _columns(sessions: pl.DataFrame, name: str, times: pl.Series) -> np.ndarray:
    """Position of each time among the sessions' opens or closes; of a null, nothing that may be used."""
    known = sessions[name].dt.epoch("us").to_numpy()
    wanted, given = times.dt.epoch("us").fill_null(0).to_numpy(), times.is_not_null().to_numpy()
    found = np.searchsorted(known, wanted).astype(np.int64)
    lost = given & (known[np.minimum(found, known.size - 1)] != wanted)
    if lost.any():
        stray = times[int(np.flatnonzero(lost)[0])]
        raise TapehouseError(
            f"labels.triple_barrier: a label has {stray}, which is no {name} of a session within the "
            "horizon; were the labels made by another specification or calendar? Make them again"
        )
    return found


def _known(values: np.ndarray, ended: np.ndarray) -> pl.Series:
    return pl.Series(values).set(pl.Series(~ended), None)


@njit(cache=True)
def _most(first, last, counts):
    """The largest concurrency over each label's bars."""
    out = np.zeros(first.size, np.int64)
    for i in range(first.size):
        for t in range(first[i], min(last[i] + 1, counts.size)):
            out[i] = max(out[i], counts[t])
    return out


@njit(cache=True)
def _log_returns(opens, closes, shares_step, cash_step):
    """Log return of each bar to its close: from the last close before it, and from its own open; (s, n) as the prices.

    Splits are taken out and dividends added. Of a missing bar both are zero: the next one has the return over the gap.
    """
    held, entry = np.zeros(closes.shape), np.zeros(closes.shape)
    for row in range(closes.shape[0]):
        before = math.nan  # the last close; its share has become `shares` shares and `cash` since
        shares, cash = 1.0, 0.0
        for t in range(closes.shape[1]):
            cash += shares * cash_step[row, t]
            shares *= shares_step[row, t]
            if math.isnan(closes[row, t]):
                continue
            if not math.isnan(before):
                held[row, t] = math.log((closes[row, t] * shares + cash) / before)
            entry[row, t] = math.log(closes[row, t] / opens[row, t])
            before, shares, cash = closes[row, t], 1.0, 0.0
    return held, entry
