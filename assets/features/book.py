"""One row per (symbol, market, source, decision_at): what the order book and its trades say at each second it can be used.

Windows of ten seconds and a minute, null until the book has been usable for so long.
"""

from tapehouse.tables import reads, table


# A minute: the day's first rows look back into the day before.
@table(
    reads("staging.book_quotes", lookback_days=1),
    reads("raw.trades", lookback_days=1),
    cadence="days",
)
def build(b):
    from tapehouse.book_features import book_features

    return book_features(b.read("staging.book_quotes"), b.read("raw.trades"), b.start, b.end)
