"""From declared sources to rows of a raw table: who is asked, what falls back to whom, and what is merged.

`sources.yaml` says which sources feed what (`Universe.lines`); this module finds a source's own module by its `kind`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

import polars as pl

from tapehouse.actions import ACTION_KEY, Adjustment, derive_actions, unexplained_as_rejects
from tapehouse.codeversion import modules_version
from tapehouse.hashing import frame_hash, text_hash
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.merging import merge_new, merge_rejects, merge_versions
from tapehouse.settings import Settings
from tapehouse.sources.base import OFFERS, Ask, Delivery, Missing
from tapehouse.universe import Feed, Universe

if TYPE_CHECKING:
    from tapehouse.engine import Build

QUARANTINE = "raw.quarantine"
TIMES = {name: pl.Datetime("us", "UTC") for name in ("event_at", "filed_at")}
REJECT_SCHEMA = {name: TIMES.get(name, pl.String()) for name in REJECT_COLUMNS}


@dataclass(frozen=True)
class Received:
    """What all sources of an offer gave for a range; fields as in `Delivery`. `rows` is None where nobody feeds it."""

    rows: pl.DataFrame | None
    rejected: pl.DataFrame
    counts: dict[str, int]
    missing: tuple[Missing, ...]


def receive(settings: Settings, offer: str, start: datetime, end: datetime) -> Received:
    """Ask every source that is declared for an offer, for [start, end) of its table's time column.

    Of a chain, each source is asked for what the one before it failed to give, and for no more: rows say in `source` from
    whom they came.
    """
    deliveries: list[Delivery] = []
    missing: list[Missing] = []
    for line in settings.universe.lines(offer):
        got, left = _along(settings, offer, line, start, end)
        deliveries += got
        missing += left
    frames = [d.rows for d in deliveries if d.rows.height] or [d.rows for d in deliveries[:1]]
    rejected = [d.rejected.select(REJECT_COLUMNS).cast(REJECT_SCHEMA) for d in deliveries]
    rejected.append(_missing_as_rejects(OFFERS[offer], missing))
    counts: dict[str, int] = {}
    for delivery in deliveries:
        for name, count in delivery.counts.items():
            counts[name] = counts.get(name, 0) + count
    return Received(pl.concat(frames) if frames else None, pl.concat(rejected), counts, tuple(missing))


def first_sessions(settings: Settings, symbols: Sequence[str]) -> dict[str, date]:
    """The session of the first bar that the sources hold of each symbol; without a bar it is left out.

    A source that can tell without delivering does so, also of bars before the span; of any other the span is asked for.
    """
    universe, found = settings.universe, {}
    for line in universe.lines("bars"):
        wanted = tuple(symbol for symbol in line.symbols if symbol in symbols)
        if not wanted:
            continue
        declared = universe.sources[line.source[0]]
        module, ask = _module(declared.kind), Ask("bars", line.source[0], wanted, universe.start, universe.end, settings)
        if hasattr(module, "first_sessions"):
            found |= {symbol: day for symbol, day in module.first_sessions(declared, ask).items() if symbol in wanted}
            continue
        got, _ = _along(settings, "bars", Feed(source=line.source, symbols=wanted), universe.start, universe.end)
        first = pl.concat([d.rows for d in got]).group_by("symbol").agg(pl.col("session").min())
        found |= dict(first.iter_rows())
    return found


def feed_fingerprint(offer: str) -> Callable[..., str]:
    """The `fingerprint` of a raw table: changes when its sources would deliver something else for the range."""

    def fingerprint(settings: Settings, start: datetime, end: datetime) -> str:
        return text_hash(*(_line_fingerprint(settings, offer, line, start, end) for line in settings.universe.lines(offer)))

    return fingerprint


def ingest(b: "Build", offer: str, key: Sequence[str], versions: bool = True) -> dict[str, pl.DataFrame]:
    """The rows of a raw table and its share of the quarantine after a delivery: what was stored, and what is new.

    Args:
        b: the build of a table that is declared with `rejects=True`.
        key: columns that identify a record, whatever its version.
        versions: whether a record that differs from the stored one is its correction (a further row, known later); a
            stream's messages are never corrected, so there only records with a new key are added.
    """
    received = receive(b.settings, offer, b.start, b.end)
    stored = b.existing()
    merge = merge_versions if versions else merge_new
    rows = stored if received.rows is None else merge(stored, received.rows, key, b.ingested_at)
    _say_missing(b, received.missing)
    b.note(
        received_in_range=0 if received.rows is None else received.rows.height,
        new_rows=rows.height - stored.height,
        **received.counts,
    )
    rejected = merge_rejects(b.existing(QUARANTINE), received.rejected, b.ingested_at)
    return {b.asset.outputs[0].table: rows, QUARANTINE: rejected}


def ingest_actions(b: "Build", bars: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Splits and dividends of the range: as sources give them, else derived from the vendor's adjustment of `bars`.

    Args:
        bars: `raw.bars` from before the last bar ahead of the range.
    """
    universe = b.settings.universe
    received = receive(b.settings, "actions", b.start, b.end)
    given = {symbol for line in universe.lines("actions") for symbol in line.symbols}
    derived = derive_actions(
        bars.filter(~pl.col("symbol").is_in(given)),
        b.start,
        b.end,
        adjustments=adjustments(universe),
        calendar=universe.calendar,
    )
    rows = derived.actions
    if received.rows is not None:
        stored = b.existing().filter(pl.col("symbol").is_in(given))
        merged = merge_versions(stored, received.rows, ACTION_KEY, b.ingested_at)
        rows = pl.concat([merged.select(rows.columns), rows])
    _say_missing(b, received.missing)
    b.note(
        splits=rows.filter(kind="split").height,
        dividends=rows.filter(kind="dividend").height,
        unexplained_steps=derived.unexplained.height,
        **received.counts,
    )
    unexplained = unexplained_as_rejects(derived.unexplained).select(REJECT_COLUMNS).cast(REJECT_SCHEMA)
    rejected = merge_rejects(b.existing(QUARANTINE), pl.concat([received.rejected, unexplained]), b.ingested_at)
    return {b.asset.outputs[0].table: rows, QUARANTINE: rejected}


