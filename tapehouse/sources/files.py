"""Files of CSV (plain or gzip) or Parquet that `sources.yaml` names, with their columns declared: bars, actions, trades, macro.

They are read and judged once per process and content, and handed out by range.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl

from tapehouse.calendars import TIMESTAMP
from tapehouse.hashing import frame_hashes, text_hash
from tapehouse.ingest import screen_bars
from tapehouse.observations import Calendar, Release, first_vintage, screen_macro
from tapehouse.records import screen_actions, screen_trades
from tapehouse.screening import Screened
from tapehouse.sources import located
from tapehouse.sources.base import Ask, Delivery
from tapehouse.sources.columnar import read_parquet
from tapehouse.sources.declared_files import STEM, Declaration, adjustment
from tapehouse.sources.delimited import read_delimited
from tapehouse.sources.located import PARQUET, digest, locate, locate_all

__all__ = ["OFFERS", "Declaration", "adjustment", "deliver", "fingerprint", "first_sessions", "locate"]

OFFERS = ("bars", "actions", "trades", "macro")
Files = tuple[tuple[str, Path, str], ...]  # name inside the folder, path, digest
Span = tuple[datetime, datetime]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The time column of each raw table, by which a range is asked for.
TIMES = {"bars": "event_at", "actions": "event_at", "trades": "known_at", "macro": "event_at"}


@dataclass(frozen=True)
class Held:
    """What the files of one source hold for an ask, over their whole length, judged.

    `accepted` are those inside the table's span, in the order that they were judged in.
    """

    accepted: "Timed"
    rejected: "Timed"
    counts: dict[str, int]
    first: dict[str, date]
    hashes: dict[tuple[datetime, datetime], str] = field(default_factory=dict)


class Timed:
    """Rows that are asked for by a column of times: `order` are their places in the order of these, None where they have it."""

    def __init__(self, rows: pl.DataFrame, column: str):
        self.rows = rows
        times = rows[column].cast(pl.Int64).to_numpy()
        self.order = None
        if (np.diff(times) < 0).any():
            self.order = np.argsort(times, kind="stable")
            times = times[self.order]
        self._times = times

    def places(self, spans: Sequence[Span]) -> list[tuple[int, int]]:
        """Of each span, where its rows begin and end in the order of time."""
        edges = np.array([(_microseconds(start), _microseconds(end)) for start, end in spans]).reshape(-1)
        found = np.searchsorted(self._times, edges).tolist()
        return [(first, max(first, last)) for first, last in zip(found[::2], found[1::2], strict=True)]

    def within(self, start: datetime, end: datetime) -> pl.DataFrame:
        """Rows from `start` to before `end`, in the order of `rows`."""
        [(first, last)] = self.places([(start, end)])
        if last - first == self.rows.height:
            return self.rows
        return self.rows.slice(first, last - first) if self.order is None else self.rows[np.sort(self.order[first:last])]

    def hashes(self, spans: Sequence[Span]) -> list[str]:
        """Content hash of the rows of each span, in the order of time."""
        return frame_hashes(self.rows if self.order is None else self.rows[self.order], self.places(spans))


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Records with `ask.start` <= time < `ask.end`, within the table's span, and what cannot be used.

    A rejected record without a usable date, or dated outside the span, is filed at the start of the span: no partition lies
    elsewhere. `counts` are of whole files: `received` = `accepted` + `outside_span` + `quarantined` + `duplicates`; beside
    them `not_asked` counts the records of symbols that the files are declared to hold and that were not asked for.
    """
    held = _held_for(declared, ask)
    return Delivery(
        rows=held.accepted.within(ask.start, ask.end),
        rejected=held.rejected.within(ask.start, ask.end),
        counts=dict(held.counts),
    )


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """Hash of what `deliver` gives for the ask."""
    return fingerprints(declared, ask, [(ask.start, ask.end)])[0]


def fingerprints(declared: Declaration, ask: Ask, spans: Sequence[Span]) -> list[str]:
    """`fingerprint` of the ask with each of the spans [start, end) in the place of its own: what is new of all, in one pass."""
    held = _held_for(declared, ask)
    new = [span for span in spans if span not in held.hashes]  # asked for again each time that something else has been made
    if new:
        found = zip(new, held.accepted.hashes(new), held.rejected.hashes(new), strict=True)
        held.hashes.update((span, text_hash(rows, rejected)) for span, rows, rejected in found)
    return [held.hashes[span] for span in spans]


def forget() -> None:
    """Let go of what has been read: the next ask reads the files again."""
    _kept.cache_clear()
    located.forget()


def first_sessions(declared: Declaration, ask: Ask) -> dict[str, date]:
    """Symbol to the session of its first good bar in the files, even one before the span."""
    return dict(_held_for(declared, ask).first)


@dataclass(frozen=True)
class _Wanted:
    """All that an answer depends on beside the content of the files."""

    declaration: str
    source: str
    symbols: tuple[str, ...]
    calendars: tuple[str, ...]  # of the symbols
    calendar: str
    interval: str
    span: tuple[datetime, datetime]


def _held_for(declared: Declaration, ask: Ask) -> Held:
    universe = ask.settings.universe
    files = tuple((name, path, digest(path)) for name, path in locate_all(declared.file, universe.folder))
    calendars = tuple(universe.calendar_of(symbol) for symbol in ask.symbols)
    span = (universe.first_day, universe.last_day) if declared.offer == "trades" else (universe.start, universe.end)
    wanted = _Wanted(declared.text, ask.source, ask.symbols, calendars, universe.calendar, universe.interval, span)
    kept = _kept(wanted)
    if files not in kept:
        held = _held(declared, wanted, files)
        kept.clear()  # what the files held before is not asked for again
        kept[files] = held
    return kept[files]


