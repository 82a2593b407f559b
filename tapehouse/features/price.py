"""Price features of daily bars, each row in the price basis of its own decision and from what was known then.

A decision is taken a declared lag after a session's close. It sees every bar in the latest version known by then, and
past prices restated by the splits and dividends that were ex by then and known by then. Promise 3 asks for finite
windows: the recursive indicators restart at calendar anchors. The anchor of a decision is 1 January of its year; its
recursions run from the first bar at or after the anchor less 20 calendar months (1 May two years before), which is at
least 400 bars of a full history. A decision's windows do not reach further back than its recursions do.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.features import kernels
from tapehouse.versions import ACTION_KEY, BAR_KEY, Timeline, epochs, microseconds, sorted_versions, timeline

MARKET = "^GSPC"
DECISION_LAG = timedelta(minutes=5)
# Anchors are yearly for daily bars: recursions run over 20 to 32 months of them, at least 400 of a full history.
ANCHORED_INTERVALS = ("1d",)
RESTART_MONTH, RESTART_YEARS_BACK = 5, 2

UTC_DATETIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "session": pl.Date,
    "known_at": UTC_DATETIME,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "volume": pl.Int64,
    **dict.fromkeys(kernels.FEATURES, pl.Float64),
    "bars_of_history": pl.Int32,
}


@dataclass(frozen=True)
class Series:
    """Every version of one symbol's bars and actions, as arrays.

    Attributes:
        bars, actions: one row a version, sorted as `timeline` wants them.
        bar_times, action_times: which versions were known when.
    """

    bars: pl.DataFrame
    actions: pl.DataFrame
    bar_times: Timeline
    action_times: Timeline

    @property
    def late(self) -> list[np.ndarray]:
        return [self.bar_times.late, self.action_times.late]


@dataclass(frozen=True)
class State:
    """One symbol's bars as known in one epoch, oldest first, with the factors that restate each bar's past."""

    position: np.ndarray
    sessions: np.ndarray
    closed_at: np.ndarray
    prices: np.ndarray
    volumes: np.ndarray
    price_factors: np.ndarray
    volume_factors: np.ndarray
    latest: np.ndarray


def price_features(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    start: datetime,
    end: datetime,
    decision_lag: timedelta = DECISION_LAG,
    market: str = MARKET,
) -> pl.DataFrame:
    """Features of every decision in [start, end).

    Args:
        versions: `staging.bars`, at least those with `event_at` in [start - 33 months, end).
        actions: `raw.corporate_actions` of the same span.
        start, end: UTC bounds of `decision_at`.
        decision_lag: how long after a session's close its decision is taken.
        market: the symbol of the index that relative strength is measured against.

    Returns:
        One row per (symbol, interval, decision_at), sorted by it, for every bar that was known at its own decision.
        Prices and volume are raw, as known then; units of the features are in `checks/features/price.yaml`. A feature
        is null until enough bars have gone before it, and where it is not defined.

    Raises:
        TapehouseError: for an interval without a declared anchor, or a dividend that is not below the close before it.
    """
    unknown = versions.filter(~pl.col("interval").is_in(ANCHORED_INTERVALS))["interval"]
    if len(unknown):
        raise TapehouseError(
            f"features.price: no anchor is declared for interval {unknown[0]!r}; add one to ANCHORED_INTERVALS"
        )
    rows = []
    for _, bars in versions.group_by("interval", maintain_order=True):
        by_symbol = {
            symbol: _series(of_symbol, actions.filter(pl.col("symbol") == symbol), decision_lag)
            for (symbol,), of_symbol in sorted_versions(bars, BAR_KEY).group_by("symbol", maintain_order=True)
        }
        empty = _series(bars.clear(), actions.clear(), decision_lag)
        index = by_symbol.get(market, empty)
        rows += [_of_symbol(series, index, start, end, decision_lag) for series in by_symbol.values()]
    if not rows:
        return pl.DataFrame(schema=SCHEMA)
    return pl.concat(rows).sort("symbol", "interval", "decision_at")


def _series(bars: pl.DataFrame, actions: pl.DataFrame, decision_lag: timedelta) -> Series:
    # On one day the dividend goes first: its amount is per share of the day before.
    actions = sorted_versions(actions, ACTION_KEY, order=("symbol", "ex_date", "kind"))
    lag = decision_lag // timedelta(microseconds=1)
    return Series(
        bars=bars,
        actions=actions,
        bar_times=timeline(bars, BAR_KEY, microseconds(bars["event_at"]) + lag),
        # An action is due before any decision of its ex-date; its event_at is the midnight that begins that day.
        action_times=timeline(actions, ("symbol", "ex_date", "kind"), microseconds(actions["event_at"])),
    )


def _of_symbol(series: Series, market: Series, start: datetime, end: datetime, decision_lag: timedelta) -> pl.DataFrame:
    """Rows of one symbol: one pass of the kernel for each epoch and year that has decisions in it."""
    lag = decision_lag // timedelta(microseconds=1)
    parts = []
    for since, until in epochs([*series.late, *market.late], start, end):
        own = _state(series, since)
        decisions = own.closed_at + lag
        wanted = np.flatnonzero((decisions >= since) & (decisions < until))
        if not wanted.size:
            continue
        index = own if market is series else _state(market, since)
        matched = _positions(index.closed_at, own.closed_at)
        years = own.sessions[wanted].astype("datetime64[D]").astype("datetime64[Y]")
        for year in np.unique(years):
            of_year = wanted[years == year]
            first, stop = int(of_year[0]), int(of_year[-1]) + 1
            restart = int(np.searchsorted(own.sessions, _restart_day(year)))
            values, known = kernels.price_rows(
                restart, first, stop,
                own.prices[1], own.prices[2], own.prices[3], own.volumes,
                own.price_factors, own.volume_factors, own.latest,
                matched, index.prices[3], index.price_factors, index.latest,
            )  # fmt: skip
            kept = of_year - first
            parts.append(_rows(series, own, of_year, values[kept], known[kept], of_year - restart + 1, decisions[of_year]))
    return pl.concat(parts) if parts else pl.DataFrame(schema=SCHEMA)


def _state(series: Series, cutoff: int) -> State:
    """The bars and actions in force from `cutoff` until the next late record."""
    position = series.bar_times.as_known(cutoff)
    bars = series.bars[position]
    actions = series.actions[series.action_times.as_known(cutoff)]
    prices = bars.select("open", "high", "low", "close").to_numpy(writable=True).T.copy()
    sessions = bars["session"].to_physical().cast(pl.Int64).to_numpy(writable=True)
    price_factors, volume_factors, latest, bad = kernels.restating_factors(
        sessions,
        prices[3],
        microseconds(bars["known_at"]),
        actions["ex_date"].to_physical().cast(pl.Int64).to_numpy(writable=True),
        actions["ratio"].to_numpy(writable=True),
        actions["amount"].to_numpy(writable=True),
        microseconds(actions["known_at"]),
    )
    if bad >= 0:
        action = actions.row(bad, named=True)
        raise TapehouseError(
            f"raw.corporate_actions: the dividend of {action['symbol']} ex {action['ex_date']} ({action['amount']}) is "
            "not below the close before it; correct the action or the bar by a later version"
        )
    return State(
        position=position,
        sessions=sessions,
        closed_at=microseconds(bars["event_at"]),
        prices=prices,
        volumes=bars["volume"].cast(pl.Float64).to_numpy(writable=True),
        price_factors=price_factors,
        volume_factors=volume_factors,
        latest=latest,
    )


def _positions(index_closed_at: np.ndarray, closed_at: np.ndarray) -> np.ndarray:
    """For each bar the position of the index bar that closes with it, or -1.

    Matching on the close rather than the session keeps an index that closes later out of the decision.
    """
    if not index_closed_at.size:
        return np.full(closed_at.size, -1, np.int64)
    found = np.minimum(np.searchsorted(index_closed_at, closed_at), index_closed_at.size - 1)
    return np.where(index_closed_at[found] == closed_at, found, -1)


def _restart_day(year: np.datetime64) -> int:
    """The day, counted from 1970, from which the recursions of that year's decisions run."""
    anchor_year = int(year.astype(int)) + 1970
    return (date(anchor_year - RESTART_YEARS_BACK, RESTART_MONTH, 1) - date(1970, 1, 1)).days


def _rows(
    series: Series,
    state: State,
    chosen: np.ndarray,
    values: np.ndarray,
    known: np.ndarray,
    history: np.ndarray,
    decisions: np.ndarray,
) -> pl.DataFrame:
    bars = series.bars[state.position[chosen]]
    features = pl.DataFrame(values, schema=list(kernels.FEATURES)).with_columns(pl.all().fill_nan(None))
    frame = bars.select("symbol", "interval", "session", "open", "high", "low", "close", "volume").with_columns(
        decision_at=pl.Series(decisions).cast(UTC_DATETIME),
        known_at=pl.Series(known).cast(UTC_DATETIME),
        bars_of_history=pl.Series(history),
    )
    return pl.concat([frame, features], how="horizontal").select(pl.col(c).cast(t) for c, t in SCHEMA.items())
