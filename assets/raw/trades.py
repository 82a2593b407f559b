"""One row per (symbol, market, source, trade_id, known_at): a trade between two orders, with the side of the aggressor.

Trades are never corrected, so rows are only added. A row belongs to the day of its receipt.
"""

from tapehouse.feeds import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("trades"), rejects=True, cadence="days")
def build(b):
    from tapehouse.book_messages import TRADE_KEY
    from tapehouse.feeds import ingest

    return ingest(b, "trades", key=TRADE_KEY, versions=False)
