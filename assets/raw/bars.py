"""One row per (symbol, interval, event_at, known_at, source): a version of a daily bar as its source gave it.

Prices and volume are those of the day, never adjusted. A correction is a further row with a later `known_at`.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("bars"), rejects=True)
def build(b):
    from tapehouse.feeds import ingest

    # The source is content, not key: a bar that another source gives later is a correction of what was known before.
    return ingest(b, "bars", key=("symbol", "interval", "event_at"))
