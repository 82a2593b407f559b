"""What a rebuilt book gives: its quotes as rows, and the differences that it could not use as records of the quarantine."""

import json
from dataclasses import dataclass

import numpy as np
import polars as pl

from tapehouse.book_kernels import APART, APPLIED, CONTAINED, CROSSED, NO_SNAPSHOT, STATUSES, UNUSABLE, VALID, WARM_UP
from tapehouse.book_messages import KINDS, LEVELS, REJECT_SCHEMA, Messages, lists
from tapehouse.calendars import TIMESTAMP

TABLE = "staging.book_quotes"
QUOTE_SCHEMA = {
    "symbol": pl.String,
    "market": pl.String,
    "source": pl.String,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "received_at": TIMESTAMP,
    "status": pl.String,
    "valid": pl.Boolean,
    "last_id": pl.Int64,
    "bid_price": pl.Float64,
    "bid_size": pl.Float64,
    "ask_price": pl.Float64,
    "ask_size": pl.Float64,
    "mid": pl.Float64,
    "microprice": pl.Float64,
    "spread_bps": pl.Float64,
    "bid_depth": pl.Float64,
    "ask_depth": pl.Float64,
    "bid_prices": LEVELS,
    "bid_sizes": LEVELS,
    "ask_prices": LEVELS,
    "ask_sizes": LEVELS,
    "superseded_at": TIMESTAMP,
    "version": pl.Int64,
}


@dataclass(frozen=True)
class Tidings:
    """Messages with what became of them.

    Attributes:
        fates: (n,) int8, `tapehouse.book_kernels.FATES`; 0 for what is no difference.
        notes: (n, 4) int64: status and stretch of the book after the message, its update id (before it, where a stretch of
            unusable differences began), whether one began.
    """

    messages: Messages
    fates: np.ndarray
    notes: np.ndarray

    @classmethod
    def empty(cls) -> "Tidings":
        """Of no messages."""
        return cls(Messages.none(), np.zeros(0, np.int8), np.zeros((0, 4), np.int64))

    def then(self, messages: Messages) -> "Tidings":
        """These and, behind them, messages of which nothing is known yet."""
        fates = np.concatenate([self.fates, np.zeros(messages.size, np.int8)])
        notes = np.concatenate([self.notes, np.zeros((messages.size, 4), np.int64)])
        return Tidings(self.messages.then(messages), fates, notes)

    def only(self, kept: np.ndarray) -> "Tidings":
        """Those where the (n,) mask is true."""
        return Tidings(self.messages.only(kept), self.fates[kept], self.notes[kept])

    def counts(self, start: int, stop: int) -> dict[str, int]:
        """How many differences received in [start, stop), us, were applied, contained in the book already, unusable."""
        fates = self.fates[(self.messages.known >= start) & (self.messages.known < stop)]
        named = {"applied": APPLIED, "contained": CONTAINED, "unusable": UNUSABLE}
        return {name: int((fates == fate).sum()) for name, fate in named.items()}


def quote_rows(key: tuple[str, str, str], rows: int, marks: np.ndarray, tops: np.ndarray, held: np.ndarray) -> pl.DataFrame:
    """Rows of `staging.book_quotes` from what `tapehouse.book_kernels.emit` has written.

    mid = (bid + ask) / 2; microprice weights each price by the size on the other side; spread_bps = spread / mid in 10^-4;
    depth is the sum of the sizes of a side's listed levels, from the best on. A book that is not valid has no numbers.
    """
    symbol, market, source = key
    marks, tops, held = marks[:rows], tops[:rows], held[:rows]
    within = np.arange(tops.shape[2])[None, :] < held[:, :, None].transpose(1, 0, 2)  # (side, row, level)
    columns: dict[str, pl.Series] = {}
    for side, name in enumerate(("bid", "ask")):
        ends = np.cumsum(held[:, side])
        prices, sizes = tops[:, 2 * side], tops[:, 2 * side + 1]
        columns |= {f"{name}_prices": lists(prices[within[side]], ends), f"{name}_sizes": lists(sizes[within[side]], ends)}
        depth = np.zeros(rows)
        for level in range(tops.shape[2]):  # one after the other: the order of a sum decides its last bits
            depth += np.where(within[side][:, level], sizes[:, level], 0.0)
        best = {f"{name}_price": prices[:, 0], f"{name}_size": sizes[:, 0], f"{name}_depth": depth}
        columns |= {what: _where(held[:, side] > 0, values) for what, values in best.items()}
    frame = pl.DataFrame(
        {
            "event_at": marks[:, 3],
            "known_at": marks[:, 0],
            "received_at": np.where(marks[:, 4] > 0, marks[:, 4], -1),
            "status": marks[:, 1],
            "last_id": marks[:, 2],
            **columns,
        }
    )
    valid, total = pl.col("status") == VALID, pl.col("bid_size") + pl.col("ask_size")
    mid = (pl.col("bid_price") + pl.col("ask_price")) / 2
    weighed = pl.col("bid_price") * pl.col("ask_size") + pl.col("ask_price") * pl.col("bid_size")
    return frame.with_columns(
        pl.col("event_at", "known_at").cast(TIMESTAMP),
        symbol=pl.lit(symbol),
        market=pl.lit(market),
        source=pl.lit(source),
        received_at=pl.when(pl.col("received_at") > 0).then("received_at").cast(TIMESTAMP),
        status=pl.col("status").replace_strict(list(range(len(STATUSES))), list(STATUSES), return_dtype=pl.String),
        valid=valid,
        last_id=pl.when(valid).then("last_id"),
        mid=mid,
        microprice=weighed / total,
        spread_bps=(pl.col("ask_price") - pl.col("bid_price")) / mid * 10_000,
        superseded_at=pl.lit(None, TIMESTAMP),
        version=pl.lit(1, pl.Int64),
    ).select(list(QUOTE_SCHEMA))


