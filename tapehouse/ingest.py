"""Judging daily bars record by record: from received text to rows of `raw.bars` and `raw.quarantine`.

Nothing is lost and nothing is silent: every record that comes in is accepted, quarantined with its reasons, or counted
as a duplicate of one that was accepted.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from tapehouse.calendars import TIMESTAMP, all_sessions, local_midnight, timezone

PRICES = ("open", "high", "low", "close")
RECORD_COLUMNS = ("symbol", "session", *PRICES, "volume", "vendor_adj_close", "source", "origin", "record", "fault")
BAR_KEY = ("symbol", "interval", "event_at", "source")
BAR_COLUMNS = (*("symbol", "interval", "session", "event_at", "known_at", *PRICES, "volume", "vendor_adj_close", "source"),)
REJECT_COLUMNS = ("table_name", "source", "origin", "symbol", "event_at", "filed_at", "reason", "record")
REJECT_KEY = ("table_name", "origin", "record", "reason")
CONFLICT = "conflicting records for one symbol and session"
NAIVE_TIMESTAMP = r"^\s*\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{2}(:\d{2}(\.\d*)?)?\s*$"
# Doubles hold whole numbers exactly up to here; no volume comes near it.
LARGEST_VOLUME = 2**53


@dataclass(frozen=True)
class Screened:
    """What became of the records: `accepted.height + rejected.height + duplicates` is the number that came in.

    `accepted` has the columns `BAR_COLUMNS`, sorted by symbol and session; `rejected` has `REJECT_COLUMNS`, in the
    order received.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    duplicates: int


def screen_bars(
    records: pl.DataFrame,
    *,
    undated_at: datetime,
    date_format: str = "%Y-%m-%d",
    calendar: str = "XNYS",
    interval: str = "1d",
    holds: Sequence[str] | None = None,
    adjusted: bool = True,
) -> Screened:
    """Judge daily bars received as text.

    A record is taken when its symbol is one of `holds`, its date is a session of `calendar`, all prices are finite and
    above zero, low <= open, close <= high (exactly: the packaged data needs no tolerance), and volume is a whole number
    not below zero. Every reason found is given. Records with equal content for one (symbol, session, source) are
    duplicates of the first; where the content differs none of them can be believed, and all are rejected. A column that
    is not a field of a bar makes every record that has a value in it unusable: what it means is not known.

    Args:
        records: text columns as `tapehouse.sources.delimited.read_delimited` returns them; absent ones count as null.
            `session` holds a date in `date_format`, or a timestamp with its UTC offset that is exactly the session's
            open, close or 00:00 exchange time. A timestamp without offset is rejected as naive.
        undated_at: `filed_at` of rejected records without a usable date, UTC.
        date_format: strftime pattern of a date.
        calendar: exchange calendar that gives sessions and closes.
        interval: written to the accepted rows.
        holds: symbols that may occur; None accepts any that is not empty.
        adjusted: whether the source has a vendor-adjusted close; a missing one is then a fault.

    Returns:
        A `Screened`. A bar's `event_at` and `known_at` are the close of its session.
    """
    absent = [pl.lit(None, pl.String).alias(name) for name in RECORD_COLUMNS if name not in records.columns]
    unknown = [name for name in records.columns if name not in RECORD_COLUMNS]
    parsed = _parse(records.with_columns(absent).with_row_index("row"), date_format, calendar)
    found = pl.concat_str(_faults(unknown, holds, calendar, adjusted), separator="; ", ignore_nulls=True)
    parsed = parsed.with_columns(reason=pl.coalesce("fault", pl.when(found != "").then(found)))

    key, content = ["symbol", "day", "source"], [*(f"{name}_" for name in (*PRICES, "volume", "vendor_adj_close"))]
    good = parsed.filter(pl.col("reason").is_null())
    distinct = pl.struct(content).n_unique().over(key)
    conflicting = good.filter(distinct > 1).with_columns(reason=pl.lit(CONFLICT))
    agreeing = good.filter(distinct == 1)
    accepted = agreeing.unique(subset=key, keep="first", maintain_order=True)
    rejected = pl.concat([parsed.filter(pl.col("reason").is_not_null()), conflicting]).sort("row")
    return Screened(
        accepted=accepted.select(
            "symbol",
            interval=pl.lit(interval),
            session=pl.col("day"),
            event_at=pl.col("close_at"),
            known_at=pl.col("close_at"),
            **{name: pl.col(f"{name}_") for name in (*PRICES, "volume", "vendor_adj_close")},
            source=pl.col("source"),
        ).sort("symbol", "session", "source"),
        rejected=_as_rejects(rejected, unknown, undated_at, calendar),
        duplicates=agreeing.height - accepted.height,
    )


