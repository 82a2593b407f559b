"""One row per (symbol, event_at, known_at, source): what holders of a perpetual future paid each other at one funding."""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("funding"), rejects=True, cadence="days")
def build(b):
    from tapehouse.feeds import ingest

    return ingest(b, "funding", key=("symbol", "event_at", "source"))
