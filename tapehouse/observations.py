"""Judging macro observations record by record, as `tapehouse.ingest` does bars: of which period, and known when."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal

import polars as pl

from tapehouse.calendars import local_instant
from tapehouse.screening import (
    Screened,
    as_rejects,
    day,
    joined,
    number,
    settle,
    symbol_faults,
    unknown_columns,
    unread,
    when,
    with_fields,
)

Frequency = Literal["d", "w", "m", "q"]
UNPUBLISHED = "."  # how FRED writes that a day, such as a holiday, has no value
FIELDS = ("symbol", "period", "vintage", "value")
MACRO_COLUMNS = (
    *("series_id", "period", "frequency", "event_at", "known_at"),
    *("value", "vintage", "known_as", "revised", "source"),
)


@dataclass(frozen=True)
class Calendar:
    """How a publisher dates its periods.

    Attributes:
        frequency: of every series but those in `frequencies`.
        quarter_named_by: the month that stands for a quarter: its first (FRED) or its last.
        timezone: IANA name; a date without a time ends there.
    """

    frequency: Frequency = "m"
    frequencies: Mapping[str, Frequency] | None = None
    quarter_named_by: Literal["first_month", "last_month"] = "first_month"
    timezone: str = "America/New_York"


@dataclass(frozen=True)
class Release:
    """When a value without a vintage is known: `lag_days` calendar days after its period's last day, at the local time `at`, or
    at the end of that day."""

    lag_days: int = 0
    at: time | None = None


def screen_macro(
    records: pl.DataFrame,
    *,
    undated_at: datetime,
    dates: Calendar,
    release: Release | None = None,
    revised: bool = False,
    snapshot: date | None = None,
    date_format: str = "%Y-%m-%d",
    holds: Sequence[str] | None = None,
) -> Screened:
    """Judge observations of macro series received as text.

    A record is taken when its series is one of `holds`, its period a date that its frequency can have, its value finite,
    and its vintage (where `release` is None) a date not before the period began. `period` becomes the period's first day
    for months and quarters; for weeks it stays the date that the publisher gives, which is taken for the last day.

    Args:
        records: text columns `symbol` (the series), `period`, `vintage`, `value`, and those of `read_delimited`.
        undated_at: `filed_at` of rejected records without a usable period, UTC.
        dates: how periods are dated.
        release: the rule for `known_at` of a source without vintages.
        revised: whether such a source has the latest values of series that are ever revised.
        snapshot: a vintage that is no release date, but that of a first look: an upper bound of when its values were known.
        date_format: strftime pattern of periods and vintages.
        holds: series that may occur; None accepts any.

    Returns:
        A `Screened` with `MACRO_COLUMNS`. `event_at` is the midnight after the period's last day. `known_as` says how
        `known_at` came about: a 'vintage' is known at the end of its day, an 'upper_bound' too, else it is a 'rule'.
    """
    numbered, unknown = with_fields(records, FIELDS)
    vintages, named = release is None, dates.quarter_named_by.replace("_", " ")
    parsed = _parse_macro(numbered, date_format, dates, release)
    value, period, vintage = (pl.col(name) for name in ("value_", "period_", "vintage_"))
    unpublished = (pl.col("value").str.strip_chars() == UNPUBLISHED).fill_null(False)
    faults = [
        *unknown_columns(unknown),
        *symbol_faults(holds, "series"),
        *unread("period", pl.col("day")),
        when(pl.col("day").is_not_null() & period.is_null(), f"period is not the {named} of a quarter"),
        *(pl.when(~unpublished).then(reason) for reason in unread("value", value)),
        when(unpublished, "no value was published"),
        when(~value.is_finite(), "value is not finite"),
        *([*unread("vintage", vintage), when(vintage < period, "vintage before its period began")] if vintages else []),
    ]
    key, content = ("symbol", "period_", "known_at", "source"), ("value_",)
    settled = settle(
        parsed.with_columns(reason=joined(faults)), key, content, "conflicting records for one series, period and vintage"
    )
    known_as = pl.when(vintage == pl.lit(snapshot, pl.Date)).then(pl.lit("upper_bound")).otherwise(pl.lit("vintage"))
    return Screened(
        accepted=settled.accepted.select(
            series_id=pl.col("symbol"),
            period=period,
            frequency=pl.col("frequency"),
            event_at=pl.col("event_at"),
            known_at=pl.col("known_at"),
            value=value,
            vintage=vintage,
            known_as=known_as if vintages else pl.lit("rule"),
            revised=pl.lit(revised),
            source=pl.col("source"),
        ).sort("series_id", "period", "known_at"),
        rejected=as_rejects(settled.rejected, "raw.macro_observations", [*FIELDS, *unknown], pl.col("event_at"), undated_at),
        duplicates=settled.duplicates,
    )


def first_vintage(records: pl.DataFrame, date_format: str = "%Y-%m-%d") -> date | None:
    """The earliest vintage among the records that can be read, None where there is none.

    A vintage before its own period is a typing error, and does not count.
    """
    whole = records.filter(pl.col("fault").is_null())
    period, vintage = (day(name, date_format) for name in ("period", "vintage"))
    return whole.select(vintage.filter((vintage >= period) & number("value").is_finite()).min()).item()


def _parse_macro(records: pl.DataFrame, date_format: str, dates: Calendar, release: Release | None) -> pl.DataFrame:
    parsed = records.with_columns(
        symbol=pl.col("symbol").str.strip_chars(),
        value_=number("value"),
        day=day("period", date_format),
        vintage_=day("vintage", date_format) if release is None else pl.lit(None, pl.Date),
        frequency=_frequency(dates),
    )
    named = 1 if dates.quarter_named_by == "first_month" else 0
    period = (
        pl.when(pl.col("frequency") == "m")
        .then(pl.col("day").dt.truncate("1mo"))
        .when(pl.col("frequency") != "q")
        .then("day")
        .when(pl.col("day").dt.month() % 3 == named)
        .then(pl.col("day").dt.truncate("1q"))
    )
    after = (
        pl.when(pl.col("frequency") == "m")
        .then(pl.col("period_").dt.offset_by("1mo"))
        .when(pl.col("frequency") == "q")
        .then(pl.col("period_").dt.offset_by("1q"))
        .otherwise(pl.col("period_") + timedelta(days=1))
    )
    parsed = parsed.with_columns(period_=period).with_columns(after=after)
    if release is None:
        known_at = _instant(pl.col("vintage_") + timedelta(days=1), None, dates.timezone)
    elif release.at is None:
        known_at = _instant(pl.col("after") + timedelta(days=release.lag_days), None, dates.timezone)
    else:
        known_at = _instant(pl.col("after") + timedelta(days=release.lag_days - 1), release.at, dates.timezone)
    return parsed.with_columns(event_at=_instant(pl.col("after"), None, dates.timezone), known_at=known_at)


def _frequency(dates: Calendar) -> pl.Expr:
    symbol = pl.col("symbol").str.strip_chars()
    return symbol.replace_strict(dict(dates.frequencies or {}), default=dates.frequency, return_dtype=pl.String)


def _instant(day: pl.Expr, at: time | None, timezone: str) -> pl.Expr:
    """A local time of a Date (00:00 where None), UTC; of two such instants the later, where clocks are set back."""
    offset = timedelta(hours=at.hour, minutes=at.minute, seconds=at.second) if at else timedelta()
    return local_instant(day.cast(pl.Datetime("us")) + offset, timezone, ambiguous="latest")
