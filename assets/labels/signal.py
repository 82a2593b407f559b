"""One row per (symbol, interval, decision_at): the score that the five-class signal is cut from, per fold.

Forward returns over 3, 7 and 15 sessions in units of trailing volatility, weighted; settled bars only, dividends included.
"""

from tapehouse.tables import reads, table

# Fifteen sessions from the entry end within four weeks of the decision, but for long closures of the exchange.
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
    from tapehouse.labels.signal import WEIGHTS, signal_scores

    universe = b.settings.universe
    sessions = all_sessions(universe.calendar)
    require_lookahead(b.asset.name, sessions, b.end, MONTHS_AHEAD, max(WEIGHTS))
    tradable = b.read("raw.instruments").filter("tradable")["symbol"].unique()
    scores = signal_scores(
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        b.read("features.price").filter(pl.col("symbol").is_in(tradable.implode())),
        b.start,
        b.end,
        sessions,
        settlement_lag=timedelta(days=universe.settlement_lag_days),
    )
    b.note(unlabelled=scores["score"].null_count())
    return scores
