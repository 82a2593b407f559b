"""One row per (symbol, kind, ex_date, known_at, source): a version of a split or cash dividend, known from its ex-date.

Derived from the steps of the vendor's adjustment factor between one bar and the next.
"""

from tapehouse.sources.packaged import adjustment_fingerprint
from tapehouse.tables import reads, table


# Two months reach the last bar before the range across any closure of the exchange.
@table(reads("raw.bars", lookback_months=2), fingerprint=adjustment_fingerprint)
def build(b):
    from tapehouse.actions import derive_actions
    from tapehouse.sources.packaged import adjustments

    universe = b.settings.universe
    derived = derive_actions(b.read("raw.bars"), b.start, b.end, adjustments=adjustments(universe), calendar=universe.calendar)
    b.note(
        splits=derived.actions.filter(kind="split").height,
        dividends=derived.actions.filter(kind="dividend").height,
        unexplained_steps=derived.unexplained.height,
    )
    return derived.actions
