"""One row per (instrument_id): what an instrument is and how it trades, as sources.yaml declares it now."""

from tapehouse.sources.packaged import instruments_fingerprint
from tapehouse.tables import table


@table(fingerprint=instruments_fingerprint)
def build(b):
    from tapehouse.merging import mirror_declaration
    from tapehouse.sources.packaged import instruments

    rows = mirror_declaration(b.existing(), instruments(b.settings.universe), b.ingested_at)
    b.note(instruments=rows.height, tradable=int(rows["tradable"].sum()))
    return rows
