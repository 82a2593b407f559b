"""Binance's streams as recorded to files: book events and trades, known when they were received.

A line is `<receive time in ns> <message as JSON>` (`tapehouse.book_judge` says which messages there are), in gzip or plain
text. A file may hold the spot or the futures stream of one symbol or several, and any span of time: what belongs to a day
is what was received on it. The receiver's clock is not the exchange's (in recordings at hand it runs 1.3 s behind), so
`known_at` may lie before `event_at`.

A trade is known from its first receipt on, whatever file holds that: sent again, or recorded twice, it is the same trade.

A day costs the files that hold some of it, and for trades those of earlier days that hold some of its trade ids; which
those are is remembered by their content, in the warehouse's cache.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal

import polars as pl

from tapehouse.book_messages import BOOK_SCHEMA, EPOCH, REJECT_SCHEMA, TRADE_SCHEMA, Market
from tapehouse.calendars import TIMESTAMP
from tapehouse.codeversion import modules_version
from tapehouse.files import replace_file
from tapehouse.hashing import text_hash
from tapehouse.screening import settle
from tapehouse.sources.base import OFFERS as TABLES
from tapehouse.sources.base import Ask, Delivery, SourceDeclaration
from tapehouse.sources.located import locate_all

OFFERS = ("book", "trades")
SCHEMAS = {"book": BOOK_SCHEMA, "trades": TRADE_SCHEMA}
UNDATED = "None"
TRADE_IDS = "trades "  # begins what a summary says of the ids of one book's trades


class Declaration(SourceDeclaration):
    """Files of a recorded stream.

    `file` is a path or a pattern (`book/*.gz`), or several of them, from the folder of `sources.yaml`. `market` is the only
    market whose messages are taken; left out, each message says of which it is. `holds` maps the exchange's symbols to
    ours, and no others are taken; left out, every symbol is taken as it is. Spot and futures streams of one symbol are two
    books in any case: they are two sources where ours have symbols of their own.
    """

    kind: Literal["binance"]
    file: str | tuple[str, ...]
    market: Market | None = None
    holds: dict[str, str] | None = None

    @property
    def symbols(self) -> tuple[str, ...] | None:
        """Our symbols, where they are declared."""
        return None if self.holds is None else tuple(dict.fromkeys(self.holds.values()))


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Messages received in the asked range, by symbol and in the order of arrival.

    Copies (a file that is there twice, a trade that was received before, be it on an earlier day) are counted as
    duplicates; of messages that cannot both be right, none is taken, save a trade that only a later day contradicts.
    `counts` are of every line, of the files read, that is of the asked offer.
    """
    from tapehouse.book_files import StreamReader

    table, schema = TABLES[ask.offer], SCHEMAS[ask.offer]
    found, rejected, quarantined, received, outside = [], [], 0, 0, 0
    inside = pl.col("known_at").is_between(ask.start, ask.end, closed="left")
    summaries = {path: _summary(declared, ask, path) for path in _files(declared, ask)}
    before = _days_before(summaries.values(), ask) if ask.offer == "trades" else set()
    wanted = pl.any_horizontal(inside, *(pl.col("known_at").dt.truncate("1d") == _midnight(day) for day in sorted(before)))
    if ask.symbols:
        inside &= pl.col("symbol").is_in(ask.symbols)
        wanted &= pl.col("symbol").is_in(ask.symbols)
    for path, lines in summaries.items():
        if not (_concerns(lines, ask) or before & set(lines)):
            continue
        for batch in StreamReader(path, ask.source, declared.market, declared.holds).batches():
            rows = batch.book if ask.offer == "book" else batch.trades
            refused = _filed(batch.rejected.filter(table_name=table), ask)
            found.append(rows.filter(wanted).with_columns(file=pl.lit(path.name)))
            rejected.append(refused)
            received += rows.height + refused.height
            outside += rows.height - rows.select(inside.sum()).item()
    rows = pl.concat(found) if found else pl.DataFrame(schema={**schema, "file": pl.String})
    settled, conflicting, duplicates = _settled(rows, ask.offer, inside)
    refused = pl.concat([*rejected, _filed(_conflicts(conflicting, table), ask)])
    quarantined = refused.height
    counts = {
        "received": received,
        "accepted": settled.height,
        "outside_span": outside,
        "quarantined": quarantined,
        "duplicates": duplicates,
    }
    asked = refused.filter(pl.col("filed_at").is_between(ask.start, ask.end, closed="left"))
    return Delivery(settled.select(list(schema)), asked, counts)


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """A hash of the lines received on the asked days, and of what else is filed on them; files are read once.

    Of trades, also of the lines of earlier days among which some of the asked trades may be.
    """
    universe = ask.settings.universe
    summaries = {path: _summary(declared, ask, path) for path in _files(declared, ask)}
    before = _days_before(summaries.values(), ask) if ask.offer == "trades" else set()
    said = []
    for path, lines in summaries.items():
        days = [key for key in lines if key.isdigit() and _touches(key, ask.start, ask.end)]
        if ask.start <= universe.first_day < ask.end:
            dated = (key for key in lines if key.startswith("rejected "))
            days += [key for key in dated if not _touches(key.split()[1], universe.first_day, universe.last_day)]
        days += [key for key in lines if key.startswith("rejected ") and _touches(key.split()[1], ask.start, ask.end)]
        days += before & set(lines)
        said += [f"{path.name} {key} {lines[key]}" for key in sorted(set(days))]
    return text_hash(declared.model_dump_json(), ask.offer, ask.source, *ask.symbols, *said)


