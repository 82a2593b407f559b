"""One row per (table_name, origin, record, reason): a record that could not be used, with every reason why.

It is filed under its date; without a usable date, at the start of the span.
"""

from tapehouse.tables import table

from tapehouse.sources.packaged import rejects_fingerprint


@table(fingerprint=rejects_fingerprint)
def build(b):
    from tapehouse.merging import merge_rejects
    from tapehouse.sources.packaged import rejects

    stored = b.existing()
    rows = merge_rejects(stored, rejects(b.settings.universe, b.start, b.end), b.ingested_at)
    b.note(quarantined=rows.height, new_rows=rows.height - stored.height)
    return rows
