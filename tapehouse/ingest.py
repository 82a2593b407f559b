"""Judging daily bars record by record: from received text to rows of `raw.bars` and `raw.quarantine`."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import reduce
from operator import and_

import polars as pl

from tapehouse.calendars import TIMESTAMP, all_sessions, local_midnight, timezone
from tapehouse.screening import (
    LARGEST_WHOLE,
    NAIVE_TIMESTAMP,
    REJECT_COLUMNS,
    REJECT_KEY,
    Screened,
    as_rejects,
    empty,
    joined,
    settle,
    symbol_faults,
    unknown_columns,
    unread,
    when,
    with_fields,
)

__all__ = ["BAR_COLUMNS", "BAR_KEY", "CONFLICT", "REJECT_COLUMNS", "REJECT_KEY", "Screened", "screen_bars"]

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume", "vendor_adj_close")
FIELDS = ("symbol", "session", *NUMBERS)
BAR_KEY = ("symbol", "interval", "event_at", "source")
BAR_COLUMNS = (*("symbol", "interval", "session", "event_at", "known_at", *PRICES, "volume", "vendor_adj_close", "source"),)
CONFLICT = "conflicting records for one symbol and session"
Splits = Mapping[str, Sequence[tuple[date, float]]]


def screen_bars(
    records: pl.DataFrame,
    *,
    undated_at: datetime,
    date_format: str = "%Y-%m-%d",
    calendar: str = "XNYS",
    interval: str = "1d",
    holds: Sequence[str] | None = None,
    adjusted: bool = True,
    splits: Splits | None = None,
    spin_offs: Splits | None = None,
    price_decimals: int | None = None,
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
        splits: symbol -> (ex_date, new shares per old) of the splits that a source has worked into the prices and
            volumes before them. They are taken out again, so that what is kept are prices and volumes of the day.
        spin_offs: the same of what it has worked into the prices alone.
        price_decimals: decimals that raw prices were quoted in; prices that splits were taken out of are rounded to them.

    Returns:
        A `Screened`. A bar's `event_at` and `known_at` are the close of its session.
    """
    numbered, unknown = with_fields(records, FIELDS)
    parsed = _parse(numbered, date_format, calendar)
    if splits or spin_offs:
        parsed = parsed.with_columns(_restored(splits or {}, spin_offs or {}, price_decimals))
    # Reasons are looked for only where something may be wrong: for nearly all records of nearly all files nothing is.
    doubtful = parsed.select(~_plain(unknown, holds, adjusted))["plain"]
    reason = pl.repeat(None, parsed.height, dtype=pl.String, eager=True).alias("reason")
    if doubtful.any():
        found = parsed.filter(doubtful).select("row", reason=joined(_faults(unknown, holds, calendar, adjusted)))
        reason = parsed.select("row").join(found, on="row", how="left", maintain_order="left")["reason"]
    content = [f"{name}_" for name in NUMBERS]
    settled = settle(parsed.with_columns(reason), ("symbol", "day", "source"), content, CONFLICT)
    return Screened(
        accepted=settled.accepted.select(
            "symbol",
            interval=pl.lit(interval),
            session=pl.col("day"),
            event_at=pl.col("close_at"),
            known_at=pl.col("close_at"),
            **{name: pl.col(f"{name}_") for name in NUMBERS},
            source=pl.col("source"),
        )
        .select(BAR_COLUMNS)
        .sort("symbol", "session", "source"),
        rejected=as_rejects(
            settled.rejected,
            "raw.bars",
            [*FIELDS, *unknown],
            pl.coalesce("close_at", local_midnight(pl.col("day"), calendar)),
            undated_at,
        ),
        duplicates=settled.duplicates,
    )


def _parse(records: pl.DataFrame, date_format: str, calendar: str) -> pl.DataFrame:
    """Fields with a trailing underscore hold the parsed values; null where the text could not be read."""
    text = pl.col("session").str.strip_chars()
    known = all_sessions(calendar)
    parsed = records.with_columns(
        *(_read(records[name]).alias(f"{name}_") for name in NUMBERS),
        symbol=pl.col("symbol").str.strip_chars(),
        date=text.str.to_date(date_format, strict=False, exact=True),
    )
    stamped = parsed["date"].null_count() > 0  # else every one is a date, and none a timestamp
    stamp = text.str.to_datetime("%+", strict=False, time_unit="us", time_zone="UTC") if stamped else pl.lit(None, TIMESTAMP)
    parsed = parsed.with_columns(stamp=stamp)
    if stamped:
        local = pl.col("stamp").dt.convert_time_zone(timezone(calendar)).dt.date()
        parsed = parsed.with_columns(day=pl.coalesce("date", local))
    else:
        parsed = parsed.with_columns(day=pl.col("date"))
    # A date that the calendar cannot reach (the year 99, 2099) is a typing error, not a day to file the record under.
    reachable = pl.col("day").is_between(known["session"][0], known["session"][-1])
    volume = pl.col("volume_")
    whole = volume.is_finite() & (volume == volume.floor()) & (volume.abs() <= LARGEST_WHOLE)
    parsed = parsed.with_columns(
        day=pl.when(reachable).then("day"),
        volume_number=volume,
        volume_=pl.when(whole).then(volume).cast(pl.Int64),
    )
    return parsed.join(known, left_on="day", right_on="session", how="left", maintain_order="left")


