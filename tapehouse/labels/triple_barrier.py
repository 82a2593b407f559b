"""Triple-barrier labels: which of two prices around the entry is reached first, or neither within the horizon.

M. Lopez de Prado, Advances in Financial Machine Learning (2018), chapter 3, on bars. The entry is the open of the
session after the decision, the barriers lie a multiple of the decision's ATR above and below it, and the horizon counts
sessions from the entry, whose own session is the first. What is compared with the barriers is the value of one share
bought at the entry: its price times the splits since, plus the dividends since. Bars tell no order within a session:

- a session that opens beyond a barrier exits at its open;
- a session that reaches both barriers is ambiguous: a long or short label takes its stop, side 0 has no label;
- the session of the entry counts, since its open comes before its high and low.
"""

import math
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.paths import SETTLEMENT_LAG, Paths, settled_paths

WIDTH_ATR = 1.5
HORIZON_SESSIONS = 10
SIDES = (-1, 0, 1)

NOT_REACHED, UPPER, LOWER, VERTICAL, BOTH = 0, 1, 2, 3, 4
TOUCHED = {UPPER: "upper", LOWER: "lower", VERTICAL: "vertical", BOTH: "both"}
UTC_DATETIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "side": pl.Int32,
    "entry_at": UTC_DATETIME,
    "entry_price": pl.Float64,
    "atr": pl.Float64,
    "upper": pl.Float64,
    "lower": pl.Float64,
    "touched": pl.String,
    "label": pl.Int32,
    "ret": pl.Float64,
    "label_end_at": UTC_DATETIME,
    "label_known_at": UTC_DATETIME,
    "sessions_held": pl.Int32,
    "ambiguous": pl.Boolean,
}


