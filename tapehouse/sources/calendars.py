"""What is known ahead: sessions of exchanges, monthly option expiries, scheduled macro releases.

Each event is listed `lead_days` before it happens, as it was scheduled then (`scheduled` is true). What was not known ahead
comes in as further rows, `scheduled` false, that are known when the thing became known:

- a session that did not take place (2001-09-11, hurricanes, days of mourning) stays listed, and a row of kind `closure`
  with its `name` and `event_at` says so. It is known at 00:00 exchange time of the day where it had been announced by then
  (`tapehouse.sources.scheduled.TOLD_BEFORE`), else at the hour of the open: on 2001-09-11 nobody knew at midnight. `announced`
  declares when it was known in truth;
- a session that closed early without notice is a second version of its row, known at that midnight, or at the early close;
- so is a holiday or half day in the first `lead_days` of the rule that makes it one (Juneteenth in 2022): the calendar says
  when a rule began, and not when it was announced. It is known at that midnight;
- a release that was moved or cancelled at short notice (`except` with `known`) is a closure, and a new row at its new time.

Sessions come from `exchange_calendars`, so a rule that is no longer in force still holds for its years.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from tapehouse.calendars import TIMESTAMP
from tapehouse.hashing import frame_hash
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.sources.base import Ask, Delivery, SourceDeclaration
from tapehouse.sources.scheduled import Slot, scheduled_sessions

OFFERS = ("calendar",)
SCHEMA = {
    "calendar": pl.String,
    "kind": pl.String,
    "name": pl.String,
    "event_at": TIMESTAMP,
    "ends_at": TIMESTAMP,
    "session": pl.Date,
    "known_at": TIMESTAMP,
    "scheduled": pl.Boolean,
}
REJECTS = {name: TIMESTAMP if name.endswith("_at") else pl.String for name in REJECT_COLUMNS}
SESSION, EXPIRY = "session", "monthly_options"
ORDINALS = ("first", "second", "third", "fourth", "fifth")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
RULE = re.compile(
    rf"(?P<which>{'|'.join((*ORDINALS, 'last'))}) (?P<weekday>{'|'.join(WEEKDAYS)})"
    r"(?: after the week of day (?P<reference>1?\d|2[0-8]))?|day (?P<day>\d+)"
)


def _date_or_time(value: Any) -> Any:
    """A text of ten characters is a date; without this it would be read as midnight."""
    return date.fromisoformat(value) if isinstance(value, str) and len(value) == len("2016-07-01") else value


# A date without a time is known at its end, a time without an offset is local.
Known = Annotated[date | datetime, BeforeValidator(_date_or_time)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Moved(_Frozen):
    """A release at another date than its rule gives: `on`, or none. `known` is when that was announced, where it was not
    part of the schedule from the start; a date without a time is known at the end of that day."""

    on: date | None = None
    known: Known | None = None


class Release(_Frozen):
    """One scheduled publication: by a rule for each month, or on listed dates.

    `rule` is `first friday`, `last tuesday` …, `day 15`, or `third friday after the week of day 12`: of the week, Sunday to
    Saturday, that holds that day of the month before. The last is how the employment situation is scheduled, which is not
    always on a first Friday. `months` limits a rule to some months. `at` is a local time and its zone. `except` says for dates
    of the rule to which they were moved (or null for none), or a mapping with `on` and `known`.
    """

    name: str
    at: str
    calendar: str = "macro"
    rule: str | None = None
    months: tuple[int, ...] = tuple(range(1, 13))
    dates: tuple[date, ...] = ()
    moved: dict[date, Moved] = Field(default_factory=dict, alias="except")

    @field_validator("moved", mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        plain = isinstance(value, dict)
        return {day: v if isinstance(v, dict | Moved) else {"on": v} for day, v in value.items()} if plain else value

    @model_validator(mode="after")
    def _complete(self) -> "Release":
        if (self.rule is None) == (not self.dates):
            raise ValueError(f"release {self.name}: give either rule or dates")
        if self.rule is not None and RULE.fullmatch(self.rule) is None:
            raise ValueError(f"release {self.name}: rule {self.rule!r} is not like 'first friday' or 'day 15'")
        self.clock  # noqa: B018  raises where `at` is unreadable
        strangers = [day for day in self.moved if day not in self.days([(day.year, day.month)])]
        if strangers:
            raise ValueError(f"release {self.name}: except names {strangers[0]}, on which there is no release")
        return self

    @property
    def clock(self) -> tuple[time, ZoneInfo]:
        """Local time of day, and its zone."""
        hour, _, zone = self.at.partition(" ")
        try:
            return time.fromisoformat(hour), ZoneInfo(zone.strip())
        except (ValueError, KeyError, OSError):  # what ZoneInfo raises depends on what the name looks like
            raise ValueError(f"release {self.name}: at {self.at!r} is not like '08:30 America/New_York'") from None

    def days(self, months: Iterable[tuple[int, int]]) -> list[date]:
        """Scheduled dates in the given (year, month) pairs, before any exception."""
        wanted = set(months)
        if self.rule is None:
            return [day for day in self.dates if (day.year, day.month) in wanted]
        found = (_by_rule(self.rule, *month) for month in sorted(wanted) if month[1] in self.months)
        return [day for day in found if day is not None]


class Declaration(SourceDeclaration):
    """Keys of a calendar source: names of `exchange_calendars` for `sessions` and `expiries`, and `releases`.

    `lead_days` is how long before it happens an event is listed. `announced` says when an unscheduled closure or early close
    became known, by calendar and session; a date without a time is known at the end of that day.
    """

    kind: Literal["calendars"] = "calendars"
    sessions: tuple[str, ...] = ()
    expiries: tuple[str, ...] = ()
    releases: tuple[Release, ...] = ()
    lead_days: int = Field(default=365, ge=1)
    announced: dict[str, dict[date, Known]] = Field(default_factory=dict)


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Events with `ask.start` <= event_at < `ask.end`; `ask.symbols` are the calendars that are wanted, empty for all."""
    universe = ask.settings.universe
    found = _events(declared.model_dump_json(), universe.start.date(), universe.end.date())
    if ask.symbols:
        found = found.filter(pl.col("calendar").is_in(ask.symbols))
    inside = _within(found, universe.start, universe.end)
    rows = _within(inside, ask.start, ask.end).with_columns(source=pl.lit(ask.source))
    counts = {"received": found.height, "accepted": inside.height, "outside_span": found.height - inside.height}
    return Delivery(rows, pl.DataFrame(schema=REJECTS), counts | {"quarantined": 0, "duplicates": 0})


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """Hash of what `deliver` returns for the ask, its counts aside."""
    return fingerprints(declared, ask, [(ask.start, ask.end)])[0]


