"""A simulated market of any size, seeded: bars, corporate actions, futures that expire, perpetuals' funding, order books.

For tests, load and benchmarks. Every row says what it is: its symbol begins with `SIM:` and the source's name with
`simulat`; anything else is refused. What comes out is a function of the declaration, the symbol and the range alone
(`tapehouse.simulated_walks`, `tapehouse.simulated_books`), so that any cutting of a range gives the same bits, and a
month costs a month.
"""

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Literal

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator

from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.ingest import BAR_COLUMNS, REJECT_COLUMNS
from tapehouse.simulated_bars import (
    ACTIONS,
    BARS,
    FUNDING_COLUMNS,
    INDEX,
    PERPETUAL_NUMBERS,
    PREFIX,
    equity,
    first_session,
    instant,
    life_of,
    simulated_actions,
    simulated_bars,
    simulated_funding,
)
from tapehouse.simulated_books import StreamShape, simulated_book_events, simulated_trades
from tapehouse.simulated_walks import Life
from tapehouse.sources.base import Ask, Delivery, SourceDeclaration

OFFERS = ("bars", "actions", "funding", "book", "trades")
NAMED = "simulat"
ROLL_BEFORE = 5  # sessions before a future's last one
SCHEMAS = {"bars": {name: BARS[name] for name in BAR_COLUMNS}, "actions": ACTIONS, "funding": FUNDING_COLUMNS}
MAKERS = {"bars": simulated_bars, "actions": simulated_actions, "funding": simulated_funding}
STREAMS = {"book": simulated_book_events, "trades": simulated_trades}
REJECTS = {name: TIMESTAMP if name in ("event_at", "filed_at") else pl.String() for name in REJECT_COLUMNS}


class Perpetual(BaseModel):
    """A perpetual future that trades around the clock."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    funding_hours: Literal[1, 2, 4, 8, 12, 24] = 8


class Book(BaseModel):
    """The order book of one symbol, as a vendor's stream of messages; what is left out is as in `StreamShape`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    market: Literal["spot", "futures"] = "futures"
    messages_per_second: float = Field(default=StreamShape.messages_per_second, gt=0)
    snapshot_seconds: int = Field(default=StreamShape.snapshot_seconds, gt=0)
    tick_size: float = Field(default=StreamShape.tick_size, gt=0)
    lot_size: float = Field(default=StreamShape.lot_size, gt=0)
    opening_price: float = Field(default=StreamShape.opening_price, gt=0)
    latency_ms: float = Field(default=StreamShape.latency_ms, ge=0)


