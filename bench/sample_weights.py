"""Microseconds a label for the average uniqueness of a million labels by ours and by a plain loop (peer); ratio = peer / ours.

One label a bar, spanning 1 to 60 bars. At 10,000 labels the textbook's indicator matrix (bars by labels, snippets 4.3 and
4.4) is timed too; its memory grows with the square, at 100,000 labels to 80 GB. The plain loop counts and averages slices of
arrays, label by label (snippets 4.1 and 4.2). Counts must be equal, averages equal to 1e-12. The figures of each size go
to standard error: ours is linear in the labels. With --quick up to 100,000 labels, the matrix at 2,000.
"""

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.labels.overlap import average_uniqueness, concurrent_labels  # noqa: E402

AIM = 10.0
LONGEST = 60
REPEATS = 5


def labels(count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """First and last bar of each label, and the number of bars."""
    first = np.arange(count)
    last = first + np.random.default_rng(5).integers(0, LONGEST, count)
    return first, last, count + LONGEST


def ours(first: np.ndarray, last: np.ndarray, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """Concurrency of the bars and uniqueness of the labels."""
    counts = concurrent_labels(first, last, bars)
    return counts, average_uniqueness(first, last, counts)


def plain_loop(first: np.ndarray, last: np.ndarray, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, one label after the other."""
    counts, uniqueness = np.zeros(bars, np.int64), np.empty(first.size)
    spans = list(zip(first.tolist(), last.tolist(), strict=True))
    for begin, end in spans:
        counts[begin : end + 1] += 1
    for place, (begin, end) in enumerate(spans):
        uniqueness[place] = (1.0 / counts[begin : end + 1]).mean()
    return counts, uniqueness


def indicator_matrix(first: np.ndarray, last: np.ndarray, bars: int) -> tuple[np.ndarray, np.ndarray]:
    """The same by the matrix of bars and labels."""
    matrix = np.zeros((bars, first.size))
    for column, (begin, end) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        matrix[begin : end + 1, column] = 1.0
    counts = matrix.sum(axis=1)
    held = matrix.sum(axis=0)
    matrix /= np.maximum(counts, 1.0)[:, None]
    return counts.astype(np.int64), matrix.sum(axis=0) / held


def timed(way: Callable, spans: tuple, repeats: int) -> tuple[float, tuple]:
    """Least seconds of several runs, and what they returned."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        found = way(*spans)
        taken.append(time.perf_counter() - started)
    return min(taken), found


def compare(quick: bool) -> tuple[float, float, float]:
    """Microseconds a label at the largest size, of ours and of the plain loop."""
    ours(*labels(100))  # compiles where the cache has nothing yet
    sizes = (10_000, 100_000) if quick else (10_000, 100_000, 1_000_000)
    matrix_size = 2_000 if quick else 10_000
    for size in sorted({matrix_size, *sizes}):
        spans = labels(size)
        seconds, (counts, uniqueness) = timed(ours, spans, REPEATS)
        ways = [(plain_loop, "loop")] + ([(indicator_matrix, "matrix")] if size == matrix_size else [])
        said = [f"{size:,} labels: {seconds / size * 1e6:.4f} us a label"]
        for way, name in ways:
            other, (peer_counts, peer_uniqueness) = timed(way, spans, 1)
            assert np.array_equal(counts, peer_counts), f"{name}: other counts"
            assert np.allclose(uniqueness, peer_uniqueness, rtol=1e-12, atol=0.0), f"{name}: other averages"
            said.append(f"{other / seconds:,.0f} x {name}")
            if way is plain_loop:
                mine, peer = seconds / size * 1e6, other / size * 1e6
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(", ".join([*said, f"{peak:,.0f} MiB at the peak so far"]), file=sys.stderr)
    return mine, peer, peer / mine


if __name__ == "__main__":
    report("sample_weights", AIM, compare, __doc__)