def actions_fingerprint(settings: Settings, start: datetime, end: datetime) -> str:
    """`feed_fingerprint` of corporate actions: what sources give, and how those adjust that give none."""
    universe = settings.universe
    how = text_hash(universe.calendar, repr(sorted(adjustments(universe).items())))
    return text_hash(feed_fingerprint("actions")(settings, start, end), how)


def adjustments(universe: Universe) -> dict[str, Adjustment]:
    """How each source adjusts its closes, where it declares that."""
    return {
        name: Adjustment(declared.close_decimals, declared.adj_close_decimals, declared.dividend_factor)
        for name, declared in universe.sources.items()
        if hasattr(declared, "dividend_factor")
    }


def _say_missing(b: "Build", missing: Sequence[Missing]) -> None:
    for part in missing:
        b.progress(f"missing: {part.symbol} {part.start:%Y-%m-%d} to {part.end:%Y-%m-%d}: {part.why}")
    if missing:
        b.note(missing="; ".join(f"{m.symbol} {m.start:%Y-%m-%d} to {m.end:%Y-%m-%d}" for m in missing))


def _along(
    settings: Settings, offer: str, line: Feed, start: datetime, end: datetime
) -> tuple[list[Delivery], list[Missing]]:
    """What a chain of sources gives, and what none of them had."""
    wanted = [(line.symbols, start, end)]
    got: list[Delivery] = []
    missing: list[Missing] = []
    for source in line.source:
        asked, wanted, missing = wanted, [], []
        for symbols, first, last in asked:
            delivery = _ask(settings, offer, source, symbols, first, last)
            got.append(delivery)
            missing += delivery.missing
            wanted += [((m.symbol,), max(m.start, start), min(m.end, end)) for m in delivery.missing]
        if not wanted:
            break
    return got, missing


def _ask(settings: Settings, offer: str, source: str, symbols: tuple[str, ...], start: datetime, end: datetime) -> Delivery:
    declared = settings.universe.sources[source]
    delivery = _module(declared.kind).deliver(declared, Ask(offer, source, symbols, start, end, settings))
    if offer == "bars" and "actions" in declared.offers:
        # Each further dividend rewrites the adjusted closes of all history: where actions are given, they say nothing more.
        return replace(delivery, rows=delivery.rows.with_columns(vendor_adj_close=pl.lit(None, pl.Float64)))
    return delivery


def _line_fingerprint(settings: Settings, offer: str, line: Feed, start: datetime, end: datetime) -> str:
    universe = settings.universe
    kinds = tuple(dict.fromkeys(universe.sources[source].kind for source in line.source))
    version = _version(kinds)
    if len(line.source) == 1:
        declared = universe.sources[line.source[0]]
        ask = Ask(offer, line.source[0], line.symbols, start, end, settings)
        return text_hash(version, _module(declared.kind).fingerprint(declared, ask))
    # Who is asked for what depends on what the others failed to give.
    got, missing = _along(settings, offer, line, start, end)
    return text_hash(version, *(frame_hash(d.rows) + frame_hash(d.rejected) for d in got), repr(missing))


def _missing_as_rejects(table: str, missing: Sequence[Missing]) -> pl.DataFrame:
    """Days that no source gave, as rows of `raw.quarantine`: what is not there can be queried too."""
    rows = [
        {
            "table_name": table,
            "source": None,
            "origin": f"{m.symbol} {m.start.isoformat()} to {m.end.isoformat()}",
            "symbol": m.symbol,
            "event_at": m.start,
            "filed_at": m.start,
            "reason": f"not received: {m.why}",
            "record": "{}",
        }
        for m in missing
    ]
    return pl.DataFrame(rows, schema=REJECT_SCHEMA)


def _module(kind: str) -> ModuleType:
    return import_module(f"tapehouse.sources.{kind}")


@lru_cache(maxsize=64)
def _version(kinds: tuple[str, ...]) -> str:
    return modules_version(tuple(f"tapehouse.sources.{kind}" for kind in kinds))
