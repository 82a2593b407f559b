"""Sessions of an exchange in UTC: half days, holidays and daylight saving come from `exchange_calendars`."""

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import polars as pl

from tapehouse.errors import TapehouseError

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

# The library's own default starts twenty years before today, so the reach must be said: without it a bar of 2000
# would be "no session" from 2020 on.
FIRST_SESSION = "1985-01-01"
TIMESTAMP = pl.Datetime("us", "UTC")


@lru_cache(maxsize=8)
def exchange(calendar: str) -> "ExchangeCalendar":
    """A calendar of `exchange_calendars`, from 1985 on or from as far back as it reaches (Tokyo's: 1997).

    Raises:
        InvalidCalendarName: the library knows none of that name.
        TapehouseError: it knows the calendar, and cannot work it out.
    """
    from exchange_calendars import get_calendar
    from exchange_calendars.errors import InvalidCalendarName

    try:
        return get_calendar(calendar, start=FIRST_SESSION)
    except InvalidCalendarName:
        raise
    except (ValueError, NotImplementedError) as error:
        why = f"exchange_calendars cannot work out the sessions of {calendar}: {str(error)[:120]}; use another calendar"
    try:
        bound = get_calendar(calendar).bound_min()
    except (ValueError, NotImplementedError):
        raise TapehouseError(why) from None
    if bound is None:
        raise TapehouseError(why)
    return get_calendar(calendar, start=bound)


@lru_cache(maxsize=8)
def all_sessions(calendar: str = "XNYS") -> pl.DataFrame:
    """Every session that the calendar knows (1985, or its own beginning, to about a year from now), in order.

    Columns `session` (Date), `open_at`, `close_at` (Datetime us UTC). Cached per process: do not change in place.
    """
    schedule = exchange(calendar).schedule
    return pl.DataFrame(
        {
            "session": schedule.index.to_numpy(),
            "open_at": schedule["open"].dt.tz_localize(None).to_numpy(),
            "close_at": schedule["close"].dt.tz_localize(None).to_numpy(),
        }
    ).select(
        pl.col("session").cast(pl.Date),
        pl.col("open_at", "close_at").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
    )


def sessions(start: date, end: date, calendar: str = "XNYS") -> pl.DataFrame:
    """Sessions with `start` <= session < `end`: columns `session` (Date), `open_at`, `close_at` (Datetime us UTC).

    A datetime stands for its date, so month bounds in UTC may be passed as they are. An empty range gives no rows.
    """
    first, last = _as_date(start), _as_date(end)
    return all_sessions(calendar).filter((pl.col("session") >= first) & (pl.col("session") < last))


def timezone(calendar: str = "XNYS") -> str:
    """IANA name of the exchange's time zone, such as 'America/New_York'."""
    return str(exchange(calendar).tz)


def local_midnight(day: pl.Expr, calendar: str = "XNYS") -> pl.Expr:
    """00:00 exchange time of a Date expression, as Datetime us UTC (04:00 or 05:00 UTC for New York).

    A corporate action is known from this instant of its ex-date. Where clocks are set forward at midnight, the day begins
    an hour later (São Paulo, 2016-10-16: 01:00, 03:00 UTC); where they are set back to it, at the first of the two.
    """
    return local_instant(day.cast(pl.Datetime("us")), timezone(calendar))


def local_instant(naive: pl.Expr, zone: str, ambiguous: Literal["earliest", "latest"] = "earliest") -> pl.Expr:
    """A local time (Datetime us without a zone) as Datetime us UTC. One that clocks jump over is the instant of the jump."""
    # Exchanges' clocks jump to a full or a half hour, by an hour at most.
    tries = [naive, *(naive.dt.truncate("30m") + timedelta(minutes=minutes) for minutes in (30, 60))]
    local = [at.dt.replace_time_zone(zone, ambiguous=ambiguous, non_existent="null") for at in tries]
    return pl.coalesce(local).dt.convert_time_zone("UTC")


def local_midnight_of(day: date, calendar: str = "XNYS") -> datetime:
    """`local_midnight` of one date, as an aware datetime in UTC."""
    return pl.select(local_midnight(pl.lit(_as_date(day)), calendar)).item()


def _as_date(value: date) -> date:
    return value.date() if isinstance(value, datetime) else value
