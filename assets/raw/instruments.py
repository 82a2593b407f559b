"""One row per (instrument_id, known_at, source): a version of what an instrument is and how it trades."""

from tapehouse.sources.packaged import instruments_fingerprint
from tapehouse.tables import table


@table(fingerprint=instruments_fingerprint)
def build(b):
    from tapehouse.merging import merge_versions
    from tapehouse.sources.packaged import instruments

    rows = merge_versions(b.existing(), instruments(b.settings.universe), ["instrument_id", "source"], b.ingested_at)
    b.note(instruments=rows["instrument_id"].n_unique(), tradable=int(rows["tradable"].sum()))
    return rows
