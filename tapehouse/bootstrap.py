"""Confidence intervals by resampling blocks of sessions, all symbols of a session together.

Labels overlap and symbols of one day move together, so neither rows nor single days are independent draws. Circular block
bootstrap: D. Politis, J. Romano, A circular block-resampling procedure (1992). The length of a block follows D. Politis,
H. White, Automatic block-length selection (2004, corrected 2009), and is never below the horizon of a label.

A mean, a ratio of sums or a Sharpe ratio needs sums over blocks alone, and a block's sum is a difference of two running
sums: a resample costs as many additions as it has blocks, not sessions (`bench/bootstrap.py`).
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from scipy import special

BLOCK_SESSIONS = 10  # the horizon of a label
DRAWS = 2_000
SEED = 20_240_229
FEWEST = 30  # below so many observations an interval would say more than is known
LEVEL = 0.95


@dataclass(frozen=True)
class Resamples:
    """Draws of blocks of consecutive sessions that wrap at the end.

    Attributes:
        starts: (draws, blocks) first session of each block. block: sessions of one; the last is cut where they do not divide.
        sessions: how many there are, and how many each draw has.
    """

    starts: np.ndarray
    block: int
    sessions: int

    @property
    def indices(self) -> np.ndarray:
        """Sessions of each draw, (draws, sessions)."""
        indices = (self.starts[:, :, None] + np.arange(self.block)) % self.sessions
        return indices.reshape(len(self.starts), -1)[:, : self.sessions]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of `values` (sessions,) over each draw, (draws,)."""
        return _block_sums(np.concatenate([values, values[: self.block]]).cumsum(), self.starts, self.block, self.sessions)


def resample(sessions: int, block: int = BLOCK_SESSIONS, draws: int = DRAWS, seed: int = SEED) -> Resamples:
    """Draws of blocks for so many sessions; the same for equal arguments."""
    block = max(1, min(block, sessions))
    blocks = -(-sessions // block)
    starts = np.random.Generator(np.random.PCG64(seed)).integers(0, sessions, size=(draws, blocks))
    return Resamples(starts, block, sessions)


def block_length(values: np.ndarray, floor: int = BLOCK_SESSIONS) -> int:
    """Sessions of a block for a series (sessions,): Politis and White's for the circular bootstrap, at least `floor`.

    Their length minimises the error of the variance of a mean. It is at most a third of the series, so that a draw has
    three blocks; a series without variation takes the floor.
    """
    from arch.bootstrap import optimal_block_length

    longest = max(len(values) // 3, 1)
    if len(values) < FEWEST or not np.ptp(values) > 0:
        return min(floor, longest)
    best = float(optimal_block_length(np.asarray(values, float))["circular"].iloc[0])
    return int(min(max(floor, np.ceil(best)), longest)) if np.isfinite(best) else min(floor, longest)


def sharpe_draws(ret: np.ndarray, drawn: Resamples) -> np.ndarray:
    """Sharpe ratio per period of returns (sessions,) in each draw, (draws,), with the deviation's divisor n - 1.

    A draw without variation has 0 where it did not trade, and NaN where it did.
    """
    centre = ret.mean()
    away = ret - centre  # squares of what is left lose no digits to the mean
    n = drawn.sessions
    mean = drawn.sums(away) / n
    variance = (drawn.sums(away**2) - n * mean**2) / (n - 1)
    least = 1e-14 * max(float(np.mean(away**2)), float(centre) ** 2)
    flat = variance <= least
    mean = mean + centre
    still = np.abs(mean) <= 1e-12 * np.abs(ret).max(initial=0.0)
    return np.where(flat, np.where(still, 0.0, np.nan), mean / np.sqrt(np.where(flat, 1.0, variance)))


def tail(drawn: Resamples) -> float:
    """Share of draws beyond either end of a 95 % interval: less than 2.5 %, since few blocks vary less than what they sample.

    T. Hesterberg, What Teachers Should Know About the Bootstrap (2015), expanded percentile intervals: as wide as Student's
    of as many observations as there are blocks. Of twelve blocks they cover 91 to 95 %, where plain percentiles cover 86 to 92.
    """
    blocks = max(drawn.sessions / drawn.block, 2.0)
    student = special.stdtrit(blocks - 1, (1 + LEVEL) / 2)
    return float(special.ndtr(-math.sqrt(blocks / (blocks - 1)) * student))


def quantiles(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """The central 95 % of `values`; None for no values."""
    if not len(values):
        return None, None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


@njit(cache=True)
def _block_sums(running, starts, block, sessions):
    """Sums over blocks by differences of running sums of the series that goes on at its start.

    Args:
        running: (sessions + block,). starts: (draws, blocks).
    """
    draws, blocks = starts.shape
    last = sessions - (blocks - 1) * block
    found = np.zeros(draws)
    for i in range(draws):
        total = 0.0
        for k in range(blocks):
            start = starts[i, k]
            end = start + (block if k < blocks - 1 else last)
            total += running[end - 1] - (running[start - 1] if start > 0 else 0.0)
        found[i] = total
    return found