def triple_barrier(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    decisions: pl.DataFrame,
    start: datetime,
    end: datetime,
    sessions: pl.DataFrame,
    width_atr: float = WIDTH_ATR,
    horizon: int = HORIZON_SESSIONS,
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> pl.DataFrame:
    """Label every decision in [start, end), once for each side.

    Args:
        versions: `staging.bars` of one interval, to at least `horizon` sessions after `end`.
        actions: `raw.corporate_actions` of the same span.
        decisions: rows of `features.price` to label: `symbol, interval, decision_at, session, close, atr_14`. Those
            without an ATR have no barriers and are left out.
        start, end: UTC bounds of `decision_at`.
        sessions: `session, open_at, close_at` of the exchange, over the decisions and their horizons.
        width_atr: distance of both barriers from the entry, in ATR.
        horizon: sessions from the entry to the vertical barrier, the entry's own being the first.
        settlement_lag: how long after a session's close its records still count (`tapehouse.paths`).

    Returns:
        One row per (symbol, interval, decision_at, side), sorted by it; `entry_price`, `atr`, `upper` and `lower` in
        the price basis of the entry's session, as its traders saw them. Without a bar on the session after the decision
        the row has no entry. Where nothing is reached and the horizon's last bar is missing, or still to come,
        `touched`, `label`, `ret` and the label's times are null.

    Raises:
        TapehouseError: for a decision on a day that is no session.
    """
    rows = decisions.filter(
        (pl.col("decision_at") >= start) & (pl.col("decision_at") < end) & pl.col("atr_14").is_not_null()
    ).sort("symbol", "interval", "decision_at")
    paths = settled_paths(versions, actions, sessions, rows["symbol"].unique().sort().to_list(), settlement_lag)
    row, column = paths.places(rows)
    close, atr_decided = (rows[name].to_numpy(writable=True) for name in ("close", "atr_14"))
    atr, touched, exit_value, exit_column = barrier_outcomes(
        row, column, close, atr_decided, width_atr, horizon,
        paths.open, paths.high, paths.low, paths.close, paths.shares, paths.cash,
    )  # fmt: skip
    entry_column = np.where(column + 1 < len(sessions), column + 1, -1)
    entry = np.where(entry_column >= 0, paths.open[row, entry_column], np.nan)
    entry_column = np.where(np.isnan(entry), -1, entry_column)
    labels = [
        _of_side(side, rows, paths, entry_column, entry, atr, touched, exit_value, exit_column, width_atr) for side in SIDES
    ]
    return (
        pl.concat(labels)
        .with_columns(label_known_at=pl.col("label_end_at") + settlement_lag)
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        .sort("symbol", "interval", "decision_at", "side")
    )


def _of_side(
    side: int,
    rows: pl.DataFrame,
    paths: Paths,
    entry_column: np.ndarray,
    entry: np.ndarray,
    atr: np.ndarray,
    touched: np.ndarray,
    exit_value: np.ndarray,
    exit_column: np.ndarray,
    width_atr: float,
) -> pl.DataFrame:
    """The same path read by a long (1), a short (-1) or an unsided (0) observer."""
    upper, lower = entry + width_atr * atr, entry - width_atr * atr
    direction = side if side else 1
    label = np.select([touched == UPPER, touched == LOWER], [direction, -direction], 0)
    stop = lower if side > 0 else upper
    ambiguous = touched == BOTH
    if side:
        label = np.where(ambiguous, -1, label)
        exit_value = np.where(ambiguous, stop, exit_value)
    else:
        exit_value = np.where(ambiguous, np.nan, exit_value)
    settled = touched != NOT_REACHED
    held = exit_column - entry_column + 1
    return rows.select("symbol", "interval", "decision_at").with_columns(
        side=pl.lit(side),
        entry_at=paths.times("open_at", entry_column),
        entry_price=pl.Series(entry).fill_nan(None),
        atr=pl.Series(atr).fill_nan(None),
        upper=pl.Series(upper).fill_nan(None),
        lower=pl.Series(lower).fill_nan(None),
        touched=pl.Series(touched).replace_strict(TOUCHED, default=None, return_dtype=pl.String),
        label=_where(settled & ~(ambiguous & (side == 0)), label),
        ret=pl.Series(direction * (exit_value / entry - 1.0)).fill_nan(None),
        label_end_at=paths.times("close_at", np.where(settled, exit_column, -1)),
        sessions_held=_where(settled, held),
        ambiguous=pl.Series(ambiguous),
    )


def _where(known: np.ndarray, values: np.ndarray) -> pl.Series:
    series = pl.Series(values)
    return series.set(pl.Series(~known), None)


@njit(cache=True)
def barrier_outcomes(rows, columns, closes, atrs, width_atr, horizon, opens, highs, lows, ends, shares_step, cash_step):
    """Walk each decision's path until a barrier is reached or the horizon ends.

    Args:
        rows, columns: (d,) place of each decision's session in the grid. closes, atrs: (d,) as known at the decision.
        opens, highs, lows, ends, shares_step, cash_step: (s, n) as in `tapehouse.paths.Paths`, `ends` being the closes.

    Returns:
        atr (d,): the ATR in the entry's basis, NaN without an entry. touched (d,): one of the codes above.
        exit_value (d,): value of one entry share at the exit, NaN for BOTH and NOT_REACHED. exit_column (d,): or -1.
    """
    count, last = rows.size, opens.shape[1]
    atr = np.full(count, math.nan)
    touched = np.zeros(count, np.int64)
    exit_value = np.full(count, math.nan)
    exit_column = np.full(count, -1, np.int64)
    for i in range(count):
        row, entered = rows[i], columns[i] + 1
        if entered >= last or math.isnan(opens[row, entered]):
            continue
        # The factor that features restate past prices by, for an action on the entry's own day.
        atr[i] = atrs[i] * ((1.0 - cash_step[row, entered] / closes[i]) / shares_step[row, entered])
        entry = opens[row, entered]
        upper, lower = entry + width_atr * atr[i], entry - width_atr * atr[i]
        shares, cash = 1.0, 0.0
        for t in range(entered, min(entered + horizon, last)):
            if t > entered:
                cash += shares * cash_step[row, t]
                shares *= shares_step[row, t]
            if math.isnan(opens[row, t]):
                continue
            opened = opens[row, t] * shares + cash
            high, low = highs[row, t] * shares + cash, lows[row, t] * shares + cash
            if opened >= upper:
                touched[i], exit_value[i] = UPPER, opened
            elif opened <= lower:
                touched[i], exit_value[i] = LOWER, opened
            elif high >= upper and low <= lower:
                touched[i] = BOTH
            elif high >= upper:
                touched[i], exit_value[i] = UPPER, upper
            elif low <= lower:
                touched[i], exit_value[i] = LOWER, lower
            elif t == entered + horizon - 1:
                touched[i], exit_value[i] = VERTICAL, ends[row, t] * shares + cash
            if touched[i] != NOT_REACHED:
                exit_column[i] = t
                break
    return atr, touched, exit_value, exit_column
