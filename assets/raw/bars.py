"""One row per (symbol, interval, event_at, known_at, source): a version of a daily bar as its source gave it.

Prices and volume are those of the day, never adjusted. A correction is a further row with a later `known_at`.
"""

from tapehouse.sources.packaged import bars_fingerprint
from tapehouse.tables import table


@table(fingerprint=bars_fingerprint)
def build(b):
    from tapehouse.ingest import BAR_KEY
    from tapehouse.merging import merge_versions
    from tapehouse.sources.packaged import bars, totals

    received = bars(b.settings.universe, b.start, b.end)
    stored = b.existing()
    rows = merge_versions(stored, received, BAR_KEY, b.ingested_at)
    # The totals are of whole files, so that received = accepted + outside_span + quarantined + duplicates can be seen.
    b.note(bars_in_range=received.height, new_rows=rows.height - stored.height, **totals(b.settings.universe))
    return rows
