"""One row per (symbol, interval, decision_at): whether the last 20 bars say bullish, bearish or sideways, by rule.

Sideways where the mean return times the root of 20 is under half the returns' deviation, else by the mean's sign.
"""

from tapehouse.tables import reads, table


# 21 bars within 45 days.
@table(
    reads("staging.bars", lookback_months=2),
    reads("raw.corporate_actions", lookback_months=2),
)
def build(b):
    from datetime import timedelta

    from tapehouse.regimes import rule_regimes

    lag = timedelta(minutes=b.settings.universe.decision_lag_minutes)
    rows = rule_regimes(b.read("staging.bars"), b.read("raw.corporate_actions"), b.start, b.end, lag)
    b.note(**{name: int((rows["regime"] == name).sum()) for name in ("bullish", "bearish", "sideways")})
    return rows
