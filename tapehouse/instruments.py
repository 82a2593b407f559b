"""What an instrument is: its declaration in `sources.yaml`, and the rows of `raw.instruments` that follow from it.

An instrument has a permanent id. It trades under one ticker at a time (`history`), from its listing to its delisting. What
ends is told when it is known, and not before: the row of a ticker has no end until the change or the delisting has been
announced; then a further row, with a later `known_at`, says when it ends. Dates are sessions' dates, both ends inclusive.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tapehouse.calendars import TIMESTAMP, all_sessions, local_midnight_of
from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash, text_hash

if TYPE_CHECKING:  # the universe holds instruments
    from tapehouse.settings import Settings
    from tapehouse.universe import Universe

DAY = timedelta(days=1)
SCHEMA = {
    "instrument_id": pl.String,
    "symbol": pl.String,
    "ticker": pl.String,
    "name": pl.String,
    "kind": pl.String,
    "tradable": pl.Boolean,
    "benchmark": pl.Boolean,
    "currency": pl.String,
    "calendar": pl.String,
    "tick_size": pl.Float64,
    "lot_size": pl.Float64,
    "multiplier": pl.Float64,
    "underlying": pl.String,
    "expires_at": TIMESTAMP,
    "roll_sessions_before": pl.Int32,
    "funding_hours": pl.Int32,
    "valid_from": pl.Date,
    "valid_to": pl.Date,
    "source": pl.String,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
}


def _chain(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Chain = Annotated[tuple[str, ...], BeforeValidator(_chain), Field(min_length=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Ticker(_Frozen):
    """One ticker of an instrument, from its first session to its last.

    `from` may be left out of the first (then it is the first bar), `to` of all but a suspended one (then it is the day before
    the next ticker). `known_at` is when the change to this ticker was announced; left out: 00:00 exchange time of `from`.
    """

    symbol: str = Field(min_length=1)
    first: date | None = Field(default=None, alias="from")
    last: date | None = Field(default=None, alias="to")
    known_at: datetime | date | None = None


class Delisting(_Frozen):
    """The last session of an instrument; `known_at` is when that was announced; left out: the end of that day."""

    on: date
    known_at: datetime | date | None = None


class Roll(_Frozen):
    """When a position in a future moves to the next contract: at the close, so many sessions before the last one."""

    sessions_before_expiry: int = Field(ge=0)


class Instrument(_Frozen):
    """One line of the universe. `id` is permanent: it outlives a change of ticker.

    `source` names where bars and corporate actions come from: one source, or several, of which each next one is asked
    for what the one before it failed to give. The line's key is the symbol that the bars of all dates carry, as with most
    vendors; `history` says under which ticker the instrument traded when. `listed` stands in for the first bar.
    """

    id: str
    name: str
    kind: Literal["equity", "index", "future", "perpetual", "spot"]
    tradable: bool
    source: Chain
    currency: str = "USD"
    calendar: str | None = None
    tick_size: float = Field(default=0.01, gt=0)
    lot_size: float = Field(default=1.0, gt=0)
    multiplier: float = Field(default=1.0, gt=0)
    listed: date | None = None
    history: tuple[Ticker, ...] = ()
    delisted: Delisting | None = None
    underlying: str | None = None
    expires: date | None = None
    roll: Roll | None = None
    funding_hours: int | None = Field(default=None, ge=1, le=24)

    @model_validator(mode="after")
    def _whole(self) -> "Instrument":
        if (self.expires is None) == (self.kind == "future"):
            raise ValueError("expires is the last session of a future, and of nothing else")
        if self.roll is not None and self.kind != "future":
            raise ValueError("roll is for futures alone")
        if (self.funding_hours is None) == (self.kind == "perpetual"):
            raise ValueError("funding_hours is for perpetuals, and each of them has it")
        for before, after in pairwise(self.history):
            if after.first is None:
                raise ValueError(f"history: {after.symbol} follows {before.symbol} and needs its first session, `from`")
            if max(before.first or date.min, before.last or date.min) >= after.first:
                raise ValueError(f"history: {after.symbol} begins on {after.first}, which is not after {before.symbol}")
        if self.history and self.history[-1].last is not None:
            raise ValueError(f"history: {self.history[-1].symbol} is the last ticker; its end is said by `delisted`")
        if self.delisted and self.start and self.delisted.on < (self.history[-1].first if self.history[1:] else self.start):
            raise ValueError(f"delisted on {self.delisted.on}, before its last ticker began")
        return self

    @property
    def start(self) -> date | None:
        """The declared first session; None where the first bar says it."""
        return self.listed or (self.history[0].first if self.history else None)


def declared_instruments(settings: "Settings", stored: pl.DataFrame | None = None) -> pl.DataFrame:
    """Rows of `raw.instruments` as `sources.yaml` and the first bars of its sources say now, without `ingested_at`.

    Args:
        stored: the rows as they are. They tell when an instrument began whose sources fail to just now.

    Raises:
        TapehouseError: sources failed to give the first bars of an instrument that is neither dated nor stored.
    """
    return instrument_rows(settings.universe, _first_sessions(settings, stored))


def instruments_fingerprint(settings: "Settings", start: datetime | None = None, end: datetime | None = None) -> str:
    """Hash of the instruments; they have no range."""
    from tapehouse.chains import first_sessions

    first, unknown = first_sessions(settings, undated(settings.universe))
    return text_hash(frame_hash(instrument_rows(settings.universe, first)), *sorted(unknown))


def _first_sessions(settings: "Settings", stored: pl.DataFrame | None) -> dict[str, date]:
    from tapehouse.chains import first_sessions

    first, unknown = first_sessions(settings, undated(settings.universe))
    known: dict[str, date] = {}
    if stored is not None and stored.height:
        known = dict(stored.group_by("symbol").agg(pl.col("valid_from").min()).iter_rows())
    for symbol in sorted(unknown):
        if symbol not in known:
            raise TapehouseError(
                f"raw.instruments: the sources failed to give bars of {symbol} from the start of the span on, so its first "
                f"session is not known; run again once they answer, or declare sources.yaml: universe.{symbol}.listed"
            )
        first[symbol] = known[symbol]
    return first


def undated(universe: "Universe") -> tuple[str, ...]:
    """Symbols whose first session is not declared, so that their bars must say it."""
    return tuple(symbol for symbol, instrument in universe.universe.items() if instrument.start is None)


def instrument_rows(universe: "Universe", first_sessions: Mapping[str, date]) -> pl.DataFrame:
    """Rows of `raw.instruments` without `ingested_at`: one per (instrument, ticker, time at which something was known of it).

    Args:
        universe: what is declared.
        first_sessions: of each symbol the session of its first bar, where that is not declared. An instrument without any
            is left out: nobody has seen it trade.

    Returns:
        Sorted by the order of the universe, `valid_from` and `known_at`. `known_at` of a first row is the open of its first
        session, of what begins or ends later the announcement.

    Raises:
        TapehouseError: a date that the calendar does not reach, or a ticker that two instruments of one calendar bear at once.
    """
    rows: list[dict] = []
    for symbol, instrument in universe.universe.items():
        started = instrument.start or first_sessions.get(symbol)
        if started is not None:
            rows += _of_instrument(universe, symbol, instrument, started)
    _refuse_shared_tickers(rows)
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _of_instrument(universe: "Universe", symbol: str, instrument: Instrument, started: date) -> list[dict]:
    where = f"sources.yaml: universe.{symbol}"
    calendar = instrument.calendar or universe.calendar
    tickers = instrument.history or (Ticker(symbol=symbol),)
    about = {
        "instrument_id": instrument.id,
        "symbol": symbol,
        **{name: getattr(instrument, name) for name in ("name", "kind", "tradable", "currency", "tick_size", "lot_size")},
        **{name: getattr(instrument, name) for name in ("multiplier", "underlying", "funding_hours")},
        "benchmark": symbol == universe.benchmark,
        "calendar": calendar,
        "expires_at": _session(calendar, instrument.expires, where)["close_at"] if instrument.expires else None,
        "roll_sessions_before": instrument.roll.sessions_before_expiry if instrument.roll else None,
        "source": ", ".join(instrument.source),
    }
    rows: list[dict] = []
    for place, ticker in enumerate(tickers):
        first = started if place == 0 else ticker.first
        assert first is not None  # declared for every ticker after the first
        opened = _session(calendar, first, where)["open_at"]
        known = opened if place == 0 else _announced(ticker.known_at, first, calendar)
        row = {**about, "ticker": ticker.symbol, "valid_from": first, "event_at": opened}
        # A future's end is part of its contract: known from the start.
        rows.append({**row, "valid_to": instrument.expires, "known_at": known})
        ended = _end(instrument, tickers, place, calendar)
        if ended is not None:
            last, when = ended
            if when <= known:
                rows[-1]["valid_to"] = last
            else:
                rows.append({**row, "valid_to": last, "known_at": when})
    return rows


def _refuse_shared_tickers(rows: list[dict]) -> None:
    """A ticker may be used again once its instrument has gone, and not before: who finds it must know whose it is."""
    ends = {(row["calendar"], row["ticker"], row["valid_from"], row["symbol"]): row["valid_to"] for row in rows}  # the latest
    spans = sorted((*key[:3], last or date.max, key[3]) for key, last in ends.items())
    for before, after in pairwise(spans):
        if before[:2] == after[:2] and after[2] <= before[3]:
            raise TapehouseError(
                f"sources.yaml: universe.{before[4]} and universe.{after[4]} both bear the ticker {after[1]} on {after[2]}; "
                "declare when the one was delisted or changed its ticker (history, delisted)"
            )


def _end(instrument: Instrument, tickers: tuple[Ticker, ...], place: int, calendar: str) -> tuple[date, datetime] | None:
    """Last session of a ticker, and when it was known to be the last; None while it lasts."""
    if place + 1 < len(tickers):
        following = tickers[place + 1]
        assert following.first is not None
        return tickers[place].last or following.first - DAY, _announced(following.known_at, following.first, calendar)
    if instrument.delisted is not None:
        on = instrument.delisted.on
        return on, _announced(instrument.delisted.known_at, on + DAY, calendar)
    return None


def _announced(said: datetime | date | None, otherwise: date, calendar: str) -> datetime:
    """An instant as it is given; a date is known at its end; nothing said means 00:00 exchange time of `otherwise`."""
    if isinstance(said, datetime):
        return said if said.tzinfo else said.replace(tzinfo=UTC)
    return local_midnight_of(said + DAY if said else otherwise, calendar)


def _session(calendar: str, day: date, where: str) -> dict:
    """The session on a day, or the next one."""
    sessions = all_sessions(calendar)
    at = sessions["session"].search_sorted(day)
    if at >= sessions.height or day < sessions["session"][0]:
        reach = f"{sessions['session'][0]} to {sessions['session'][-1]}"
        raise TapehouseError(f"{where}: {day} is beyond the sessions of {calendar}, which reach from {reach}")
    return sessions.row(at, named=True)
