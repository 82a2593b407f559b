"""Recorded streams from files, line by line, without holding more than a few MiB of them: gzip or plain.

Every line is a message of the book, a trade, or a record that says why it is neither. A file that is cut off or damaged
gives what came before, and a record of the rest.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from tapehouse.book_inflate import inflate
from tapehouse.book_judge import MARKET_NAMES, Fault, Message, judge
from tapehouse.book_messages import (
    BOOK_SCHEMA,
    KINDS,
    REJECT_SCHEMA,
    SNAPSHOT,
    TRADE,
    TRADE_SCHEMA,
    arrival_order,
    known_at_us,
    lists,
)
from tapehouse.book_scan import (
    AT,
    EVENT,
    FIELDS,
    FIRST,
    KIND,
    LAST,
    LONGEST_SYMBOL,
    MARKET,
    PADDING,
    PREVIOUS,
    RECEIVED,
    SOLD,
    SYMBOL,
    scan,
)
from tapehouse.calendars import TIMESTAMP

CHUNK = 1 << 22  # text scanned at once
LONGEST_LINE = 1 << 24
TOO_LONG = "a line without end: {} more bytes of it are not kept"
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Batch:
    """What some lines gave: `lines` = `book.height` + `trades.height` + `rejected.height`.

    Attributes:
        book, trades: rows of `raw.book_events` and `raw.trades` less `ingested_at`, in the order of arrival.
        rejected: as `tapehouse.ingest.REJECT_COLUMNS`; `filed_at` is the receive time, null where there is none.
    """

    lines: int
    book: pl.DataFrame
    trades: pl.DataFrame
    rejected: pl.DataFrame


@dataclass
class StreamReader:
    """Reads one file.

    Attributes:
        path: of the file. source: written to every row.
        market: 'spot' or 'futures', the only market that is taken; None: each message says its own.
        symbols: the exchange's symbol -> ours; None takes every symbol as it is written. A snapshot names no symbol: it is
            of the only one declared, or else of the only one seen in the file before it.
        chunk: bytes of text scanned at once.
    """

    path: Path
    source: str
    market: str | None = None
    symbols: Mapping[str, str] | None = None
    chunk: int = CHUNK
    line: int = 0  # lines read so far
    sequence: int = 0  # of the last message
    last_received: int | None = None
    digests: dict | None = None  # to be filled: day -> SHA-256 of its messages; "rejected DAY" -> of what was rejected of it
    trade_ids: dict = field(default_factory=dict)  # beside it: "SYMBOL MARKET DAY" -> the lowest and the highest trade id
    table: np.ndarray = field(default_factory=lambda: np.zeros((0, 1 + LONGEST_SYMBOL), np.uint8))
    names: list[str] = field(default_factory=list)

    def batches(self) -> Iterator[Batch]:
        """All lines of the file, in order."""
        rest, damage, endless, dropped = b"", "", b"", 0
        for block in inflate(self.path, self.chunk):
            if isinstance(block, str):
                damage = block
                break
            if endless:  # the line is too long to be held: keep its beginning, and look for its end
                end = block.find(b"\n") + 1
                dropped += end or len(block)
                if not end:
                    continue
                yield self._one_fault(endless, TOO_LONG.format(dropped - 1))
                block, endless = block[end:], b""
            text = rest + block
            end = text.rfind(b"\n") + 1
            rest = text[end:]
            if end:
                yield self._scan(text[:end])
            if len(rest) > LONGEST_LINE:
                rest, endless, dropped = b"", rest[:LONGEST_LINE], len(rest) - LONGEST_LINE
        if endless:
            yield self._one_fault(endless, TOO_LONG.format(dropped))
        if rest and not damage:
            yield self._scan(rest + b"\n")
        if damage:
            yield self._one_fault(rest, damage)

    def _one_fault(self, text: bytes, reason: str) -> Batch:
        """A record that says no time itself: it is dated by the line before."""
        faults = [(self.line + 1, text, Fault(reason, received_ns=self.last_received))]
        self._digest_faults(faults)
        return self._batch(1, _Room(0, 0), faults)

    def _scan(self, text: bytes) -> Batch:
        rows = text.count(b"\n")
        room, faults, gaps = _Room(rows, len(text)), [], []
        data = np.frombuffer(text + PADDING, np.uint8)
        market = -1 if self.market is None else MARKET_NAMES.index(self.market)
        at = 0
        while at < len(text):
            at, room.rows = scan(
                data, at, len(text), market, self.table, room.heads, room.ends, room.levels, room.singles, room.rows
            )
            if at < len(text):
                end = text.index(b"\n", at)
                line = text[at:end].removesuffix(b"\r")
                verdict = self._settled(judge(line, None if market < 0 else market))
                if isinstance(verdict, Fault):
                    faults.append((self.line + room.rows + len(faults) + 1, line, verdict))
                    gaps.append((at, end + 1))
                else:
                    room.put(verdict, self._known(verdict.symbol), at)
                at = end + 1
        if self.digests is not None:
            self._digest(text, room.heads[: room.rows], gaps)
        self._digest_faults(faults)
        return self._batch(rows, room, faults)

    def _digest(self, text: bytes, heads: np.ndarray, gaps: list[tuple[int, int]]) -> None:
        """Add each line to the hash of its day, but those that cannot be used, which lie at `gaps`."""
        starts = heads[:, AT]
        if gaps:
            edges = [0, *(edge for gap in gaps for edge in gap), len(text)]
            text = b"".join(text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2))
            dropped = np.cumsum([0, *(end - start for start, end in gaps)])
            starts = starts - dropped[np.searchsorted([start for start, _ in gaps], starts)]
        days = known_at_us(heads[:, RECEIVED]) // DAY_US
        turns = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist()] if days.size else []
        for turn, end in zip(turns, [*turns[1:], days.size][: len(turns)], strict=True):
            self._update(days[turn], text[starts[turn] : starts[end] if end < days.size else len(text)])
        self._span_trades(heads[heads[:, KIND] == TRADE])

    def _digest_faults(self, faults: list[tuple[int, bytes, Fault]]) -> None:
        for line, record, fault in faults if self.digests is not None else ():
            known = None if fault.received_ns is None else -(-fault.received_ns // 1000) // DAY_US
            self._update(f"rejected {known}", f"{line}:{fault.reason}:".encode() + record)

    def _span_trades(self, heads: np.ndarray) -> None:
        """Widen the spans of trade ids by (n, FIELDS) trades."""
        days, books = known_at_us(heads[:, RECEIVED]) // DAY_US, len(self.names) * len(MARKET_NAMES)
        places = (days * len(self.names) + heads[:, SYMBOL]) * len(MARKET_NAMES) + heads[:, MARKET]
        for place in np.unique(places).tolist():
            ids, (symbol, market) = heads[places == place, LAST], divmod(place % books, len(MARKET_NAMES))
            name = self.names[symbol] if self.symbols is None else self.symbols[self.names[symbol]]
            book = f"{name} {MARKET_NAMES[market]} {place // books}"
            low, high = self.trade_ids.get(book, (int(ids[0]), int(ids[0])))
            self.trade_ids[book] = (min(low, int(ids.min())), max(high, int(ids.max())))

    def _update(self, key: object, text: bytes) -> None:
        self.digests.setdefault(str(key), hashlib.sha256()).update(text)

    def _settled(self, verdict: Message | Fault) -> Message | Fault:
        """The message with its symbol, where that is one of those that are taken."""
        if isinstance(verdict, Fault):
            return verdict
        symbol = verdict.symbol
        if symbol is None:
            of = list(self.symbols) if self.symbols is not None and len(self.symbols) == 1 else self.names
            if len(of) != 1:
                why = "no message before it does" if not of else f"the file holds {', '.join(sorted(of))}"
                return Fault(f"a snapshot names no symbol, and {why}", SNAPSHOT, None, verdict.received_ns)
            symbol = of[0]
        if self.symbols is not None and symbol not in self.symbols:
            return Fault("unknown symbol", verdict.kind, symbol, verdict.received_ns)
        if len(symbol.encode()) > LONGEST_SYMBOL or not symbol.isascii():
            return Fault("s is no symbol", verdict.kind, symbol, verdict.received_ns)
        return Message(**{name: getattr(verdict, name) for name in Message.__slots__} | {"symbol": symbol})

    def _known(self, symbol: str) -> int:
        if symbol not in self.names:
            row = np.zeros((1, 1 + LONGEST_SYMBOL), np.uint8)
            row[0, 0] = len(symbol)
            row[0, 1 : 1 + len(symbol)] = np.frombuffer(symbol.encode(), np.uint8)
            self.table, self.names = np.concatenate([self.table, row]), [*self.names, symbol]
        return self.names.index(symbol)

    def _batch(self, lines: int, room: "_Room", faults: list[tuple[int, bytes, Fault]]) -> Batch:
        self.line += lines
        heads = room.heads[: room.rows]
        sequences = arrival_order(heads[:, RECEIVED], self.sequence)
        if room.rows:
            self.sequence, self.last_received = int(sequences[-1]), int(heads[-1, RECEIVED])
        ours = [self.symbols[name] if self.symbols is not None else name for name in self.names]
        book, trades = room.frames(sequences, ours, self.source)
        return Batch(lines, book, trades, self._rejected(faults))

    def _rejected(self, faults: list[tuple[int, bytes, Fault]]) -> pl.DataFrame:
        rows = []
        for line, text, fault in faults:
            known = None if fault.received_ns is None else -(-fault.received_ns // 1000)
            rows.append(
                {
                    "table_name": "raw.trades" if fault.kind == TRADE else "raw.book_events",
                    "source": self.source,
                    "origin": f"{self.path.name}:{line}",
                    "symbol": fault.symbol,
                    "event_at": known,
                    "filed_at": known,
                    "reason": fault.reason,
                    "record": json.dumps({"line": text.decode("utf-8", "backslashreplace")}, ensure_ascii=False),
                }
            )
        return pl.DataFrame(rows, schema={**REJECT_SCHEMA, "event_at": pl.Int64, "filed_at": pl.Int64}).cast(REJECT_SCHEMA)


class _Room:
    """Arrays that the scanner fills: at most one row a line, and one level for every ten bytes beside the tickers'."""

    def __init__(self, lines: int, size: int):
        self.heads = np.empty((lines, FIELDS), np.int64)
        self.ends = np.zeros((lines + 1, 2), np.int64)
        self.levels = tuple(np.empty(size // 10 + lines + 2) for _ in range(4))
        self.singles = np.empty((lines, 2))
        self.rows = 0

    def put(self, message: Message, symbol: int, at: int) -> None:
        """Write a judged message behind the rows that are there."""
        n, head = self.rows, self.heads[self.rows]
        head[[KIND, MARKET, SYMBOL, RECEIVED]] = message.kind, message.market, symbol, message.received_ns
        head[[EVENT, FIRST, LAST]] = message.event_ms, message.first_id, message.last_id
        head[[PREVIOUS, SOLD, AT]] = message.previous_id, message.sold, at
        self.ends[n + 1] = self.ends[n]
        if message.kind == TRADE:
            self.singles[n] = message.bids[0]
        else:
            for side, found in enumerate((message.bids, message.asks)):
                start = self.ends[n, side]
                pairs = np.array(found, np.float64).reshape(-1, 2)
                self.levels[2 * side][start : start + len(found)] = pairs[:, 0]
                self.levels[2 * side + 1][start : start + len(found)] = pairs[:, 1]
                self.ends[n + 1, side] += len(found)
        self.rows += 1

    def frames(self, sequences: np.ndarray, names: list[str], source: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The rows as book events and trades."""
        heads = self.heads[: self.rows]
        known = known_at_us(heads[:, RECEIVED])
        common = pl.DataFrame(
            {
                "symbol": _named(names, heads[:, SYMBOL]),
                "market": _named(list(MARKET_NAMES), heads[:, MARKET]),
                "event_at": pl.Series(np.where(heads[:, EVENT] < 0, known, heads[:, EVENT] * 1000)).cast(TIMESTAMP),
                "known_at": pl.Series(known).cast(TIMESTAMP),
                "received_ns": heads[:, RECEIVED],
            }
        ).with_columns(source=pl.lit(source))
        trade = heads[:, KIND] == TRADE
        event = ~trade
        ids = {"first_id": FIRST, "last_id": LAST, "previous_id": PREVIOUS}
        sides = {}
        for side, name in enumerate(("bid", "ask")):
            ends = self.ends[1 : self.rows + 1, side]
            held = ends[-1] if self.rows else 0  # copied, so that what is kept of it does not keep the whole room
            sides |= {
                f"{name}_{what}": lists(self.levels[2 * side + c][:held].copy(), ends[event])
                for c, what in enumerate(("prices", "sizes"))
            }
        book = common.filter(pl.Series(event)).with_columns(
            kind=_named(list(KINDS), heads[event, KIND]),
            sequence=pl.Series(sequences[event]),
            **{name: _or_null(heads[event, column]) for name, column in ids.items()},
            **sides,
        )
        trades = common.filter(pl.Series(trade)).with_columns(
            trade_id=pl.Series(heads[trade, LAST]),
            price=pl.Series(self.singles[: self.rows][trade, 0]),
            size=pl.Series(self.singles[: self.rows][trade, 1]),
            side=_named(["buy", "sell"], heads[trade, SOLD]),
        )
        return book.select(list(BOOK_SCHEMA)), trades.select(list(TRADE_SCHEMA))


def _named(names: list[str], codes: np.ndarray) -> pl.Series:
    return pl.Series(names, dtype=pl.String).gather(codes)


def _or_null(values: np.ndarray) -> pl.Series:
    return pl.select(pl.when(pl.Series(values) >= 0).then(pl.Series(values))).to_series()
