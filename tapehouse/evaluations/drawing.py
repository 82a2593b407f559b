"""Sums over rows, by group and joint date, and over draws of blocks of dates; no figure is resampled in any other way.

A draw's sum is one of sums over whole blocks, which are made once for every start: it costs as many additions as it has
blocks, not sessions, and leaves an exact zero where nothing was drawn. The order of additions is fixed, so that the bits are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit

from tapehouse.bootstrap import LEVEL, Resamples, block_length, resample, tail


def grouped_sums(terms: np.ndarray, groups: np.ndarray, group_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of the values that are not NaN, of each group.

    Args:
        terms: (rows, terms). groups: (rows,) from 0.

    Returns:
        sums and counts, both (group_count, terms) of floats.
    """
    return _sums(terms, groups, group_count)


@njit(cache=True)
def _sums(terms, groups, group_count):
    sums = np.zeros((group_count, terms.shape[1]))
    counts = np.zeros((group_count, terms.shape[1]))
    for row in range(terms.shape[0]):
        group = groups[row]
        for k in range(terms.shape[1]):
            value = terms[row, k]
            if not np.isnan(value):
                sums[group, k] += value
                counts[group, k] += 1.0
    return sums, counts


def draw_sums(daily: np.ndarray, drawn: Resamples) -> np.ndarray:
    """Sums of `daily` (sessions, terms) over each draw: (terms, draws)."""
    return np.ascontiguousarray(_draws(np.ascontiguousarray(daily), drawn.starts, drawn.block).T)


@njit(cache=True)
def _draws(daily, starts, block):
    """`starts`: (draws, blocks) first session of each block; the last block is cut at as many sessions as there are."""
    sessions, terms = daily.shape
    draws, blocks = starts.shape
    last = sessions - (blocks - 1) * block
    whole, cut = np.zeros((sessions, terms)), np.zeros((sessions, terms))
    for start in range(sessions):
        for step in range(block):
            day = (start + step) % sessions
            for k in range(terms):
                whole[start, k] += daily[day, k]
            if step == last - 1:
                cut[start] = whole[start]
    found = np.zeros((draws, terms))
    for draw in range(draws):
        for b in range(blocks - 1):
            start = starts[draw, b]
            for k in range(terms):
                found[draw, k] += whole[start, k]
        start = starts[draw, blocks - 1]
        for k in range(terms):
            found[draw, k] += cut[start, k]
    return found


def tails(drawn: Resamples, sessions: np.ndarray) -> np.ndarray:
    """`bootstrap.tail` of figures that so many sessions carry, an array of any shape: as if no other were drawn from."""
    some, place = np.unique(sessions, return_inverse=True)
    return np.array([tail(replace(drawn, sessions=int(count))) for count in some])[place.reshape(sessions.shape)]


def intervals(draws: np.ndarray, beyond: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Ends that leave the share `beyond`, one or of each figure, of each row of `draws` (figures, draws) on either side.

    Returns:
        lower and upper ends, both (figures,), linearly between neighbours; NaN where more than 2.5 % of the draws leave the
        figure undefined (NaN): it hangs on so few rows that they say nothing about its interval. Fewer are left out.
    """
    beyond = np.broadcast_to(beyond, len(draws))
    low, high = np.full(len(draws), np.nan), np.full(len(draws), np.nan)
    defined = draws.shape[1] - np.isnan(draws).sum(axis=1)
    fewest = draws.shape[1] * (1 + LEVEL) / 2
    for count in np.unique(defined[defined >= fewest]):
        rows = np.flatnonzero(defined == count)
        places = [(count - 1) * beyond[rows], (count - 1) * (1 - beyond[rows])]
        near = np.unique([f(place).astype(np.int64) for place in places for f in (np.floor, np.ceil)])
        sorted_there = np.partition(draws[rows], near, axis=1)  # NaN goes to the end
        for found, place in zip((low, high), places, strict=True):
            below, above = (f(place).astype(np.int64) for f in (np.floor, np.ceil))
            lower, upper = (sorted_there[np.arange(len(rows)), at] for at in (below, above))
            found[rows] = lower + (upper - lower) * (place - below)
    return low, high


class Blocks:
    """Resamples of the block's sessions by the horizon of what is resampled."""

    def __init__(self, sessions: int, series: np.ndarray | None) -> None:
        """Of so many sessions, by the daily sums (sessions,) of what sets the length; without them it is the horizon's."""
        self.sessions = sessions
        self.best = 1 if series is None else block_length(series, floor=1)
        self.made: dict[int, Resamples] = {}

    def of(self, horizon: int) -> Resamples:
        """Draws of blocks at least as long as the horizon in sessions, and at most a third of all.

        A horizon is above that third only where there are too few sessions for an interval (`panels.fewest_spanned`).
        """
        longest = max(self.sessions // 3, 1)
        length = min(max(self.best, horizon), longest)
        if length not in self.made:
            self.made[length] = resample(self.sessions, length)
        return self.made[length]
