"""One row per (article_id, symbol, event_at, known_at, source): a headline about a symbol, known when it was published.

A headline that is corrected under the same publication time is a further row, known when the correction arrived; one that
is published again at another time is an article of that time.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("news"), rejects=True)
def build(b):
    from tapehouse.feeds import ingest

    return ingest(b, "news", key=("article_id", "symbol", "event_at", "source"))
