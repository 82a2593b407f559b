"""One row per (symbol, interval, decision_at): a decision at which the symmetric CUSUM filter of returns fires.

The filter starts flat on 1 January. Labels are made at every decision; joined with this table they are sampled at events.
"""

from tapehouse.tables import reads, table


# Back to the anchor: at most eleven months before the session's own, and the last session of a calendar without pauses is
# decided in the month after.
@table(reads("features.price", lookback_months=12), reads("raw.instruments"))
def build(b):
    import polars as pl

    from tapehouse.labels.events import cusum_events

    tradable = b.read("raw.instruments").filter("tradable")["symbol"].unique()
    prices = b.read("features.price").filter(pl.col("symbol").is_in(tradable.implode()))
    events = cusum_events(prices, b.start, b.end)
    b.note(events=events.height)
    return events
