"""Is a mean of overlapping returns above zero: its t-statistic over sessions that bring several observations each.

Observations of one session move together, and returns over h sessions of h following decisions share their sessions. So a
session's observations count as one, and autocovariances of the sessions' sums count as well: W. Newey, K. West, A Simple,
Positive Semi-definite, Heteroskedasticity and Autocorrelation Consistent Covariance Matrix (1987), of cross-section sums as in
J. Driscoll, A. Kraay, Consistent Covariance Matrix Estimation with Spatially Dependent Panel Data (1998).

Bartlett's weights on the h - 1 lags that overlap leave out a third of the variance of a sum, so that the window is twice the
overlap. A window that is a large share of the sample makes the statistic wider than a normal one; it is scaled by the critical
value for that share (N. Kiefer, T. Vogelsang, A New Asymptotic Theory for Heteroskedasticity-Autocorrelation Robust Tests,
2005, table 1), so that 1.96 means 95 % whatever the horizon.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit

from tapehouse.bootstrap import FEWEST

# Polynomial in the window's share of the sample: 97.5 % quantile of the statistic with Bartlett's weights.
CRITICAL: Final = (1.9600, 2.9694, 0.4160, -0.5324)
FEWEST_SPANS: Final = 4  # returns that do not overlap, one after the other; with two |t| is above 1.96 in a fifth of all worlds


def overlapping_t(sums: np.ndarray, counts: np.ndarray, overlap: int) -> np.ndarray:
    """t-statistics of means, sum(sums) / sum(counts), scaled so that 1.96 means 95 %.

    The mean is a ratio of sums over sessions; what a session adds to its error is `sums - mean * counts`, whose long-run
    variance is estimated.

    Args:
        sums, counts: (sessions, columns) of the observations that a session brings, sessions in order and none left out.
        overlap: sessions that a return runs over, at least 1.

    Returns:
        (columns,), NaN below 30 observations, where they span fewer than 30 sessions or four returns, and where nothing varies.
    """
    if overlap < 1:
        raise ValueError(f"overlapping_t: a return runs over one session at least, got overlap {overlap}")
    observed = counts.sum(axis=0)
    mean = np.divide(sums.sum(axis=0), observed, out=np.zeros_like(observed, dtype=float), where=observed > 0)
    away = sums - mean * counts
    variance = (away**2).sum(axis=0)
    least = (64.0 * np.finfo(float).eps) ** 2 * ((np.abs(sums) + np.abs(mean * counts)) ** 2).sum(axis=0)
    varies = variance > least
    window = min(2 * overlap, len(away))
    for lag in range(1, window):
        variance = variance + 2.0 * (1.0 - lag / window) * (away[lag:] * away[:-lag]).sum(axis=0)
    span = spanned(counts[None], overlap)[0]
    told = varies & (variance > least) & (observed >= FEWEST) & (span >= fewest_spanned(overlap))
    scale = CRITICAL[0] / critical(window / np.maximum(span, window))
    return np.where(told, scale * mean * observed / np.sqrt(np.where(told, variance, 1.0)), np.nan)


def spanned(counts: np.ndarray, horizon: int) -> np.ndarray:
    """Sessions from the first observation to the last, of which a gap counts for one horizon at most.

    Spells that lie far apart say no more than their own sessions do, however long it is from the first to the last.

    Args:
        counts: (groups, sessions, columns) of the observations that a session brings. horizon: sessions that one runs over.

    Returns:
        (groups, columns), 0 without an observation.
    """
    return _spanned(counts, horizon)


@njit(cache=True)
def _spanned(counts, horizon):
    groups, sessions, columns = counts.shape
    found = np.zeros((groups, columns), np.int64)
    for group in range(groups):
        for k in range(columns):
            last = -1
            for session in range(sessions):
                if counts[group, session, k] > 0:
                    found[group, k] += 1 if last < 0 else min(session - last, horizon)
                    last = session
    return found


def fewest_spanned(horizon: int) -> int:
    """Sessions that observations must span (`spanned`) to say how sure they are: 30, and four horizons."""
    return max(FEWEST, FEWEST_SPANS * horizon)


def critical(share: np.ndarray | float) -> np.ndarray | float:
    """What |t| exceeds in 5 % of worlds without an effect, for a window of that share of the sample (0 to 1)."""
    return np.polynomial.polynomial.polyval(share, CRITICAL)
