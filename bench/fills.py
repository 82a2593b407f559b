"""Seconds for 10,000 limit orders on a recorded futures stream by our kernels (ours) and by hftbacktest, which runs the same
orders one by one (peer); the ratio is peer / ours.

Orders are placed from the best quotes outwards, each resting for ten seconds. hftbacktest gives each a pass of its own, with
its queue model of our rule (`risk_adverse_queue_model`) and its fastest book, a vector of ticks. Both begin with the stream in
memory: ours as rows of `raw.book_events` and `raw.trades`, of which the book is rebuilt and every update id checked, the peer
with its own array of events. Decisions are compared order by order: of the orders whose price was touched at least 99 % must
be the same, filled or not. What hftbacktest takes for all orders together in one pass is told beside it: faster than ours.

hftbacktest pins numpy and runs in an environment of its own (`make bench-env`), without which there is no figure. The input is
the recorded stream beside the project where it is there, else a simulated one. Seconds of the processor, on one
thread; of ours the least of several turns.
With --quick 200 orders.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

import subprocess
import sys
import tempfile
import time
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.book_files import StreamReader  # noqa: E402
from tapehouse.book_fills import LATE, FillRules, book_outcomes  # noqa: E402
from tapehouse.book_messages import DIFF, SNAPSHOT, Messages  # noqa: E402
from tapehouse.books import BookRules, collected, rebuild  # noqa: E402
from tapehouse.simulated_books import StreamShape, simulate_day  # noqa: E402

AIM = 1.0
RECORDED = ROOT.parent / "shared" / "data" / "book" / "binance_usdm_btcusdt_20240808.gz"
PEER = ROOT / "bench" / "peers" / "hftbacktest" / "rest_orders.py"
PEER_PYTHON = ROOT / ".venv-hftbacktest" / "bin" / "python"
SPAN = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
WINDOW_SECONDS, LATENCY_MS, FURTHEST_TICKS = 10, 50, 20
MODELS = {"behind": "risk_adverse", "proportional": "1"}
# Flags and layout of hftbacktest's events (hftbacktest/types.py, 2.4.4).
DEPTH, TRADED, SHOWN = 1, 2, 4
HERE, BUYS, SELLS = (1 << 31) | (1 << 30), 1 << 29, 1 << 28
EVENT = np.dtype(
    {
        "names": ["ev", "exch_ts", "local_ts", "px", "qty", "order_id", "ival", "fval"],
        "formats": ["u8", "i8", "i8", "f8", "f8", "u8", "i8", "f8"],
    },
    align=True,
)
ORDER = np.dtype([("sent", "i8"), ("window", "i8"), ("side", "i8"), ("price", "f8")])


def recorded(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Messages and trades of a recorded file, as rows of the raw tables; without tickers, which no order needs."""
    batches = list(StreamReader(path, "bench").batches())
    return pl.concat([b.book for b in batches]).filter(pl.col("kind") != "ticker"), pl.concat([b.trades for b in batches])


def draw(book: pl.DataFrame, count: int, tick: float, furthest: int, margin_seconds: float, seed: int = 7) -> pl.DataFrame:
    """Orders as for `book_outcomes`: at any millisecond, a side, and up to `furthest` ticks behind its best quote then."""
    trace = collected(rebuild([book], BookRules(levels=1), *SPAN, trace=True)).trace
    known = book.sort("sequence")["known_at"]
    quotes = trace.select("valid", "bid_price", "ask_price", known_at=known).filter("valid").sort("known_at")
    random = np.random.default_rng(seed)
    first, last = (quotes["known_at"].dt.epoch("ms")[i] for i in (0, -1))
    times = np.sort(random.integers(first + 1000, last - round(margin_seconds * 1000), count)) * 1000
    at = pl.DataFrame({"decision_at": pl.Series(times).cast(quotes["known_at"].dtype)})
    at = at.join_asof(quotes, left_on="decision_at", right_on="known_at")
    side = random.choice([1, -1], count)
    best = np.where(side > 0, at["bid_price"], at["ask_price"])
    limit = np.round(np.rint((best - side * tick * random.integers(0, furthest + 1, count)) / tick) * tick, 10)
    of = book.select("symbol", "market", "source")[:1].join(at.select("decision_at"), how="cross")
    return of.with_columns(side=pl.Series(side), limit=pl.Series(limit))


