"""One row per (series_id, period, known_at, source): a value of a macro series for one period, as a vintage of it gave it.

A revision is a further row with a later `known_at`. `known_as` says how sure that time is.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("macro"), rejects=True)
def build(b):
    import polars as pl

    from tapehouse.feeds import ingest

    # A vintage is a version with a time of its own; a value of which the source says no vintage is what the record is now.
    return ingest(b, "macro", key=("series_id", "period", "source"), dated=pl.col("known_as") != "rule")
