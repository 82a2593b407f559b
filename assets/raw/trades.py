"""One row per (symbol, market, source, trade_id, known_at): a trade between two orders, with the side of the aggressor.

Trades are never corrected, so rows are only added. A row belongs to the day of its receipt, and a trade that was received more
than once is stored once, as first received. Where an earlier receipt reaches the warehouse after a later one has been stored,
the stored row stays what it is; the earlier one is a row beside it only if it is of another day and that day is made alone.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("trades"), rejects=True, cadence="days")
def build(b):
    from tapehouse.book_messages import TRADE_KEY
    from tapehouse.feeds import ingest

    return ingest(b, "trades", key=TRADE_KEY, versions=False)
