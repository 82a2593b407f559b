"""Each symbol's bars and actions as they stood at its decisions: what every feature of the price record is computed on.

A decision is taken a declared lag after a session's close. It sees every bar in the latest version known by then, and
past prices restated by the splits and dividends that were ex by then and known by then. Promise 3 asks for finite
windows: the anchor of a decision is 1 January of its year, and nothing it sees reaches further back than the first bar
at or after the anchor less 20 calendar months (1 May two years before), at least 400 bars of a full history.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache, partial
from itertools import pairwise

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.features.kernels import restating_factors
from tapehouse.versions import (
    ACTION_KEY,
    BAR_KEY,
    MICROSECONDS,
    NEVER,
    Timeline,
    epochs,
    microseconds,
    require_declared_intervals,
    sorted_versions,
    timeline,
)

DECISION_LAG = timedelta(minutes=5)
# Anchors are yearly, for daily bars: recursions run over 20 to 32 months of them, at least 400 of a full history.
RESTART_MONTH, RESTART_YEARS_BACK = 5, 2
UTC_DATETIME = pl.Datetime("us", "UTC")
PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Series:
    """Every version of one symbol's bars and actions.

    Attributes:
        offset: where its bars begin among those of all symbols.
        bar_times, action_times: which versions were known when.
        sessions, closed_at, known, volumes: (n,) of the bars: days since 1970, microseconds, microseconds, shares.
        prices: (4, n) open, high, low, close.
        actions: sorted as `restating_factors` wants them, and as its arrays: ex-dates, ratios, amounts, `known_at`.
    """

    offset: int
    bar_times: Timeline
    action_times: Timeline
    sessions: np.ndarray
    closed_at: np.ndarray
    known: np.ndarray
    prices: np.ndarray
    volumes: np.ndarray
    actions: pl.DataFrame
    action_arrays: tuple[np.ndarray, ...]

    @property
    def late(self) -> list[np.ndarray]:
        return [self.bar_times.late, self.action_times.late]


@dataclass(frozen=True)
class State:
    """One symbol's bars as known in one epoch, oldest first, with the factors that restate each bar's past.

    Attributes:
        position: (n,) which of the series' versions are in force, one a session.
        sessions: (n,) days since 1970. closed_at: (n,) int64 microseconds.
        prices: (4, n) open, high, low, close. volumes: (n,) shares.
        price_factors, volume_factors, latest: (n,) as `restating_factors` gives them.
    """

    position: np.ndarray
    sessions: np.ndarray
    closed_at: np.ndarray
    prices: np.ndarray
    volumes: np.ndarray
    price_factors: np.ndarray
    volume_factors: np.ndarray
    latest: np.ndarray


@dataclass(frozen=True)
class Batch:
    """Decisions of one symbol between which its known past, and the market's, does not change.

    Attributes:
        own: the bars that they see. market: those of the index; empty without one.
        matched: (n,) for each own bar the position of the market's bar that closes with it, or -1.
        chosen: (k,) positions of the decisions' bars, ascending, all within [first, stop).
        rows: (k,) their bars among the versions of all symbols. decisions: (k,) int64 microseconds.
        restarts, firsts, stops: one each for every year of [first, stop): the bar from which what its decisions see
            runs, and the bars first <= t < stop that are decided in it.
    """

    own: State
    market: State
    matched: np.ndarray
    chosen: np.ndarray
    rows: np.ndarray
    decisions: np.ndarray
    restarts: np.ndarray
    firsts: np.ndarray
    stops: np.ndarray

    @property
    def first(self) -> int:
        return int(self.firsts[0])

    @property
    def history(self) -> np.ndarray:
        """(k,) bars from the restart to each decision's own, counting both."""
        spans = self.stops - self.firsts
        return self.chosen - np.repeat(self.restarts, spans)[self.chosen - self.first] + 1

    def column(self, values: np.ndarray) -> np.ndarray:
        """Of values for every bar in [first, stop) those of the decisions."""
        return values if values.size == self.chosen.size else values[self.chosen - self.first]


