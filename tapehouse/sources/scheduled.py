"""Sessions as an exchange had scheduled them, beside those that took place.

`exchange_calendars` says what happened: a day of mourning is no session in it, as if that had been known for years. Here such
a day is a session that was scheduled and did not take place.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tapehouse.calendars import exchange as calendar_of
from tapehouse.errors import TapehouseError

# Closures and early closes without a rule that had been announced when their day began. That of 2001-09-11 had not.
TOLD_BEFORE = {
    "XNYS": {
        *(date(1994, 4, 27), date(2004, 6, 11), date(2007, 1, 2), date(2018, 12, 5), date(2025, 1, 9)),  # days of mourning
        *(date(2001, 9, 12), date(2001, 9, 13), date(2001, 9, 14)),
        *(date(2012, 10, 29), date(2012, 10, 30)),  # hurricane Sandy: the evening before
        *(date(1997, 12, 26), date(1999, 12, 31), date(2003, 12, 26)),  # half days beside holidays
    }
}


@dataclass(frozen=True)
class Slot:
    """A day on which a session was scheduled: when it was to open and close, and when it did; None where it did not.

    `told_before` says that what came otherwise was known the day before, at the latest.
    """

    day: date
    open_at: datetime
    close_at: datetime
    opened_at: datetime | None
    closed_at: datetime | None
    zone: ZoneInfo
    told_before: bool


def scheduled_sessions(name: str, lead: timedelta) -> list[Slot]:
    """Every day on which a session of an exchange was scheduled, in order: from 1985, or the beginning of its calendar, to
    about a year from now.

    Args:
        name: a calendar of `exchange_calendars`, such as XNYS or 24/7.
        lead: how long before a session its schedule is looked at. What a rule decides in the first `lead` of its validity
            was not known then: the library says when a rule began, not when it was announced.

    Raises:
        TapehouseError: no such calendar.
    """
    from exchange_calendars.errors import InvalidCalendarName

    try:
        exchange = calendar_of(name)
    except InvalidCalendarName:
        raise TapehouseError(f"sources.yaml: exchange_calendars knows no calendar {name!r}") from None
    zone = ZoneInfo(str(exchange.tz))
    held = {row.Index.date(): (row.open.to_pydatetime(), row.close.to_pydatetime()) for row in exchange.schedule.itertuples()}
    first, last = min(held), max(held)
    closes, opens = exchange.special_closes, exchange.special_opens
    ruled = _new_rules([exchange.regular_holidays, *(rules for _, rules in (*closes, *opens))], lead)
    shut = {day.date() for day in exchange.adhoc_holidays} | ruled
    shut = {day for day in shut - held.keys() if first <= day <= last and exchange.weekmask[day.weekday()] == "1"}
    early = ruled | _single(exchange.special_closes_adhoc)
    late = ruled | _single(exchange.special_opens_adhoc)
    # A rule is not made on the day that it is first for.
    told = ruled | TOLD_BEFORE.get(name, set())
    found = []
    for day in sorted(held.keys() | shut):
        opened_at, closed_at = held.get(day, (None, None))
        open_at, close_at = opened_at, closed_at
        if opened_at is None or day in late:
            open_at = _local(day, exchange.open_times, exchange.open_offset, zone)
        if closed_at is None or day in early:
            close_at = _local(day, exchange.close_times, exchange.close_offset, zone)
        found.append(Slot(day, open_at, close_at, opened_at, closed_at, zone, day in told))
    return found


def _local(day: date, times: Iterable[tuple[Any, time]], offset: int, zone: ZoneInfo) -> datetime:
    """The regular hour of a day: the last of `times` (from a date on, hour) that has begun."""
    hour = [hour for begins, hour in times if begins is None or begins.date() <= day][-1]
    return datetime.combine(day + timedelta(days=offset), hour, zone).astimezone(UTC)


def _single(hours: Iterable[tuple[time, Any]]) -> set[date]:
    """The days of special hours that follow no rule."""
    from pandas import DatetimeIndex

    return {day.date() for _, days in hours for day in DatetimeIndex(days)}


def _new_rules(calendars: Iterable[Any], lead: timedelta) -> set[date]:
    """Dates that holiday rules give in the first `lead` of their validity."""
    rules = [rule for calendar in calendars for rule in getattr(calendar, "rules", []) if rule.start_date is not None]
    return {day.date() for rule in rules for day in rule.dates(rule.start_date, rule.start_date + lead)}
