"""Seconds for the first touches of 100,000 events by our kernel (ours) and by mlfinpy (peer); ratio = peer / ours.

Every bar is an event, the horizon 390 bars. Minute bars of a random walk, both barriers so wide that about half of the
events reach the vertical one, touch by close, one process. The bars of the first touch must be equal, event by event, also
where the data end first and there is none.

mlfinpy pins old packages and runs in an environment of its own (`make bench-env`). Where that is missing the peer is the
book's snippet 3.2 in pandas, which is what mlfinpy runs too. With --quick 3,000 bars.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.labels.touches import VERTICAL, first_touches  # noqa: E402

AIM = 1000.0
BARS, QUICK_BARS, HORIZON = 100_000, 3_000, 390
DEVIATION = 0.0005  # of one bar's log return
WIDTH = 1.13 * DEVIATION * HORIZON**0.5  # what a random walk stays within for the horizon in half of all cases
PEER = ROOT / "bench" / "peers" / "mlfinpy" / "first_touches.py"
PEER_PYTHON = ROOT / ".venv-mlfinpy" / "bin" / "python"
REPEATS = 7


def walk(bars: int) -> np.ndarray:
    """Closes of a random walk."""
    steps = np.random.default_rng(7).normal(0.0, DEVIATION, bars)
    return 100.0 * np.exp(np.cumsum(steps))


def ours(closes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Code and bar of each event's first touch, the path beginning with the bar after the event's."""
    grid, events = closes.reshape(1, -1), np.arange(closes.size)
    no_actions = np.ones_like(grid), np.zeros_like(grid)
    touched, _, bar = first_touches(
        np.zeros(closes.size, np.int64), events + 1, events + HORIZON,
        closes * (1.0 + WIDTH), closes * (1.0 - WIDTH), True,
        grid, grid, grid, grid, *no_actions,
    )  # fmt: skip
    return touched, bar


def textbook(closes: np.ndarray) -> np.ndarray:
    """The book's snippet 3.2: for each event its path as a pandas slice."""
    import pandas as pd

    close = pd.Series(closes, pd.date_range("2020-01-01", periods=closes.size, freq="min"))
    first = pd.Series(close.index[-1], close.index).astype(close.index.dtype)
    found = pd.Series(pd.NaT, close.index)
    first.iloc[: closes.size - HORIZON] = found.iloc[: closes.size - HORIZON] = close.index[HORIZON:]
    for at, vertical in first.items():
        returns = close[at:vertical] / close[at] - 1.0
        down, up = returns[returns < -WIDTH].index.min(), returns[returns > WIDTH].index.min()
        found[at] = pd.Series([found[at], down, up]).min()
    return close.index.get_indexer(found)


def peer(closes: np.ndarray) -> tuple[np.ndarray, float]:
    """Bar of each event's first touch, and the seconds that it took."""
    if not PEER_PYTHON.exists():
        print("peer: the book's snippet in pandas (no environment for mlfinpy; see make bench-env)", file=sys.stderr)
        started = time.perf_counter()
        return textbook(closes), time.perf_counter() - started
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "closes.npy", Path(folder) / "touches.npy"
        np.save(source, closes)
        command = [PEER_PYTHON, PEER, source, target, HORIZON, repr(WIDTH)]
        said = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        print(f"peer: mlfinpy, {float(said[-1]):.0f} MiB at the peak", file=sys.stderr)
        return np.load(target), float(said[-2])


def compare(quick: bool) -> tuple[float, float, float]:
    """Seconds of ours (least of several runs) and of the peer (one run), and their ratio."""
    closes = walk(QUICK_BARS if quick else BARS)
    touched, bars = ours(closes)  # compiles where the cache has nothing yet
    found, seconds = peer(closes)
    assert np.array_equal(found, bars), f"{(found != bars).sum()} first touches differ"
    share = (touched == VERTICAL).mean()
    assert quick or 0.45 < share < 0.55, f"{share:.0%} of the events reach the vertical barrier, not about half"
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ours(closes)
        taken.append(time.perf_counter() - started)
    best = min(taken)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"ours: {closes.size / best:,.0f} events/s, {share:.1%} vertical, {peak:.0f} MiB at the peak", file=sys.stderr)
    return best, seconds, seconds / best


if __name__ == "__main__":
    report("triple_barrier", AIM, compare, __doc__)
