"""Tables that look ahead, each in a way that real code has looked ahead, and one that does not."""

from tests.house import House

HONEST = {
    "sql/features/honest.sql": """
        -- One row per (symbol, decision_at): the close of each bar in its first version, and the one before.
        -- lookback: 1 months
        with

        first_versions as (
            select symbol, event_at, close, lag(close) over (partition by symbol order by event_at) as close_before
            from staging.bars
            where version = 1 and known_at <= event_at
        )

        select symbol, event_at + interval 5 minute as decision_at, close
        from first_versions
        where event_at >= $start and event_at < $end
        """,
}
LEAKS = {
    # lead() reads the next bar.
    "features.lead": {
        "sql/features/lead.sql": """
            -- One row per (symbol, decision_at): the close of the session after.
            -- lookahead: 1 months
            with

            led as (
                select symbol, event_at, lead(close) over (partition by symbol order by event_at) as next_close
                from staging.bars
                where version = 1
            )

            select symbol, event_at + interval 5 minute as decision_at, next_close
            from led
            where event_at >= $start and event_at < $end
            """,
    },
    # A window that is centred on the decision reads two sessions too many.
    "features.centred": {
        "assets/features/centred.py": '''
            """One row per (symbol, decision_at): the median close of five sessions around the decision's own."""

            from tapehouse.tables import reads, table


            @table(reads("staging.bars", lookback_months=1, lookahead_months=1))
            def build(b):
                import polars as pl

                bars = b.read("staging.bars").filter(version=1).sort("symbol", "event_at")
                median = pl.col("close").rolling_median(5, center=True).over("symbol")
                rows = bars.select("symbol", (pl.col("event_at") + pl.duration(minutes=5)).alias("decision_at"), middle=median)
                return rows.filter(pl.col("decision_at").is_between(b.start, b.end, closed="left"))
            ''',
        "checks/features/centred.yaml": """
            columns:
              symbol: {type: varchar, doc: "Ticker."}
              decision_at: {type: timestamptz, doc: "Five minutes after the close."}
              middle: {type: double, doc: "Median of five closes."}
            """,
    },
    # A score against the moments of the whole sample.
    "features.zscore": {
        "assets/features/zscore.py": '''
            """One row per (symbol, decision_at): how far the close lies from the mean of all closes there are."""

            from tapehouse.tables import reads, table


            @table(reads("staging.bars", lookback_months=600, lookahead_months=600))
            def build(b):
                import polars as pl

                bars = b.read("staging.bars").filter(version=1).sort("symbol", "event_at")
                close = pl.col("close")
                score = (close - close.mean().over("symbol")) / close.std().over("symbol")
                rows = bars.select("symbol", (pl.col("event_at") + pl.duration(minutes=5)).alias("decision_at"), score=score)
                return rows.filter(pl.col("decision_at").is_between(b.start, b.end, closed="left"))
            ''',
        "checks/features/zscore.yaml": """
            columns:
              symbol: {type: varchar, doc: "Ticker."}
              decision_at: {type: timestamptz, doc: "Five minutes after the close."}
              score: {type: double, doc: "Deviations from the mean."}
            """,
    },
    # The entry is not moved to the next bar, and the row claims to be known when it is decided.
    "labels.unshifted": {
        "sql/labels/unshifted.sql": """
            -- One row per (symbol, decision_at): the return of five sessions from the decision's own close.
            -- lookahead: 1 months
            with

            held as (
                select symbol, event_at, lead(close, 5) over (partition by symbol order by event_at) / close - 1 as ret
                from staging.bars
                where version = 1
            )

            select symbol, event_at + interval 5 minute as decision_at, ret
            from held
            where event_at >= $start and event_at < $end
            """,
    },
    # Joined on when a bar happened, not on when it was known: later corrections reach back.
    "features.corrected": {
        "sql/features/corrected.sql": """
            -- One row per (symbol, decision_at): the high of the decision's own session, in the version known today.
            select symbol, event_at + interval 5 minute as decision_at, high
            from staging.bars
            where event_at >= $start and event_at < $end
            """,
    },
    # Who is a member is asked as of today: what was delisted later is not there.
    "features.survivors": {
        "sql/features/survivors.sql": """
            -- One row per (symbol, decision_at): the close of each session of what is a member by all that is known today.
            with

            members as (
                select symbol, max(valid_to) as valid_to
                from raw.instruments
                group by symbol
            )

            select bars.symbol, bars.event_at + interval 5 minute as decision_at, bars.close
            from staging.bars as bars
            inner join members
                on bars.symbol = members.symbol
                and (members.valid_to is null or bars.session <= members.valid_to)
            where bars.event_at >= $start and bars.event_at < $end and bars.version = 1 and bars.known_at <= bars.event_at
            """,
    },
}


def plant(house: House, *tables: str) -> None:
    """Add the honest table and the leaking `tables` (default: all) to a project, and read it again."""
    for path, text in HONEST.items():
        house.write(path, text)
    for table in tables or LEAKS:
        for path, text in LEAKS[table].items():
            house.write(path, text)
    house.reload()
