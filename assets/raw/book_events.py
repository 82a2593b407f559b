"""One row per (symbol, market, source, sequence): a message about an order book, as it was received.

A snapshot of the book, a difference (the new sizes at the prices that changed, 0 for a level that is gone) or a ticker (the
best quotes). Messages are never corrected, so rows are only added. A row belongs to the day of its receipt.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("book"), rejects=True, cadence="days")
def build(b):
    from tapehouse.book_messages import BOOK_KEY
    from tapehouse.feeds import ingest

    return ingest(b, "book", key=BOOK_KEY, versions=False)
