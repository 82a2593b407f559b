"""One row per (symbol, interval, decision_at, side): which barrier a trade opened on the next session reaches first.

Barriers at 1.5 ATR around the entry's open, ten sessions at most; settled bars only, dividends included.
"""

from tapehouse.tables import reads, table

# A horizon of ten sessions ends within three weeks of the decision.
MONTHS_AHEAD = 1


@table(
    reads("features.price"),
    reads("raw.instruments"),
    reads("staging.bars", lookahead_months=MONTHS_AHEAD),
    reads("raw.corporate_actions", lookahead_months=MONTHS_AHEAD),
)
def build(b):
    from datetime import timedelta

    import polars as pl

    from tapehouse.calendars import all_sessions
    from tapehouse.labels.horizons import require_lookahead
    from tapehouse.labels.triple_barrier import BARRIERS, triple_barrier

    universe = b.settings.universe
    sessions = all_sessions(universe.calendar)
    require_lookahead(b.asset.name, sessions, b.end, MONTHS_AHEAD, BARRIERS.horizon)
    tradable = b.read("raw.instruments").filter("tradable")["symbol"].unique()
    labels = triple_barrier(
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        b.read("features.price").filter(pl.col("symbol").is_in(tradable.implode())),
        b.start,
        b.end,
        sessions,
        BARRIERS,
        settlement_lag=timedelta(days=universe.settlement_lag_days),
    )
    b.note(unlabelled=labels["touched"].null_count(), ambiguous=int(labels["ambiguous"].sum()))
    return labels
