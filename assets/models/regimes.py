"""One row per (fold, symbol, interval, decision_at): how likely each hidden state of the market is at that decision.

Filtered, never smoothed: the forward pass from an anchor, with the model fitted on the fold's training window.
"""

from tapehouse.tables import reads, table


# The filter runs from 1 May two years before a decision.
@table(
    reads("features.decision_points", window="fold"),
    reads("features.price", window="fold", lookback_months=33),
    reads("models.fits"),
)
def build(b):
    from tapehouse.fits import values_of
    from tapehouse.hmm import KIND, from_rows
    from tapehouse.regimes import hidden_regimes

    universe = b.settings.universe
    values = values_of(b.read("models.fits"), b.fold, KIND)
    market = b.read("features.price").filter(symbol=universe.benchmark, interval=universe.interval)
    states = from_rows(values) if values else None
    rows = hidden_regimes(b.read("features.decision_points"), market, states, b.fold)
    b.note(**dict(rows["regime"].drop_nulls().value_counts().iter_rows()), without=rows["regime"].null_count())
    return rows
