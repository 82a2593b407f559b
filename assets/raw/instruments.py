"""One row per (instrument_id, valid_from, known_at): what an instrument is, under which ticker it trades, and until when.

As sources.yaml declares it now. The end of a ticker, by a change or a delisting, is a row of its own, known when it was.
"""

from tapehouse.instruments import instruments_fingerprint
from tapehouse.tables import table


@table(fingerprint=instruments_fingerprint)
def build(b):
    from tapehouse.instruments import declared_instruments
    from tapehouse.merging import mirror_declaration

    stored = b.existing()
    rows = mirror_declaration(stored, declared_instruments(b.settings, stored), b.ingested_at)
    b.note(instruments=rows["instrument_id"].n_unique(), tradable=rows.filter("tradable")["instrument_id"].n_unique())
    return rows
