"""What a message of an exchange's stream is: its kinds, and the columns of `raw.book_events` and `raw.trades`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import polars as pl

from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError

Market = Literal["spot", "futures"]
MARKETS: tuple[Market, ...] = ("spot", "futures")
SNAPSHOT, DIFF, TICKER, TRADE = 0, 1, 2, 3
KINDS = ("snapshot", "diff", "ticker")  # of book events, by code; a trade has a table of its own

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
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
REJECT_SCHEMA = {
    "table_name": pl.String,
    "source": pl.String,
    "origin": pl.String,
    "symbol": pl.String,
    "event_at": TIMESTAMP,
    "filed_at": TIMESTAMP,
    "reason": pl.String,
    "record": pl.String,
}
# In this order the messages of one book follow each other as they arrived.
BOOK_KEY = ("symbol", "market", "source", "sequence")
# A trade is one however often it was received.
TRADE_KEY = ("symbol", "market", "source", "trade_id")


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


@dataclass(frozen=True)
class Messages:
    """Book events of one book as arrays, in the order of arrival.

    Attributes:
        kinds: (n,) int8 codes. sequences: (n,) int64, ascending.
        times: (2, n) int64, receive and exchange time in us. ids: (3, n) int64, U, u, pu; -1 for none.
        ends: (2, n + 1) int64; message i has the bids ends[0, i]:ends[0, i + 1] and the asks ends[1, i]:ends[1, i + 1].
        levels: bid prices, bid sizes, ask prices, ask sizes.
    """

    kinds: np.ndarray
    sequences: np.ndarray
    times: np.ndarray
    ids: np.ndarray
    ends: np.ndarray
    levels: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

    @property
    def size(self) -> int:
        """Number of messages."""
        return self.kinds.size

    @property
    def known(self) -> np.ndarray:
        """(n,) receive times in us."""
        return self.times[0]

    @classmethod
    def none(cls) -> "Messages":
        """No messages."""
        ints = np.zeros((3, 0), np.int64)
        return cls(np.zeros(0, np.int8), ints[0], ints[:2], ints, np.zeros((2, 1), np.int64), (np.zeros(0),) * 4)

    @classmethod
    def of(cls, rows: pl.DataFrame) -> "Messages":
        """The rows of `raw.book_events` of one book.

        Raises:
            TapehouseError: names the first message that has not as many sizes as prices.
        """
        kinds = rows["kind"].replace_strict(list(KINDS), list(range(len(KINDS))), return_dtype=pl.Int8)
        levels, ends = [], []
        for side in ("bid", "ask"):
            (price_ends, prices), (size_ends, sizes) = (_flat(rows[f"{side}_{what}"]) for what in ("prices", "sizes"))
            if unlike := np.flatnonzero(price_ends != size_ends).tolist():
                where = rows.row(unlike[0] - 1, named=True)
                raise TapehouseError(
                    f"raw.book_events {where['symbol']} {where['market']} sequence {where['sequence']}: "
                    f"{side}_prices and {side}_sizes differ in length; make that day of raw.book_events again"
                )
            levels += [prices, sizes]
            ends.append(price_ends)
        times = [rows[name].dt.epoch("us").to_numpy() for name in ("known_at", "event_at")]
        ids = [rows[name].fill_null(-1).to_numpy() for name in ("first_id", "last_id", "previous_id")]
        return cls(kinds.to_numpy(), rows["sequence"].to_numpy(), np.stack(times), np.stack(ids), np.stack(ends), tuple(levels))

    def only(self, kept: np.ndarray) -> "Messages":
        """The messages where the (n,) mask is true."""
        if kept.all():
            return self
        levels, ends = [], []
        for side in (0, 1):
            counts = np.diff(self.ends[side])
            inside = np.repeat(kept, counts)
            levels += [self.levels[2 * side][inside], self.levels[2 * side + 1][inside]]
            ends.append(np.concatenate([[0], np.cumsum(counts[kept])]))
        one = (self.kinds[kept], self.sequences[kept], self.times[:, kept], self.ids[:, kept])
        return Messages(*one, np.stack(ends), tuple(levels))

    def between(self, start: int, stop: int) -> "Messages":
        """The messages received in [start, stop), us."""
        return self.only((self.known >= start) & (self.known < stop))

    def then(self, others: "Messages") -> "Messages":
        """These and, behind them, others."""
        if not self.size:
            return others
        joined = [
            np.concatenate([getattr(self, n), getattr(others, n)], axis=-1) for n in ("kinds", "sequences", "times", "ids")
        ]
        ends = np.concatenate([self.ends, others.ends[:, 1:] + self.ends[:, -1:]], axis=1)
        return Messages(*joined, ends, tuple(np.concatenate(pair) for pair in zip(self.levels, others.levels, strict=True)))

    def counts(self, start: int, stop: int) -> dict[str, int]:
        """How many snapshots and tickers were received in [start, stop), us."""
        kinds = self.kinds[(self.known >= start) & (self.known < stop)]
        return {"snapshots": int((kinds == SNAPSHOT).sum()), "tickers": int((kinds == TICKER).sum())}


def _flat(column: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """(n + 1,) ends and the values of a list column."""
    if column.null_count():
        column = column.fill_null([])
    array = column.rechunk().to_arrow()
    ends = array.offsets.to_numpy()
    values = array.values.to_numpy(zero_copy_only=False)[ends[0] : ends[-1]]
    return ends - ends[0], values
