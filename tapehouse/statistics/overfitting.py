"""Probability of backtest overfitting by combinatorially symmetric cross-validation.

D. Bailey, J. Borwein, M. López de Prado, Q. Zhu, The Probability of Backtest Overfitting (2017). The periods are cut into an
even number of blocks of equal length. For every choice of half of the blocks the best trial by Sharpe ratio on them is
ranked among all trials on the other half; the probability is the share of choices where it falls at or below the median.

A ratio on a union of blocks needs sums of returns and of their squares alone, so blocks are summed once and a choice costs
blocks x trials additions. Sums run in the order of the blocks: the same bits whatever the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numba import njit

FEWEST_TRIALS = 10
FEWEST_PERIODS = 30  # of a block


@dataclass(frozen=True)
class Overfitting:
    """What the choices of half of the blocks showed.

    Attributes:
        probability: share of choices whose best trial is at or below the median on the other half.
        logits: (choices,) log odds of its relative rank there, sorted as the choices are.
        chosen, in_sample, out_of_sample: (choices,) the best trial and its ratio per period on either half.
        loss_probability: share of choices whose best trial lost money on the other half.
    """

    probability: float
    logits: np.ndarray
    chosen: np.ndarray
    in_sample: np.ndarray
    out_of_sample: np.ndarray
    loss_probability: float


def overfitting(returns: np.ndarray, blocks: int = 16) -> Overfitting | None:
    """Overfitting among trials, or None below 10 trials or 30 periods a block.

    Args:
        returns: (periods, trials), every trial over the same periods. What equal blocks leave over is cut off at the start.
        blocks: an even number.

    Raises:
        ValueError: an odd number of blocks, or a return that is not a number.
    """
    if blocks < 2 or blocks % 2:
        raise ValueError(f"overfitting: blocks must be even and at least 2, got {blocks}")
    if not np.isfinite(returns).all():
        raise ValueError("overfitting: a return is not a number; cut all trials to the periods that they share")
    length, trials = len(returns) // blocks, returns.shape[1]
    if trials < FEWEST_TRIALS or length < FEWEST_PERIODS:
        return None
    # Without its mean over all periods a trial's squares lose no digits to the mean's; it is added back to the sums.
    centre = returns[-length * blocks :].mean(axis=0)
    cut = (returns[-length * blocks :] - centre).reshape(blocks, length, trials)
    halves = np.array(list(combinations(range(blocks), blocks // 2)), dtype=np.int64)
    picked = np.zeros((len(halves), blocks), dtype=np.bool_)
    picked[np.arange(len(halves))[:, None], halves] = True
    chosen, inside, outside, ranks = _choices(picked, cut.sum(axis=1), (cut**2).sum(axis=1), centre, length * blocks // 2)
    shares = ranks / (trials + 1.0)
    logits = np.log(shares / (1.0 - shares))
    return Overfitting(float(np.mean(logits <= 0.0)), logits, chosen, inside, outside, float(np.mean(outside < 0.0)))


@njit(cache=True)
def _choices(picked, sums, squares, centre, periods):
    """For each choice: the best trial on the picked blocks, its ratios on both halves, and its rank on the other half.

    Args:
        picked: (choices, blocks) whether a block is in sample. sums, squares: (blocks, trials) of centred returns.
        centre: (trials,) what was taken from the returns. periods: of a half.
    """
    count, blocks = picked.shape
    trials = centre.size
    chosen = np.empty(count, np.int64)
    inside, outside, ranks = np.empty(count), np.empty(count), np.empty(count)
    first, first_squares = np.empty(trials), np.empty(trials)
    other, other_squares = np.empty(trials), np.empty(trials)
    for i in range(count):
        first[:], first_squares[:], other[:], other_squares[:] = 0.0, 0.0, 0.0, 0.0
        for b in range(blocks):
            if picked[i, b]:
                for j in range(trials):
                    first[j] += sums[b, j]
                    first_squares[j] += squares[b, j]
            else:
                for j in range(trials):
                    other[j] += sums[b, j]
                    other_squares[j] += squares[b, j]
        best, best_ratio = 0, -np.inf
        for j in range(trials):
            first[j] = _ratio(first[j], first_squares[j], centre[j], periods)
            other[j] = _ratio(other[j], other_squares[j], centre[j], periods)
            if first[j] > best_ratio:
                best, best_ratio = j, first[j]
        below, ties = 0, 0
        for j in range(trials):
            below += other[j] < other[best]
            ties += other[j] == other[best]
        chosen[i], inside[i], outside[i] = best, best_ratio, other[best]
        ranks[i] = below + (ties + 1) / 2.0  # tied trials share their mean rank
    return chosen, inside, outside, ranks


@njit(cache=True)
def _ratio(total, squares, centre, periods):
    """Sharpe ratio per period; 0 for a series without variation, as for one that never trades."""
    mean = total / periods
    variance = (squares - total * mean) / (periods - 1)
    return (mean + centre) / np.sqrt(variance) if variance > 1e-30 else 0.0
