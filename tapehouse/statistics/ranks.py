"""Rank correlations of many resamples, without sorting any of them."""

import math

import numpy as np
from numba import njit


def spearman_draws(a: np.ndarray, b: np.ndarray, dates: np.ndarray, drawn: np.ndarray, sessions: int) -> np.ndarray:
    """Spearman correlation, with mean ranks for ties, of each draw of sessions; a row counts as often as its session is drawn.

    Ranks follow from counts of the different values. They are halves, whose sums are exact, so that the values are those of
    ranking every draw anew, to the bit.

    Args:
        a, b: (rows,). dates: (rows,) number of the session of each, from 0. drawn: (draws, sessions drawn) such numbers.
        sessions: how many there are.

    Returns:
        (draws,), NaN for fewer than three rows, and where one side is constant.
    """
    if not len(a):
        return np.full(len(drawn), np.nan)
    places = (np.unique(values, return_inverse=True)[1].astype(np.int64) for values in (a, b))
    return _correlations(*places, dates.astype(np.int64), drawn.astype(np.int64), sessions)


@njit(cache=True)
def _correlations(a, b, dates, drawn, sessions):
    """`a` and `b` (rows,) are places of the values among the different ones, from 0."""
    found = np.full(drawn.shape[0], np.nan)
    rank_a, rank_b = np.empty(a.max() + 1), np.empty(b.max() + 1)
    for draw in range(drawn.shape[0]):
        times = np.zeros(sessions)
        for k in range(drawn.shape[1]):
            times[drawn[draw, k]] += 1.0
        rank_a[:] = 0.0
        rank_b[:] = 0.0
        for row in range(a.size):
            rank_a[a[row]] += times[dates[row]]
            rank_b[b[row]] += times[dates[row]]
        total = rank_a.sum()
        _to_ranks(rank_a, total)
        _to_ranks(rank_b, total)
        both, squares_a, squares_b = 0.0, 0.0, 0.0
        for row in range(a.size):
            weight, x, y = times[dates[row]], rank_a[a[row]], rank_b[b[row]]
            both += weight * x * y
            squares_a += weight * x * x
            squares_b += weight * y * y
        spread = math.sqrt(squares_a * squares_b)
        if total >= 3.0 and spread > 0.0:
            found[draw] = both / spread
    return found


@njit(cache=True)
def _to_ranks(counts, total):
    """Counts of the values in their order become their mean ranks less the mean of all ranks, in place."""
    before = 0.0
    for place in range(counts.size):
        count = counts[place]
        counts[place] = before + (count + 1.0) / 2.0 - (total + 1.0) / 2.0
        before += count