def batches(
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    start: datetime,
    end: datetime,
    decision_lag: timedelta,
    market: str | None,
    table: str,
) -> Iterator[Batch]:
    """All decisions in [start, end), ordered by symbol, interval and time.

    Args:
        bars: `staging.bars` as from `in_order`, at least those with `event_at` in [start - 33 months, end).
        actions: `raw.corporate_actions` of the same span.
        decision_lag: how long after a session's close its decision is taken.
        market: the symbol of the index, or None where none is asked for.
        table: named in errors.

    Raises:
        TapehouseError: for an interval without a declared anchor, or a dividend that is not below the close before it.
    """
    require_declared_intervals(bars, table)
    # On one day the dividend goes first: its amount is per share of the day before.
    actions = sorted_versions(actions, ACTION_KEY, order=("symbol", "ex_date", "kind"))
    acted = {symbol: of_symbol for (symbol,), of_symbol in actions.partition_by("symbol", as_dict=True).items()}
    sessions, closed_at, known = _days(bars["session"]), microseconds(bars["event_at"]), microseconds(bars["known_at"])
    volumes = bars["volume"].cast(pl.Float64).to_numpy(writable=True)
    prices = np.empty((len(PRICES), bars.height))
    for i, name in enumerate(PRICES):
        prices[i] = bars[name].to_numpy()
    none = _actions(actions.clear())

    def series(first: int, stop: int, symbol: str | None) -> Series:
        own = slice(first, stop)
        # The bars' frame is sorted, so that a session is all that tells one record of a symbol from the next.
        prompt = known[own] <= closed_at[own] + decision_lag // MICROSECONDS
        action_times, of_symbol, action_arrays = _actions(acted[symbol]) if symbol in acted else none
        return Series(
            offset=first,
            bar_times=Timeline(key=sessions[own], known=known[own], prompt=prompt),
            action_times=action_times,
            sessions=sessions[own],
            closed_at=closed_at[own],
            known=known[own],
            prices=prices[:, own],
            volumes=volumes[own],
            actions=of_symbol,
            action_arrays=action_arrays,
        )

    spans = _spans(bars)
    indexes: dict[str, Series] = {}
    # Most symbols ask for the index as it stood at the same few instants.
    states = lru_cache(maxsize=4)(lambda interval, cutoff: _state(indexes[interval], cutoff))
    for (symbol, interval), (first, stop) in spans.items():
        if interval not in indexes:
            indexes[interval] = series(*spans.get((market, interval), (0, 0)), market)
        own = indexes[interval] if symbol == market else series(first, stop, symbol)
        yield from _of_symbol(own, indexes[interval], partial(states, interval), start, end, decision_lag)


def in_order(versions: pl.DataFrame) -> pl.DataFrame:
    """Versions of bars sorted by symbol, interval, session and tie-break; as they are where they rise already."""
    rising, equal = pl.lit(False), pl.lit(True)
    for name in BAR_KEY:
        before = pl.col(name).shift(1)
        rising, equal = rising | (equal & (pl.col(name) > before)), equal & (pl.col(name) == before)
    return versions if versions.select(rising.slice(1).all()).item() else sorted_versions(versions, BAR_KEY)


def _spans(bars: pl.DataFrame) -> dict[tuple[str, str], tuple[int, int]]:
    """(symbol, interval) to its first row and the row after its last."""
    changes = pl.any_horizontal((pl.col(name) != pl.col(name).shift(1)).fill_null(True) for name in ("symbol", "interval"))
    firsts = bars.select(changes.arg_true()).to_series()
    keys = bars.select("symbol", "interval")[firsts].rows()
    return dict(zip(keys, pairwise([*firsts.to_list(), bars.height]), strict=True))


