"""A seeded simulator of order books and trades: any size, the same columns as the raw tables, and the truth beside them.

Every symbol starts with 'SIM:' and every row's source says that it is simulated. A day is a pure function of (seed, symbol,
day, shape), whatever range is asked for, and the stream runs on from one day into the next: the last difference of a day
turns its book into the one that the next day opens with.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

import numpy as np
import polars as pl

from tapehouse.book_messages import (
    BOOK_SCHEMA,
    DIFF,
    SNAPSHOT,
    TICKER,
    TRADE,
    TRADE_SCHEMA,
    Market,
    arrival_order,
    known_at_us,
    lists,
)
from tapehouse.calendars import TIMESTAMP
from tapehouse.errors import TapehouseError

PREFIX = "SIM:"
SOURCE = "simulator"
DAY_NS = 86_400_000_000_000
LADDER = 512  # ticks that a day's prices stay within
OPENING_DEPTH = 120  # levels on each side at the opening
IDS_OF_A_DAY = 10_000_000_000  # update ids of day d start at d times this
TICKS_OF_DAYS = 200  # a day opens at most this many ticks from the opening price
MOST_CHANGES = 8  # levels that one difference changes, at most


@dataclass(frozen=True)
class StreamShape:
    """What a simulated stream is like.

    Attributes:
        market: whether its messages are those of the spot or of the futures stream.
        messages_per_second: mean of a Poisson process over the kinds diff (half), ticker (3 in 10) and trade (2 in 10).
        snapshot_seconds: a snapshot is asked for at the start of each day and every so often; it is received several
            messages after the state that it describes, as from a request over the network.
        tick_size, lot_size: steps of prices and sizes.
        opening_price: about where each day opens.
        latency_ms: mean delay from exchange to receiver.
    """

    market: Market = "futures"
    messages_per_second: float = 2.0
    snapshot_seconds: int = 3600
    tick_size: float = 0.01
    lot_size: float = 0.001
    opening_price: float = 100.0
    latency_ms: float = 12.0


@dataclass(frozen=True)
class SimulatedDay:
    """One day of a stream.

    Attributes:
        book, trades: rows of `raw.book_events` and `raw.trades` less `ingested_at`, in order of arrival.
        truth: for each difference and ticker its `sequence`, `last_id`, and the best quotes after it: `bid_price`,
            `bid_size`, `ask_price`, `ask_size`.
    """

    book: pl.DataFrame
    trades: pl.DataFrame
    truth: pl.DataFrame


def simulated_book_events(
    seed: int, symbol: str, start: datetime, end: datetime, *, source: str = SOURCE, shape: StreamShape | None = None
) -> pl.DataFrame:
    """Book events with `start` <= known_at < `end`: the columns of `raw.book_events` less `ingested_at`, as they arrive.

    Args:
        seed: any integer from 0.
        symbol: starts with 'SIM:'.
        start, end: UTC.
        source: written to the rows; it must hold the word 'simul'.
        shape: what the stream is like; the default is two messages a second of a futures stream.

    Raises:
        TapehouseError: a symbol or source that does not say that it is simulated.
    """
    found = [day.book for day in _days(seed, symbol, start, end, source, shape)]
    return _inside(found, BOOK_SCHEMA, start, end, source)


def simulated_trades(
    seed: int, symbol: str, start: datetime, end: datetime, *, source: str = SOURCE, shape: StreamShape | None = None
) -> pl.DataFrame:
    """Trades of the same stream as `simulated_book_events`: the columns of `raw.trades` less `ingested_at`."""
    found = [day.trades for day in _days(seed, symbol, start, end, source, shape)]
    return _inside(found, TRADE_SCHEMA, start, end, source)


def _days(seed: int, symbol: str, start: datetime, end: datetime, source: str, shape: StreamShape | None):
    if not symbol.startswith(PREFIX) or "simul" not in source.lower():
        raise TapehouseError(
            f"simulated stream of {symbol!r} from source {source!r}: the symbol must start with {PREFIX!r} and the source "
            "must hold 'simul', so that every row says what it is"
        )
    day = start.astimezone(UTC).date()
    while datetime(day.year, day.month, day.day, tzinfo=UTC) < end:
        yield simulate_day(seed, symbol, day, shape or StreamShape())
        day += timedelta(days=1)


def _inside(found: list[pl.DataFrame], schema: dict, start: datetime, end: datetime, source: str) -> pl.DataFrame:
    rows = pl.concat(found) if found else pl.DataFrame(schema=schema)
    inside = (pl.col("known_at") >= start) & (pl.col("known_at") < end)
    return rows.filter(inside).with_columns(source=pl.lit(source)).select(list(schema))


@lru_cache(maxsize=2)
def simulate_day(seed: int, symbol: str, day: date, shape: StreamShape) -> SimulatedDay:
    """One whole day; the last two are kept, so that book and trades of a day are made once."""
    from tapehouse.simulated_ladder import walk

    random = _random(seed, symbol, day, shape, "walk")
    kinds, received = _arrivals(random, day, shape)
    n = kinds.size
    base, bids, asks = _opening(seed, symbol, day, shape)
    counts = np.where(kinds == DIFF, 1 + random.integers(0, MOST_CHANGES, n), 0)
    changes = random.random((int(counts.sum()), 4))
    choices = random.random((n, 2))
    jumps = random.integers(1, 60, n) if shape.market == "futures" else np.ones(n, np.int64)
    walked = walk(kinds, counts, changes, choices, jumps, bids, asks, day.toordinal() * IDS_OF_A_DAY, random.integers(2, 9, n))
    closing = (bids, asks)  # the walk has changed them in place
    return _as_frames(walked, kinds, received, random, base, closing, (seed, symbol, day, shape))


def _random(seed: int, symbol: str, day: date, shape: StreamShape, what: str) -> np.random.Generator:
    name = hashlib.sha256(f"{symbol}|{shape}|{what}".encode()).digest()
    return np.random.Generator(np.random.PCG64([seed, int.from_bytes(name[:8], "big"), day.toordinal()]))


def _arrivals(random: np.random.Generator, day: date, shape: StreamShape) -> tuple[np.ndarray, np.ndarray]:
    """Kinds and receive times of a day's messages; the last is a difference, and snapshots are put between."""
    midnight = (day.toordinal() - date(1970, 1, 1).toordinal()) * DAY_NS
    n = max(int(random.poisson(shape.messages_per_second * 86_400)), 12)
    times = np.sort(random.integers(1_000_000, DAY_NS - 1_000_000, n))
    kinds = random.choice([DIFF, TICKER, TRADE], n, p=[0.5, 0.3, 0.2])
    kinds[-1] = DIFF
    asked = np.arange(0, 86_400, shape.snapshot_seconds) * 1_000_000_000
    at = np.unique(np.clip(np.searchsorted(times, asked) + 8, 0, n - 2))
    return np.insert(kinds, at, SNAPSHOT), midnight + np.insert(times, at, times[at])