def fingerprints(declared: Declaration, ask: Ask, spans: Sequence[tuple[datetime, datetime]]) -> list[str]:
    """`fingerprint` of the ask with each of the spans [start, end) in the place of its own."""
    universe = ask.settings.universe
    known = _hashes(declared.model_dump_json(), universe.start, universe.end, ask.source, ask.symbols)
    for span in spans:  # asked for again each time that something else has been made
        if span not in known:
            known[span] = frame_hash(deliver(declared, replace(ask, start=span[0], end=span[1])).rows)
    return [known[span] for span in spans]


@lru_cache(maxsize=8)
def _hashes(
    declaration: str, first: datetime, last: datetime, source: str, symbols: tuple[str, ...]
) -> dict[tuple[datetime, datetime], str]:
    """Hashes by span, of all that else decides what is delivered: nothing beside it is read."""
    return {}


def _within(rows: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    return rows.filter((pl.col("event_at") >= start) & (pl.col("event_at") < end))


@lru_cache(maxsize=8)
def _events(declaration: str, first: date, last: date) -> pl.DataFrame:
    """Every event of a declaration as far as its calendars reach, and releases of the months from `first` to `last`.

    Columns as `SCHEMA`, in the order of event_at.
    """
    declared = Declaration.model_validate_json(declaration)
    lead = timedelta(days=declared.lead_days)
    known = _Announced(declared.announced)
    rows: list[tuple] = []
    for name in dict.fromkeys((*declared.sessions, *declared.expiries)):
        slots = scheduled_sessions(name, lead)
        if name in declared.sessions:
            rows += [row for slot in slots for row in _of_session(name, slot, lead, known)]
        if name in declared.expiries:
            rows += _of_expiries(name, slots, lead, known)
    months = {(day.year, day.month) for day in _days(first, last)}
    for release in declared.releases:
        rows += _of_release(release, months, lead)
    frame = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return frame.unique().sort("event_at", "calendar", "kind", "name", "known_at")


def _of_session(name: str, slot: Slot, lead: timedelta, known: "_Announced") -> Iterator[tuple]:
    open_at, close_at = slot.open_at, slot.close_at
    yield (name, "session", SESSION, open_at, close_at, slot.day, open_at - lead, True)
    if slot.opened_at != open_at:
        closed = known.at(name, slot, open_at)
        yield (name, "closure", SESSION, open_at, close_at, slot.day, closed, False)
        if slot.opened_at is not None:
            yield (name, "session", SESSION, slot.opened_at, slot.closed_at, slot.day, closed, False)
    elif slot.closed_at != close_at:
        yield (name, "session", SESSION, open_at, slot.closed_at, slot.day, known.at(name, slot, slot.closed_at), False)


def _of_expiries(name: str, slots: list[Slot], lead: timedelta, known: "_Announced") -> Iterator[tuple]:
    """The third Friday of each month, or the last scheduled session before it."""
    days = [slot.day for slot in slots]  # in order
    for year, month in sorted({(day.year, day.month) for day in days}):
        friday = _by_rule("third friday", year, month)
        last = bisect_right(days, friday) - 1
        if friday > days[-1] or last < 0 or days[last] <= friday - timedelta(days=7):
            continue  # the calendar ends, or begins, before it
        slot = slots[last]
        yield (name, "expiry", EXPIRY, slot.close_at, slot.close_at, slot.day, slot.close_at - lead, True)
        if slot.opened_at is None:
            shut = known.at(name, slot, slot.open_at)
            yield (name, "closure", EXPIRY, slot.close_at, slot.close_at, slot.day, shut, False)


def _of_release(release: Release, months: set[tuple[int, int]], lead: timedelta) -> Iterator[tuple]:
    clock, zone = release.clock

    def row(kind: str, day: date, known_at: datetime | None) -> tuple:
        at = datetime.combine(day, clock, zone).astimezone(UTC)
        return (release.calendar, kind, release.name, at, at, day, known_at or at - lead, known_at is None)

    for day in release.days(months):
        moved = release.moved.get(day)
        if moved is None:
            yield row("release", day, None)
        elif moved.known is None:
            if moved.on is not None:
                yield row("release", moved.on, None)
        else:
            known_at = _instant(moved.known, zone)
            yield row("release", day, None)
            yield row("closure", day, known_at)
            if moved.on is not None:
                yield row("release", moved.on, known_at)


class _Announced:
    """When what was not scheduled became known: as declared, or at a given hour at the latest."""

    def __init__(self, declared: dict[str, dict[date, datetime | date]]):
        self.declared = declared

    def at(self, calendar: str, slot: Slot, latest: datetime) -> datetime:
        said = self.declared.get(calendar, {}).get(slot.day)
        if said is None and slot.told_before:
            said = slot.day - timedelta(days=1)
        return latest if said is None else min(_instant(said, slot.zone), latest)


def _instant(said: datetime | date, zone: ZoneInfo) -> datetime:
    """A declared time in UTC; a date is known at its end, a time without offset is local."""
    if isinstance(said, datetime):
        return (said if said.tzinfo else said.replace(tzinfo=zone)).astimezone(UTC)
    return datetime.combine(said + timedelta(days=1), time(), zone).astimezone(UTC)


def _by_rule(rule: str, year: int, month: int) -> date | None:
    """The date of a rule in a month, if there is one."""
    found = RULE.fullmatch(rule)
    assert found is not None  # the declaration is held to it
    end = date(year + month // 12, month % 12 + 1, 1)
    days = list(_days(date(year, month, 1), end))
    if found["day"]:
        return days[int(found["day"]) - 1] if 1 <= int(found["day"]) <= len(days) else None
    if found["reference"]:
        reference = (days[0] - timedelta(days=1)).replace(day=int(found["reference"]))
        saturday = reference + timedelta(days=(WEEKDAYS.index("saturday") - reference.weekday()) % 7)
        days = list(_days(saturday + timedelta(days=1), saturday + timedelta(days=1 + 7 * len(ORDINALS))))
    days = [day for day in days if day.weekday() == WEEKDAYS.index(found["weekday"])]
    place = -1 if found["which"] == "last" else ORDINALS.index(found["which"])
    return days[place] if place < len(days) else None


def _days(start: date, end: date) -> Iterator[date]:
    while start < end:
        yield start
        start += timedelta(days=1)
