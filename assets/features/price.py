"""One row per (symbol, interval, decision_at): what the price record says at that decision, in that day's price basis.

Every bar in the latest version known by then, past prices restated by the splits and dividends ex and known by then.
"""

from tapehouse.tables import reads, table


# Recursions restart on 1 May two years before the decision: at most 32 months.
@table(
    reads("staging.bars", lookback_months=33),
    reads("raw.corporate_actions", lookback_months=33),
)
def build(b):
    from datetime import timedelta

    from tapehouse.features.price import price_features

    universe = b.settings.universe
    return price_features(
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        b.start,
        b.end,
        decision_lag=timedelta(minutes=universe.decision_lag_minutes),
        market=universe.benchmark,
    )
