"""What becomes of limit orders on recorded order books and trades.

An order is decided at `decision_at`, reaches the exchange a declared latency later, and joins the end of the queue that the
book then shows at its price; what it crosses, it takes at once. It is filled by

- a trade beyond its limit (a buy: below it), whoever took: what traded there would have met the order first;
- trades at its limit, of takers on the other side, once they exceed the size ahead of it.

What vanishes from its level without a trade was behind the order, as far as the level's size allows (`behind`, the
conservative rule; C. Moallemi and K. Yuan, A Model for Queue Position Valuation in a Limit Order Book, 2016, discuss the
others): so size ahead = min(size ahead - traded, size displayed). Unfilled at the end of its window it is executed across the
spread. The order itself is taken to be small: it moves nothing, and the first size beyond the queue fills it.

**Which clock.** Decisions live by the receiver's clock, and an order stands behind all that was received by its arrival. The
latency therefore is the way there and back: of the order to the exchange, and of what happens there to the receiver. Trades
and differences come by separate streams, one often later than the other: they are put in the order in which they *happened*
(`event_at`, trades before the difference that shows what they left), so that no size is taken from a queue twice. A trade
received more than `LATE` after that place is taken for late, and comes in `LATE` before its receipt: so nothing counts that is
known later than `SETTLEMENT` after an order's end.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from tapehouse.book_fill_kernels import (
    AHEAD,
    BEHIND,
    FIELDS,
    HIGHS,
    LOW_SELL,
    LOWS,
    NOW,
    OUTCOMES,
    PROPORTIONAL,
    QUEUED,
    RESTING,
    TAKEN,
    THROUGH,
    TOP_BUY,
    UNITS,
    UNKNOWN,
    WAITING,
    play_orders,
)
from tapehouse.book_kernels import APPLIED, VALID, WARM_UP
from tapehouse.book_messages import DIFF, SNAPSHOT, Messages
from tapehouse.books import DAY_US, LATE_US, Book, BookRules
from tapehouse.errors import TapehouseError
from tapehouse.versions import microseconds

KEY = ("symbol", "market", "source")
SECOND_US = 1_000_000
LATE = 5 * SECOND_US  # a trade that was received longer after the differences around it is late
SETTLEMENT = 60 * SECOND_US  # what is received this long after an order's end still counts; the stream must go on by then
CANCELLATIONS = {"behind": BEHIND, "proportional": PROPORTIONAL, "ahead": AHEAD}
FILLED = (THROUGH, QUEUED, TAKEN)
UTC_DATETIME = pl.Datetime("us", "UTC")
_SCHEMA = {
    "number": pl.UInt32,
    "outcome": pl.String,
    "filled": pl.Boolean,
    "exec_price": pl.Float64,
    "exec_at": UTC_DATETIME,
    "worst_mid": pl.Float64,
    "queue_ahead": pl.Float64,
    "touched": pl.Boolean,
    "markout_mid": pl.Float64,
    "end_at": UTC_DATETIME,
}
NUMBERS = ("exec_price", "worst_mid", "queue_ahead", "markout_mid")
TOLD = ("filled", "exec_at", "touched", *NUMBERS)  # null where the outcome is unknown


class FillRules(BaseModel):
    """How orders are filled.

    Attributes:
        latency_ms: from a decision to the moment behind whose messages, by their receipt, the order stands; see the module.
        window_seconds: how long an order rests, from its arrival on.
        markout_seconds: after a fill, when the mid is looked at.
        cancellations: where sizes are taken to vanish that no trade explains: behind the order, in proportion to what lies
            ahead of it and behind it, or ahead of it.

    All times are bounded, so that a day's orders are over on the day after.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    latency_ms: float = Field(ge=0, le=60_000)
    window_seconds: float = Field(300, gt=0, le=3600)
    markout_seconds: float = Field(10, gt=0, le=3600)
    cancellations: Literal["behind", "proportional", "ahead"] = "behind"


