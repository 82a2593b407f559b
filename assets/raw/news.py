"""One row per (article_id, symbol, known_at, source): a headline about a symbol, known when it was published.

A headline that is corrected under the same publication time is a further row, known when the correction arrived.
"""

from tapehouse.feeds import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("news"), rejects=True)
def build(b):
    from tapehouse.feeds import ingest

    return ingest(b, "news", key=("article_id", "symbol", "source"))