def _read(text: pl.Series) -> pl.Series:
    read = text.cast(pl.Float64, strict=False)
    # Blanks around a number are rare, and taking them off costs as much as reading it.
    return read if read.null_count() == text.null_count() else text.str.strip_chars().cast(pl.Float64, strict=False)


def _restored(splits: Splits, spin_offs: Splits, price_decimals: int | None) -> list[pl.Expr]:
    """Prices times, and volume over, the ratios of what comes after the bar: those of the day."""
    shares = _product(splits)
    factor = shares * _product(spin_offs)
    prices = [pl.col(f"{name}_") * factor for name in PRICES]
    if price_decimals is not None:
        prices = [price.round(price_decimals) for price in prices]
    kept = zip(PRICES, prices, strict=True)
    volume = (pl.col("volume_") / shares).round().cast(pl.Int64)
    return [
        *(pl.when(factor != 1).then(price).otherwise(f"{name}_").alias(f"{name}_") for name, price in kept),
        pl.when(shares != 1).then(volume).otherwise("volume_").alias("volume_"),
    ]


def _product(splits: Splits) -> pl.Expr:
    product = pl.lit(1.0)
    for symbol, known in splits.items():
        for ex_date, ratio in known:
            product *= pl.when((pl.col("symbol") == symbol) & (pl.col("day") < ex_date)).then(ratio).otherwise(1.0)
    return product


def _plain(unknown: Sequence[str], holds: Sequence[str] | None, adjusted: bool) -> pl.Expr:
    """Whether a parsed record is certainly without fault: true only where `_faults` finds nothing."""
    o, h, low, c = (pl.col(f"{name}_") for name in PRICES)
    symbol = pl.col("symbol")
    terms = [
        pl.col("fault").is_null(),
        *(pl.col(name).is_null() for name in unknown),
        symbol.is_in(holds) if holds else symbol != "",
        pl.col("close_at").is_not_null() & pl.col("stamp").is_null(),
        (low > 0) & (low <= o) & (o <= h) & (low <= c) & (c <= h) & h.is_finite(),
        pl.col("volume_") >= 0,
        *([pl.col("vendor_adj_close_").is_finite() & (pl.col("vendor_adj_close_") > 0)] if adjusted else []),
    ]
    return reduce(and_, terms).fill_null(False).alias("plain")


def _faults(unknown: Sequence[str], holds: Sequence[str] | None, calendar: str, adjusted: bool) -> list[pl.Expr]:
    """One text expression for each thing that can be wrong with a parsed record, null where it is not."""
    session, day, stamp = pl.col("session"), pl.col("day"), pl.col("stamp")
    given = ~empty("session")
    naive = session.str.contains(NAIVE_TIMESTAMP)
    on_time = (stamp == pl.col("open_at")) | (stamp == pl.col("close_at")) | (stamp == local_midnight(day, calendar))
    faults = [
        *unknown_columns(unknown),
        *symbol_faults(holds),
        when(~given, "missing date"),
        when(given & day.is_null() & naive, "naive timestamp: it has no UTC offset"),
        when(given & day.is_null() & ~naive, "unreadable date"),
        when(day.is_not_null() & pl.col("close_at").is_null(), f"no session of {calendar} on this date"),
        when(stamp.is_not_null() & pl.col("close_at").is_not_null() & ~on_time, "timestamp is no edge of the session"),
    ]
    for name in (*PRICES, *(["vendor_adj_close"] if adjusted else [])):
        value = pl.col(f"{name}_")
        faults += [
            *unread(name, value),
            when(value.is_nan() | value.is_infinite(), f"{name} is not finite"),
            when(value.is_finite() & (value <= 0), f"{name} is not above zero"),
        ]
    # Polars orders NaN above every number; what is not finite has been said already.
    o, h, low, c = (pl.when(pl.col(f"{name}_").is_finite()).then(f"{name}_") for name in PRICES)
    volume = pl.col("volume_number")
    return [
        *faults,
        when(h < low, "high below low"),
        when((o < low) | (o > h), "open outside [low, high]"),
        when((c < low) | (c > h), "close outside [low, high]"),
        *unread("volume", volume),
        when(pl.col("volume_") < 0, "volume below zero"),
        when(volume.is_not_null() & pl.col("volume_").is_null(), "volume is not a whole number"),
    ]
