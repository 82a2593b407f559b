"""Triple-barrier labels: which of two prices around the entry is reached first, or neither within the horizon.

M. López de Prado, Advances in Financial Machine Learning (2018), chapter 3, on bars. The entry is the open of the
session after the decision, the barriers lie multiples of a unit (`tapehouse.labels.barriers`) above and below it, and the
horizon counts from the entry, whose own session is the first. What is compared with the barriers is the value of one share
bought at the entry: its price times the splits since, plus the dividends since. Bars tell no order within a session:

- a session that opens beyond a barrier exits at its open;
- a session that reaches both barriers is ambiguous: a long or short label takes its stop, side 0 has no label;
- the session of the entry counts, since its open comes before its high and low.
"""

import math
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.labels.barriers import BarrierSpec
from tapehouse.labels.horizons import sessions_around
from tapehouse.labels.touches import BOTH, LOWER, NOT_REACHED, UPPER, VERTICAL, first_touches
from tapehouse.paths import SETTLEMENT_LAG, Paths, settled_paths

# The labels of `labels.triple_barrier`. The backtest exits by the same: it knows barriers that are symmetric, in ATR and
# after a number of sessions.
BARRIERS = BarrierSpec(unit="atr", profit=1.5, stop=1.5, horizon_bars=10)
WIDTH_ATR, HORIZON_SESSIONS = BARRIERS.profit, BARRIERS.horizon_bars
SESSIONS_PER_YEAR = 252  # of the annualised volatility in features.price
# The column of `features.price` that gives the unit of each kind of width.
UNIT_COLUMNS = {"atr": "atr_14", "volatility": "realised_vol_20d", "percent": "close"}

TOUCHED = {UPPER: "upper", LOWER: "lower", VERTICAL: "vertical", BOTH: "both"}
UTC_DATETIME = pl.Datetime("us", "UTC")
KEY = ("symbol", "interval", "decision_at")
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
    spec: BarrierSpec = BARRIERS,
    settlement_lag: timedelta = SETTLEMENT_LAG,
    events: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Label every decision in [start, end), once for each side.

    Args:
        versions: `staging.bars` of one interval, as far beyond `end` as the horizon reaches.
        actions: `raw.corporate_actions` of the same span.
        decisions: rows of `features.price` to label: `symbol, interval, decision_at, session, close, atr_14`, and
            `realised_vol_20d` where the unit is volatility. Without a unit above zero there are no
            barriers, and no row.
        start, end: UTC bounds of `decision_at`.
        sessions: `session, open_at, close_at` of the exchange, over the decisions and their horizons.
        spec: the barriers, the horizon, the sides and what a touch is.
        settlement_lag: how long after a session's close its records still count (`tapehouse.paths`).
        events: `symbol, interval, decision_at` of the decisions to label, such as `cusum_events` gives; default: all.

    Returns:
        One row per (symbol, interval, decision_at, side), sorted by it; `entry_price`, `atr` (one unit of the spec, in
        price), `upper` and `lower` (null where there is no barrier) in the price basis of the entry's session, as its
        traders saw them. Without a bar on the session after the decision the row has no entry. Where nothing is reached
        and the horizon's last bar is missing, or still to come, `touched`, `label`, `ret` and the label's times are null.

    Raises:
        TapehouseError: for a decision on a day that is no session.
    """
    column = UNIT_COLUMNS[spec.unit]
    # Without a width the entry's own open would touch both barriers.
    rows = decisions.filter((pl.col("decision_at") >= start) & (pl.col("decision_at") < end) & (pl.col(column) > 0))
    if events is not None:
        rows = rows.join(events.select(KEY).unique(), on=list(KEY), how="semi")
    rows = rows.sort(KEY)
    sessions = sessions_around(sessions, rows["session"].min(), rows["session"].max(), spec.horizon)
    paths = settled_paths(versions, actions, sessions, rows["symbol"].unique().sort().to_list(), settlement_lag)
    row, decided = paths.places(rows)
    entry_column, entry = entries(paths, row, decided)
    unit = _unit(spec, rows, paths, row, entry_column, entry)
    last = vertical_columns(sessions, entry_column, spec)
    walked: dict[tuple[float, float], tuple] = {}
    labels = []
    for side in spec.sides:
        multiples = spec.multiples(side)
        if multiples not in walked:
            upper, lower = entry + multiples[0] * unit, entry - multiples[1] * unit
            touched = first_touches(
                row, entry_column, last, upper, lower, spec.touch == "close",
                paths.open, paths.high, paths.low, paths.close, paths.shares, paths.cash,
            )  # fmt: skip
            walked[multiples] = upper, lower, *touched
        labels.append(_of_side(side, rows, paths, entry_column, entry, unit, *walked[multiples]))
    return (
        pl.concat(labels)
        .with_columns(label_known_at=pl.col("label_end_at") + settlement_lag)
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
        .sort(*KEY, "side")
    )


def entries(paths: Paths, row: np.ndarray, decided: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Column and price of each decision's entry: the open of the session after its own, or -1 and NaN without a bar.

    Args:
        row, decided: (d,) place of each decision's own session in the grid (`Paths.places`).
    """
    column = np.where(decided + 1 < paths.open.shape[1], decided + 1, -1)
    price = np.where(column >= 0, paths.open[row, column], np.nan)
    return np.where(np.isnan(price), -1, column), price


