"""From what sources deliver (`tapehouse.chains`) to rows of a raw table and its share of the quarantine: what is merged."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from tapehouse.actions import Adjustment, derive_actions, unexplained_as_rejects
from tapehouse.chains import REJECT_SCHEMA, Ranged, Span, feed_fingerprint, receive
from tapehouse.hashing import text_hash
from tapehouse.ingest import REJECT_COLUMNS
from tapehouse.merging import merge_new, merge_rejects, merge_versions, mirror_declaration, refused_as_rejects
from tapehouse.partitions import key_span
from tapehouse.settings import Settings
from tapehouse.sources.base import Missing
from tapehouse.universe import Universe
from tapehouse.versions import ACTION_KEY

if TYPE_CHECKING:
    from tapehouse.building import Build

QUARANTINE = "raw.quarantine"
NOT_RECEIVED = "not received: no source gave it"


def ingest(
    b: "Build", offer: str, key: Sequence[str], versions: bool = True, dated: bool | pl.Expr = False
) -> dict[str, pl.DataFrame]:
    """The rows of a raw table and its share of the quarantine after a delivery: what was stored, and what is new.

    Args:
        b: the build of a table that is declared with `rejects=True`.
        key: columns that identify a record, whatever its version.
        versions: whether a record that differs from the stored one is its correction (a further row, known later); a
            stream's messages are never corrected, so there only records with a new key are added.
        dated: whether each version carries the time of its own publication (`merge_versions`).
    """
    received = receive(b.settings, offer, b.start, b.end, key)
    table, stored = b.asset.outputs[0].table, b.existing()
    rows, refused = stored, []
    if received.rows is not None and versions:
        rows = merge_versions(stored, received.rows, key, b.ingested_at, dated=dated, refused=refused)
    elif received.rows is not None:
        rows = merge_new(stored, received.rows, key, b.ingested_at)
    _say_missing(b, received.missing)
    b.note(
        received_in_range=0 if received.rows is None else received.rows.height,
        new_rows=rows.height - stored.height,
        **received.counts,
        **({"refused_changes": len(refused)} if refused else {}),
    )
    rejected = pl.concat([received.rejected, refused_as_rejects(refused, table).cast(REJECT_SCHEMA)])
    return {table: rows, QUARANTINE: _quarantine(b, rejected, received.missing)}


def ingest_actions(b: "Build", bars: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Splits and dividends of the range: as sources give them, else derived from the vendor's adjustment of `bars`.

    Args:
        bars: `raw.bars` from before the last bar ahead of the range.
    """
    universe = b.settings.universe
    received = receive(b.settings, "actions", b.start, b.end, ACTION_KEY)
    given = {symbol for line in universe.lines("actions") for symbol in line.symbols}
    adjusted = bars.filter(~pl.col("symbol").is_in(given) & pl.col("vendor_adj_close").is_not_null())
    actions, unexplained = _derived(b, adjusted)
    # What follows from bars is worked out again; whatever else is stored stays, also of a symbol or source that has gone.
    kept = b.existing().join(adjusted.select("symbol", "source").unique(), on=["symbol", "source"], how="anti")
    if received.rows is not None:
        # As with bars the source is content: an action that another source gives later is a correction of what was known.
        kept = merge_versions(kept, received.rows, ACTION_KEY, b.ingested_at)
    rows = pl.concat([kept.select(actions.columns).cast(actions.schema), actions])
    _say_missing(b, received.missing)
    b.note(
        splits=rows.filter(kind="split").height,
        dividends=rows.filter(kind="dividend").height,
        unexplained_steps=unexplained.height,
        **received.counts,
    )
    rejected = pl.concat([received.rejected, unexplained_as_rejects(unexplained).select(REJECT_COLUMNS).cast(REJECT_SCHEMA)])
    return {b.asset.outputs[0].table: rows, QUARANTINE: _quarantine(b, rejected, received.missing)}


def _derived(b: "Build", adjusted: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Actions and unexplained steps of bars with a vendor's adjusted close, each symbol by its own calendar."""
    universe = b.settings.universe
    calendars = {symbol: universe.calendar_of(symbol) for symbol in adjusted["symbol"].unique()}
    found = [
        derive_actions(
            adjusted.filter(pl.col("symbol").is_in([symbol for symbol, own in calendars.items() if own == calendar])),
            b.start,
            b.end,
            adjustments=adjustments(universe),
            calendar=calendar,
        )
        for calendar in sorted({universe.calendar, *calendars.values()})
    ]
    return pl.concat([d.actions for d in found]), pl.concat([d.unexplained for d in found])


@Ranged
def actions_fingerprint(settings: Settings, spans: Sequence[Span]) -> list[str]:
    """`feed_fingerprint` of corporate actions: what sources give, and how those adjust that give none."""
    universe = settings.universe
    how = text_hash(universe.calendar, repr(sorted(adjustments(universe).items())))
    return [text_hash(given, how) for given in feed_fingerprint("actions").ranges(settings, spans)]


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


def _quarantine(b: "Build", rejected: pl.DataFrame, missing: Sequence[Missing]) -> pl.DataFrame:
    """The table's share of the quarantine: records are only added, gaps are those of now, one row a partition."""
    stored = b.existing(QUARANTINE)
    gap = pl.col("reason") == NOT_RECEIVED if stored.height else pl.lit(False)
    records = merge_rejects(stored.filter(~gap), rejected, b.ingested_at)
    gaps = mirror_declaration(stored.filter(gap), _missing_as_rejects(b, missing), b.ingested_at)
    return pl.concat([records, gaps.select(records.columns).cast(records.schema)])


def _missing_as_rejects(b: "Build", missing: Sequence[Missing]) -> pl.DataFrame:
    """What no source gave, as rows of `raw.quarantine`, so that what is not there can be queried too. Why is in the log."""
    rows = []
    for part in missing:
        for key in b.partitions:
            first, last = key_span(b.asset.by, key, key)
            first, last = max(first, part.start), min(last, part.end)
            if first < last:
                about = {"table_name": b.asset.outputs[0].table, "source": None, "symbol": part.symbol}
                when = {"event_at": first, "filed_at": first, "reason": NOT_RECEIVED}
                origin = f"{part.symbol} {first.isoformat()} to {last.isoformat()}"
                rows.append({**about, "origin": origin, **when, "record": "{}"})
    return pl.DataFrame(rows, schema=REJECT_SCHEMA)
