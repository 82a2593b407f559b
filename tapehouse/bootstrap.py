"""Confidence intervals by resampling blocks of sessions, all symbols of a session together.

Labels overlap for up to ten sessions and symbols of one day move together, so neither rows nor single days are
independent draws. Circular block bootstrap: D. Politis, J. Romano, A circular block-resampling procedure (1992).
"""

from collections.abc import Callable

import numpy as np

BLOCK_SESSIONS = 10  # the horizon of a label
DRAWS = 2_000
SEED = 20_240_229
FEWEST = 30  # below so many observations an interval would say more than is known
LEVEL = 0.95


def resampled_sessions(sessions: int, block: int = BLOCK_SESSIONS, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """Indices of resampled sessions, shape (draws, sessions): blocks of consecutive sessions that wrap at the end."""
    block = max(1, min(block, sessions))
    blocks = -(-sessions // block)
    starts = np.random.Generator(np.random.PCG64(seed)).integers(0, sessions, size=(draws, blocks))
    indices = (starts[:, :, None] + np.arange(block)) % sessions
    return indices.reshape(draws, blocks * block)[:, :sessions]


def ratio_interval(numerator: np.ndarray, denominator: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of sum(numerator) / sum(denominator), both (sessions,): totals of each session.

    None where the denominator, the number of observations, is below 30.
    """
    if denominator.sum() < FEWEST:
        return None, None
    drawn = resampled_sessions(len(numerator))
    totals = denominator[drawn].sum(axis=1)
    some = totals > 0
    return quantiles(numerator[drawn].sum(axis=1)[some] / totals[some])


def statistic_interval(
    sessions: int, observations: int, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of `statistic`, which maps indices (draws, sessions) to one value a draw; NaN draws are left out."""
    if observations < FEWEST:
        return None, None
    values = statistic(resampled_sessions(sessions))
    return quantiles(values[~np.isnan(values)])


def quantiles(values: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """The central 95 % of `values`; None for no values."""
    if not len(values):
        return None, None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
