"""Features of an order book and its trades at each instant of the quotes' cadence.

Where a feature looks back, its window is a fixed number of steps of the cadence, all of which must have a usable book: after
a gap it is null until the window is whole again. Sums over a window run from multiples of its length since 1970: those from
the last such instant on, and those behind it, are added apart and then together (van Herk's two halves), so that a row's bits
depend on its own window alone while a step costs the same for any length.

Order-flow imbalance: R. Cont, A. Kukanov, S. Stoikov, The price impact of order book events (2014), taken between
consecutive quotes of the cadence.
"""

import math
from datetime import datetime

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError
from tapehouse.versions import microseconds

CADENCE_MS = 1000  # of staging.book_quotes
WINDOWS = (10, 60)  # seconds: of order flow and trade flow
VOLATILITY_SECONDS = 60
LEVELS = 5
WITHIN_BPS = (2, 10)
BOOK = ["symbol", "market", "source"]
UTC_DATETIME = pl.Datetime("us", "UTC")
OF_THE_BOOK = (
    *("imbalance_1", f"imbalance_{LEVELS}", "microprice_bps"),
    *(f"{side}_depth_{bps}bps" for bps in WITHIN_BPS for side in ("bid", "ask")),
)
COLUMNS = (
    *BOOK,
    *("decision_at", "known_at", "mid", "microprice", "spread_bps"),
    *OF_THE_BOOK,
    *(f"{name}_{seconds}s" for seconds in WINDOWS for name in ("ofi", "trade_flow", "trades")),
    f"mid_vol_{VOLATILITY_SECONDS}s_bps",
)


def book_features(
    quotes: pl.DataFrame, trades: pl.DataFrame, start: datetime, end: datetime, cadence_ms: int = CADENCE_MS
) -> pl.DataFrame:
    """Features of every usable quote in [start, end).

    Args:
        quotes: `staging.book_quotes`, from a minute and a step of the cadence before `start` on, in any order.
        trades: `raw.trades` of the same time; of the sources whose quotes these are.
        start, end: UTC bounds of `decision_at`, which is the instant of the quote.
        cadence_ms: of the quotes.

    Returns:
        One row per (symbol, market, source, decision_at) with a valid book, sorted by it; columns and units as in
        `checks/features/book.yaml`.

    Raises:
        TapehouseError: a quote lies off the cadence, or two of a book are at one instant.
    """
    trades = trades.sort(*BOOK, "known_at", "trade_id")
    traded = trades.partition_by(BOOK, as_dict=True)
    parts = []
    for key, own in quotes.filter(pl.col("known_at") < end).sort(*BOOK, "known_at").partition_by(BOOK, as_dict=True).items():
        parts.append(_of_book(own, traded.get(key, trades.clear()), start, cadence_ms))
    return pl.concat(parts) if parts else _of_book(quotes.clear(), trades.clear(), start, cadence_ms)


