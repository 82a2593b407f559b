"""One row per (thesis_id, known_at, source): a thesis on a stock as of a day, as its file gave it.

A thesis that is corrected where it stands in its file is a further row, known when the correction arrived.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("theses"), rejects=True)
def build(b):
    from tapehouse.feeds import ingest

    return ingest(b, "theses", key=("thesis_id", "source"))
