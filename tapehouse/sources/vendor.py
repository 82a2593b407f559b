"""What sources behind HTTP share: the keys of their declarations, the years of a range, and the judging of records."""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import Field

from tapehouse.answers import Answer
from tapehouse.hashing import frame_hash, text_hash
from tapehouse.screening import REJECT_COLUMNS
from tapehouse.sources.base import Ask, Delivery, Missing, SourceDeclaration


class Vendor(SourceDeclaration):
    """Keys that every source behind HTTP has in `sources.yaml`.

    Attributes:
        base_url: where the vendor's API starts.
        requests_per_second: the pace, over all processes that share the warehouse folder.
        timeout_s: how long to wait for a connection, and for each further piece of an answer.
        deadline_s: how long a whole answer may take.
        attempts: how often one request is sent at most.
        backoff_s: pause before the second attempt; it doubles each time, up to a minute, with as much jitter again.
        longest_wait_s: a vendor that asks for a longer pause (`Retry-After`) is given up on.
        refresh_hours: an answer for a range that was not over when it came may be asked for again after so long.
        settle_hours: a range counts as over so long after its end, since vendors publish a day late.
        recheck_days: an answer for a range that was over is asked for again after so long; never where left out.
        failure_minutes: a request that failed is not sent again by this process for so long.
        give_up_after: so many requests failing in a row, and the vendor is left alone for `failure_minutes`.
        user_agent: the name that requests carry.
        tickers: the vendor's own names of symbols, where they differ.
    """

    base_url: str
    requests_per_second: float = Field(default=5.0, gt=0)
    timeout_s: float = Field(default=30.0, gt=0)
    deadline_s: float = Field(default=300.0, gt=0)
    attempts: int = Field(default=5, ge=1)
    backoff_s: float = Field(default=0.5, ge=0)
    longest_wait_s: float = Field(default=120.0, ge=0)
    refresh_hours: float = Field(default=12.0, ge=0)
    settle_hours: float = Field(default=24.0, ge=0)
    recheck_days: float | None = Field(default=None, ge=0)
    failure_minutes: float = Field(default=5.0, ge=0)
    give_up_after: int = Field(default=5, ge=1)
    user_agent: str = "tapehouse"
    tickers: dict[str, str] = Field(default_factory=dict)

NEW_YORK = ZoneInfo("America/New_York")


def midnight_after(day: date, zone: ZoneInfo = NEW_YORK) -> datetime:
    """The end of a day in a time zone, UTC: what is dated so is known by then, whatever its hour."""
    return datetime.combine(day + timedelta(days=1), time(), zone).astimezone(UTC)


def year_bounds(year: int) -> tuple[datetime, datetime]:
    """A calendar year, UTC: its first instant and the first after it."""
    return datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC)


def missing(ask: Ask, symbol: str, start: datetime, end: datetime, why: object) -> Missing:
    """A failed request for [start, end), as far as it was asked for; what is not found is an unknown symbol."""
    unknown = "unknown symbol: " if getattr(why, "status", None) == 404 else ""
    return Missing(symbol, max(ask.start, start), min(ask.end, end), f"{unknown}{why}")


def stale_gap(ask: Ask, symbol: str, answer: Answer, end: datetime) -> list[Missing]:
    """What an answer lacks that should have been asked for again and could not be: the time since it came, if it is to
    cover that at all."""
    gap = missing(ask, symbol, answer.fetched_at, end, answer.stale)
    return [gap] if answer.stale and gap.start < gap.end else []


class Reading:
    """One record being read, field by field; every fault that is found is kept, so that the reason names them all."""

    def __init__(self, record: object) -> None:
        self.record = record if isinstance(record, Mapping) else {}
        self.faults = [] if isinstance(record, Mapping) else [f"a record is a mapping, this is {type(record).__name__}"]

    def parsed(self, name: str, kind: str, parse: Callable, required: bool = True):
        """What `parse` makes of a field; a fault where it raises, or where a required one is absent or empty."""
        value = self.record.get(name)
        if value is None or value == "":
            if required and not (self.faults and not self.record):
                self.faults.append(f"missing {name}")
            return None
        try:
            return parse(value)
        except (TypeError, ValueError, OverflowError, ZeroDivisionError, AttributeError, LookupError):
            self.faults.append(f"{name} is no {kind}: {str(value)[:40]!r}")
            return None

    def text(self, name: str, required: bool = True) -> str | None:
        """A text that is not empty."""
        return self.parsed(name, "text", _text, required)

    def number(self, name: str, required: bool = True) -> float | None:
        """A finite number, given as a number or as its text."""
        return self.parsed(name, "number", _number, required)

    def whole(self, name: str, required: bool = True) -> int | None:
        """A whole number."""
        return self.parsed(name, "whole number", _whole, required)

    def day(self, name: str, required: bool = True) -> date | None:
        """A date as YYYY-MM-DD."""
        return self.parsed(name, "date", _day, required)

    def instant(self, name: str, required: bool = True) -> datetime | None:
        """An ISO 8601 time with its offset, in UTC."""
        return self.parsed(name, "time with an offset", _instant, required)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value.strip()


def _number(value: object) -> float:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _whole(value: object) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _day(value: object) -> date:
    if not isinstance(value, str):
        raise TypeError
    day = datetime.strptime(value.strip(), "%Y-%m-%d").date()
    if day.year == date.max.year:
        raise ValueError("its end cannot be told")
    return day