@lru_cache(maxsize=1024)
def _kept(wanted: _Wanted) -> dict[Files, Held]:
    """The last answer, by the files (name, path, digest) that it was read from."""
    return {}


def _held(declared: Declaration, wanted: _Wanted, files: Files) -> Held:
    span = wanted.span
    records = _records(declared, wanted.source, files)
    passed = _not_asked(declared, wanted.symbols)
    asked = records if passed is None else records.filter(~passed)
    screened = _screened(declared, wanted, asked, records)
    inside = screened.accepted[TIMES[declared.offer]].is_between(*span, closed="left")
    accepted = screened.accepted if inside.all() else screened.accepted.filter(inside)
    # Filed under its own date, a record from outside the span would be in no partition, and so in no table.
    filed_at = pl.when(pl.col("filed_at").is_between(*span, closed="left")).then("filed_at")
    rejected = screened.rejected.with_columns(filed_at.fill_null(pl.lit(span[0]).cast(TIMESTAMP)))
    first = screened.accepted.group_by("symbol").agg(pl.col("session").min()) if declared.offer == "bars" else None
    return Held(
        accepted=Timed(accepted, TIMES[declared.offer]),
        rejected=Timed(rejected, "filed_at"),
        counts={
            "received": asked.height,
            "accepted": accepted.height,
            "outside_span": screened.accepted.height - accepted.height,
            "quarantined": rejected.height,
            "duplicates": screened.duplicates,
            "not_asked": records.height - asked.height,
        },
        first=dict(first.rows()) if first is not None else {},
    )


def _records(declared: Declaration, source: str, files: Files) -> pl.DataFrame:
    """The records of all files as text, in the order of the files."""
    parts = []
    for name, path, _ in files:
        read = read_parquet if name.endswith(PARQUET) else read_delimited
        symbol = path.name.partition(".")[0] if declared.symbol == STEM else declared.symbol
        parts.append(read(path, declared.columns, source, symbol, name).drop(declared.ignore, strict=False))
    return pl.concat(parts, how="diagonal") if len(parts) > 1 else parts[0]


def _not_asked(declared: Declaration, symbols: Sequence[str]) -> pl.Expr | None:
    """Whole records of a symbol that may occur and was not asked for; None where there are none. A broken line may hide any
    symbol: it is never passed over, and nor is a record of a symbol that may not occur."""
    held = declared.symbols
    if not symbols or (held is not None and set(held) <= set(symbols)):
        return None
    symbol = pl.col("symbol").str.strip_chars()
    passed = symbol.is_in(set(held) - set(symbols)) if held is not None else ~symbol.is_in(symbols)
    return (pl.col("fault").is_null() & passed).fill_null(False)


def _screened(declared: Declaration, wanted: _Wanted, asked: pl.DataFrame, records: pl.DataFrame) -> Screened:
    undated_at = wanted.span[0]
    holds = declared.symbols
    if declared.offer == "trades":
        return screen_trades(
            asked,
            undated_at=undated_at,
            market=declared.market,
            time_unit=declared.time_unit,
            sides=declared.sides,
            holds=holds,
        )
    if declared.offer == "macro":
        snapshot = first_vintage(records, declared.date_format) if declared.first_vintage_is_snapshot else None
        return screen_macro(
            asked,
            undated_at=undated_at,
            dates=Calendar(declared.frequency, declared.frequencies, declared.quarter_named_by, declared.timezone),
            release=Release(declared.release.lag_days, declared.release.at) if declared.release else None,
            revised=bool(declared.revised),
            snapshot=snapshot,
            date_format=declared.date_format,
            holds=holds,
        )
    return _by_calendar(declared, wanted, asked)


def _by_calendar(declared: Declaration, wanted: _Wanted, asked: pl.DataFrame) -> Screened:
    """Bars and actions judged by each symbol's own calendar; what has no known symbol, by that of the universe."""
    splits: dict[str, list[tuple[date, float]]] = {}
    spin_offs: dict[str, list[tuple[date, float]]] = {}
    for known in declared.split_adjusted_by:
        (splits if known.volumes else spin_offs).setdefault(known.symbol, []).append((known.ex_date, known.ratio))

    def judged(part: pl.DataFrame, by: str) -> Screened:
        keys = {"undated_at": wanted.span[0], "date_format": declared.date_format, "calendar": by, "holds": declared.symbols}
        if declared.offer == "actions":
            return screen_actions(part, **keys)
        return screen_bars(
            part,
            **keys,
            interval=wanted.interval,
            adjusted="vendor_adj_close" in declared.columns,
            splits=splits,
            spin_offs=spin_offs,
            price_decimals=declared.price_decimals,
        )

    calendar = wanted.calendar
    apart = {symbol: by for symbol, by in zip(wanted.symbols, wanted.calendars, strict=True) if by != calendar}
    if not apart:
        return judged(asked, calendar)
    own = pl.col("symbol").str.strip_chars().replace_strict(apart, default=calendar, return_dtype=pl.String)
    placed = asked.select(own=own.fill_null(calendar))["own"]
    found = [judged(asked.filter(placed == by), by) for by in dict.fromkeys([calendar, *apart.values()])]
    return Screened(
        accepted=pl.concat([one.accepted for one in found]),
        rejected=pl.concat([one.rejected for one in found]),
        duplicates=sum(one.duplicates for one in found),
    )


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