def _where(held: np.ndarray, values: np.ndarray) -> pl.Series:
    return pl.select(pl.when(pl.Series(held)).then(pl.Series(np.ascontiguousarray(values)))).to_series()


def rejected_differences(
    key: tuple[str, str, str], gone: Tidings, first: int, stop: int, told: int
) -> tuple[pl.DataFrame, int]:
    """A record for each stretch of differences, received in [first, stop), that no snapshot has made good.

    It is that of the stretch's first difference in the range. A gap is told even where a snapshot made good what came
    after it: what was in it is lost.

    Args:
        gone: what can no longer change. told: the last stretch that has been told.

    Returns:
        Rows as `tapehouse.ingest.REJECT_COLUMNS`, and the last stretch that has been told now.
    """
    symbol, market, source = key
    known, events = gone.messages.times
    bad = ((gone.fates == UNUSABLE) | (gone.notes[:, 3] == 1)) & (known >= first) & (known < stop) & (gone.notes[:, 1] > told)
    if not bad.any():
        return pl.DataFrame(schema=REJECT_SCHEMA), told
    stretches, positions = np.unique(gone.notes[bad, 1], return_index=True)
    rows = []
    for i in np.flatnonzero(bad)[positions].tolist():
        ids = [int(n) if n >= 0 else None for n in gone.messages.ids[:, i]]
        sequence = int(gone.messages.sequences[i])
        record = {"first_id": ids[0], "last_id": ids[1], "previous_id": ids[2], "sequence": sequence}
        rows.append(
            {
                "table_name": TABLE,
                "source": source,
                "origin": f"raw.book_events {symbol} {market} {sequence}",
                "symbol": symbol,
                "event_at": int(events[i]),
                "filed_at": int(known[i]),
                "reason": _reason(int(gone.notes[i, 0]), int(gone.notes[i, 1]), int(gone.notes[i, 2]), ids),
                "record": json.dumps({"symbol": symbol, "market": market, "kind": "diff", **record}, sort_keys=True),
            }
        )
    frame = pl.DataFrame(rows, schema={**REJECT_SCHEMA, "event_at": pl.Int64, "filed_at": pl.Int64}).cast(REJECT_SCHEMA)
    return frame, int(stretches[-1])


def _reason(status: int, stretch: int, book_id: int, ids: list[int | None]) -> str:
    if status == CROSSED:
        return "crossed: the best bid is not below the best ask; differences are not used until the next snapshot"
    if status == APART:
        return "snapshot apart: its update id lies before the differences received; they are not used until the next one"
    if status == NO_SNAPSHOT or (status == WARM_UP and stretch == 0):
        return "no snapshot: differences received before any snapshot, and too long before one, apply to no known book"
    pu = "" if ids[2] is None else f", pu {ids[2]}"
    return f"gap: the book was at update id {book_id}, the next difference has U {ids[0]}, u {ids[1]}{pu}"


def trace_rows(messages: Messages, notes: np.ndarray, best: np.ndarray, start: int) -> pl.DataFrame:
    """The best quotes after each message from `start` on: what a rebuilt book is proven with.

    Columns `sequence`, `kind`, `message_id` (u), `book_id`, `valid`, `bid_price`, `bid_size`, `ask_price`, `ask_size`
    (0 where a side is empty).
    """
    names = ("bid_price", "bid_size", "ask_price", "ask_size")
    return pl.DataFrame(
        {
            "sequence": messages.sequences[start:],
            "kind": pl.Series(list(KINDS)).gather(messages.kinds[start:].astype(np.int64)),
            "message_id": messages.ids[1, start:],
            "book_id": notes[start:, 2],
            "valid": notes[start:, 0] == VALID,
            **{name: best[start:, c] for c, name in enumerate(names)},
        }
    )
