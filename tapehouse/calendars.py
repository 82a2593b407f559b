"""Sessions of an exchange in UTC: half days, holidays and daylight saving come from `exchange_calendars`."""

from datetime import date, datetime
from functools import lru_cache

import polars as pl

# The library's own default starts twenty years before today, so the reach must be said: without it a bar of 2000
# would be "no session" from 2020 on.
FIRST_SESSION = "1985-01-01"
TIMESTAMP = pl.Datetime("us", "UTC")


@lru_cache(maxsize=8)
def _exchange(calendar: str):
    import exchange_calendars

    return exchange_calendars.get_calendar(calendar, start=FIRST_SESSION)


@lru_cache(maxsize=8)
def all_sessions(calendar: str = "XNYS") -> pl.DataFrame:
    """Every session that the calendar knows (1985 to about a year from now), in order.

    Columns `session` (Date), `open_at`, `close_at` (Datetime us UTC). Cached per process: do not change in place.
    """
    schedule = _exchange(calendar).schedule
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
    return str(_exchange(calendar).tz)


def local_midnight(day: pl.Expr, calendar: str = "XNYS") -> pl.Expr:
    """00:00 exchange time of a Date expression, as Datetime us UTC (04:00 or 05:00 UTC for New York).

    A corporate action is known from this instant of its ex-date.
    """
    return day.cast(pl.Datetime("us")).dt.replace_time_zone(timezone(calendar)).dt.convert_time_zone("UTC")


def local_midnight_of(day: date, calendar: str = "XNYS") -> datetime:
    """`local_midnight` of one date, as an aware datetime in UTC."""
    return pl.select(local_midnight(pl.lit(_as_date(day)), calendar)).item()


def _as_date(value: date) -> date:
    return value.date() if isinstance(value, datetime) else value
