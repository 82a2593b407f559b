"""One row per (symbol, kind, ex_date, known_at, source): a version of a split or cash dividend, known from its ex-date.

As a source gave it, or derived from the steps of a vendor's adjustment factor between one bar and the next.
"""

from tapehouse.feeds import actions_fingerprint
from tapehouse.tables import reads, table


# Two months reach the last bar before the range across any closure of the exchange.
@table(reads("raw.bars", lookback_months=2), fingerprint=actions_fingerprint, rejects=True)
def build(b):
    from tapehouse.feeds import ingest_actions

    return ingest_actions(b, b.read("raw.bars"))
