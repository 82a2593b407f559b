"""Is a mean of overlapping returns above zero: its t-statistic over sessions that bring several observations each.

Observations of one session move together, and returns over h sessions of h following decisions share their sessions. So a
session's observations count as one, and h - 1 autocovariances of the sessions' sums as well: W. Newey, K. West, A Simple,
Positive Semi-definite, Heteroskedasticity and Autocorrelation Consistent Covariance Matrix (1987), of cross-section sums as
in J. Driscoll, A. Kraay, Consistent Covariance Matrix Estimation with Spatially Dependent Panel Data (1998).
"""

from __future__ import annotations

import numpy as np

from tapehouse.bootstrap import FEWEST


def overlapping_t(sums: np.ndarray, counts: np.ndarray, overlap: int) -> np.ndarray:
    """t-statistics of means, sum(sums) / sum(counts).

    The mean is a ratio of sums over sessions; what a session adds to its error is `sums - mean * counts`, whose long-run
    variance has Bartlett weights on `overlap` - 1 lags. With a window of a quarter of the sample, as 30 of 120 sessions are,
    the statistic is wider than a normal one: |t| of 2 is then less than 95 %.

    Args:
        sums, counts: (sessions, columns) of the observations that a session brings, sessions in order and none left out.
        overlap: sessions that a return runs over, at least 1.

    Returns:
        (columns,), NaN below 30 observations and where nothing varies.
    """
    if overlap < 1:
        raise ValueError(f"overlapping_t: a return runs over one session at least, got overlap {overlap}")
    observed = counts.sum(axis=0)
    mean = np.divide(sums.sum(axis=0), observed, out=np.zeros_like(observed, dtype=float), where=observed > 0)
    away = sums - mean * counts
    variance = (away**2).sum(axis=0)
    least = (64.0 * np.finfo(float).eps) ** 2 * ((np.abs(sums) + np.abs(mean * counts)) ** 2).sum(axis=0)
    varies = variance > least
    for lag in range(1, min(overlap, len(away))):
        variance = variance + 2.0 * (1.0 - lag / overlap) * (away[lag:] * away[:-lag]).sum(axis=0)
    told = varies & (variance > least) & (observed >= FEWEST)
    return np.where(told, mean * observed / np.sqrt(np.where(told, variance, 1.0)), np.nan)