def book_outcomes(
    messages: Iterable[pl.DataFrame], trades: Iterable[pl.DataFrame], orders: pl.DataFrame, rules: FillRules
) -> pl.DataFrame:
    """What became of each order.

    Each day's orders meet a book that is rebuilt from the messages of that day and the day before, and what follows: the
    same outcome whatever other orders there are.

    Args:
        messages: rows of `raw.book_events`, from a day before the first decision's day on to `SETTLEMENT` after the last
            order's end and markout, each book's in the order of `sequence`. One frame is held at a time.
        trades: rows of `raw.trades` of the same time, in any order, all taken before the first message; five numbers of each
            are held.
        orders: `symbol, market, source, decision_at, side` (1 buy, -1 sell), `limit`; limits are on the exchange's tick. An
            order's own `window_seconds`, where there is such a column, stands before that of the rules.
        rules: latency, window and the rest.

    Returns:
        One row an order, in the given order: `outcome` (`through`, `queue`: filled as a maker; `taken`: filled on arrival, as
        a taker; `ended`: unfilled, executed at the end, as a taker; `unknown`: the book was not usable, all that follows is
        null), `filled`, `exec_price`, `exec_at`, `worst_mid` (the worst for the order from its arrival to its execution),
        `queue_ahead` (size displayed at the limit on arrival), `touched` (whether a trade reached the limit), `markout_mid`
        (mid `markout_seconds` after a fill, null without one), `end_at` (of the window).

    Raises:
        TapehouseError: an order without a positive limit or a side.
    """
    bad = orders.filter(~((pl.col("limit") > 0) & pl.col("limit").is_finite() & pl.col("side").is_in([1, -1])))
    if len(bad):
        first = bad.row(0, named=True)
        raise TapehouseError(
            f"order of {first['symbol']} at {first['decision_at']}: side {first['side']} must be 1 or -1, and limit "
            f"{first['limit']} above zero"
        )
    tape = _tape(trades)
    desks: dict[tuple, list[_Desk]] = {}
    window = pl.col("window_seconds") if "window_seconds" in orders.columns else pl.lit(rules.window_seconds)
    numbered = orders.select(*KEY, "decision_at", "side", "limit", window=window.cast(pl.Float64)).with_row_index("number")
    days = numbered.with_columns(day=microseconds(numbered["decision_at"]) // DAY_US)
    for (*key, day), own in days.partition_by(*KEY, "day", as_dict=True, maintain_order=True).items():
        desks.setdefault(tuple(key), []).append(_Desk(tuple(key), int(day), own, tape.get(tuple(key), _no_trades()), rules))
    parts = []
    for frame in messages:
        wanted = frame.filter(pl.col("kind") != "ticker")
        for key, rows in wanted.partition_by(*KEY, as_dict=True, maintain_order=True).items():
            own = desks.get(key, [])
            if not own:
                continue
            events = Messages.of(rows)
            for desk in own:
                desk.feed(events)
            over = [desk for desk in own if int(events.known.min()) > desk.stop + LATE_US]
            parts += [desk.outcomes() for desk in over]
            desks[key] = [desk for desk in own if desk not in over]
    parts += [desk.outcomes() for own in desks.values() for desk in own]
    outcomes = pl.concat(parts) if parts else pl.DataFrame(schema=_SCHEMA)
    return outcomes.sort("number").drop("number")


@dataclass(frozen=True)
class Tape:
    """Trades of one book in the order in which they happened.

    Attributes:
        event, known: (k,) exchange and receive time, us. price, size (units): (k,). bought: (k,) whether the buyer took.
    """

    event: np.ndarray
    known: np.ndarray
    price: np.ndarray
    size: np.ndarray
    bought: np.ndarray


def _no_trades() -> Tape:
    times, numbers = np.zeros(0, np.int64), np.zeros(0)
    return Tape(times, times, numbers, numbers, np.zeros(0, np.bool_))


def _tape(trades: Iterable[pl.DataFrame]) -> dict[tuple, Tape]:
    """Of each book its tape. Of a frame only five numbers a trade are kept."""
    parts: dict[tuple, list[tuple[np.ndarray, ...]]] = {}
    for frame in trades:
        for key, own in frame.partition_by(*KEY, as_dict=True, maintain_order=True).items():
            times = (microseconds(own[name]) for name in ("event_at", "known_at"))
            numbers = (own["trade_id"].to_numpy(), own["price"].to_numpy(), np.rint(own["size"].to_numpy() * UNITS))
            parts.setdefault(key, []).append((*times, *numbers, (own["side"] == "buy").to_numpy()))
    tapes = {}
    for key, frames in parts.items():
        event, known, number, price, size, bought = (np.concatenate(column) for column in zip(*frames, strict=True))
        order = np.lexsort((known, number, event))
        tapes[key] = Tape(event[order], known[order], price[order], size[order], bought[order])
    return tapes


class _Desk:
    """One day's orders on one book: the book from the day before on, and what the orders have come to so far."""

    def __init__(self, key: tuple, day: int, orders: pl.DataFrame, tape: Tape, rules: FillRules):
        self.number, self.rules, self.tape = orders["number"], rules, tape
        decided = microseconds(orders["decision_at"])
        arrival = decided + round(rules.latency_ms * 1000)
        window = np.rint(orders["window"].to_numpy() * SECOND_US).astype(np.int64)
        end = arrival + window
        markout = round(rules.markout_seconds * SECOND_US)
        limit = orders["limit"].to_numpy(writable=True)
        prices = np.unique(limit)
        k, m = limit.size, prices.size
        book_rules = BookRules()
        self.window = int(window.max())
        self.begin, self.stop = (day - 1) * DAY_US, int(end.max()) + markout + SETTLEMENT
        self.book = Book(key, book_rules, self.stop, self.stop)
        self.silences = round(book_rules.max_silence_seconds * SECOND_US), markout, SETTLEMENT - LATE
        self.state, self.quote = np.zeros(FIELDS, np.int64), np.zeros(2)
        self.state[TOP_BUY], self.state[LOW_SELL] = -1, m
        self.stacks = [np.zeros((1024, 2)), np.zeros((1024, 2))]
        self.orders = (
            arrival, end, orders["side"].cast(pl.Int64).to_numpy(writable=True), limit, np.searchsorted(prices, limit),
            np.full(k, -1), np.argsort(arrival, kind="stable"), np.argsort(end, kind="stable"),
        )  # fmt: skip
        self.ladder = prices, np.zeros((2, m)), np.full((2, m), -1)
        nan = [np.full(k, np.nan) for _ in range(7)]
        self.results = (
            np.full(k, WAITING, np.int8), nan[0], np.zeros(k, np.int64), nan[1], nan[2], nan[3],
            np.zeros(k, np.int64), nan[4], nan[5], nan[6], np.zeros(k, np.int8),
        )  # fmt: skip
        self.next, self.pending = 0, np.zeros(0, np.int64)  # trades that may come before a message still to come
        self.happened = self.clock = np.iinfo(np.int64).min // 2  # of the messages so far: exchange and receive time

    def feed(self, messages: Messages) -> None:
        """Take the messages of the desk's own days; a snapshot's sizes are read off the book after it."""
        own = messages.between(self.begin, self.stop + 1)
        if not own.size:
            return
        cuts = [0, *(np.flatnonzero(own.kinds == SNAPSHOT) + 1).tolist(), own.size]
        for low, high in pairwise(cuts):
            if low < high:
                places = np.arange(own.size)
                self._play(own.only((places >= low) & (places < high)))

    def _play(self, messages: Messages) -> None:
        played = self.book.follow(messages)
        everything, start = played.tidings.messages, played.start
        differs, notes = everything.kinds == DIFF, played.tidings.notes
        known = np.maximum.accumulate(np.maximum(everything.known, self.clock))
        happened = np.where(differs, everything.times[1], self.happened)[start:]
        happened = np.maximum.accumulate(np.maximum(happened, self.happened))
        clocks, places, which = self._next_trades(known[start:], happened)
        self._make_room(messages.size)
        play_orders(
            self.state, self.quote, tuple(self.stacks), self.orders, self.ladder, self.results, self.silences,
            CANCELLATIONS[self.rules.cancellations],
            known, differs, differs & (played.tidings.fates == APPLIED), notes[:, 0] == VALID,
            (notes[:, 0] == WARM_UP) & (notes[:, 3] == 1), played.best, everything.ends, everything.levels, start,
            (clocks, self.tape.price[which], self.tape.size[which], self.tape.bought[which]), places + start,
        )  # fmt: skip
        self.clock, self.happened = int(known[-1]), int(happened[-1])
        if messages.kinds[-1] == SNAPSHOT:
            for side in (0, 1):
                self.ladder[1][side] = np.rint(self.book.sizes_at(side, self.ladder[0]) * UNITS)

    def _next_trades(self, known: np.ndarray, happened: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Trades that come before one of the next messages: their clocks, the message that each comes before, and which."""
        stop = int(np.searchsorted(self.tape.event, happened[-1], side="right"))
        waiting = np.concatenate([self.pending, np.arange(self.next, stop)])
        self.next = max(stop, self.next)
        places = np.maximum(
            np.searchsorted(happened, self.tape.event[waiting]), np.searchsorted(known, self.tape.known[waiting] - LATE)
        )
        ready = places < known.size
        self.pending, waiting, places = waiting[~ready], waiting[ready], places[ready]
        order = np.argsort(places, kind="stable")
        waiting, places = waiting[order], places[order]
        before = np.where(places > 0, known[places - 1], self.clock)
        clocks = np.clip(self.tape.known[waiting], before, known[places])
        return np.maximum.accumulate(clocks), places, waiting

    def _make_room(self, messages: int) -> None:
        """Mids from before the oldest window are forgotten; each message may add one."""
        oldest = int(self.state[NOW]) - self.window
        for place, name in enumerate((HIGHS, LOWS)):
            held = self.stacks[place][: self.state[name]]
            kept = held[held[:, 0] > oldest]
            self.stacks[place] = np.concatenate([kept, np.empty((messages, 2))])
            self.state[name] = len(kept)

    def outcomes(self) -> pl.DataFrame:
        """What is known of the orders; one that no message has ended is unknown."""
        code, price, at, _, worst, shown, _, _, _, mark, touched = self.results
        code = np.where((code == WAITING) | (code == RESTING), UNKNOWN, code)
        filled = np.isin(code, FILLED)
        rows = pl.DataFrame(
            {
                "number": self.number,
                "outcome": pl.Series(list(OUTCOMES)).gather(code.astype(np.int64)),
                "filled": filled,
                "exec_price": price,
                "exec_at": at,
                "worst_mid": worst,
                "queue_ahead": shown / UNITS,
                "touched": touched == 1,
                "markout_mid": np.where(filled, mark, np.nan),
            }
        ).with_columns(end_at=pl.Series(self.orders[1]).cast(UTC_DATETIME), exec_at=pl.col("exec_at").cast(UTC_DATETIME))
        known = pl.col("outcome") != "unknown"
        told = [pl.when(known).then(pl.col(name).fill_nan(None) if name in NUMBERS else name) for name in TOLD]
        return rows.with_columns(told).select(pl.col(name).cast(kind) for name, kind in _SCHEMA.items())
