"""One row per (symbol, concept, unit, period_start, period_end, known_at, source): a figure that a company reported.

A restated figure is a further row with the filing that restates it; one that a later filing only repeats is not.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("fundamentals"), rejects=True)
def build(b):
    from tapehouse.feeds import ingest

    return ingest(b, "fundamentals", key=("symbol", "concept", "unit", "period_start", "period_end", "source"), dated=True)
