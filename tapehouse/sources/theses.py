"""Theses on stocks from XML files: a day's reasoning, the action it comes to, and what supports it.

    <stock-theses ticker="AAPL" generated-by="analyst-7" version="1">
      <thesis>
        <as-of-date>June 30, 2016</as-of-date>
        <reasoning>Services grow faster than phones shrink.</reasoning>
        <action>Strong Buy</action>
        <support>10-Q of April 2016, page 24</support>
      </thesis>
    </stock-theses>

Dates and actions are read as `tapehouse.sources.spellings` says. All four elements must be there, once each; only `support`
may be empty, and markup inside them is taken for its text. An element or attribute of another name makes the record
unusable, since what it means is not known, unless the declaration lists it under `ignore`. One broken record, or file,
takes no other along (`tapehouse.sources.xml_records`).

- A thesis is known at the end of its as-of date in New York, also where a time of day is given.
- **Identity.** `thesis_id` is a hash of ticker, as-of date, `generated-by`, `version` and the thesis's place among those of
  the same four, in the order of the files' names; a `<thesis id="…">` takes the place of the place. So a thesis that is
  corrected where it stands is a new version of the same thesis, known when it arrived here, since the file does not say
  when it was corrected. One whose as-of date, ticker, generator or version is changed is another thesis. Further theses of
  a day without ids belong behind those that are there: before them they would take their places. `origin`, the file, is no
  part of a thesis: one that is found in another file is the same version of it.
- A record that repeats another in all but layout, in the same file or in another, is a duplicate.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import polars as pl
from lxml import etree
from pydantic import Field, field_validator

from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.sources.base import Ask, Delivery, SourceDeclaration
from tapehouse.sources.spellings import NEW_YORK, DateOrder, Unreadable, read_action, read_date
from tapehouse.sources.xml_records import Record, XmlFile, read_records, summary

OFFERS = ("theses",)
TABLE = "raw.theses"
ROOT, RECORD = "stock-theses", "thesis"
FIELDS = ("as-of-date", "reasoning", "action", "support")
SCHEMA = {
    "thesis_id": pl.String,
    "symbol": pl.String,
    "as_of": pl.Date,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "action": pl.String,
    "reasoning": pl.String,
    "support": pl.String,
    "generated_by": pl.String,
    "version": pl.String,
    "origin": pl.String,
    "source": pl.String,
}
TIMES = dict.fromkeys(("event_at", "filed_at"), TIMESTAMP)
REJECT_SCHEMA = {name: TIMES.get(name, pl.String()) for name in REJECT_COLUMNS}


class Declaration(SourceDeclaration):
    """Keys of a source of theses.

    `files` is a folder, of which every `*.xml` at any depth is read, or a pattern such as `theses/2016-*.xml`; relative
    ones start at the folder of `sources.yaml`. `date_order` says what `06/05/2016` is; left out, such dates are refused.
    `actions` are spellings of an action beside the common ones. `ignore` lists elements and attributes of a thesis that
    are known and not wanted.
    """

    kind: Literal["theses"] = "theses"
    files: str
    date_order: DateOrder | None = None
    actions: dict[str, Literal["strong_sell", "sell", "hold", "buy", "strong_buy"]] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()

    @field_validator("files")
    @classmethod
    def _some(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("name a folder or a pattern of XML files")
        return value


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Theses with `ask.start` <= event_at < `ask.end`, and the records and files that cannot be used.

    What has no readable date, or one outside the span, is filed at the start of the span. Of `counts`, `files` are all
    files, `not_asked` the records of tickers that the feed does not list, and the rest is as `Delivery` says.
    """
    found = _received(declared, ask)
    start, end = found.between(ask.start, ask.end)
    filed, last = found.filed_between(ask.start, ask.end)
    rows = pl.DataFrame(found.rows[start:end], schema=SCHEMA, orient="row")
    rejected = pl.DataFrame(found.rejected[filed:last], schema=REJECT_SCHEMA, orient="row")
    return Delivery(rows, rejected, found.counts)


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """Hash of what `deliver` returns for the ask, its counts aside."""
    found = _received(declared, ask)
    if (ask.start, ask.end) not in found.hashes:  # asked for again each time that something else has been made
        parts = found.rows, *found.between(ask.start, ask.end)
        others = found.rejected, *found.filed_between(ask.start, ask.end)
        found.hashes[ask.start, ask.end] = text_hash(*(repr(row) for rows, a, z in (parts, others) for row in rows[a:z]))
    return found.hashes[ask.start, ask.end]