def _parse(records: pl.DataFrame, date_format: str, calendar: str) -> pl.DataFrame:
    """Fields with a trailing underscore hold the parsed values; null where the text could not be read."""
    text = pl.col("session").str.strip_chars()
    known = all_sessions(calendar)
    numbers = [
        pl.col(name).str.strip_chars().cast(pl.Float64, strict=False).alias(f"{name}_")
        for name in (*PRICES, "volume", "vendor_adj_close")
    ]
    parsed = records.with_columns(
        *numbers,
        symbol=pl.col("symbol").str.strip_chars(),
        date=text.str.to_date(date_format, strict=False, exact=True),
        stamp=text.str.to_datetime("%+", strict=False, time_unit="us", time_zone="UTC"),
    ).with_columns(day=pl.coalesce("date", pl.col("stamp").dt.convert_time_zone(timezone(calendar)).dt.date()))
    # A date that the calendar cannot reach (the year 99, 2099) is a typing error, not a day to file the record under.
    reachable = pl.col("day").is_between(known["session"][0], known["session"][-1])
    volume = pl.col("volume_")
    whole = volume.is_finite() & (volume == volume.floor()) & (volume.abs() <= LARGEST_VOLUME)
    return (
        parsed.with_columns(
            day=pl.when(reachable).then("day"),
            volume_number=volume,
            volume_=pl.when(whole).then(volume).cast(pl.Int64),
        )
        .join(known, left_on="day", right_on="session", how="left", maintain_order="left")
        .sort("row")
    )


def _faults(unknown: Sequence[str], holds: Sequence[str] | None, calendar: str, adjusted: bool) -> list[pl.Expr]:
    """One text expression for each thing that can be wrong with a parsed record, null where it is not."""

    def when(condition: pl.Expr, reason: str) -> pl.Expr:
        return pl.when(condition).then(pl.lit(reason))

    session, day, stamp = pl.col("session"), pl.col("day"), pl.col("stamp")
    given = ~_empty(session)
    naive = session.str.contains(NAIVE_TIMESTAMP)
    on_time = (stamp == pl.col("open_at")) | (stamp == pl.col("close_at")) | (stamp == local_midnight(day, calendar))
    faults = [
        *(when(pl.col(name).is_not_null(), f"unknown column {name!r}") for name in unknown),
        when(_empty(pl.col("symbol")), "missing symbol"),
        *([when(~_empty(pl.col("symbol")) & ~pl.col("symbol").is_in(holds), "unknown symbol")] if holds else []),
        when(~given, "missing date"),
        when(given & day.is_null() & naive, "naive timestamp: it has no UTC offset"),
        when(given & day.is_null() & ~naive, "unreadable date"),
        when(day.is_not_null() & pl.col("close_at").is_null(), f"no session of {calendar} on this date"),
        when(stamp.is_not_null() & pl.col("close_at").is_not_null() & ~on_time, "timestamp is no edge of the session"),
    ]
    for name in (*PRICES, *(["vendor_adj_close"] if adjusted else [])):
        value = pl.col(f"{name}_")
        faults += [
            *_unread(name),
            when(value.is_nan() | value.is_infinite(), f"{name} is not finite"),
            when(value.is_finite() & (value <= 0), f"{name} is not above zero"),
        ]
    # Polars orders NaN above every number; what is not finite has been said already.
    o, h, low, c = (pl.when(pl.col(f"{name}_").is_finite()).then(f"{name}_") for name in PRICES)
    faults += [
        when(h < low, "high below low"),
        when((o < low) | (o > h), "open outside [low, high]"),
        when((c < low) | (c > h), "close outside [low, high]"),
        *_unread("volume"),
        when(pl.col("volume_") < 0, "volume below zero"),
        when(pl.col("volume_number").is_not_null() & pl.col("volume_").is_null(), "volume is not a whole number"),
    ]
    return faults


def _unread(name: str) -> list[pl.Expr]:
    number = pl.col("volume_number" if name == "volume" else f"{name}_")
    return [
        pl.when(_empty(pl.col(name))).then(pl.lit(f"missing {name}")),
        pl.when(~_empty(pl.col(name)) & number.is_null()).then(pl.lit(f"unreadable {name}")),
    ]


def _empty(text: pl.Expr) -> pl.Expr:
    return text.is_null() | (text.str.strip_chars() == "")


def _as_rejects(rejected: pl.DataFrame, unknown: Sequence[str], undated_at: datetime, calendar: str) -> pl.DataFrame:
    """Rejected records in the shape of `raw.quarantine`; the record is kept as JSON, the line itself included."""
    shown = [name for name in (*RECORD_COLUMNS, *unknown) if name not in ("source", "origin", "fault", "record")]
    texts = [
        json.dumps({name: value for name, value in row.items() if value is not None}, ensure_ascii=False, sort_keys=True)
        for row in rejected.select(*shown, line=pl.col("record")).iter_rows(named=True)
    ]
    dated = pl.coalesce("close_at", local_midnight(pl.col("day"), calendar))
    return rejected.select(
        table_name=pl.lit("raw.bars"),
        source=pl.col("source"),
        origin=pl.col("origin"),
        symbol=pl.col("symbol"),
        event_at=dated,
        filed_at=pl.coalesce(dated, pl.lit(undated_at).cast(TIMESTAMP)),
        reason=pl.col("reason"),
        record=pl.Series(texts, dtype=pl.String),
    )
