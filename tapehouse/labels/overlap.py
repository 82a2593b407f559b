"""How labels overlap, over arrays: what `labels.concurrency` and the benchmark run.

M. López de Prado, Advances in Financial Machine Learning (2018), chapter 4. Sums run in plain loops over a label's own bars,
oldest first: its bits do not depend on where the arrays begin. Time is linear in the labels.
"""

import math

import numpy as np
from numba import njit


@njit(cache=True)
def concurrent_labels(first, last, bars):
    """How many labels span each bar (4.2).

    Args:
        first, last: (d,) first and last bar of each label, both counted, in 0..bars-1; `first` negative: no label.
        bars: how many bars there are. A label that ends beyond them counts to the last.

    Returns:
        (bars,) counts.
    """
    change = np.zeros(bars + 1, np.int64)
    for i in range(first.size):
        if first[i] >= 0:
            change[first[i]] += 1
            change[min(last[i], bars - 1) + 1] -= 1
    counts = np.empty(bars, np.int64)
    alive = 0
    for t in range(bars):
        alive += change[t]
        counts[t] = alive
    return counts


@njit(cache=True)
def average_uniqueness(first, last, counts):
    """Mean of 1 / concurrency over each label's bars (4.3).

    Args:
        first, last: (d,) as in `concurrent_labels`. counts: (bars,) what it returned.

    Returns:
        (d,) in (0, 1], NaN where there is no label or it ends beyond the bars.
    """
    shares = 1.0 / np.maximum(counts, 1)
    out = np.full(first.size, math.nan)
    for i in range(first.size):
        if first[i] < 0 or last[i] >= counts.size:
            continue
        total = 0.0
        for t in range(first[i], last[i] + 1):
            total += shares[t]
        out[i] = total / (last[i] - first[i] + 1)
    return out


@njit(cache=True)
def attributed_returns(first, last, counts, held, entry):
    """Absolute sum of each label's log returns, each divided by the labels that share it (4.4, before scaling).

    Args:
        first, last: (d,) as in `concurrent_labels`. counts: (bars,) what it returned.
        held: (bars,) log return from the close before to the bar's close.
        entry: (bars,) log return from the bar's open to its close: what a label that begins on the bar has of it.

    Returns:
        (d,) NaN where there is no label or it ends beyond the bars. Without any overlap it is the absolute log return from
        the entry's open to the last bar's close.
    """
    out = np.full(first.size, math.nan)
    for i in range(first.size):
        if first[i] < 0 or last[i] >= counts.size:
            continue
        total = entry[first[i]] / counts[first[i]]
        for t in range(first[i] + 1, last[i] + 1):
            total += held[t] / counts[t]
        out[i] = abs(total)
    return out
