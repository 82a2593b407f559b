"""One row per (table_name, origin, record, reason): a record that could not be used, with every reason why.

It is filed under its date; without a usable date inside the span, at the start of the span.
"""

from tapehouse.sources.packaged import rejects_fingerprint
from tapehouse.tables import reads, table


@table(reads("raw.bars", lookback_months=2), fingerprint=rejects_fingerprint)
def build(b):
    import polars as pl

    from tapehouse.actions import derive_actions, unexplained_as_rejects
    from tapehouse.merging import merge_rejects
    from tapehouse.sources.packaged import adjustments, rejects, totals

    universe, bars = b.settings.universe, b.read("raw.bars")
    derived = derive_actions(bars, b.start, b.end, adjustments=adjustments(universe), calendar=universe.calendar)
    found = pl.concat([rejects(universe, b.start, b.end), unexplained_as_rejects(derived.unexplained)])
    stored = b.existing()
    rows = merge_rejects(stored, found, b.ingested_at)
    # Totals as with raw.bars: of whole files, and of bars alone.
    b.note(rows_in_range=rows.height, new_rows=rows.height - stored.height, **totals(universe))
    return rows