def _opening(seed: int, symbol: str, day: date, shape: StreamShape) -> tuple[int, np.ndarray, np.ndarray]:
    """Tick of the ladder's foot, and the lots on each of its ticks, bids and asks, with which a day opens."""
    random = _random(seed, symbol, day, shape, "opening")
    middle = round(shape.opening_price / shape.tick_size) + int(random.integers(-TICKS_OF_DAYS, TICKS_OF_DAYS + 1))
    lots = random.integers(1, 5000, (2, LADDER))
    ticks = np.arange(LADDER)
    half = LADDER // 2
    bids = np.where((ticks < half) & (ticks >= half - OPENING_DEPTH), lots[0], 0)
    asks = np.where((ticks > half) & (ticks <= half + OPENING_DEPTH), lots[1], 0)
    return max(middle - half, 1), bids.astype(np.int64), asks.astype(np.int64)


def _as_frames(walked, kinds, received, random, base, closing, which) -> SimulatedDay:
    seed, symbol, day, shape = which
    ids, ends, bid_levels, ask_levels, best, taker, lots = walked
    # The last difference also leads over to the book that the next day opens with.
    next_base, *opening = _opening(seed, symbol, day + timedelta(days=1), shape)
    ids[-1, 1] = (day.toordinal() + 1) * IDS_OF_A_DAY
    levels = []
    for side, (changed, before, after) in enumerate(zip((bid_levels, ask_levels), closing, opening, strict=True)):
        lead = _difference(base, before, next_base, after)
        levels.append(np.concatenate([changed + np.array([base, 0]), lead]))
        ends[-1, side] += len(lead)
        tick = int(np.flatnonzero(after).max() if side == 0 else np.flatnonzero(after).min())
        best[-1, 2 * side], best[-1, 2 * side + 1] = next_base + tick - base, after[tick]

    latency = 1_000_000 + (random.exponential(shape.latency_ms, kinds.size) * 1_000_000).astype(np.int64)
    futures = shape.market == "futures"
    known, told = known_at_us(received), (received - latency) // 1_000_000 * 1000  # exchange times are in ms
    untimed = (kinds == TICKER) | (kinds == SNAPSHOT) if not futures else np.zeros(kinds.size, bool)
    common = pl.DataFrame(
        {
            "kind": pl.Series(kinds, dtype=pl.Int8),
            "event_at": pl.Series(np.where(untimed, known, told)).cast(TIMESTAMP),
            "known_at": pl.Series(known).cast(TIMESTAMP),
            "received_ns": received,
        }
    ).with_columns(symbol=pl.lit(symbol), market=pl.lit(shape.market), source=pl.lit(SOURCE))
    price = np.column_stack([_scaled(base + best[:, c], shape.tick_size) for c in (0, 2)])
    size = np.column_stack([_scaled(best[:, c], shape.lot_size) for c in (1, 3)])

    event, trade = kinds != TRADE, kinds == TRADE
    sides = [_side(levels[s], ends[:, s], price[:, s], size[:, s], kinds, shape) for s in (0, 1)]
    book = common.with_columns(
        first_id=pl.Series(ids[:, 0]),
        last_id=pl.Series(ids[:, 1]),
        previous_id=pl.Series(ids[:, 2]),
        bid_prices=sides[0][0],
        bid_sizes=sides[0][1],
        ask_prices=sides[1][0],
        ask_sizes=sides[1][1],
    ).filter(pl.Series(event))
    differs = pl.col("kind") == DIFF
    book = book.with_columns(
        sequence=pl.Series(arrival_order(received[event])),
        first_id=pl.when(differs).then("first_id"),
        previous_id=pl.when(differs & futures).then("previous_id"),
        kind=pl.col("kind").replace_strict({SNAPSHOT: "snapshot", DIFF: "diff", TICKER: "ticker"}, return_dtype=pl.String),
    )
    names = ("bid_price", "ask_price"), ("bid_size", "ask_size")
    truth = book.select("kind", "sequence", "last_id", "known_at").with_columns(
        **{name: pl.Series(price[event, c]) for c, name in enumerate(names[0])},
        **{name: pl.Series(size[event, c]) for c, name in enumerate(names[1])},
    )
    bought = taker[trade]
    trades = common.filter(pl.Series(trade)).with_columns(
        trade_id=pl.Series(day.toordinal() * IDS_OF_A_DAY + np.arange(bought.size)),
        price=pl.Series(np.where(bought, price[trade, 1], price[trade, 0])),
        size=pl.Series(_scaled(lots[trade], shape.lot_size)),
        side=pl.Series(np.where(bought, "buy", "sell")),
    )
    return SimulatedDay(
        book.select(list(BOOK_SCHEMA)),
        trades.select(list(TRADE_SCHEMA)),
        truth.filter(pl.col("kind") != "snapshot").drop("kind"),
    )


