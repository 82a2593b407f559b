"""Quotes per second from rebuilt books and trades to all book features by our kernels (ours) and by polars expressions (peer);
ratio = ours / peer.

The features of `tapehouse.book_features` (imbalances, microprice, depth within bps, order-flow imbalance, trade flow and mid
volatility over windows) of every 10 ms of the recorded Binance stream beside the project where it is there, else of a simulated
one. The results are the same: null in the same rows, numbers to 1e-9 of their column's largest (1e-6 of the
volatility, where a rolling sum keeps the rounding of what has left it). Peaks of memory go to the error stream.

The time is that of the processor, polars on one thread as our kernels are, the least of several turns: noise only adds.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.book_features import BOOK, COLUMNS, LEVELS, VOLATILITY_SECONDS, WINDOWS, WITHIN_BPS, book_features  # noqa: E402
from tapehouse.book_files import StreamReader  # noqa: E402
from tapehouse.books import BookRules, collected, rebuild  # noqa: E402
from tapehouse.simulated_books import StreamShape, simulate_day  # noqa: E402
from tapehouse.simulated_streams import stream_lines, write_stream  # noqa: E402

AIM = 1.0
CADENCE_MS = 10
RECORDED = ROOT.parent / "shared" / "data" / "book" / "binance_usdm_btcusdt_20240808.gz"
SPAN = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
TURNS = 5


def by_expressions(quotes: pl.DataFrame, trades: pl.DataFrame, cadence_ms: int) -> pl.DataFrame:
    """The same features by polars expressions alone."""
    step = pl.duration(milliseconds=cadence_ms)
    flows = (
        trades.with_columns(
            known_at=(-(-pl.col("known_at").dt.epoch("us") // (cadence_ms * 1000)) * (cadence_ms * 1000)).cast(
                pl.Datetime("us", "UTC")
            )
        )
        .group_by(*BOOK, "known_at")
        .agg(
            bought=pl.col("size").filter(pl.col("side") == "buy").sum(),
            sold=pl.col("size").filter(pl.col("side") == "sell").sum(),
            count=pl.len().cast(pl.Float64),
        )
    )
    rows = quotes.sort(*BOOK, "known_at").join(flows, on=[*BOOK, "known_at"], how="left", maintain_order="left")
    usable = pl.col("valid") & pl.col("bid_price").is_not_null() & pl.col("ask_price").is_not_null()
    before = {name: pl.col(name).shift(1).over(BOOK) for name in ("bid_price", "bid_size", "ask_price", "ask_size")}
    follows = (
        pl.col("usable")
        & pl.col("usable").shift(1).over(BOOK)
        & (pl.col("known_at") - pl.col("known_at").shift(1).over(BOOK) == step)
    )
    bid_gain = pl.when(pl.col("bid_price") >= before["bid_price"]).then(pl.col("bid_size")).otherwise(0.0) - pl.when(
        pl.col("bid_price") <= before["bid_price"]
    ).then(before["bid_size"]).otherwise(0.0)
    ask_gain = pl.when(pl.col("ask_price") <= before["ask_price"]).then(pl.col("ask_size")).otherwise(0.0) - pl.when(
        pl.col("ask_price") >= before["ask_price"]
    ).then(before["ask_size"]).otherwise(0.0)
    mid = (pl.col("bid_price") + pl.col("ask_price")) / 2
    rows = (
        rows.with_columns(usable=usable.fill_null(False), mid_price=mid)
        .with_columns(follows=follows.fill_null(False))
        .with_columns(
            flow=pl.when("follows").then(bid_gain - ask_gain).otherwise(0.0),
            squared=pl.when("follows")
            .then((pl.col("mid_price") / pl.col("mid_price").shift(1).over(BOOK)).log() ** 2)
            .otherwise(0.0),
            bought=pl.col("bought").fill_null(0.0),
            sold=pl.col("sold").fill_null(0.0),
            count=pl.col("count").fill_null(0.0),
        )
    )
    best = (pl.col("bid_size") - pl.col("ask_size")) / (pl.col("bid_size") + pl.col("ask_size"))
    five = {side: pl.col(f"{side}_sizes").list.head(LEVELS).list.sum() for side in ("bid", "ask")}
    columns = {
        "imbalance_1": best,
        f"imbalance_{LEVELS}": (five["bid"] - five["ask"]) / (five["bid"] + five["ask"]),
        "microprice_bps": (
            (pl.col("bid_price") * pl.col("ask_size") + pl.col("ask_price") * pl.col("bid_size"))
            / (pl.col("bid_size") + pl.col("ask_size"))
            / pl.col("mid_price")
            - 1
        )
        * 1e4,
    }
    for seconds in WINDOWS:
        window = seconds * 1000 // cadence_ms
        whole = pl.col("follows").cast(pl.Int32).rolling_sum(window).over(BOOK) == window
        total = {name: pl.col(name).rolling_sum(window).over(BOOK) for name in ("flow", "bought", "sold", "count")}
        # A rolling sum of what has come and gone leaves its rounding behind: without trades there is no flow.
        traded = pl.when(whole & (total["count"] > 0.5)).then(total["bought"] + total["sold"])
        columns |= {
            f"ofi_{seconds}s": pl.when(whole).then(total["flow"]),
            f"trade_flow_{seconds}s": (total["bought"] - total["sold"]) / traded,
            f"trades_{seconds}s": pl.when(whole).then(total["count"]).round().cast(pl.Int64),
        }
    window = VOLATILITY_SECONDS * 1000 // cadence_ms
    whole = pl.col("follows").cast(pl.Int32).rolling_sum(window).over(BOOK) == window
    mean_square = pl.col("squared").rolling_sum(window).over(BOOK).clip(lower_bound=0.0) / window
    columns[f"mid_vol_{VOLATILITY_SECONDS}s_bps"] = pl.when(whole).then(mean_square.sqrt() * 1e4)
    rows = rows.with_columns(decision_at="known_at", **columns)
    return _with_depths(rows).filter("usable").select(COLUMNS)


def _with_depths(rows: pl.DataFrame) -> pl.DataFrame:
    """Sizes within bps of the mid, level by level: lists of one row cannot be compared with a number of that row."""
    depths = {}
    for bps in WITHIN_BPS:
        reach = pl.col("mid_price") * bps / 1e4
        for side, sign in (("bid", 1), ("ask", -1)):
            total = pl.lit(0.0)
            for level in range(10):
                price = pl.col(f"{side}_prices").list.get(level, null_on_oob=True)
                size = pl.col(f"{side}_sizes").list.get(level, null_on_oob=True)
                near = (pl.col("mid_price") - price) * sign <= reach
                total = total + pl.when(near).then(size).otherwise(0.0).fill_null(0.0)
            depths[f"{side}_depth_{bps}bps"] = total
    return rows.with_columns(**depths)


def assert_same(ours: pl.DataFrame, peer: pl.DataFrame) -> None:
    """Nulls in the same rows and equal numbers, to rounding."""
    assert ours.columns == peer.columns and ours.height == peer.height, (ours.shape, peer.shape)
    for name in ours.columns:
        a, b = ours[name], peer[name]
        assert (a.is_null() == b.is_null()).all(), f"{name}: null in other rows"
        if a.dtype != pl.Float64:
            assert (a.drop_nulls() == b.drop_nulls()).all(), name
            continue
        x, y = a.drop_nulls().to_numpy(), b.drop_nulls().to_numpy()
        scale = np.abs(y).max() if y.size else 1.0
        worst = np.abs(x - y).max() / scale if y.size else 0.0
        assert worst <= (1e-6 if name.startswith("mid_vol") else 1e-9), f"{name}: {worst}"


def least_seconds(work: Callable[[], pl.DataFrame]) -> float:
    """CPU seconds of the quickest of several turns, after one that compiles."""
    work()
    found = []
    for _ in range(TURNS):
        started = time.process_time()
        work()
        found.append(time.process_time() - started)
    return min(found)


def stream(folder: Path) -> Path:
    """The recorded file, or an hour of a simulated stream."""
    if RECORDED.is_file():
        return RECORDED
    hour = pl.col("known_at") < datetime(2024, 1, 2, 1, tzinfo=UTC)
    day = simulate_day(1, "SIM:BENCH", date(2024, 1, 2), StreamShape(messages_per_second=20.0))
    return write_stream(folder / "simulated.gz", stream_lines(day.book.filter(hour), day.trades.filter(hour)))


def compare(quick: bool) -> tuple[float, float, float]:
    """Quotes per CPU second of the kernels and of the expressions, and their ratio."""
    with tempfile.TemporaryDirectory(prefix="tapehouse-bench-") as folder:
        batches = list(StreamReader(stream(Path(folder)), "bench").batches())
        quotes = collected(rebuild((b.book for b in batches), BookRules(levels=10, cadence_ms=CADENCE_MS), *SPAN)).quotes
        trades = pl.concat([b.trades for b in batches])
    if quick:
        quotes = quotes.head(20_000)
    quotes = quotes.rechunk()

    def ours() -> pl.DataFrame:
        return book_features(quotes, trades, *SPAN, cadence_ms=CADENCE_MS)

    def peer() -> pl.DataFrame:
        return by_expressions(quotes, trades, CADENCE_MS)

    peaks = [_peak()]
    found = ours()
    peaks.append(_peak())
    assert_same(found, peer())
    peaks.append(_peak())
    seconds = least_seconds(ours), least_seconds(peer)
    print(
        f"{quotes.height} quotes, {trades.height} trades, {'recorded' if RECORDED.is_file() else 'simulated'}; memory: "
        f"{peaks[0]:.0f} MiB before, {peaks[1]:.0f} with ours, {peaks[2]:.0f} with both",
        file=sys.stderr,
    )
    speeds = tuple(quotes.height / s for s in seconds)
    return speeds[0], speeds[1], speeds[0] / speeds[1]


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    report("book_features", AIM, compare, __doc__)
