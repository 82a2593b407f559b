"""One row per (symbol, accession, section, known_at, source): a section of a company's filing, known when it was accepted.

All text of the primary document is in one of its sections; exhibits are not taken.
"""

from tapehouse.chains import feed_fingerprint
from tapehouse.tables import table


@table(fingerprint=feed_fingerprint("filings"), rejects=True)
def build(b):
    from tapehouse.feeds import ingest

    return ingest(b, "filings", key=("symbol", "accession", "section", "source"))
