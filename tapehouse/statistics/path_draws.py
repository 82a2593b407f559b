"""Figures of resampled returns that depend on their order or their ranks: what a sum over blocks cannot give.

Drawdowns of a draw are those of the equity that its blocks make one after the other, as if they had happened in that order;
quantiles are taken from counts, so that no draw is sorted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from tapehouse.bootstrap import Resamples


@dataclass(frozen=True)
class PathDraws:
    """Of each draw (draws,): what one became at its end, and the drawdowns, as of :class:`tapehouse.statistics.drawdowns`.

    Attributes:
        grown: opening equity of 1 at the end. deepest, mean: fractions of the high, at most 0. longest, mean_length: periods.
    """

    grown: np.ndarray
    deepest: np.ndarray
    mean: np.ndarray
    longest: np.ndarray
    mean_length: np.ndarray


def path_draws(ret: np.ndarray, drawn: Resamples) -> PathDraws:
    """Drawdowns of every draw of returns (sessions,)."""
    return PathDraws(*_walk(np.ascontiguousarray(ret, float), drawn.starts, drawn.block))


def tail_ratio_draws(ret: np.ndarray, drawn: Resamples) -> np.ndarray:
    """The 95th percentile over the size of the 5th of every draw of returns (sessions,); NaN where the 5th is 0."""
    different, places = np.unique(ret, return_inverse=True)
    at = np.array([0.05, 0.95]) * (len(ret) - 1)
    return _tails(different, places.astype(np.int64), drawn.starts, drawn.block, at)


@njit(cache=True)
def _walk(ret, starts, block):
    """`starts` (draws, blocks) of blocks that wrap at the end of `ret` (sessions,); a draw has as many sessions as it."""
    sessions, draws = ret.size, starts.shape[0]
    found = np.zeros((5, draws))
    for i in range(draws):
        grown, high, bottom = 1.0, 1.0, 0.0
        deepest, depths, longest, below, count, run = 0.0, 0.0, 0, 0, 0, 0
        for t in range(sessions):
            at = starts[i, t // block] + t % block
            grown *= 1.0 + ret[at if at < sessions else at - sessions]
            depth = grown / high - 1.0
            if depth < 0.0:
                bottom = min(bottom, depth)
                run += 1
                continue
            high = grown
            if run > 0:
                deepest, longest = min(deepest, bottom), max(longest, run)
                depths, below, count = depths + bottom, below + run, count + 1
                bottom, run = 0.0, 0
        if run > 0:
            deepest, longest = min(deepest, bottom), max(longest, run)
            depths, below, count = depths + bottom, below + run, count + 1
        found[0, i], found[1, i], found[3, i] = grown, deepest, longest
        if count > 0:
            found[2, i], found[4, i] = depths / count, below / count
    return found


@njit(cache=True)
def _tails(different, places, starts, block, at):
    """`different` values ascending, `places` (sessions,) of each return among them; `at` the two ranks, from 0."""
    sessions, draws = places.size, starts.shape[0]
    found = np.full(draws, np.nan)
    counts = np.zeros(different.size, np.int64)
    for i in range(draws):
        counts[:] = 0
        for t in range(sessions):
            place = starts[i, t // block] + t % block
            counts[places[place if place < sessions else place - sessions]] += 1
        low = _ranked(different, counts, at[0])
        if low != 0.0:
            found[i] = abs(_ranked(different, counts, at[1])) / abs(low)
    return found


@njit(cache=True)
def _ranked(different, counts, at):
    """Value at rank `at`, from 0, by linear interpolation between its neighbours."""
    before, seen, value = int(np.floor(at)), 0, np.nan
    for place in range(different.size):
        seen += counts[place]
        if np.isnan(value) and seen > before:
            value = different[place]
        if seen > before + 1 or (seen > before and at == before):
            return value + (different[place] - value) * (at - before)
    return value