def _of_book(quotes: pl.DataFrame, trades: pl.DataFrame, start: datetime, cadence_ms: int) -> pl.DataFrame:
    """Rows of one book: all its quotes, those that are not valid included, since they break a window."""
    step = cadence_ms * 1000
    steps, rest = np.divmod(microseconds(quotes["known_at"]), step)
    if rest.any() or (np.diff(steps) <= 0).any():
        row = quotes.row(
            int(np.flatnonzero(rest)[0]) if rest.any() else int(np.flatnonzero(np.diff(steps) <= 0)[0] + 1), named=True
        )
        raise TapehouseError(
            f"staging.book_quotes: {row['symbol']} {row['market']} has a quote at {row['known_at']} that is off the cadence of "
            f"{cadence_ms} ms, or there twice; make its day again"
        )
    valid = _usable(quotes)
    best = np.stack([_numbers(quotes[name]) for name in ("bid_price", "bid_size", "ask_price", "ask_size")])
    ends, levels = zip(
        *(_lists(quotes[f"{side}_{what}"]) for side in ("bid", "ask") for what in ("prices", "sizes")), strict=True
    )
    ladder = ladder_features(valid, best, ends[0], ends[2], levels, np.array(WITHIN_BPS, np.float64))
    flow = order_flow(valid, steps, best)
    # A trade belongs to the first instant at which it is known.
    arrived = -(-microseconds(trades["known_at"]) // step)
    bought = (trades["side"] == "buy").to_numpy().astype(np.float64)
    sizes = _numbers(trades["size"])
    tape = trade_flow(steps, np.ascontiguousarray(arrived), bought, sizes)
    runs = run_lengths(valid, steps)
    columns: dict[str, np.ndarray] = dict(zip(OF_THE_BOOK, ladder, strict=True))
    for seconds in WINDOWS:
        window = seconds * 1000 // cadence_ms
        ofi, buys, sells, count = (window_sums(x, steps, runs, window) for x in (flow, *tape))
        traded = buys + sells
        columns |= {
            f"ofi_{seconds}s": ofi,
            f"trade_flow_{seconds}s": np.divide(buys - sells, traded, out=np.full(traded.size, math.nan), where=traded > 0),
            f"trades_{seconds}s": count,
        }
    window = VOLATILITY_SECONDS * 1000 // cadence_ms
    squares = window_sums(squared_returns(valid, steps, best), steps, runs, window)
    columns[f"mid_vol_{VOLATILITY_SECONDS}s_bps"] = np.sqrt(squares / window) * 1e4
    made = {name: pl.Series(name, values, nan_to_null=True) for name, values in columns.items()}
    made |= {name: made[name].cast(pl.Int64) for name in made if name.startswith("trades_")}
    return (
        quotes.select(*BOOK, "known_at", "mid", "microprice", "spread_bps")
        .with_columns(decision_at=pl.col("known_at"), **made)
        .filter(pl.Series(valid) & (pl.col("known_at") >= start))
        .select(COLUMNS)
    )


def _usable(quotes: pl.DataFrame) -> np.ndarray:
    """A book that may be used and has both sides."""
    both = pl.col("bid_price").is_not_null() & pl.col("ask_price").is_not_null()
    return quotes.select(pl.col("valid").fill_null(False) & both).to_series().to_numpy(writable=True)


def _numbers(column: pl.Series) -> np.ndarray:
    return column.cast(pl.Float64).fill_null(math.nan).to_numpy(writable=True)


def _lists(column: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """(n + 1,) offsets and the values behind them: row i holds values[offsets[i]:offsets[i + 1]]."""
    lengths = column.list.len().fill_null(0).to_numpy()
    values = column.drop_nulls().explode(empty_as_null=False) if column.len() else pl.Series([], dtype=pl.Float64)
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), values.to_numpy(writable=True)


@njit(cache=True)
def ladder_features(valid, best, bid_ends, ask_ends, levels, within):
    """What one quote says by itself.

    Args:
        valid (n,). best (4, n): bid, its size, ask, its size. bid_ends, ask_ends (n + 1,): offsets of the lists. levels: bid
        prices and sizes, ask prices and sizes, best first. within (k,): distances from the mid, bps.

    Returns:
        (3 + 2 k, n): imbalance of the best and of the best five sizes, microprice less mid in bps, then for each distance the
        depth of bids and of asks; NaN where the book is not valid.
    """
    n = valid.size
    out = np.full((3 + 2 * within.size, n), math.nan)
    for i in range(n):
        if not valid[i]:
            continue
        bid, bid_size, ask, ask_size = best[0, i], best[1, i], best[2, i], best[3, i]
        mid = (bid + ask) / 2.0
        out[0, i] = (bid_size - ask_size) / (bid_size + ask_size)
        bids, asks = 0.0, 0.0
        for j in range(bid_ends[i], min(bid_ends[i + 1], bid_ends[i] + LEVELS)):
            bids += levels[1][j]
        for j in range(ask_ends[i], min(ask_ends[i + 1], ask_ends[i] + LEVELS)):
            asks += levels[3][j]
        out[1, i] = (bids - asks) / (bids + asks)
        microprice = (bid * ask_size + ask * bid_size) / (bid_size + ask_size)
        out[2, i] = (microprice / mid - 1.0) * 1e4
        for k in range(within.size):
            reach = mid * within[k] / 1e4
            depth = 0.0
            for j in range(bid_ends[i], bid_ends[i + 1]):
                if mid - levels[0][j] > reach:
                    break
                depth += levels[1][j]
            out[3 + 2 * k, i] = depth
            depth = 0.0
            for j in range(ask_ends[i], ask_ends[i + 1]):
                if levels[2][j] - mid > reach:
                    break
                depth += levels[3][j]
            out[4 + 2 * k, i] = depth
    return out


@njit(cache=True)
def order_flow(valid, steps, best):
    """(n,) what the quotes gained on the bid less what they gained on the ask since the step before, in size; 0 without one.

    A bid that rose counts its whole size, one that fell takes away the whole size that was there, one that stayed the
    change of its size; the ask alike, with the other sign (Cont, Kukanov and Stoikov 2014, equation 2).
    """
    out = np.zeros(valid.size)
    for i in range(1, valid.size):
        if not (valid[i] and valid[i - 1] and steps[i] == steps[i - 1] + 1):
            continue
        bid = (best[1, i] if best[0, i] >= best[0, i - 1] else 0.0) - (best[1, i - 1] if best[0, i] <= best[0, i - 1] else 0.0)
        ask = (best[3, i] if best[2, i] <= best[2, i - 1] else 0.0) - (best[3, i - 1] if best[2, i] >= best[2, i - 1] else 0.0)
        out[i] = bid - ask
    return out


@njit(cache=True)
def squared_returns(valid, steps, best):
    """(n,) squares of the mid's log return since the step before; 0 without one."""
    out = np.zeros(valid.size)
    for i in range(1, valid.size):
        if valid[i] and valid[i - 1] and steps[i] == steps[i - 1] + 1:
            out[i] = math.log((best[0, i] + best[2, i]) / (best[0, i - 1] + best[2, i - 1])) ** 2
    return out


@njit(cache=True)
def trade_flow(steps, arrived, bought, sizes):
    """Of each row the sizes that buyers, and that sellers, took since the step before, and how many trades there were.

    Args:
        steps (n,): of the quotes, ascending. arrived (m,): steps at which trades are known, ascending. bought (m,): 1 or 0.
    """
    buys, sells, count = np.zeros(steps.size), np.zeros(steps.size), np.zeros(steps.size)
    at = 0
    for j in range(arrived.size):
        while at < steps.size and steps[at] < arrived[j]:
            at += 1
        if at == steps.size:
            break
        if steps[at] == arrived[j]:
            count[at] += 1.0
            if bought[j] > 0.0:
                buys[at] += sizes[j]
            else:
                sells[at] += sizes[j]
    return buys, sells, count


@njit(cache=True)
def run_lengths(valid, steps):
    """(n,) how many steps on end, this one included, followed a step with a valid book, and have one."""
    out = np.zeros(valid.size, np.int64)
    for i in range(1, valid.size):
        if valid[i] and valid[i - 1] and steps[i] == steps[i - 1] + 1:
            out[i] = out[i - 1] + 1
    return out


@njit(cache=True)
def window_sums(values, steps, runs, window):
    """(n,) sums of the last `window` values, NaN where fewer than `window` steps on end are there; see the module's words.

    Args:
        values (n,). steps (n,): instants of the rows, in steps since 1970. runs (n,): as from `run_lengths`.
    """
    n = values.size
    out = np.full(n, math.nan)
    behind = np.empty(n)  # from a row to the end of its block
    for i in range(n - 1, -1, -1):
        last = i == n - 1 or steps[i + 1] != steps[i] + 1 or steps[i + 1] % window == 0
        behind[i] = values[i] if last else values[i] + behind[i + 1]
    ahead = 0.0  # from the start of the block to the row
    for i in range(n):
        place = steps[i] % window
        fresh = i == 0 or steps[i] != steps[i - 1] + 1 or place == 0
        ahead = values[i] if fresh else ahead + values[i]
        if runs[i] >= window:
            out[i] = ahead if place == window - 1 else behind[i - window + 1] + ahead
    return out