def vertical_columns(sessions: pl.DataFrame, entry_column: np.ndarray, spec: BarrierSpec) -> np.ndarray:
    """Column of each entry's vertical barrier; beyond the grid where the calendar does not reach it."""
    if spec.horizon_bars is not None:
        return entry_column + spec.horizon_bars - 1
    opens, closes = (sessions[name].dt.epoch("us").to_numpy() for name in ("open_at", "close_at"))
    limit = opens[entry_column] + spec.horizon_time // timedelta(microseconds=1)
    # Of a limit after the grid's last close no one can say which bar is the last before it.
    return np.where(limit > closes[-1], closes.size, np.maximum(np.searchsorted(closes, limit, side="right") - 1, entry_column))


def meta_labels(labels: pl.DataFrame, sides: pl.DataFrame) -> pl.DataFrame:
    """Whether a bet on a given side paid: what a secondary model learns of a primary one (López de Prado, 3.6).

    Args:
        labels: rows of `labels.triple_barrier` with both sides.
        sides: `symbol, interval, decision_at, side` of the primary model, `side` 1 or -1; 0 is no bet and has no row.

    Returns:
        The labels of those sides with `meta_label`: 1 where `ret` is positive, 0 where it is not, null while unknown.

    Raises:
        TapehouseError: a decision has two sides, or a side that is none.
    """
    bets = sides.select(*KEY, pl.col("side").cast(pl.Int32))
    if (wrong := bets.filter(~pl.col("side").is_in([-1, 0, 1]) | pl.col("side").is_null())).height:
        raise TapehouseError(f"meta_labels: {wrong.row(0)}: a side is 1, -1 or 0; correct the primary model's sides")
    if (twice := bets.filter(bets.select(KEY).is_duplicated())).height:
        raise TapehouseError(f"meta_labels: {twice.row(0)[:3]} has two sides; give one row per decision")
    chosen = labels.join(bets.filter(pl.col("side") != 0), on=[*KEY, "side"], how="semi").sort(*KEY, "side")
    return chosen.with_columns(meta_label=(pl.col("ret") > 0).cast(pl.Int32))


def _unit(
    spec: BarrierSpec, rows: pl.DataFrame, paths: Paths, row: np.ndarray, column: np.ndarray, entry: np.ndarray
) -> np.ndarray:
    """What a multiple of one is worth, in the basis of the entry's price; NaN without an entry."""
    value = rows[UNIT_COLUMNS[spec.unit]].to_numpy()
    if spec.unit == "percent":
        return entry / 100.0
    if spec.unit == "volatility":
        return entry * (value / math.sqrt(SESSIONS_PER_YEAR))
    # The factor that features restate past prices by, for an action on the entry's own day.
    factor = (1.0 - paths.cash[row, column] / rows["close"].to_numpy()) / paths.shares[row, column]
    return np.where(column >= 0, value * factor, np.nan)


def _of_side(
    side: int,
    rows: pl.DataFrame,
    paths: Paths,
    entry_column: np.ndarray,
    entry: np.ndarray,
    unit: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
    touched: np.ndarray,
    exit_value: np.ndarray,
    exit_column: np.ndarray,
) -> pl.DataFrame:
    """The same path read by a long (1), a short (-1) or an unsided (0) observer."""
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
    return rows.select(KEY).with_columns(
        side=pl.lit(side),
        entry_at=paths.times("open_at", entry_column),
        entry_price=_finite(entry),
        atr=_finite(unit),
        upper=_finite(upper),
        lower=_finite(lower),
        touched=pl.Series(touched).replace_strict(TOUCHED, default=None, return_dtype=pl.String),
        label=_where(settled & ~(ambiguous & (side == 0)), label),
        ret=_finite(direction * (exit_value / entry - 1.0)),
        label_end_at=paths.times("close_at", np.where(settled, exit_column, -1)),
        sessions_held=_where(settled, held),
        ambiguous=pl.Series(ambiguous),
    )


def _finite(values: np.ndarray) -> pl.Series:
    return pl.Series(np.where(np.isfinite(values), values, np.nan)).fill_nan(None)


def _where(known: np.ndarray, values: np.ndarray) -> pl.Series:
    series = pl.Series(values)
    return series.set(pl.Series(~known), None)
