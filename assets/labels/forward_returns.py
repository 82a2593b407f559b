"""One row per (symbol, interval, decision_at, horizon): the return from the next session's open, gross and less the index's.

Over 1, 5, 10 and 30 sessions, the entry's own being the first; settled bars only, dividends included.
"""

from tapehouse.tables import reads, table

# Thirty sessions from the entry end within seven weeks of the decision.
MONTHS_AHEAD = 2


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
    from tapehouse.labels.forward import HORIZONS, forward_returns
    from tapehouse.labels.horizons import require_lookahead

    universe = b.settings.universe
    sessions = all_sessions(universe.calendar)
    require_lookahead(b.asset.name, sessions, b.end, MONTHS_AHEAD, max(HORIZONS))
    tradable = b.read("raw.instruments").filter("tradable")["symbol"].unique()
    returns = forward_returns(
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        b.read("features.price").filter(pl.col("symbol").is_in(tradable.implode())),
        b.start,
        b.end,
        sessions,
        universe.benchmark,
        settlement_lag=timedelta(days=universe.settlement_lag_days),
    )
    b.note(unlabelled=returns["ret"].null_count(), without_index=returns["excess_ret"].null_count())
    return returns