class Declaration(SourceDeclaration):
    """What is simulated.

    `equities` of them, `SIM:0001` and on, and the index `SIM:INDEX` have bars from `start` to `end` (exclusive; left out:
    for ever) on the sessions of `calendar`. `delisted_per_year` is the rate at which equities leave, `renamed` the share
    that changes its ticker once, `missing` the share of bars that the source has lost, `corrected` the share that it gives in
    two versions. `futures` on the index are given by symbol and last session, `perpetuals` by symbol; `books` gives symbols,
    these or others, an order book and trades.
    """

    kind: Literal["simulator"]
    seed: int = Field(default=0, ge=0, lt=2**63)
    start: date = date(2000, 1, 1)
    end: date | None = None
    calendar: str = "XNYS"
    equities: int = Field(default=10, ge=0, lt=PERPETUAL_NUMBERS)
    splits: bool = True
    dividends: bool = True
    delisted_per_year: float = Field(default=0.0, ge=0, lt=1)
    renamed: float = Field(default=0.0, ge=0, le=1)
    missing: float = Field(default=0.0, ge=0, lt=1)
    corrected: float = Field(default=0.0, ge=0, lt=1)
    futures: dict[str, date] = Field(default_factory=dict)
    perpetuals: dict[str, Perpetual] = Field(default_factory=dict)
    books: dict[str, Book] = Field(default_factory=dict)

    @field_validator("futures", "perpetuals")
    @classmethod
    def _say_so(cls, value: dict) -> dict:
        for symbol in value:
            if not symbol.startswith(PREFIX) or symbol == INDEX or symbol.removeprefix(PREFIX).isdigit():
                raise ValueError(f"{symbol}: a simulated symbol begins with {PREFIX} and is neither the index nor an equity")
        return value

    @field_validator("books")
    @classmethod
    def _marked(cls, value: dict) -> dict:
        if unmarked := sorted(symbol for symbol in value if not symbol.startswith(PREFIX)):
            raise ValueError(f"{unmarked}: a simulated symbol begins with {PREFIX}")
        return value

    @property
    def symbols(self) -> tuple[str, ...]:
        """The index, the equities, the futures and the perpetuals, and what has a book alone."""
        traded = (INDEX, *(equity(number) for number in range(1, self.equities + 1)), *self.futures, *self.perpetuals)
        return tuple(dict.fromkeys((*traded, *self.books)))


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Simulated rows of the asked symbols in the asked range.

    Raises:
        TapehouseError: the source's name or a symbol does not say that it is simulated, or is none of the declared ones.
    """
    _refuse_unmarked(declared, ask.source, ask.symbols)
    start, end = _clipped(declared, ask)
    if ask.offer in STREAMS:
        rows = _streamed(declared, ask, start, end)
    else:
        rows = MAKERS[ask.offer](declared, ask.symbols, start, end).with_columns(source=pl.lit(ask.source))
        rows = rows.select(pl.col(name).cast(kind) for name, kind in SCHEMAS[ask.offer].items())
    return Delivery(
        rows=rows,
        rejected=pl.DataFrame(schema=REJECTS),
        counts={"received": rows.height, "accepted": rows.height, "outside_span": 0, "quarantined": 0, "duplicates": 0},
    )


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """A hash of what decides the rows: seed, options, symbols and range, no row being made.

    That the simulation ends later, or holds more symbols, changes nothing of the ranges and symbols before.
    """
    start, end = _clipped(declared, ask)
    if start >= end:
        return text_hash("nothing is simulated here")
    about = _identity(declared.model_dump_json(), ask.offer, ask.source, ask.symbols)
    return text_hash(about, start.isoformat(), end.isoformat())


@lru_cache(maxsize=64)
def _identity(declaration: str, offer: str, source: str, symbols: tuple[str, ...]) -> str:
    """All that decides the rows but the range. It is asked for month by month."""
    declared = Declaration.model_validate_json(declaration)
    _refuse_unmarked(declared, source, symbols)
    about = declared.model_dump_json(exclude={"end", "equities", "futures", "perpetuals", "books"})
    own = [f"{s} {declared.futures.get(s)} {declared.perpetuals.get(s)} {declared.books.get(s)}" for s in symbols]
    return text_hash(about, offer, source, *own)


def first_sessions(declared: Declaration, ask: Ask) -> dict[str, date]:
    """Symbol to the session on which it is listed, no bar being made; a symbol without bars is left out."""
    _refuse_unmarked(declared, ask.source, ask.symbols)
    days = {symbol: first_session(declared, symbol) for symbol in ask.symbols}
    return {symbol: day for symbol, day in days.items() if day is not None}


def lives(declared: Declaration) -> dict[str, Life]:
    """When each equity is delisted and renamed: what a universe declares of it."""
    return {equity(number): life_of(declared, number) for number in range(1, declared.equities + 1)}


def universe_lines(declared: Declaration, source: str, tradable: bool = True) -> dict[str, dict]:
    """The lines of `universe:` in `sources.yaml` for all that is simulated, delistings and changes of ticker included.

    As with most vendors, the bars of all dates carry the last ticker; `history` says which one was in use.
    """
    lines: dict[str, dict] = {INDEX: {"id": "SIM-INDEX", "name": "Simulated index", "kind": "index", "tradable": False}}
    for symbol, dates in lives(declared).items():
        line = {"id": f"SIM-EQ-{symbol[4:]}", "name": f"Simulated share {symbol[4:]}", "kind": "equity", "tradable": tradable}
        if dates.renamed:
            before = dates.renamed - timedelta(days=1)
            line["history"] = [{"symbol": f"{symbol}.OLD", "to": before}, {"symbol": symbol, "from": dates.renamed}]
        if dates.delisted:
            line["delisted"] = {"on": dates.delisted, "known_at": dates.announced}
        lines[symbol] = line
    for symbol, expires in declared.futures.items():
        about = {"kind": "future", "tradable": False, "underlying": INDEX, "expires": expires}
        about |= {"multiplier": 50.0, "roll": {"sessions_before_expiry": ROLL_BEFORE}}
        lines[symbol] = {"id": f"SIM-FUT-{symbol[4:]}", "name": f"Simulated future {symbol[4:]}", **about}
    for symbol, perpetual in declared.perpetuals.items():
        about = {"kind": "perpetual", "tradable": False, "calendar": "24/7", "funding_hours": perpetual.funding_hours}
        lines[symbol] = {"id": f"SIM-PERP-{symbol[4:]}", "name": f"Simulated perpetual {symbol[4:]}", **about}
    return {symbol: {**line, "source": source} for symbol, line in lines.items()}


def _streamed(declared: Declaration, ask: Ask, start: datetime, end: datetime) -> pl.DataFrame:
    """Messages of every asked symbol that has a book, symbol by symbol, each in the order of arrival."""
    shapes = {symbol: StreamShape(**declared.books[symbol].model_dump()) for symbol in ask.symbols if symbol in declared.books}
    parts = [STREAMS[ask.offer](declared.seed, s, start, end, source=ask.source, shape=shape) for s, shape in shapes.items()]
    empty = STREAMS[ask.offer](declared.seed, INDEX, start, start, source=ask.source)
    return pl.concat([empty, *parts])


def _clipped(declared: Declaration, ask: Ask) -> tuple[datetime, datetime]:
    """The asked range as far as it is simulated; an empty one starts where it ends."""
    start = max(ask.start, instant(declared.start))
    end = ask.end if declared.end is None else min(ask.end, instant(declared.end))
    return start, max(start, end)


def _refuse_unmarked(declared: Declaration, source: str, symbols: tuple[str, ...]) -> None:
    if not source.startswith(NAMED):
        raise TapehouseError(
            f"sources.yaml: sources.{source}: the name of a simulator begins with {NAMED!r}, because every row carries it"
        )
    held = set(declared.symbols)
    for symbol in symbols:
        if not symbol.startswith(PREFIX):
            raise TapehouseError(f"sources.yaml: {source} is a simulator and gives no {symbol}: its begin with {PREFIX}")
        if symbol not in held:
            known = "equities, futures and perpetuals"
            raise TapehouseError(f"sources.yaml: sources.{source} does not hold {symbol}; it has its {known}")
