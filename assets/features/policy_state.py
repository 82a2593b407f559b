"""One row per (symbol, interval, decision_at): the account of the reference policy, as prompts of a trading agent tell it.

Flat on the first bar of each year; one account a symbol, over the bars and actions known by the decision.
"""

from tapehouse.tables import reads, table


# ATR restarts on 1 May two years before the decision: at most 32 months.
@table(
    reads("staging.bars", lookback_months=33),
    reads("raw.corporate_actions", lookback_months=33),
)
def build(b):
    from datetime import timedelta

    from tapehouse.reference_policy import policy_states

    lag = timedelta(minutes=b.settings.universe.decision_lag_minutes)
    states = policy_states(b.read("staging.bars"), b.read("raw.corporate_actions"), b.start, b.end, lag)
    b.note(**{name: int((states["position"] == side).sum()) for name, side in (("long", 1), ("flat", 0), ("short", -1))})
    return states
