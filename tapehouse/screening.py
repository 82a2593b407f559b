"""Judging records of any kind: reasons, duplicates, conflicts, and the shape in which rejected ones are kept.

Nothing is lost and nothing is silent: every record that comes in is accepted, quarantined with its reasons, or counted
as a duplicate of one that was accepted.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from tapehouse.calendars import TIMESTAMP

REJECT_COLUMNS = ("table_name", "source", "origin", "symbol", "event_at", "filed_at", "reason", "record")
REJECT_KEY = ("table_name", "origin", "record", "reason")
PROVENANCE = ("source", "origin", "record", "fault")
NAIVE_TIMESTAMP = r"^\s*\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{2}(:\d{2}(\.\d*)?)?\s*$"
# Doubles hold whole numbers exactly up to here.
LARGEST_WHOLE = 2**53
# A date outside is a typing error, not a day to file a record under.
EARLIEST, LATEST = date(1600, 1, 1), date(2200, 1, 1)


@dataclass(frozen=True)
class Screened:
    """What became of the records: `accepted.height + rejected.height + duplicates` is the number that came in.

    `accepted` has the columns of the raw table less `ingested_at`, sorted by its key; `rejected` has `REJECT_COLUMNS`,
    in the order received.
    """

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    duplicates: int


@dataclass(frozen=True)
class Settled:
    """Parsed records, each in its place: `accepted` and `rejected` keep every column, and `rejected` its `reason`."""

    accepted: pl.DataFrame
    rejected: pl.DataFrame
    duplicates: int


def settle(parsed: pl.DataFrame, key: Sequence[str], content: Sequence[str], conflict: str) -> Settled:
    """Part the records by `reason` (null: none), and those without by their key.

    Records with equal content for one key are duplicates of the first; where the content differs none of them can be
    believed, and all are rejected for `conflict`.

    Args:
        parsed: with `row` (its number, in the order received), `reason`, and the columns of `key` and `content`.
    """
    bad = parsed["reason"].is_not_null()
    rejected, good = (parsed.filter(bad), parsed.filter(~bad)) if bad.any() else (parsed.clear(), parsed)
    repeated = good.select(list(key)).is_duplicated()  # nulls are equal here
    if not repeated.any():
        return Settled(good, rejected, 0)
    again = good.filter(repeated)
    agrees = pl.struct(content).n_unique().over(list(key)) == 1
    agreeing = again.filter(agrees)
    first = agreeing.unique(subset=list(key), keep="first", maintain_order=True)
    conflicting = again.filter(~agrees).with_columns(reason=pl.lit(conflict))
    return Settled(
        accepted=pl.concat([good.filter(~repeated), first]),
        rejected=pl.concat([rejected, conflicting]).sort("row"),
        duplicates=agreeing.height - first.height,
    )


def as_rejects(rejected: pl.DataFrame, table: str, shown: Sequence[str], dated: pl.Expr, undated_at: datetime) -> pl.DataFrame:
    """Rejected records in the shape of `raw.quarantine`; the record is kept as JSON, the line itself included.

    Args:
        rejected: with `symbol`, `reason`, the columns of `PROVENANCE` and those `shown`, all text.
        table: the raw table that they were meant for.
        shown: fields of the record as received.
        dated: when the record says that it happened, UTC; null where it does not say.
        undated_at: `filed_at` of those.
    """
    texts = [
        json.dumps({name: value for name, value in row.items() if value is not None}, ensure_ascii=False, sort_keys=True)
        for row in rejected.select(*shown, line=pl.col("record")).iter_rows(named=True)
    ]
    return rejected.select(
        table_name=pl.lit(table),
        source=pl.col("source"),
        origin=pl.col("origin"),
        symbol=pl.col("symbol"),
        event_at=dated,
        filed_at=pl.coalesce(dated, pl.lit(undated_at).cast(TIMESTAMP)),
        reason=pl.col("reason"),
        record=pl.Series(texts, dtype=pl.String),
    )


def with_fields(records: pl.DataFrame, fields: Sequence[str]) -> tuple[pl.DataFrame, list[str]]:
    """The records numbered by `row` and with every one of `fields`, null where absent; and the columns that are none."""
    wanted = (*fields, *PROVENANCE)
    absent = [pl.lit(None, pl.String).alias(name) for name in wanted if name not in records.columns]
    unknown = [name for name in records.columns if name not in wanted]
    return records.with_columns(absent).with_row_index("row"), unknown


def joined(faults: Sequence[pl.Expr]) -> pl.Expr:
    """The record's `fault`, or else all reasons that were found, in order; null where there are none."""
    found = pl.concat_str(faults, separator="; ", ignore_nulls=True)
    return pl.coalesce("fault", pl.when(found != "").then(found))


def when(condition: pl.Expr, reason: str) -> pl.Expr:
    """The reason where the condition holds, else null."""
    return pl.when(condition).then(pl.lit(reason))


def empty(name: str) -> pl.Expr:
    """Whether a text field says nothing."""
    return pl.col(name).is_null() | (pl.col(name).str.strip_chars() == "")


def unread(name: str, parsed: pl.Expr) -> list[pl.Expr]:
    """Reasons for a field that is missing, or whose text could not be read as `parsed`."""
    return [when(empty(name), f"missing {name}"), when(~empty(name) & parsed.is_null(), f"unreadable {name}")]


def symbol_faults(holds: Sequence[str] | None, called: str = "symbol") -> list[pl.Expr]:
    """Reasons for a symbol that is missing, or not among those that may occur (None: any may)."""
    given = ~empty("symbol")
    faults = [when(~given, f"missing {called}")]
    return [*faults, when(given & ~pl.col("symbol").is_in(holds), f"unknown {called}")] if holds else faults


def number(name: str) -> pl.Expr:
    """A text field as a double, null where it is none."""
    return pl.col(name).str.strip_chars().cast(pl.Float64, strict=False)


def day(name: str, date_format: str) -> pl.Expr:
    """A text field as a date, null where it is none that anyone could mean."""
    read = pl.col(name).str.strip_chars().str.to_date(date_format, strict=False, exact=True)
    return pl.when(read.is_between(EARLIEST, LATEST, closed="left")).then(read)


def unknown_columns(unknown: Sequence[str]) -> list[pl.Expr]:
    """A column that is no field makes every record with a value in it unusable: what it means is not known."""
    return [when(pl.col(name).is_not_null(), f"unknown column {name!r}") for name in unknown]