def events_of(book: pl.DataFrame, trades: pl.DataFrame) -> np.ndarray:
    """A stream without gaps as the events of hftbacktest, on our clock: the first snapshot, what follows it, the trades."""
    messages = Messages.of(book)
    first = int(np.flatnonzero(messages.kinds == SNAPSHOT)[0])
    later = np.flatnonzero(messages.kinds == DIFF)
    later = later[messages.ids[1, later] > messages.ids[1, first]]
    kept = np.concatenate([[first], later])
    clock = np.maximum.accumulate(messages.known[kept])
    told = np.where(messages.kinds[kept] == DIFF, messages.times[1, kept], np.iinfo(np.int64).min)
    happened = np.maximum.accumulate(told)
    tape = trades.sort("event_at", "trade_id")
    event, known = (tape[name].dt.epoch("us").to_numpy() for name in ("event_at", "known_at"))
    place = np.maximum(np.searchsorted(happened, event), np.searchsorted(clock, known - LATE))
    order = np.argsort(place, kind="stable")
    order = order[(place[order] > 0) & (place[order] < kept.size)]
    tape, place, known = tape[order], place[order], known[order]
    at = np.maximum.accumulate(np.clip(known, clock[place - 1], clock[place]))
    bought = (tape["side"] == "buy").to_numpy()
    flags = np.where(bought, BUYS, SELLS) | TRADED
    parts = [(2 * place, at, flags, tape["price"].to_numpy(), tape["size"].to_numpy())]
    for side, flag in ((0, BUYS), (1, SELLS)):
        levels = np.concatenate([np.arange(messages.ends[side, i], messages.ends[side, i + 1]) for i in kept])
        of = np.repeat(np.arange(kept.size), np.diff(messages.ends[side])[kept])
        kind = np.where(of == 0, SHOWN, DEPTH) | flag
        prices, sizes = (messages.levels[2 * side + what][levels] for what in (0, 1))
        parts.append((2 * of + 1, clock[of], kind, prices, sizes))
    place, at, flags, price, size = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(place, kind="stable")
    events = np.zeros(order.size, EVENT)
    events["ev"], events["px"], events["qty"] = flags[order].astype(np.uint64) | np.uint64(HERE), price[order], size[order]
    events["exch_ts"] = events["local_ts"] = at[order] * 1000
    return events


def by_peer(
    events: np.ndarray, orders: pl.DataFrame, rules: FillRules, tick: float, lot: float, repeats: int
) -> tuple[np.ndarray, float]:
    """(2, k): 0 unfilled, 1 filled as a maker, 2 as a taker; when, ns. And the least seconds of the repeats of one pass for
    all orders, or for `repeats` 0 those of a pass for each.
    """
    sent = np.zeros(len(orders), ORDER)
    # Half a microsecond late: an order stands behind all that was received by its arrival, and so does a cancellation.
    sent["sent"] = orders["decision_at"].dt.epoch("us").to_numpy() * 1000 + 500
    sent["window"], sent["side"], sent["price"] = round(rules.window_seconds * 1e9), orders["side"], orders["limit"]
    with tempfile.TemporaryDirectory(prefix="tapehouse-bench-") as folder:
        files = [Path(folder) / name for name in ("events.npy", "orders.npy", "out.npy")]
        np.save(files[0], events)
        np.save(files[1], sent)
        latency = round(rules.latency_ms * 1e6)
        command = [PEER_PYTHON, PEER, *files, tick, lot, latency, MODELS[rules.cancellations], repeats]
        said = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        return np.load(files[2]), min(map(float, said))


def simulated() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Six minutes of a busy simulated futures stream."""
    day = simulate_day(1, "SIM:BENCH", date(2024, 1, 2), StreamShape(messages_per_second=60.0, snapshot_seconds=86_400))
    early = pl.col("known_at") < datetime(2024, 1, 2, 0, 6, tzinfo=UTC)
    return day.book.filter(early, pl.col("kind") != "ticker"), day.trades.filter(early)


def compare(quick: bool) -> tuple[float, float, float]:
    """Seconds of ours and of the peer, and their ratio."""
    if not PEER_PYTHON.exists():
        raise SystemExit("bench/fills.py: no environment for hftbacktest; run `make bench-env`")
    real = RECORDED.is_file()
    book, trades = recorded(RECORDED) if real else simulated()
    tick, lot = (0.1, 0.001) if real else (0.01, 0.001)
    rules = FillRules(latency_ms=LATENCY_MS, window_seconds=WINDOW_SECONDS, markout_seconds=1)
    orders = draw(book, 200 if quick else 10_000, tick, FURTHEST_TICKS, WINDOW_SECONDS + 1)
    outcomes = book_outcomes([book], [trades], orders, rules)  # compiles where the cache has nothing yet
    events = events_of(book, trades)
    _, together = by_peer(events, orders, rules, tick, lot, repeats=3)
    (code, _), peer = by_peer(events, orders, rules, tick, lot, repeats=0)
    rested = outcomes.with_columns(peer=pl.Series(code > 0)).filter(~pl.col("outcome").is_in(["taken", "unknown"]))
    touched = rested.filter("touched")
    same = (touched["filled"] == touched["peer"]).mean()
    assert not real or same >= 0.99, f"only {same:.2%} of the touched orders are decided alike"
    taken = []
    for _ in range(7):
        started = time.process_time()
        book_outcomes([book], [trades], orders, rules)
        taken.append(time.process_time() - started)
    ours = min(taken)
    print(f"{len(touched)} of {len(orders)} orders touched, {same:.2%} of them decided alike", file=sys.stderr)
    print(f"hftbacktest with all orders in one pass: {together:.3f} s", file=sys.stderr)
    return ours, peer, peer / ours


if __name__ == "__main__":
    report("fills", AIM, compare, __doc__)
