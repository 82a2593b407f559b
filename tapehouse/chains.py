"""Asking the declared sources for a range: who is asked, what falls back to whom, and a fingerprint of what they would give.

`sources.yaml` says which sources feed what (`Universe.lines`); this module finds a source's own module by its `kind`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import lru_cache
from importlib import import_module
from types import ModuleType

import polars as pl

from tapehouse.codeversion import modules_version
from tapehouse.hashing import frame_hash, text_hash
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.settings import Settings
from tapehouse.sources.base import Ask, Delivery, Missing
from tapehouse.universe import Feed

Span = tuple[datetime, datetime]
TIMES = {name: pl.Datetime("us", "UTC") for name in ("event_at", "filed_at")}
REJECT_SCHEMA = {name: TIMES.get(name, pl.String()) for name in REJECT_COLUMNS}


@dataclass(frozen=True)
class Received:
    """What all sources of an offer gave for a range; fields as in `Delivery`. `rows` is None where nobody feeds it."""

    rows: pl.DataFrame | None
    rejected: pl.DataFrame
    counts: dict[str, int]
    missing: tuple[Missing, ...]


def receive(settings: Settings, offer: str, start: datetime, end: datetime, key: Sequence[str] = ()) -> Received:
    """Ask every source that is declared for an offer, for [start, end) of its table's time column.

    Of a chain, each source is asked for what the one before it failed to give, and for no more: rows say in `source` from
    whom they came.

    Args:
        key: columns that identify a record. A source that failed to give a part may have given some of it: of a record that
            several sources of a chain gave, the row of the first of them is taken.
    """
    deliveries: list[Delivery] = []
    frames: list[pl.DataFrame] = []
    missing: list[Missing] = []
    for line in settings.universe.lines(offer):
        got, left = _along(settings, offer, line, start, end)
        deliveries += got
        missing += left
        frames += _first_given([d.rows for d in got], key)
    rows = [frame for frame in frames if frame.height] or frames[:1]
    rejected = [d.rejected.select(REJECT_COLUMNS).cast(REJECT_SCHEMA) for d in deliveries]
    counts: dict[str, int] = {}
    for delivery in deliveries:
        for name, count in delivery.counts.items():
            counts[name] = counts.get(name, 0) + count
    return Received(
        pl.concat(rows) if rows else None,
        pl.concat(rejected) if rejected else pl.DataFrame(schema=REJECT_SCHEMA),
        counts,
        tuple(missing),
    )


def first_sessions(settings: Settings, symbols: Sequence[str]) -> tuple[dict[str, date], set[str]]:
    """The session of the first bar that the sources hold of each symbol (without a bar it is left out), and the symbols for
    which that is not known, because the sources failed to give what may lie before.

    A source that can tell without delivering does so, also of bars before the span; of any other the span is asked for.
    """
    universe, found, unknown = settings.universe, {}, set()
    for line in universe.lines("bars"):
        wanted = tuple(symbol for symbol in line.symbols if symbol in symbols)
        if not wanted:
            continue
        declared = universe.sources[line.source[0]]
        module, ask = _module(declared.kind), Ask("bars", line.source[0], wanted, universe.start, universe.end, settings)
        if hasattr(module, "first_sessions"):
            found |= {symbol: day for symbol, day in module.first_sessions(declared, ask).items() if symbol in wanted}
            continue
        got, missing = _along(settings, "bars", Feed(source=line.source, symbols=wanted), universe.start, universe.end)
        first = pl.concat([d.rows for d in got]).group_by("symbol").agg(pl.col("session").min())
        found |= dict(first.iter_rows())
        unknown |= {m.symbol for m in missing if m.symbol not in found or m.start.date() <= found[m.symbol]}
    return {symbol: day for symbol, day in found.items() if symbol not in unknown}, unknown


class Ranged:
    """A `fingerprint` (`tapehouse.tables.table`) that `ranges(settings, spans)` gives of many ranges [start, end) at once."""

    def __init__(self, ranges: Callable[[Settings, Sequence[Span]], list[str]]):
        self.ranges = ranges

    def __call__(self, settings: Settings, start: datetime, end: datetime) -> str:
        """The fingerprint of one range."""
        return self.ranges(settings, [(start, end)])[0]


def feed_fingerprint(offer: str) -> Ranged:
    """The `fingerprint` of a raw table: changes when its sources would deliver something else for the range."""

    def ranges(settings: Settings, spans: Sequence[Span]) -> list[str]:
        lines = [_line_fingerprints(settings, offer, line, spans) for line in settings.universe.lines(offer)]
        return [text_hash(*(line[at] for line in lines)) for at in range(len(spans))] if lines else [text_hash()] * len(spans)

    return Ranged(ranges)


def _along(settings: Settings, offer: str, line: Feed, start: datetime, end: datetime) -> tuple[list[Delivery], list[Missing]]:
    """What a chain of sources gives, and what none of them had."""
    wanted = [(line.symbols, start, end)]
    got: list[Delivery] = []
    missing: list[Missing] = []
    for source in line.source:
        asked, missing = wanted, []
        for symbols, first, last in asked:
            delivery = _ask(settings, offer, source, symbols, first, last)
            got.append(delivery)
            missing += _united(delivery.missing, first, last)
        wanted = [((m.symbol,), m.start, m.end) for m in missing]
        if not wanted:
            break
    return got, missing


def _united(missing: Sequence[Missing], start: datetime, end: datetime) -> list[Missing]:
    """Gaps inside [start, end) by symbol, those that meet or overlap made one: several requests may fail for one part."""
    found: list[Missing] = []
    for part in sorted(missing, key=lambda m: (m.symbol, m.start, m.end)):
        first, last = max(part.start, start), min(part.end, end)
        if first >= last:
            continue
        if found and found[-1].symbol == part.symbol and first <= found[-1].end:
            found[-1] = replace(found[-1], end=max(found[-1].end, last))
        else:
            found.append(replace(part, start=first, end=last))
    return found


def _first_given(frames: list[pl.DataFrame], key: Sequence[str]) -> list[pl.DataFrame]:
    """The rows of each next frame whose key none before it has."""
    kept: list[pl.DataFrame] = []
    for frame in frames:
        if key and kept and frame.height:
            frame = frame.join(pl.concat([k.select(key) for k in kept]), on=list(key), how="anti", maintain_order="left")
        kept.append(frame)
    return kept


def _ask(settings: Settings, offer: str, source: str, symbols: tuple[str, ...], start: datetime, end: datetime) -> Delivery:
    declared = settings.universe.sources[source]
    delivery = _module(declared.kind).deliver(declared, Ask(offer, source, symbols, start, end, settings))
    if offer == "bars" and "actions" in declared.offers:
        # Each further dividend rewrites the adjusted closes of all history: where actions are given, they say nothing more.
        return replace(delivery, rows=delivery.rows.with_columns(vendor_adj_close=pl.lit(None, pl.Float64)))
    return delivery


def _line_fingerprints(settings: Settings, offer: str, line: Feed, spans: Sequence[Span]) -> list[str]:
    universe = settings.universe
    version = _version(tuple(dict.fromkeys(universe.sources[source].kind for source in line.source)))
    if len(line.source) == 1:
        declared = universe.sources[line.source[0]]
        module = _module(declared.kind)
        asks = [Ask(offer, line.source[0], line.symbols, start, end, settings) for start, end in spans]
        many = hasattr(module, "fingerprints") and asks
        said = module.fingerprints(declared, asks[0], spans) if many else [module.fingerprint(declared, ask) for ask in asks]
        return [text_hash(version, one) for one in said]
    found = []
    for start, end in spans:  # who is asked for what depends on what the others failed to give
        got, missing = _along(settings, offer, line, start, end)
        contents = (frame_hash(d.rows) + frame_hash(d.rejected) for d in got)
        found.append(text_hash(version, *contents, repr(_bounds(missing))))
    return found


def _bounds(missing: Sequence[Missing]) -> list[tuple[str, datetime, datetime]]:
    """Gaps without the words of their failure, which differ from one attempt to the next."""
    return [(m.symbol, m.start, m.end) for m in missing]


def _module(kind: str) -> ModuleType:
    return import_module(f"tapehouse.sources.{kind}")


@lru_cache(maxsize=64)
def _version(kinds: tuple[str, ...]) -> str:
    return modules_version(tuple(f"tapehouse.sources.{kind}" for kind in kinds))
