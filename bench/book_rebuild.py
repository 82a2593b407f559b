"""Messages per second from a recorded file to its rebuilt order book with ten levels a second (ours), and of orjson on the
same JSON lines, held in memory, and nothing else (peer); ratio = ours / peer.

Ours unzips, reads and judges every line, makes the rows of `raw.book_events` and `raw.trades`, checks every update id, and
reads the book off on its cadence; the best quotes are those of the peer's `bookTicker` messages wherever their ids are equal.
Memory is flat: the peak of four times the file, its ids and times moved on, is that of the file (asserted, to 10 %).

The input is the recorded futures stream beside the project where it is there, else a simulated one. The time is that of the
processor, on one thread, the least of several turns: noise only adds.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # read once, when polars is imported

import gzip
import multiprocessing
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import orjson
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.book_files import StreamReader  # noqa: E402
from tapehouse.books import BookRules, Rebuilt, collected, rebuild  # noqa: E402
from tapehouse.simulated_books import StreamShape, simulate_day  # noqa: E402
from tapehouse.simulated_streams import stream_lines, write_stream  # noqa: E402

AIM = 0.333  # within three times
RECORDED = ROOT.parent / "shared" / "data" / "book" / "binance_usdm_btcusdt_20240808.gz"
NUMBERS = re.compile(rb'^(\d+)|"(U|u|pu|lastUpdateId|t|E|T)":(\d+)', re.MULTILINE)
IDS_APART, SECONDS_APART = 10**11, 3600
SPAN = datetime(2020, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
SPARE = 1.10  # what the peak of four times the file may be of that of the file


def rebuilt(path: Path, trace: bool = False) -> Iterator[Rebuilt]:
    """The file's books, a stretch at a time."""
    return rebuild((batch.book for batch in StreamReader(path, "bench").batches()), BookRules(levels=10), *SPAN, trace=trace)


def peak(path: Path) -> int:
    """Peak resident memory of a process that rebuilds the file and keeps nothing, KiB."""
    for _ in rebuilt(path):
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def moved(text: bytes, turn: int) -> bytes:
    """The stream some hours later, with other ids."""

    def shift(match: re.Match) -> bytes:
        if match[1]:
            return b"%d" % (int(match[1]) + turn * SECONDS_APART * 1_000_000_000)
        by = SECONDS_APART * 1000 if match[2] in (b"E", b"T") else IDS_APART
        return b'"%s":%d' % (match[2], int(match[3]) + turn * by)

    return NUMBERS.sub(shift, text)


def assert_agrees(path: Path, messages: list[dict]) -> None:
    """The rebuilt best quotes are those of the tickers at equal update ids, in every comparable message."""
    data = [message.get("data", message) for message in messages]
    keys = ("b", "B", "a", "A")
    tickers = {m["u"]: tuple(float(m[key]) for key in keys) for m in data if isinstance(m.get("b"), str)}
    trace = collected(rebuilt(path, trace=True)).trace
    compared = 0
    for row in trace.filter("valid", kind="diff").iter_rows(named=True):
        if row["message_id"] == row["book_id"] and row["book_id"] in tickers:
            ours = tuple(row[name] for name in ("bid_price", "bid_size", "ask_price", "ask_size"))
            assert ours == tickers[row["book_id"]], f"{row}: the stream says {tickers[row['book_id']]}"
            compared += 1
    assert compared > 100, f"only {compared} messages could be compared"


def assert_flat(path: Path, text: bytes, folder: Path) -> None:
    """Four times the file needs the memory of once the file."""
    long = folder / "long.gz"
    with gzip.open(long, "wb", compresslevel=1) as file:
        for turn in range(4):
            file.write(moved(text, turn))
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        once, four = (pool.apply(peak, (p,)) for p in (path, long))
    assert four <= SPARE * once, f"peak of the file {once} KiB, of four times the file {four} KiB"


def compare(quick: bool) -> tuple[float, float, float]:
    """Messages per second of ours and of the peer, and their ratio."""
    with tempfile.TemporaryDirectory(prefix="tapehouse-bench-") as name:
        path = RECORDED
        if not path.is_file():
            first = pl.col("known_at") < datetime(2024, 1, 2, 0, 40, tzinfo=UTC)
            day = simulate_day(1, "SIM:BENCH", date(2024, 1, 2), StreamShape(messages_per_second=20.0))
            path = write_stream(Path(name) / "simulated.gz", stream_lines(day.book.filter(first), day.trades.filter(first)))
        text = gzip.decompress(path.read_bytes())
        lines = [line.partition(b" ")[2] for line in text.splitlines()]
        assert_agrees(path, [orjson.loads(line) for line in lines])
        assert_flat(path, text, Path(name))
        ours, peer = [], []
        for _ in range(3 if quick else 9):
            started = time.process_time()
            for line in lines:
                orjson.loads(line)
            peer.append(time.process_time() - started)
            started = time.process_time()
            result = collected(rebuilt(path))
            ours.append(time.process_time() - started)
        assert result.quotes.height and not result.counts["unusable"]
    return len(lines) / min(ours), len(lines) / min(peer), min(peer) / min(ours)


if __name__ == "__main__":
    report("book_rebuild", AIM, compare, __doc__)
