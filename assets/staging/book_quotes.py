"""One row per (symbol, market, source, known_at): the quotes of an order book as it was known at each second.

The book is rebuilt from the day's and the day before's messages alone, with every update id checked. While it is not usable
there is one row that says so, and why; each gap is a record of the quarantine. Quotes are never corrected.
"""

from tapehouse.tables import reads, table


@table(reads("raw.book_events", lookback_days=1), rejects=True, cadence="days")
def build(b):
    from tapehouse.books import BookRules, collected, quotes_by_day
    from tapehouse.merging import mirror_declaration

    rules = BookRules(cadence_ms=1000, levels=10, buffer_seconds=60, max_silence_seconds=60, warm_up_seconds=None)
    rebuilt = collected(quotes_by_day(b.stream("raw.book_events"), rules, b.start, b.end))
    b.note(**rebuilt.counts)
    # Derived, not received: a gap that a later delivery has closed is none any more.
    rejected = mirror_declaration(b.existing("raw.quarantine"), rebuilt.rejected, b.ingested_at)
    return {"staging.book_quotes": rebuilt.quotes, "raw.quarantine": rejected}