def _actions(actions: pl.DataFrame) -> tuple[Timeline, pl.DataFrame, tuple[np.ndarray, ...]]:
    # An action is due before any decision of its ex-date; its event_at is the midnight that begins that day.
    times = timeline(actions, ("ex_date", "kind"), microseconds(actions["event_at"]))
    ratios, amounts = (actions[name].to_numpy(writable=True) for name in ("ratio", "amount"))
    return times, actions, (_days(actions["ex_date"]), ratios, amounts, times.known)


def _of_symbol(
    series: Series,
    market: Series,
    market_state: Callable[[int], State],
    start: datetime,
    end: datetime,
    decision_lag: timedelta,
) -> Iterator[Batch]:
    market_late = np.unique(np.concatenate(market.late))
    for since, until in epochs([*series.late, *market.late], start, end):
        own = _state(series, since)
        decisions = own.closed_at + decision_lag // MICROSECONDS
        chosen = np.flatnonzero((decisions >= since) & (decisions < until))
        if not chosen.size:
            continue
        # The index stands since its own latest late record as it does now.
        before = np.searchsorted(market_late, since, side="right")
        index = own if market is series else market_state(int(market_late[before - 1]) if before else NEVER)
        first, stop = int(chosen[0]), int(chosen[-1]) + 1
        years = own.sessions[first:stop].astype("datetime64[D]").astype("datetime64[Y]")
        firsts = first + np.flatnonzero(np.append(True, years[1:] != years[:-1]))
        restart_days = np.array([_restart_day(year) for year in years[firsts - first]])
        yield Batch(
            own=own,
            market=index,
            matched=_positions(index.closed_at, own.closed_at),
            chosen=chosen,
            rows=series.offset + own.position[chosen],
            decisions=decisions[chosen],
            restarts=np.searchsorted(own.sessions, restart_days),
            firsts=firsts,
            stops=np.append(firsts[1:], stop),
        )


def _state(series: Series, cutoff: int) -> State:
    """The bars and actions in force from `cutoff` until the next late record."""
    position = series.bar_times.as_known(cutoff)
    # A slice shares memory: most symbols have no late version at all.
    at = position if position.size < series.sessions.size else slice(None)
    acted = series.action_times.as_known(cutoff)
    price_factors, volume_factors, latest, bad = restating_factors(
        series.sessions[at],
        series.prices[3, at],
        series.known[at],
        *(column[acted] for column in series.action_arrays),
    )
    if bad >= 0:
        action = series.actions.row(int(acted[bad]), named=True)
        raise TapehouseError(
            f"raw.corporate_actions: the dividend of {action['symbol']} ex {action['ex_date']} ({action['amount']}) is "
            "not below the close before it; correct the action or the bar by a later version"
        )
    return State(
        position=position,
        sessions=series.sessions[at],
        closed_at=series.closed_at[at],
        prices=series.prices[:, at],
        volumes=series.volumes[at],
        price_factors=price_factors,
        volume_factors=volume_factors,
        latest=latest,
    )


def _days(dates: pl.Series) -> np.ndarray:
    return dates.to_physical().cast(pl.Int64).to_numpy(writable=True)


def _positions(index_closed_at: np.ndarray, closed_at: np.ndarray) -> np.ndarray:
    """For each bar the position of the index bar that closes with it, or -1.

    Matching on the close rather than the session keeps an index that closes later out of the decision.
    """
    if not index_closed_at.size:
        return np.full(closed_at.size, -1, np.int64)
    found = np.minimum(np.searchsorted(index_closed_at, closed_at), index_closed_at.size - 1)
    return np.where(index_closed_at[found] == closed_at, found, -1)


def _restart_day(year: np.datetime64) -> int:
    """The day, counted from 1970, from which what the decisions of that year see runs."""
    anchor_year = int(year.astype(int)) + 1970
    return (date(anchor_year - RESTART_YEARS_BACK, RESTART_MONTH, 1) - date(1970, 1, 1)).days
