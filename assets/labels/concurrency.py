"""One row per (symbol, interval, decision_at, side): how much of a triple-barrier label is its own, raw.

Average uniqueness and attributed return over the label's own sessions; scaling and decay follow per fold, after purging.
"""

from tapehouse.tables import reads, table

# Labels that overlap a label begin within its horizon before it, or before it ends.
MONTHS = 1


@table(
    reads("labels.triple_barrier", lookback_months=MONTHS, lookahead_months=MONTHS),
    reads("staging.bars", lookahead_months=MONTHS),
    reads("raw.corporate_actions", lookahead_months=MONTHS),
)
def build(b):
    from datetime import timedelta

    from tapehouse.calendars import all_sessions
    from tapehouse.labels.concurrency import concurrency
    from tapehouse.labels.horizons import require_lookahead
    from tapehouse.labels.triple_barrier import BARRIERS

    universe = b.settings.universe
    sessions = all_sessions(universe.calendar)
    require_lookahead(b.asset.name, sessions, b.end, MONTHS, BARRIERS.horizon)
    weights = concurrency(
        b.read("labels.triple_barrier"),
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        b.start,
        b.end,
        sessions,
        BARRIERS,
        settlement_lag=timedelta(days=universe.settlement_lag_days),
    )
    b.note(mean_uniqueness=weights["uniqueness"].mean(), unlabelled=weights["uniqueness"].null_count())
    return weights