def _difference(base: int, before: np.ndarray, next_base: int, after: np.ndarray) -> np.ndarray:
    """(_, 2) tick and lots of every change that turns one ladder into another with a different foot."""
    low, high = min(base, next_base), max(base, next_base) + LADDER
    old, new = np.zeros(high - low, np.int64), np.zeros(high - low, np.int64)
    old[base - low : base - low + LADDER], new[next_base - low : next_base - low + LADDER] = before, after
    at = np.flatnonzero(old != new)
    return np.column_stack([low + at, new[at]])


def _side(levels, ends, price, size, kinds, shape: StreamShape) -> tuple[pl.Series, pl.Series]:
    """Price and size lists of one side of every message; a ticker holds the best level alone."""
    counts = np.diff(ends, prepend=0)
    lengths = np.where(kinds == TICKER, 1, counts)
    stops = np.cumsum(lengths)
    prices, sizes = np.empty(int(stops[-1])), np.empty(int(stops[-1]))
    single = np.zeros(prices.size, bool)
    single[stops[kinds == TICKER] - 1] = True
    prices[single], sizes[single] = price[kinds == TICKER], size[kinds == TICKER]
    prices[~single], sizes[~single] = _scaled(levels[:, 0], shape.tick_size), _scaled(levels[:, 1], shape.lot_size)
    return lists(prices, stops), lists(sizes, stops)


def _scaled(steps: np.ndarray, step: float) -> np.ndarray:
    """`steps * step` as the double nearest to the decimal number, which is what its text parses to."""
    return steps / round(1 / step) if step < 1 else steps * step