def _instant(value: object) -> datetime:
    if not isinstance(value, str):
        raise TypeError
    stamp = datetime.fromisoformat(value.strip())
    if stamp.tzinfo is None:
        raise ValueError
    return stamp.astimezone(UTC)


@dataclass
class Judged:
    """What became of the records of whole answers, before the asked range is cut out of them.

    Attributes:
        table: the raw table they are meant for.
        source: the source's name.
        key: the columns that make two records one: equal ones are duplicates, unequal ones cannot be believed.
        schema: columns and types of the rows.
        home: the range of the answer that is being judged, None for one that every range is cut from. Where a rejected
            record is dated outside of it, or not at all, it is filed at its start: elsewhere it would not be seen.
    """

    table: str
    source: str
    key: tuple[str, ...]
    schema: Mapping[str, pl.DataType]
    received: int = 0
    duplicates: int = 0
    rows: dict[tuple, tuple[dict, object, str]] = field(default_factory=dict)
    rejects: list[dict] = field(default_factory=list)
    conflicting: set[tuple] = field(default_factory=set)
    home: tuple[datetime, datetime] | None = None

    def take(self, row: dict, record: object, origin: str) -> None:
        """Accept a record as a row of the table, unless another with its key came before."""
        if self.home and not self.home[0] <= row["event_at"] < self.home[1]:
            self.reject(record, origin, row.get("symbol"), row["event_at"], OUTSIDE)
            return
        self.received += 1
        key = tuple(row[name] for name in self.key)
        held = self.rows.get(key)
        if key in self.conflicting:
            self._reject(record, origin, row.get("symbol"), row["event_at"], CONFLICT)
        elif held is None:
            self.rows[key] = row, record, origin
        elif held[0] == row:
            self.duplicates += 1
        else:
            self.conflicting.add(key)
            first, first_record, first_origin = self.rows.pop(key)
            self._reject(first_record, first_origin, first.get("symbol"), first["event_at"], CONFLICT)
            self._reject(record, origin, row.get("symbol"), row["event_at"], CONFLICT)

    def reject(self, record: object, origin: str, symbol: str | None, event_at: datetime | None, reason: str) -> None:
        """Quarantine a record."""
        self.received += 1
        self._reject(record, origin, symbol, event_at, reason)

    def _reject(self, record: object, origin: str, symbol: str | None, event_at: datetime | None, reason: str) -> None:
        self.rejects.append(
            {
                "table_name": self.table,
                "source": self.source,
                "origin": origin,
                "symbol": symbol,
                "event_at": event_at,
                "filed_at": event_at,
                "reason": reason,
                "record": json.dumps(record, ensure_ascii=False, sort_keys=True, default=str),
                "home_start": self.home and self.home[0],
                "home_end": self.home and self.home[1],
            }
        )

    def delivery(self, ask: Ask, missed: Iterable[Missing] = (), **counts: int) -> Delivery:
        """The asked range of what was taken and rejected."""
        rows = pl.DataFrame([row for row, _, _ in self.rows.values()], schema=dict(self.schema), orient="row")
        rejects = pl.DataFrame(self.rejects, schema=REJECT_SCHEMA | HOME_SCHEMA, orient="row")
        return cut(ask, rows.sort(*self.key), rejects, self.duplicates, missed, received=self.received, **counts)


OUTSIDE = "dated outside of the range that was asked for"
CONFLICT = "conflicting records for one key"
_STAMP = pl.Datetime("us", "UTC")
REJECT_SCHEMA = {name: _STAMP if name.endswith("_at") else pl.String for name in REJECT_COLUMNS}
HOME_SCHEMA = {"home_start": _STAMP, "home_end": _STAMP}


def cut(
    ask: Ask, rows: pl.DataFrame, rejects: pl.DataFrame, duplicates: int, missed: Iterable[Missing] = (), **counts: int
) -> Delivery:
    """The asked range of the accepted and rejected records of whole answers, and what became of all of them.

    `rejects` have the columns of `REJECT_SCHEMA` and `HOME_SCHEMA`: see `Judged.home`.
    """
    universe = ask.settings.universe
    spanned = rows.filter(pl.col("event_at").is_between(universe.start, universe.end, closed="left"))
    start = pl.max_horizontal(pl.col("home_start"), pl.lit(universe.start).cast(_STAMP))
    end = pl.min_horizontal(pl.col("home_end"), pl.lit(universe.end).cast(_STAMP))
    inside = ((pl.col("event_at") >= start) & (pl.col("event_at") < end)).fill_null(False)
    filed = rejects.with_columns(filed_at=pl.when(inside).then("event_at").otherwise(start)).select(REJECT_COLUMNS)
    return Delivery(
        rows=spanned.filter(pl.col("event_at").is_between(ask.start, ask.end, closed="left")),
        rejected=filed.filter(pl.col("filed_at").is_between(ask.start, ask.end, closed="left")),
        counts={
            "accepted": spanned.height,
            "outside_span": rows.height - spanned.height,
            "quarantined": rejects.height,
            "duplicates": duplicates,
            **counts,
        },
        missing=tuple(missed),
    )


def delivery_hash(delivery: Delivery) -> str:
    """The fingerprint of a source that is cheap to read from its cache: the content of what it delivers, and what it lacks."""
    lacking = json.dumps([(gap.symbol, str(gap.start), str(gap.end)) for gap in delivery.missing])
    rejected = delivery.rejected.sort(REJECT_COLUMNS)
    return text_hash(frame_hash(delivery.rows), frame_hash(rejected), lacking)
