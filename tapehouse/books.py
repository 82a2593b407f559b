"""Order books rebuilt from snapshots and depth differences, and their quotes on a cadence.

The rules are the exchange's own (Binance, "How to manage a local order book correctly", for spot and for futures): see
`tapehouse.book_kernels.follows`. A gap in the update ids ends the time in which a book can be used, until a snapshot, or a
declared warm-up, gives one again; a book that is not usable is told by its status, and by a record in the quarantine.

A snapshot lists the levels nearest to the touch (1,000 a side). What lies behind them is unknown until it changes, so that
later snapshots are taken wherever the differences at hand lead from them to the book's own id.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tapehouse.book_kernels import BIDS, NEXT_ROW, SAID, STATE, emit, play
from tapehouse.book_messages import DIFF, EPOCH, REJECT_SCHEMA, Messages
from tapehouse.book_quotes import QUOTE_SCHEMA, Tidings, quote_rows, rejected_differences, trace_rows
from tapehouse.errors import TapehouseError

ROOM = 40_960  # levels a side in the rows that the kernel makes before they become a frame
BOOK = ("symbol", "market", "source")
DAY_US = 86_400_000_000
LATE_US = 3_600_000_000  # how far the receiving clock may be set back across midnight


class BookRules(BaseModel):
    """How books are rebuilt and read off.

    Attributes:
        cadence_ms: quotes are given at every multiple of it since 1970.
        levels: levels a side in the lists of a quote, and in its depth.
        buffer_seconds: how old a difference may be that is applied behind a snapshot received after it.
        max_silence_seconds: a book without a difference for longer is not to be relied on.
        warm_up_seconds: None: an unusable book waits for a snapshot. Else differences alone rebuild it from nothing, and it
            is taken for usable after this long; levels that did not change meanwhile are missing from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    cadence_ms: int = Field(1000, ge=1, le=60_000)
    levels: int = Field(10, ge=1, le=1000)
    buffer_seconds: float = Field(60, ge=0)
    max_silence_seconds: float = Field(60, gt=0)
    warm_up_seconds: float | None = Field(None, ge=0)


@dataclass(frozen=True)
class Rebuilt:
    """What one stretch of messages gave.

    Attributes:
        quotes: rows of `staging.book_quotes`.
        rejected: one record for each stretch in which differences could not be used, as `tapehouse.ingest.REJECT_COLUMNS`.
        counts: of messages received in the range: differences `applied`, `contained` in the book already and `unusable`, and
            `snapshots` and `tickers`: together all of them.
        trace: where it is asked for, the best quotes after each message (`tapehouse.book_quotes.trace_rows`).
    """

    quotes: pl.DataFrame
    rejected: pl.DataFrame
    counts: dict[str, int] = field(default_factory=dict)
    trace: pl.DataFrame | None = None


def rebuild(
    frames: Iterable[pl.DataFrame],
    rules: BookRules,
    start: datetime,
    end: datetime,
    trace: bool = False,
) -> Iterator[Rebuilt]:
    """Rebuild every book of a stream of messages, from nothing.

    Args:
        frames: rows of `raw.book_events`, each symbol, market and source in the order of `sequence`. Only one frame is held
            at a time, and of each book the differences of the last `buffer_seconds`.
        start, end: quotes are given for instants with `start` <= instant < `end`, UTC; messages before serve the book.
        trace: whether the best quotes after every message are wanted too.
    """
    books: dict[tuple, Book] = {}
    for frame in frames:
        for key, rows in _by_book(frame):
            if key not in books:
                books[key] = Book(key, rules, _us(start), _us(end), trace)
            yield books[key].feed(Messages.of(rows))
    for book in books.values():
        yield book.finish()


