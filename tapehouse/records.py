"""Judging trades and corporate actions record by record, as `tapehouse.ingest` does bars."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

import polars as pl

from tapehouse.calendars import local_midnight
from tapehouse.screening import (
    NAIVE_TIMESTAMP,
    Screened,
    as_rejects,
    day,
    empty,
    joined,
    number,
    settle,
    symbol_faults,
    unknown_columns,
    unread,
    when,
    with_fields,
)

TimeUnit = Literal["iso", "s", "ms", "us", "ns"]
TRADE_FIELDS = ("symbol", "trade_id", "event_at", "known_at", "price", "size", "side")
TRADE_COLUMNS = (
    *("symbol", "market", "trade_id", "event_at", "known_at"),
    *("received_ns", "price", "size", "side", "source"),
)
ACTION_FIELDS = ("symbol", "kind", "ex_date", "ratio", "amount")
ACTION_COLUMNS = ("symbol", "kind", "ex_date", "ratio", "amount", "event_at", "known_at", "source")
NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


def screen_trades(
    records: pl.DataFrame,
    *,
    undated_at: datetime,
    market: str,
    time_unit: TimeUnit = "iso",
    sides: Mapping[str, str] | None = None,
    holds: Sequence[str] | None = None,
) -> Screened:
    """Judge trades received as text.

    A record is taken when its symbol is one of `holds`, its id a whole number, its times readable (with an offset, where
    they are text), price and size finite and above zero, and its side a known one. A trade that was received more than once
    is known from its first receipt on, in whichever file that is; the others are duplicates.

    Args:
        records: text columns of `TRADE_FIELDS` and those of `read_delimited`. `event_at` is the exchange's time, `known_at`
            that of the receiver; where a file has none, a trade is known when it happened.
        undated_at: `filed_at` of rejected records without a usable time, UTC.
        market: written to every row.
        time_unit: 'iso' for text with an offset, else the unit of a number since 1970.
        sides: the file's word -> 'buy' or 'sell', the side of the aggressor; default: just these words.
        holds: symbols that may occur; None accepts any.

    Returns:
        A `Screened` with `TRADE_COLUMNS`; `received_ns` is null where the file has no receive time.
    """
    numbered, unknown = with_fields(records, TRADE_FIELDS)
    received = "known_at" in records.columns
    words = dict(sides or {"buy": "buy", "sell": "sell"})
    parsed = numbered.with_columns(
        symbol=pl.col("symbol").str.strip_chars(),
        trade_id_=_whole("trade_id"),
        event_ns=_nanoseconds("event_at", time_unit),
        known_ns=_nanoseconds("known_at", time_unit) if received else pl.lit(None, pl.Int64),
        price_=number("price"),
        size_=number("size"),
        side_=pl.col("side").str.strip_chars().replace_strict(words, default=None, return_dtype=pl.String),
    ).with_columns(event=_from_ns("event_ns"), known=_from_ns("known_ns" if received else "event_ns"))
    times = ("event_at", "known_at") if received else ("event_at",)
    faults = [
        *unknown_columns(unknown),
        *symbol_faults(holds),
        *unread("trade_id", pl.col("trade_id_")),
        *(fault for name in times for fault in _time_faults(name, pl.col(f"{name.removesuffix('_at')}_ns"), time_unit)),
        *(fault for name in ("price", "size") for fault in _positive(name)),
        *unread("side", pl.col("side_")),
    ]
    settled = settle(
        parsed.with_columns(reason=joined(faults)).sort("known_ns", maintain_order=True),  # the first of equals is kept
        ("symbol", "trade_id_", "source"),
        ("event_ns", "price_", "size_", "side_"),
        "conflicting records for one trade",
    )
    return Screened(
        accepted=settled.accepted.select(
            "symbol",
            market=pl.lit(market),
            trade_id=pl.col("trade_id_"),
            event_at=pl.col("event"),
            known_at=pl.col("known"),
            received_ns=pl.col("known_ns"),
            price=pl.col("price_"),
            size=pl.col("size_"),
            side=pl.col("side_"),
            source=pl.col("source"),
        ).sort("symbol", "known_at", "trade_id"),
        rejected=as_rejects(settled.rejected, "raw.trades", [*TRADE_FIELDS, *unknown], pl.col("known"), undated_at),
        duplicates=settled.duplicates,
    )


def screen_actions(
    records: pl.DataFrame,
    *,
    undated_at: datetime,
    date_format: str = "%Y-%m-%d",
    calendar: str = "XNYS",
    holds: Sequence[str] | None = None,
) -> Screened:
    """Judge splits and cash dividends received as text.

    A share can pay two dividends on one ex-date, a regular and a special one: their amounts add up to one row. What tells
    one dividend from another is the whole of its record as received (its line, or its JSON object), save spaces and how
    numbers are written: a record that says the same again, in whatever file, is a duplicate, while two of 0.5 that differ in
    nothing but the day of their declaration come to 1. Two splits of one ex-date contradict each other.

    A record is taken when its symbol is one of `holds`, its kind split or dividend, its ex-date a date, and a split's
    `ratio` (new shares per old) or a dividend's `amount` (cash for one share held before) is finite and above zero; the
    other of the two says nothing, or that it has no effect.

    Returns:
        A `Screened` with `ACTION_COLUMNS`. An action happens and is known at 00:00 exchange time of its ex-date. Dividends
        that are added to another's row have none of their own, and are counted among the duplicates.
    """
    numbered, unknown = with_fields(records, ACTION_FIELDS)
    parsed = numbered.with_columns(
        symbol=pl.col("symbol").str.strip_chars(),
        kind_=pl.col("kind").str.strip_chars().str.to_lowercase(),
        day=day("ex_date", date_format),
        ratio_=pl.when(empty("ratio")).then(1.0).otherwise(number("ratio")),
        amount_=pl.when(empty("amount")).then(0.0).otherwise(number("amount")),
    ).with_columns(event=local_midnight(pl.col("day"), calendar))
    kind, ratio, amount = pl.col("kind_"), pl.col("ratio_"), pl.col("amount_")
    known_kind = kind.is_in(["split", "dividend"])
    faults = [
        *unknown_columns(unknown),
        *symbol_faults(holds),
        when(empty("kind"), "missing kind"),
        when(~empty("kind") & ~known_kind, "kind is neither split nor dividend"),
        *unread("ex_date", pl.col("day")),
        when(ratio.is_null(), "unreadable ratio"),
        when(amount.is_null(), "unreadable amount"),
        when((kind == "split") & ~(ratio.is_finite() & (ratio > 0)), "ratio of a split is not a number above zero"),
        when((kind == "split") & (ratio == 1), "a split whose ratio is 1 or missing"),
        when((kind == "split") & (amount != 0), "a split with an amount"),
        when((kind == "dividend") & ~(amount.is_finite() & (amount > 0)), "amount of a dividend is not a number above zero"),
        when((kind == "dividend") & (ratio != 1), "a dividend with a ratio"),
    ]
    key = ("symbol", "kind_", "day", "source")
    settled = settle(
        parsed.with_columns(reason=joined(faults), said=pl.when(kind == "dividend").then(_said())),
        (*key, "said"),
        ("ratio_", "amount_"),
        "conflicting records for one symbol, kind and ex-date",
    )
    taken = _added_up(settled.accepted, key)
    return Screened(
        accepted=taken.select(
            "symbol",
            kind=kind,
            ex_date=pl.col("day"),
            ratio=ratio,
            amount=amount,
            event_at=pl.col("event"),
            known_at=pl.col("event"),
            source=pl.col("source"),
        ).sort("symbol", "kind", "ex_date"),
        rejected=as_rejects(settled.rejected, "raw.corporate_actions", [*ACTION_FIELDS, *unknown], pl.col("event"), undated_at),
        duplicates=settled.duplicates + settled.accepted.height - taken.height,
    )


def _said() -> pl.Expr:
    """A record as received, less its spaces and the ways to write one number: 0.5, .50 and 0.500 are the same."""
    text = pl.coalesce("record", "amount").str.replace_all(r"\s+", "")
    text = text.str.replace_all(r"(^|[^\d.])\.(\d)", "${1}0.${2}")
    text = text.str.replace_all(r"(\d\.\d*?[1-9])0+([^\d]|$)", "${1}${2}")
    return text.str.replace_all(r"(\d)\.0*([^\d]|$)", "${1}${2}")


def _added_up(actions: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """One row for each key, with the amounts of all in it; as decimals, in which a sum has no order."""
    several = actions.select(key).is_duplicated()
    if not several.any():
        return actions
    sums = {
        which: float(sum(Decimal(repr(amount)) for amount in group["amount_"]))
        for which, group in actions.filter(several).group_by(key)
    }
    first = actions.unique(subset=list(key), keep="first", maintain_order=True)
    amounts = [sums.get(row[:-1], row[-1]) for row in first.select(*key, "amount_").rows()]
    return first.with_columns(amount_=pl.Series(amounts, dtype=pl.Float64))


def _whole(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars().cast(pl.Int64, strict=False)


def _nanoseconds(name: str, unit: TimeUnit) -> pl.Expr:
    """A time since 1970 in ns, null where it cannot be read or lies outside what an int64 holds."""
    if unit == "iso":
        stamp = pl.col(name).str.strip_chars().str.to_datetime("%+", strict=False, time_unit="us", time_zone="UTC")
        counted, factor = stamp.dt.epoch("us"), 1_000
    else:
        counted, factor = _whole(name), NANOSECONDS[unit]
    return pl.when(counted.is_between(0, 2**63 // factor - 1)).then(counted * factor)


def _from_ns(name: str) -> pl.Expr:
    return pl.from_epoch(pl.col(name) // 1_000, time_unit="us").cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _time_faults(name: str, parsed: pl.Expr, unit: TimeUnit) -> list[pl.Expr]:
    missing, unreadable = unread(name, parsed)
    if unit != "iso":
        return [missing, unreadable]
    naive = pl.col(name).str.contains(NAIVE_TIMESTAMP)
    return [
        missing,
        when(~empty(name) & parsed.is_null() & naive, f"naive {name}: it has no UTC offset"),
        when(~empty(name) & parsed.is_null() & ~naive, f"unreadable {name}"),
    ]


def _positive(name: str) -> list[pl.Expr]:
    value = pl.col(f"{name}_")
    return [
        *unread(name, value),
        when(~value.is_finite(), f"{name} is not finite"),
        when(value.is_finite() & (value <= 0), f"{name} is not above zero"),
    ]
