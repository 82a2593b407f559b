"""One row per (calendar, kind, name, event_at, known_at, source): a session, expiry or release as it was scheduled or told.

What was scheduled is known long before it happens; what was not, a closure above all, when it became known.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("calendar"), rejects=True)
def build(b):
    from tapehouse.feeds import ingest

    return ingest(b, "calendar", key=("calendar", "kind", "name", "event_at", "source"))