def _days_before(summaries: Iterable[dict[str, str]], ask: Ask) -> set[str]:
    """Days before the asked ones on which some of the asked trades may have been received already, by their ids.

    Ids ascend, so that mostly there is none, or the day before.
    """
    asked: dict[str, list[tuple[int, int]]] = {}
    earlier = []
    for lines in summaries:
        for key, text in lines.items():
            if not key.startswith(TRADE_IDS):
                continue
            book, _, day = key.rpartition(" ")
            low, high = map(int, text.split())
            if _touches(day, ask.start, ask.end):
                asked.setdefault(book, []).append((low, high))
            elif _midnight(day) < ask.start:
                earlier.append((book, day, low, high))
    return {
        day for book, day, low, high in earlier if any(low <= last and high >= first for first, last in asked.get(book, ()))
    }


def _files(declared: Declaration, ask: Ask) -> list[Path]:
    patterns = (declared.file,) if isinstance(declared.file, str) else declared.file
    found = [path for pattern in patterns for _, path in locate_all(pattern, ask.settings.home)]
    return list(dict.fromkeys(found))


def _touches(day: str, start: datetime, end: datetime) -> bool:
    if day == UNDATED:
        return False
    midnight = _midnight(day)
    return midnight < end and midnight + timedelta(days=1) > start


def _midnight(day: str) -> datetime:
    return EPOCH + timedelta(days=int(day))


def _concerns(lines: dict[str, str], ask: Ask) -> bool:
    """Whether a file holds something that was received in the range, or that is filed in it for want of a date."""
    if any(_touches(key.split()[-1], ask.start, ask.end) for key in lines):
        return True
    first = ask.settings.universe.first_day
    return ask.start <= first < ask.end and any(key.startswith("rejected ") for key in lines)


def _filed(rejected: pl.DataFrame, ask: Ask) -> pl.DataFrame:
    """Filed on the day of its receipt, or where that lies outside the tables' days, or is not known, on the first of them."""
    universe = ask.settings.universe
    within = pl.col("filed_at").is_between(universe.first_day, universe.last_day, closed="left")
    first = pl.lit(universe.first_day).cast(TIMESTAMP)
    return rejected.with_columns(filed_at=pl.when(within).then("filed_at").otherwise(first))


