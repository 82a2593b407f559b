"""One row per (symbol, market, source, decision_at, objective): two limit orders on a book, the better paid one chosen.

Filled by trades through the limit or by the queue ahead being traded away; paid by implementation shortfall; near-ties
dropped. The prompt shows raw units and no date.
"""

from tapehouse.prompts.templates import fingerprint
from tapehouse.tables import reads, table


# A day's books are rebuilt from its own messages and those of the day before; the last orders' windows end on the day after.
@table(
    reads("features.book", lookback_days=1),
    reads("raw.book_events", lookback_days=1, lookahead_days=1),
    reads("raw.trades", lookback_days=1, lookahead_days=1),
    files=("book_objectives.yaml",),
    cadence="days",
    fingerprint=fingerprint("book"),
)
def build(b):
    from tapehouse.book_orders import load_book_objectives
    from tapehouse.book_pairs import book_pairs
    from tapehouse.prompts.templates import selected

    home, features = b.settings.home, b.read("features.book")
    declared, shown = load_book_objectives(home / "book_objectives.yaml"), selected(home, "book")
    # One stream after the other, since they share a cursor: the trades are taken before the first message is asked for.
    messages, trades = b.stream("raw.book_events"), b.stream("raw.trades")
    pairs = book_pairs(features, messages, trades, declared, shown, b.start, b.end)
    b.note(**pairs.counts(), farther_wins=pairs.farther_wins)
    return pairs.rows
