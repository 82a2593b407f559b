"""One row per (symbol, accession, line, known_at, source): an insider's trade, as Form 4 tells it.

It is known when the form was accepted, days after the trade or years.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("insider_trades"), rejects=True)
def build(b):
    from tapehouse.feeds import ingest

    return ingest(b, "insider_trades", key=("symbol", "accession", "line", "source"))
