"""One row per (symbol, interval, decision_at): the log price, differenced by each order of a grid, as known then.

A fixed window of 100 weights an order, in the price basis of the decision; which order a fold uses is fitted apart.
"""

from tapehouse.tables import reads, table


# Windows reach no further back than 1 May two years before the decision, as those of features.price.
@table(
    reads("staging.bars", lookback_months=33),
    reads("raw.corporate_actions", lookback_months=33),
)
def build(b):
    from datetime import timedelta

    from tapehouse.features.fractional import fractional_features

    return fractional_features(
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        b.start,
        b.end,
        decision_lag=timedelta(minutes=b.settings.universe.decision_lag_minutes),
    )
