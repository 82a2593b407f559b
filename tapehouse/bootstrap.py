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
    blocks = _blocks(drawn)
    student = special.stdtrit(blocks - 1, (1 + LEVEL) / 2)
    return float(special.ndtr(-math.sqrt(blocks / (blocks - 1)) * student))


def quantiles(values: np.ndarray, *drawn: Resamples) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of a figure by its value in each draw, those without one (NaN) left out; None where all are.

    The ends are those of :func:`tail`; where two kinds of blocks were drawn, of the kind that there is less of. Of three blocks
    no number of draws reaches them, and the interval spans all draws.
    """
    values = values[~np.isnan(values)]
    if not len(values):
        return None, None
    beyond = min(tail(of) for of in drawn)
    low, high = np.quantile(values, [beyond, 1 - beyond])
    return float(low), float(high)


def p_value(values: np.ndarray, drawn: Resamples) -> float:
    """One-sided: that a figure is not above 0, by its value in each draw, those without one (NaN) left out.

    The share of draws that are not above 0, widened as :func:`tail` widens an interval: the share's normal deviate, less what
    blocks lack of the variance that they sample, is read off Student's distribution. At 2.5 % the interval begins at 0.
    """
    values = values[~np.isnan(values)]
    share = (1 + np.count_nonzero(values <= 0)) / (1 + len(values))
    blocks = _blocks(drawn)
    return float(special.stdtr(blocks - 1, special.ndtri(share) * math.sqrt((blocks - 1) / blocks)))


def _blocks(drawn: Resamples) -> float:
    """How many there are to be drawn that share no session."""
    return max(drawn.sessions / drawn.block, 2.0)


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
