"""What a message of an exchange's stream is: its kinds, and the columns of `raw.book_events` and `raw.trades`."""

from typing import Literal

import numpy as np
import polars as pl

from tapehouse.calendars import TIMESTAMP

Market = Literal["spot", "futures"]
MARKETS: tuple[Market, ...] = ("spot", "futures")
SNAPSHOT, DIFF, TICKER, TRADE = 0, 1, 2, 3
KINDS = ("snapshot", "diff", "ticker")  # of book events, by code; a trade has a table of its own

LEVELS = pl.List(pl.Float64)
BOOK_SCHEMA = {
    "symbol": pl.String,
    "market": pl.String,
    "kind": pl.String,
    "sequence": pl.Int64,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "received_ns": pl.Int64,
    "first_id": pl.Int64,
    "last_id": pl.Int64,
    "previous_id": pl.Int64,
    "bid_prices": LEVELS,
    "bid_sizes": LEVELS,
    "ask_prices": LEVELS,
    "ask_sizes": LEVELS,
    "source": pl.String,
}
TRADE_SCHEMA = {
    "symbol": pl.String,
    "market": pl.String,
    "trade_id": pl.Int64,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "received_ns": pl.Int64,
    "price": pl.Float64,
    "size": pl.Float64,
    "side": pl.String,
    "source": pl.String,
}
# In this order the messages of one book follow each other as they arrived.
BOOK_KEY = ("symbol", "market", "source", "sequence")
TRADE_KEY = ("symbol", "market", "source", "trade_id", "known_at")


def arrival_order(received_ns: np.ndarray, after: int = 0) -> np.ndarray:
    """`sequence` of messages in the order of arrival: the receive time, or one more than the message before.

    It ascends even where the receiving clock stood still or was set back, and messages of several files merge by it.

    Args:
        received_ns: (n,) int64, in order of arrival.
        after: sequence of the message before the first.

    Returns:
        (n,) int64, strictly ascending, each above `after`.
    """
    steps = np.arange(received_ns.size, dtype=np.int64)
    return np.maximum(np.maximum.accumulate(received_ns - steps), after + 1) + steps


def known_at_us(received_ns: np.ndarray) -> np.ndarray:
    """Receive times in microseconds, rounded up: nothing is known before it has arrived."""
    return -(-received_ns // 1000)


def lists(values: np.ndarray, ends: np.ndarray) -> pl.Series:
    """A List(Float64) series: row i holds `values[ends[i-1]:ends[i]]`."""
    import pyarrow as pa

    offsets = pa.array(np.concatenate([[0], ends]).astype(np.int64))
    series = pl.from_arrow(pa.LargeListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(values, np.float64))))
    assert isinstance(series, pl.Series)
    return series