@dataclass(frozen=True)
class _Found:
    """All files' theses in the order of event_at, rejects in that of filed_at."""

    rows: list[tuple]
    rejected: list[tuple]
    counts: dict[str, int]
    hashes: dict[tuple[datetime, datetime], str] = field(default_factory=dict)

    def between(self, start: datetime, end: datetime) -> tuple[int, int]:
        return _slice(self.rows, list(SCHEMA).index("event_at"), start, end)

    def filed_between(self, start: datetime, end: datetime) -> tuple[int, int]:
        return _slice(self.rejected, REJECT_COLUMNS.index("filed_at"), start, end)


def _slice(rows: Sequence[tuple], at: int, start: datetime, end: datetime) -> tuple[int, int]:
    return bisect_left(rows, start, key=lambda row: row[at]), bisect_left(rows, end, key=lambda row: row[at])


@dataclass(frozen=True)
class _Read:
    """One record as read: `thesis` holds its fields where they could be read, `reason` why it cannot be used."""

    origin: str
    symbol: str | None
    as_of: date | None
    text: str
    reason: str | None
    thesis: dict[str, Any] = field(default_factory=dict)


def _received(declared: Declaration, ask: Ask) -> _Found:
    folder = ask.settings.universe.folder
    files = tuple((name, path, *_stamp(path)) for name, path in _files(declared.files, folder))
    span = ask.settings.universe.start, ask.settings.universe.end
    return _found(declared.model_dump_json(), ask.source, ask.symbols, span, files)


def _files(pattern: str, folder: Path) -> list[tuple[str, Path]]:
    """(name below the declared folder, path) of each file, in the order of the names."""
    whole = folder / pattern  # an absolute pattern stays what it is
    fixed = whole
    while any(sign in str(fixed) for sign in "*?["):
        fixed = fixed.parent
    if whole.is_file():
        return [(whole.name, whole)]
    if not fixed.is_dir():
        raise TapehouseError(f"sources.yaml: no folder {fixed} for the theses in {pattern!r}")
    found = fixed.glob(str(whole.relative_to(fixed)) if fixed != whole else "**/*.xml")
    return sorted((path.relative_to(fixed).as_posix(), path) for path in found if path.is_file())


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size


@lru_cache(maxsize=4)
def _found(
    declaration: str,
    source: str,
    asked: tuple[str, ...],
    span: tuple[datetime, datetime],
    files: tuple[tuple[str, Path, int, int, int], ...],
) -> _Found:
    """All files, read and settled. Cached per process by the files' times and sizes."""
    declared = Declaration.model_validate_json(declaration)
    wanted = {symbol.upper() for symbol in asked}
    reads = (read for name, path, *_ in files for read in _read_file(name, path.read_bytes(), declared))
    rows: list[tuple] = []
    rejected: list[tuple] = []
    counts = dict.fromkeys(("received", "accepted", "outside_span", "quarantined", "duplicates", "not_asked"), 0)
    for read, thesis_id, reason in _identified(reads):
        if wanted and read.symbol and read.symbol.upper() not in wanted:
            counts["not_asked"] += 1
            continue
        counts["received"] += 1
        known_at = _end_of(read.as_of) if read.as_of else None
        inside = known_at is not None and span[0] <= known_at < span[1]
        if reason:
            counts["quarantined"] += 1
            filed_at = known_at if inside else span[0]
            rejected.append((TABLE, source, read.origin, read.symbol, known_at, filed_at, reason, read.text))
        elif thesis_id is None:
            counts["duplicates"] += 1
        elif not inside:
            counts["outside_span"] += 1
        else:
            counts["accepted"] += 1
            row = {"thesis_id": thesis_id, "event_at": known_at, "known_at": known_at, "source": source, **read.thesis}
            rows.append(tuple(row[name] for name in SCHEMA))
    rows.sort(key=lambda row: (row[3], row[0]))
    rejected.sort(key=lambda row: row[5])
    return _Found(rows, rejected, {"files": len(files), **counts})