def _settled(rows: pl.DataFrame, offer: str, inside: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Rows inside in order, those that contradict another with their `reason`, and the number of copies.

    Rows that are not `inside` are earlier receipts of trades, or may be.
    """
    # Only what shares a number with something else can be a copy or a contradiction: mostly nothing does.
    numbers = ("trade_id",) if offer == "trades" else ("received_ns", "sequence")
    shared = rows.select(pl.any_horizontal(pl.col(name).is_duplicated() for name in numbers)).to_series()
    accepted, rejected, copies = _parted(rows.filter(shared), offer, inside)
    if shared.any():
        rows = pl.concat([rows.filter(~shared), accepted])
    if offer == "trades":
        rows = rows.filter(inside)
    order = ["symbol", "market", *(("trade_id", "known_at") if offer == "trades" else ("sequence",))]
    one_book = rows.height and rows["symbol"].n_unique() == rows["market"].n_unique() == 1
    if not (one_book and offer == "book" and rows["sequence"].is_sorted()):
        rows = rows.sort(order)
    return rows, rejected, copies


def _parted(rows: pl.DataFrame, offer: str, inside: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """The same of the rows that share numbers, in no order."""
    if offer == "trades":
        return _parted_trades(rows, inside)
    numbered = rows.with_row_index("row").with_columns(reason=pl.lit(None, pl.String))
    levels = [name for name in BOOK_SCHEMA if name.endswith(("prices", "sizes"))]
    key, content = ("symbol", "market", "kind", "received_ns", "last_id"), ("event_at", "first_id", "previous_id", *levels)
    first = settle(numbered, key, content, "conflicting records for one message")
    # Two files recorded side by side may hold different messages of one nanosecond: their order cannot be told.
    key, content = ("symbol", "market", "sequence"), ("kind", "last_id")
    second = settle(first.accepted, key, content, "received in the same nanosecond as another message")
    rejected = pl.concat([first.rejected, second.rejected])
    return second.accepted.select(rows.columns), rejected, first.duplicates + second.duplicates


def _parted_trades(rows: pl.DataFrame, inside: pl.Expr) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """A trade is its first receipt. Each day is judged with those before it alone: none that is past changes its rows."""
    key, content = ("symbol", "market", "trade_id"), ("event_at", "price", "size", "side")
    received = rows.sort("received_ns", maintain_order=True).with_columns(day=pl.col("known_at").dt.date())
    told = received.with_columns(
        first=pl.struct(key).is_first_distinct(),
        differs=pl.any_horizontal(pl.col(name) != pl.col(name).first().over(key) for name in content),
    )
    contradicted = pl.col("day") >= pl.col("day").filter(pl.col("differs")).min().over(key)
    told = told.with_columns(contradicted=contradicted.fill_null(False)).filter(inside)
    good, bad = told.filter(~pl.col("contradicted")), told.filter("contradicted")
    accepted = good.filter("first").select(rows.columns)
    reason = pl.lit("conflicting records for one trade")
    return accepted, bad.select(*rows.columns, reason=reason), good.height - accepted.height


def _conflicts(rows: pl.DataFrame, table: str) -> pl.DataFrame:
    received = [name for name in rows.columns if name not in ("row", "reason", "file", "source")]
    texts = [json.dumps(row, default=str, sort_keys=True) for row in rows.select(received).iter_rows(named=True)]
    return rows.select(
        table_name=pl.lit(table),
        source="source",
        origin=pl.format("{}: received at {} ns", "file", "received_ns"),
        symbol="symbol",
        event_at="known_at",
        filed_at="known_at",
        reason="reason",
        record=pl.Series(texts, dtype=pl.String),
    ).cast(REJECT_SCHEMA)


@dataclass(frozen=True)
class _Where:
    """What the summary of a file depends on."""

    path: Path
    content: str
    market: str | None
    holds: tuple[tuple[str, str], ...] | None
    cache: Path


def _summary(declared: Declaration, ask: Ask, path: Path) -> dict[str, str]:
    """Day (since 1970) -> hash of its lines, 'rejected DAY' -> of what was rejected of it, 'trades SYMBOL MARKET DAY' -> the
    lowest and the highest trade id."""
    stat = path.stat()
    content = _content(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    holds = None if declared.holds is None else tuple(sorted(declared.holds.items()))
    return _summarised(_Where(path, content, declared.market, holds, ask.settings.root / "cache" / ask.source))


@lru_cache(maxsize=4096)
def _summarised(where: _Where) -> dict[str, str]:
    name = text_hash(where.content, str(where.market), str(where.holds), _reading())
    cached = where.cache / f"{name}.json"
    if (held := _held(cached)) is not None:
        return held
    from tapehouse.book_files import StreamReader

    digests: dict = {}
    holds = None if where.holds is None else dict(where.holds)
    reader = StreamReader(where.path, "", where.market, holds, digests=digests)
    for _ in reader.batches():
        pass
    summary = {key: digest.hexdigest() for key, digest in digests.items()}
    summary |= {f"{TRADE_IDS}{book}": f"{low} {high}" for book, (low, high) in reader.trade_ids.items()}
    replace_file(cached, json.dumps(summary, sort_keys=True).encode())
    return summary


def _held(cached: Path) -> dict[str, str] | None:
    """A summary in the cache; None where there is none, or where it is damaged: it is made again."""
    try:
        summary = json.loads(cached.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    whole = isinstance(summary, dict) and all(isinstance(text, str) for text in summary.values())
    return summary if whole else None


@lru_cache(maxsize=1)
def _reading() -> str:
    return modules_version(("tapehouse.book_files",))


@lru_cache(maxsize=4096)
def _content(path: Path, *stat: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