def quotes_by_day(frames: Iterable[pl.DataFrame], rules: BookRules, start: datetime, end: datetime) -> Iterator[Rebuilt]:
    """Quotes of the days [`start`, `end`), each day from the messages of that day and the day before, and from no others.

    So a day's rows are the same whether it is made alone or in a range. Every message is played twice, for its own day and
    for the next.

    Args:
        frames: as for `rebuild`, from a day before `start` on.
        start, end: 00:00 UTC of days.

    Raises:
        TapehouseError: the receiving clock was set back by more than an hour across midnight.
    """
    first, stop = _us(start) // DAY_US, _us(end) // DAY_US
    books: dict[tuple, dict[int, Book]] = {}
    done: dict[tuple, int] = {}
    for frame in frames:
        for key, rows in _by_book(frame):
            messages = Messages.of(rows)
            low, high = int(messages.known.min()), int(messages.known.max())
            days = books.setdefault(key, {})
            for day in range(max(first, low // DAY_US), min(stop, high // DAY_US + 2)):
                inside = messages.between((day - 1) * DAY_US, (day + 1) * DAY_US)
                if inside.size and day <= done.get(key, -1):
                    raise TapehouseError(
                        f"raw.book_events {key}: messages received on an earlier day follow those of {_day(high)}; the clock "
                        "was set back by more than an hour: make the days around it one by one"
                    )
                if inside.size:
                    if day not in days:
                        days[day] = Book(key, rules, day * DAY_US, (day + 1) * DAY_US)
                    yield days[day].feed(inside)
            for day in [d for d in days if (d + 1) * DAY_US + LATE_US <= low]:
                done[key] = max(day, done.get(key, -1))
                yield days.pop(day).finish()
    for days in books.values():
        for book in days.values():
            yield book.finish()


def collected(rebuilt: Iterable[Rebuilt]) -> Rebuilt:
    """All quotes and records in one frame each, and the sums of the counts."""
    parts = list(rebuilt)
    counts: dict[str, int] = {}
    for name, count in (item for part in parts for item in part.counts.items()):
        counts[name] = counts.get(name, 0) + count
    traces = [part.trace for part in parts if part.trace is not None]
    return Rebuilt(
        pl.concat([pl.DataFrame(schema=QUOTE_SCHEMA), *(part.quotes for part in parts)]),
        pl.concat([pl.DataFrame(schema=REJECT_SCHEMA), *(part.rejected for part in parts)]),
        counts,
        pl.concat(traces) if traces else None,
    )


@dataclass(frozen=True)
class Played:
    """Messages that a book has been fed with, behind those that it still held.

    Attributes:
        tidings: messages and what became of them. start: the first of the new ones.
        best: (n, 4), best bid, its size, best ask, its size after each message; 0 where a side is empty.
    """

    tidings: Tidings
    start: int
    best: np.ndarray


class Book:
    """One book, its state between frames, and the differences of the last `buffer_seconds`."""

    def __init__(self, key: tuple[str, str, str], rules: BookRules, first: int, stop: int, trace: bool = False):
        self.key, self.rules, self.trace = key, rules, trace
        self.limits = (rules.cadence_ms * 1000, round(rules.max_silence_seconds * 1_000_000), first, stop)
        self.buffer = round(rules.buffer_seconds * 1_000_000_000)
        self.warm_up = -1 if rules.warm_up_seconds is None else round(rules.warm_up_seconds * 1_000_000)
        self.state = np.zeros(STATE, np.int64)
        self.state[NEXT_ROW] = self.state[SAID] = -1
        self.book = tuple(np.empty(0) for _ in range(4))
        self.held = Tidings.empty()
        rows = max(ROOM // rules.levels, 16)
        self.room = np.zeros((rows, 5), np.int64), np.zeros((rows, 4, rules.levels)), np.zeros((rows, 2), np.int64)
        self.rows = 0  # made by the kernel and not read off yet
        self.told = -1  # the last stretch that was told in the quarantine

    def feed(self, messages: Messages) -> Rebuilt:
        """Play messages, and give what they made: quotes, records, counts."""
        played, found = self._play(messages)
        tidings, everything = played.tidings, played.tidings.messages
        gone = everything.sequences < everything.sequences[-1] - self.buffer
        trace = trace_rows(everything, tidings.notes, played.best, played.start) if self.trace else None
        result = self._rebuilt(found, tidings.only(gone), messages, trace)
        self.held = tidings.only(~gone & (everything.kinds == DIFF))
        return result

    def follow(self, messages: Messages) -> Played:
        """Play messages of a book whose quotes are not asked for, and give what became of each."""
        played, _ = self._play(messages)
        everything = played.tidings.messages
        held = (everything.sequences >= everything.sequences[-1] - self.buffer) & (everything.kinds == DIFF)
        self.held = played.tidings.only(held)
        return played

    def sizes_at(self, side: int, prices: np.ndarray) -> np.ndarray:
        """Sizes now held at (m,) prices of one side, 0 for the bids and 1 for the asks; 0 where there is no level."""
        n = int(self.state[BIDS + side])
        keys, sizes = (a[:n] for a in self.book[2 * side : 2 * side + 2])
        wanted = prices if side == 0 else -prices
        places = np.searchsorted(keys, wanted)
        within = places < n
        found = np.zeros(prices.size)
        found[within] = np.where(keys[places[within]] == wanted[within], sizes[places[within]], 0.0)
        return found

    def _play(self, messages: Messages) -> tuple[Played, list[pl.DataFrame]]:
        tidings = self.held.then(messages)
        everything, start = tidings.messages, self.held.messages.size
        self._make_room(everything)
        best, found = np.zeros((everything.size, 4)), []
        at = start
        while at < everything.size:
            at, self.rows = play(
                self.limits, self.buffer, self.warm_up, self.key[1] == "futures", self.state, self.book, at, self.rows,
                everything.kinds, everything.sequences, everything.times, everything.ids, everything.ends, everything.levels,
                tidings.fates, tidings.notes, best, *self.room,
            )  # fmt: skip
            if at < everything.size:
                found.append(self._read_off())
        return Played(tidings, start, best), found

    def finish(self) -> Rebuilt:
        """Quotes up to the end of the range, and what became of the differences still held."""
        found = []
        rows = -1 if self.state[NEXT_ROW] >= 0 else 0
        while rows < 0:
            rows = emit(self.limits, self.state, self.book, self.limits[3], self.rows, *self.room)
            self.rows = len(self.room[0]) if rows < 0 else rows
            found.append(self._read_off())
        return self._rebuilt(found, self.held, Messages.none(), None)

    def _read_off(self) -> pl.DataFrame:
        """The rows that the kernel has made, as a frame; its room is free again."""
        rows, self.rows = self.rows, 0
        return quote_rows(self.key, rows, *self.room)

    def _rebuilt(self, found: list[pl.DataFrame], gone: Tidings, new: Messages, trace: pl.DataFrame | None) -> Rebuilt:
        first, stop = self.limits[2:]
        rejected, self.told = rejected_differences(self.key, gone, first, stop, self.told)
        quotes = pl.concat(found) if found else pl.DataFrame(schema=QUOTE_SCHEMA)
        return Rebuilt(quotes, rejected, {**gone.counts(first, stop), **new.counts(first, stop)}, trace)

    def _make_room(self, messages: Messages) -> None:
        """A snapshot is replayed on top of differences that were applied before, hence twice the levels at hand."""
        for side in (0, 1):
            needed = int(self.state[BIDS + side]) + int(messages.ends[side, -1]) + 1
            if needed > self.book[2 * side].size:
                grown = [np.concatenate([a, np.empty(2 * needed - a.size)]) for a in self.book[2 * side : 2 * side + 2]]
                self.book = (*grown, *self.book[2:]) if side == 0 else (*self.book[:2], *grown)


def _by_book(frame: pl.DataFrame) -> Iterator[tuple[tuple, pl.DataFrame]]:
    if not frame.height:
        return
    first = frame.select(BOOK).row(0)
    if all((frame[name] == value).all() for name, value in zip(BOOK, first, strict=True)):
        yield first, frame  # as in most frames: parting it would copy it
    else:
        yield from frame.partition_by(*BOOK, maintain_order=True, as_dict=True).items()


def _us(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def _day(us: int) -> str:
    return f"{datetime.fromtimestamp(us / 1_000_000, UTC):%Y-%m-%d}"
