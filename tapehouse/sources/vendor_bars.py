"""Bars and actions from vendors' answers: made into text records, and judged as those of files are."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

import polars as pl

from tapehouse.calendars import all_sessions, timezone
from tapehouse.screening import Screened
from tapehouse.sources.base import Ask, Delivery, Missing
from tapehouse.sources.vendor import HOME_SCHEMA, OUTSIDE, REJECT_SCHEMA, cut, year_bounds

FIELDS = ("record", "fault")
ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def session_years(ask: Ask, symbol: str) -> tuple[int, ...]:
    """Years that hold a session whose close lies in the asked range, of those that have begun by now."""
    return _session_years(ask.settings.universe.calendar_of(symbol), ask.start, min(ask.end, datetime.now(UTC)))


@lru_cache(maxsize=4096)
def _session_years(calendar: str, start: datetime, end: datetime) -> tuple[int, ...]:
    inside = all_sessions(calendar).filter(pl.col("close_at").is_between(start, end, closed="left"))
    return tuple(inside["session"].dt.year().unique().sort())


def action_years(ask: Ask, symbol: str) -> list[int]:
    """Years of ex-dates that open (00:00 exchange time) in the asked range, of those that have begun by now."""
    zone = ZoneInfo(timezone(ask.settings.universe.calendar_of(symbol)))
    last = min(ask.end, datetime.now(UTC)) - timedelta(microseconds=1)
    return list(range(ask.start.astimezone(zone).year, last.astimezone(zone).year + 1))


def text_record(record: object, fields: Mapping[str, str] | None = None, ignore: Sequence[str] = ()) -> dict[str, str | None]:
    """A JSON record as text fields, renamed by `fields` and less those of `ignore`; `record` is its text as received."""
    if not isinstance(record, Mapping):
        return {"record": json.dumps(record), "fault": f"a record is a mapping, this is {type(record).__name__}"}
    named = {(fields or {}).get(name, name): as_text(value) for name, value in record.items() if name not in ignore}
    return {**named, "record": json.dumps(record, ensure_ascii=False, sort_keys=True)}


def as_text(value: object) -> str | None:
    """A JSON value as the text of a field."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def text_frame(
    records: Sequence[Mapping[str, str | None]],
    wanted: Sequence[str],
    request: str,
    symbol: str,
    source: str,
    numbers: Sequence[int] | None = None,
) -> pl.DataFrame:
    """Text records of the answer to one request, about one symbol, with their origin; a wanted field that none has is null.

    `numbers` are the records' places in the answer, from 1, where not all of them are given.
    """
    columns = dict.fromkeys((*wanted, *FIELDS, *(name for record in records for name in record)))
    return pl.DataFrame(
        {name: [record.get(name) for record in records] for name in columns}, schema=dict.fromkeys(columns, pl.String)
    ).with_columns(
        symbol=pl.lit(symbol),
        source=pl.lit(source),
        origin=pl.format("{}#{}", pl.lit(request), pl.Series(numbers or range(1, len(records) + 1), dtype=pl.Int64)),
    )


def finished(screened: Screened, fetched_at: datetime) -> tuple[Screened, int]:
    """Bars whose session was over when they came, and the number of the others: a vendor shows today's before its close."""
    over = pl.col("event_at") <= fetched_at
    accepted, rejected = screened.accepted.filter(over), screened.rejected.filter(over.fill_null(True))
    unfinished = screened.accepted.height + screened.rejected.height - accepted.height - rejected.height
    return replace(screened, accepted=accepted, rejected=rejected), unfinished


class Part(NamedTuple):
    """Records of one answer, judged, and the range that it answers; None for one that every range is cut from."""

    screened: Screened
    home: tuple[datetime, datetime] | None = None


def year_part(screened: Screened, year: int) -> Part:
    """An answer for the dates of one year."""
    return Part(screened, year_bounds(year))


def outside(day: str | None, year: int) -> str | None:
    """The fault of a record in the answer for a year, where it is dated in another."""
    return OUTSIDE if day and ISO_DATE.fullmatch(day) and int(day[:4]) != year else None


def deliver_screened(
    ask: Ask,
    parts: Sequence[Part],
    screen: Callable[..., Screened],
    fields: Sequence[str],
    missed: Sequence[Missing],
    **counts: int,
) -> Delivery:
    """The asked range of screened answers; `screen` and its `fields` give the columns where there is no answer."""
    parts = parts or [Part(screen(text_frame([], fields, "", "", ask.source), undated_at=ask.start))]
    rows = pl.concat([part.screened.accepted for part in parts])
    rejected = [part for part in parts if part.screened.rejected.height]  # few, of hundreds of symbols
    rejects = pl.concat([pl.DataFrame(schema=REJECT_SCHEMA | HOME_SCHEMA), *(_rejects(part) for part in rejected)])
    duplicates = sum(part.screened.duplicates for part in parts)
    return cut(ask, rows, rejects, duplicates, missed, received=rows.height + rejects.height + duplicates, **counts)


def _rejects(part: Part) -> pl.DataFrame:
    home = dict(zip(HOME_SCHEMA, part.home or (None, None), strict=True))
    bounds = {name: pl.lit(value).cast(HOME_SCHEMA[name]) for name, value in home.items()}
    return part.screened.rejected.cast(REJECT_SCHEMA).with_columns(**bounds)
