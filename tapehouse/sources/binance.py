"""Binance's streams as recorded to files: book events and trades, known when they were received.

A line is `<receive time in ns> <message as JSON>` (`tapehouse.book_judge` says which messages there are), in gzip or plain
text. A file may hold the spot or the futures stream of one symbol or several, and any span of time: what belongs to a day
is what was received on it. The receiver's clock is not the exchange's (in recordings at hand it runs 1.3 s behind), so
`known_at` may lie before `event_at`.

A day costs the files that hold some of it; which those are is remembered by their content, in the warehouse's cache.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Literal

import polars as pl

from tapehouse.book_messages import BOOK_SCHEMA, EPOCH, REJECT_SCHEMA, TRADE_SCHEMA, Market
from tapehouse.calendars import TIMESTAMP
from tapehouse.codeversion import modules_version
from tapehouse.hashing import text_hash
from tapehouse.screening import settle
from tapehouse.sources.base import OFFERS as TABLES
from tapehouse.sources.base import Ask, Delivery, SourceDeclaration
from tapehouse.sources.located import locate_all

OFFERS = ("book", "trades")
SCHEMAS = {"book": BOOK_SCHEMA, "trades": TRADE_SCHEMA}
UNDATED = "None"


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

    Copies (a file that is there twice, a trade sent again on the same day) are counted as duplicates; of messages that
    cannot both be right, none is taken. `counts` are of every line, of the files read, that is of the asked offer.
    """
    from tapehouse.book_files import StreamReader

    table, schema = TABLES[ask.offer], SCHEMAS[ask.offer]
    found, rejected, quarantined, received, outside = [], [], 0, 0, 0
    inside = pl.col("known_at").is_between(ask.start, ask.end, closed="left")
    if ask.symbols:
        inside &= pl.col("symbol").is_in(ask.symbols)
    for path in _files(declared, ask):
        if not _concerns(_summary(declared, ask, path), ask):
            continue
        for batch in StreamReader(path, ask.source, declared.market, declared.holds).batches():
            rows = batch.book if ask.offer == "book" else batch.trades
            refused = _filed(batch.rejected.filter(table_name=table), ask)
            kept = rows.filter(inside)
            found.append(kept.with_columns(file=pl.lit(path.name)))
            rejected.append(refused)
            received += rows.height + refused.height
            outside += rows.height - kept.height
    rows = pl.concat(found) if found else pl.DataFrame(schema={**schema, "file": pl.String})
    settled, conflicting, duplicates = _settled(rows, ask.offer)
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
    """A hash of the lines received on the asked days, and of what else is filed on them; files are read once."""
    universe = ask.settings.universe
    said = []
    for path in _files(declared, ask):
        lines = _summary(declared, ask, path)
        days = [key for key in lines if key.isdigit() and _touches(key, ask.start, ask.end)]
        if ask.start <= universe.first_day < ask.end:
            dated = (key for key in lines if key.startswith("rejected "))
            days += [key for key in dated if not _touches(key.split()[1], universe.first_day, universe.last_day)]
        days += [key for key in lines if key.startswith("rejected ") and _touches(key.split()[1], ask.start, ask.end)]
        said += [f"{path.name} {key} {lines[key]}" for key in sorted(set(days))]
    return text_hash(declared.model_dump_json(), ask.offer, ask.source, *ask.symbols, *said)


def _files(declared: Declaration, ask: Ask) -> list[Path]:
    patterns = (declared.file,) if isinstance(declared.file, str) else declared.file
    found = [path for pattern in patterns for _, path in locate_all(pattern, ask.settings.home)]
    return list(dict.fromkeys(found))


def _touches(day: str, start: datetime, end: datetime) -> bool:
    if day == UNDATED:
        return False
    midnight = EPOCH + timedelta(days=int(day))
    return midnight < end and midnight + timedelta(days=1) > start


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


def _settled(rows: pl.DataFrame, offer: str) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Rows in order, those that contradict each other with their `reason`, and the number of copies."""
    # Only what shares a number with something else can be a copy or a contradiction: mostly nothing does.
    numbers = ("trade_id",) if offer == "trades" else ("received_ns", "sequence")
    shared = rows.select(pl.any_horizontal(pl.col(name).is_duplicated() for name in numbers)).to_series()
    accepted, rejected, copies = _parted(rows.filter(shared), offer)
    if shared.any():
        rows = pl.concat([rows.filter(~shared), accepted])
    order = ["symbol", "market", *(("trade_id", "known_at") if offer == "trades" else ("sequence",))]
    one_book = rows.height and rows["symbol"].n_unique() == rows["market"].n_unique() == 1
    if not (one_book and offer == "book" and rows["sequence"].is_sorted()):
        rows = rows.sort(order)
    return rows, rejected, copies


def _parted(rows: pl.DataFrame, offer: str) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """The same of the rows that share numbers, in no order."""
    numbered = rows.with_row_index("row").with_columns(reason=pl.lit(None, pl.String), day=pl.col("known_at").dt.date())
    if offer == "trades":
        key, content = ("symbol", "market", "trade_id", "day"), ("event_at", "price", "size", "side")
        settled = settle(numbered, key, content, "conflicting records for one trade")
        return settled.accepted.select(rows.columns), settled.rejected, settled.duplicates
    levels = [name for name in BOOK_SCHEMA if name.endswith(("prices", "sizes"))]
    key, content = ("symbol", "market", "kind", "received_ns", "last_id"), ("event_at", "first_id", "previous_id", *levels)
    first = settle(numbered, key, content, "conflicting records for one message")
    # Two files recorded side by side may hold different messages of one nanosecond: their order cannot be told.
    key, content = ("symbol", "market", "sequence"), ("kind", "last_id")
    second = settle(first.accepted, key, content, "received in the same nanosecond as another message")
    rejected = pl.concat([first.rejected, second.rejected])
    return second.accepted.select(rows.columns), rejected, first.duplicates + second.duplicates


def _conflicts(rows: pl.DataFrame, table: str) -> pl.DataFrame:
    received = [name for name in rows.columns if name not in ("row", "reason", "day", "file", "source")]
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
    """Day (since 1970) -> hash of its lines, and 'rejected DAY' -> of what was rejected of it."""
    stat = path.stat()
    content = _content(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    holds = None if declared.holds is None else tuple(sorted(declared.holds.items()))
    return _summarised(_Where(path, content, declared.market, holds, ask.settings.root / "cache" / ask.source))


@lru_cache(maxsize=4096)
def _summarised(where: _Where) -> dict[str, str]:
    name = text_hash(where.content, str(where.market), str(where.holds), _reading())
    cached = where.cache / f"{name}.json"
    if cached.is_file():
        return json.loads(cached.read_text())
    from tapehouse.book_files import StreamReader

    digests: dict = {}
    holds = None if where.holds is None else dict(where.holds)
    for _ in StreamReader(where.path, "", where.market, holds, digests=digests).batches():
        pass
    summary = {key: digest.hexdigest() for key, digest in digests.items()}
    cached.parent.mkdir(parents=True, exist_ok=True)
    partial = cached.with_suffix(".partial")
    partial.write_text(json.dumps(summary, sort_keys=True))
    partial.replace(cached)
    return summary


@lru_cache(maxsize=1)
def _reading() -> str:
    return modules_version(("tapehouse.book_files",))


@lru_cache(maxsize=4096)
def _content(path: Path, *stat: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