def _identified(reads: Iterable[_Read]) -> Iterator[tuple[_Read, str | None, str | None]]:
    """(record, thesis_id, reason) of each: with neither it is a duplicate.

    Records that cannot be used keep their place among those of their day, so that mending one moves no other.
    """
    places: dict[tuple, dict[tuple, int]] = {}
    named: dict[tuple, tuple] = {}
    for read in reads:
        if read.as_of is None or read.symbol is None:
            yield read, None, read.reason
            continue
        thesis, reason = read.thesis, read.reason
        group = (read.symbol.upper(), read.as_of.isoformat(), thesis["generated_by"] or "", thesis["version"] or "")
        content = (read.text,) if reason else (thesis["action"], thesis["reasoning"], thesis["support"])
        if (own := thesis["id"]) is None:
            taken = places.setdefault(group, {})
            repeats = content in taken
            identity = "place", str(taken.setdefault(content, len(taken)))
        else:
            identity = "id", own
            first = named.setdefault((*group, own), content) if reason is None else content
            repeats = first is not content and first == content
            if first != content:
                reason = f"another thesis of this day has the id {own!r}"
        yield read, None if repeats else text_hash(*group, *identity), reason


def _read_file(name: str, content: bytes, declared: Declaration) -> Iterator[_Read]:
    file: XmlFile = read_records(content, ROOT, RECORD)
    if file.fault is not None:
        yield _Read(f"{name}:1", None, None, json.dumps(summary(content), ensure_ascii=False), file.fault)
        return
    about = {name: value.strip() or None for name, value in file.attributes.items()}
    symbol = about.pop("ticker", None)
    header = {"generated_by": about.pop("generated-by", None), "version": about.pop("version", None)}
    faults = [f"unknown attribute {unknown!r} of <{ROOT}>" for unknown in about if unknown not in declared.ignore]
    if symbol is None:
        faults.append(f"<{ROOT}> has no ticker")
    for record in file.records:
        yield _read_record(name, record, declared, symbol, header, faults)


def _read_record(
    name: str, record: Record, declared: Declaration, symbol: str | None, header: dict[str, str | None], faults: Sequence[str]
) -> _Read:
    origin = f"{name}:{record.line}"
    text = json.dumps({"number": record.number, "xml": record.text}, ensure_ascii=False)
    if record.element is None:
        return _Read(origin, symbol, None, text, record.fault, {})
    found, own = _fields(record.element, declared)
    as_of, reasons = None, [*faults, *own]
    if "as-of-date" in found:
        try:
            as_of = read_date(found["as-of-date"], declared.date_order)
        except Unreadable as error:
            reasons.append(str(error))
    action = found.get("action")
    if action is not None:
        try:
            action = read_action(action, declared.actions)
        except Unreadable as error:
            reasons.append(str(error))
    if found.get("reasoning") == "":
        reasons.append("empty reasoning")
    thesis = {
        "symbol": symbol,
        "as_of": as_of,
        "action": action,
        "reasoning": found.get("reasoning"),
        "support": found.get("support") or None,
        **header,
        # Where it was found first. No part of what it says: a file may be renamed (`tapehouse.merging.PROVENANCE`).
        "origin": name,
        "id": (record.element.get("id") or "").strip() or None,
    }
    return _Read(origin, symbol, as_of, text, "; ".join(reasons) or None, thesis)


def _fields(element: etree._Element, declared: Declaration) -> tuple[dict[str, str], list[str]]:
    """Texts of the elements of a thesis, and what is wrong with how they are given."""
    found: dict[str, str] = {}
    faults: list[str] = []
    loose = [element.text, *(child.tail for child in element)]
    for child in element:
        name = etree.QName(child).localname
        if name in found:
            faults.append(f"<{name}> is given more than once")
        elif name in FIELDS:
            found[name] = "".join(child.itertext()).strip()
        elif name not in declared.ignore:
            faults.append(f"unknown element <{name}>; list it under `ignore` to leave it out")
    faults += [f"missing <{name}>" for name in FIELDS if name not in found]
    for attribute in (*(a for a in element.attrib if a != "id"), *(a for child in element for a in child.attrib)):
        name = etree.QName(attribute).localname
        if name not in declared.ignore:
            faults.append(f"unknown attribute {name!r}; list it under `ignore` to leave it out")
    if any(text and text.strip() for text in loose):
        faults.append(f"text outside the elements of <{RECORD}>")
    return found, faults


def _end_of(day: date) -> datetime:
    """Midnight in New York after a day, in UTC."""
    return datetime.combine(day + timedelta(days=1), time(), NEW_YORK).astimezone(UTC)
