"""Sharpe ratios and how far they can be believed: standard error, probabilistic and deflated ratio, least track record.

All ratios here are per period (a day), not annualised: the distribution theory is in periods. Moments are those of the
sample with divisor n, as in the papers; skewness g3 is 0 and kurtosis g4 is 3 for a normal series.

- D. Bailey, M. López de Prado, The Sharpe Ratio Efficient Frontier (2012): probabilistic ratio, minimum track record length.
- D. Bailey, M. López de Prado, The Deflated Sharpe Ratio (2014).
- A. Lo, The Statistics of Sharpe Ratios (2002); E. Mertens, Comments on variance of the IID estimator (2002).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

EULER_MASCHERONI = 0.5772156649015329
FEWEST = 30  # below so many periods the normal approximation says more than is known


def moments(ret: np.ndarray) -> tuple[float, float, float] | None:
    """Ratio per period, skewness and kurtosis of returns (n,); None below two periods or without variation."""
    if len(ret) < 2:
        return None
    mean, away = float(ret.mean()), ret - ret.mean()
    variance = float(np.mean(away**2))
    # A constant series leaves rounding errors where there is no deviation.
    if not variance > (4.0 * np.finfo(float).eps * max(abs(mean), np.abs(ret).max())) ** 2:
        return None
    deviation = math.sqrt(variance)
    unbiased = deviation * math.sqrt(len(ret) / (len(ret) - 1))
    return mean / unbiased, float(np.mean(away**3)) / deviation**3, float(np.mean(away**4)) / variance**2


def standard_error(ret: np.ndarray, lags: int | None = None) -> float | None:
    """Standard error of the ratio per period for returns (n,) that are neither normal nor independent.

    The ratio's influence function is z - SR (z² - 1) / 2 for standardised returns z; its long-run variance is estimated by
    Bartlett weights (W. Newey, K. West, 1987). With `lags` 0 this is Mertens' 1 - g3 SR + (g4 - 1) SR² / 4, over n.

    Args:
        lags: autocovariances that count; by default ⌊4 (n / 100)^(2/9)⌋.
    """
    found = moments(ret)
    if found is None:
        return None
    n, ratio = len(ret), found[0]
    z = (ret - ret.mean()) / ret.std()
    influence = z - ratio * (z**2 - 1.0) / 2.0
    lags = math.floor(4.0 * (n / 100.0) ** (2.0 / 9.0)) if lags is None else lags
    return math.sqrt(max(long_run_variance(influence, lags), 0.0) / n)


def long_run_variance(values: np.ndarray, lags: int) -> float:
    """Variance of √n times the mean of a centred series (n,), with Bartlett weights on `lags` autocovariances."""
    n = len(values)
    away = values - values.mean()
    total = float(away @ away) / n
    for lag in range(1, min(lags, n - 1) + 1):
        total += 2.0 * (1.0 - lag / (lags + 1.0)) * float(away[lag:] @ away[:-lag]) / n
    return total


def probability_above(ratio: float, skewness: float, kurtosis: float, periods: int, benchmark: float) -> float | None:
    """Probability that the true ratio per period exceeds `benchmark`, from the moments of so many periods.

    None where the moments belong to no series that the approximation holds for.
    """
    spread = _spread(ratio, skewness, kurtosis)
    return float(norm.cdf((ratio - benchmark) * math.sqrt(periods - 1) / math.sqrt(spread))) if spread > 0.0 else None


def probabilistic_sharpe(ret: np.ndarray, benchmark: float = 0.0) -> float | None:
    """Probability that the true ratio per period exceeds `benchmark`, for returns (n,); None below 30 periods."""
    found = moments(ret)
    return probability_above(*found, len(ret), benchmark) if found is not None and len(ret) >= FEWEST else None


def periods_needed(ratio: float, skewness: float, kurtosis: float, benchmark: float, level: float = 0.95) -> float | None:
    """Periods after which a ratio with these moments exceeds `benchmark` with probability `level`; None if it never does."""
    spread = _spread(ratio, skewness, kurtosis)
    return 1.0 + spread * (float(norm.ppf(level)) / (ratio - benchmark)) ** 2 if ratio > benchmark and spread > 0.0 else None


def minimum_track_record(ret: np.ndarray, benchmark: float = 0.0, level: float = 0.95) -> float | None:
    """`periods_needed` for the moments of returns (n,); None below 30 periods."""
    found = moments(ret)
    return periods_needed(*found, benchmark, level) if found is not None and len(ret) >= FEWEST else None


def _spread(ratio: float, skewness: float, kurtosis: float) -> float:
    """Variance of √n times the ratio's estimate (Mertens 2002)."""
    return 1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio**2


def expected_best_sharpe(trials: float, variance: float) -> float:
    """Ratio per period that the best of `trials` skill-less trials is expected to show; 0 for one trial.

    The approximation falls below 0 for fewer than 1.3 trials, an effective number; the best is never expected to lose.

    Args:
        trials: how many independent ones, at least 1.
        variance: of the ratios per period across the trials.
    """
    if trials < 1 or variance < 0:
        raise ValueError(f"expected_best_sharpe: needs a trial and no negative variance, got {trials} and {variance}")
    if trials <= 1.0:
        return 0.0
    first, second = norm.ppf(1.0 - 1.0 / trials), norm.ppf(1.0 - 1.0 / (trials * math.e))
    best = max((1.0 - EULER_MASCHERONI) * first + EULER_MASCHERONI * second, 0.0)
    return float(math.sqrt(variance) * best)


def deflated_sharpe(ret: np.ndarray, ratios: Sequence[float], trials: float) -> float | None:
    """Probability that the true ratio exceeds what the best of `trials` skill-less trials would show.

    Args:
        ret: returns of the selected trial (n,).
        ratios: per period, of all trials that were run and have one.
        trials: their number, raw or effective; failed ones count too.

    Returns:
        None below 30 periods, or where fewer than two trials have a ratio and yet more than one was run.
    """
    if trials > 1 and len(ratios) < 2:
        return None
    variance = float(np.var(np.asarray(ratios, float), ddof=1)) if len(ratios) > 1 else 0.0
    return probabilistic_sharpe(ret, expected_best_sharpe(max(trials, 1.0), variance))


def effective_trials(returns: np.ndarray, trials: int | None = None) -> float:
    """Number of independent trials among correlated ones: ρ + (1 - ρ) N for the mean correlation ρ of N trials.

    The estimate of Bailey and López de Prado (2014), appendix A.3. A negative mean correlation counts as 0, and a trial
    without variation correlates with none.

    Args:
        returns: (periods, trials) over the same periods.
        trials: N, where the mean correlation of `returns` stands for that of all that was tried; their number by default.
    """
    count = returns.shape[1]
    tried = count if trials is None else trials
    if count < 2:
        return float(tried)
    away = returns - returns.mean(axis=0)
    norms = np.sqrt((away**2).sum(axis=0))
    unit = np.divide(away, norms, out=np.zeros_like(away), where=norms > 1e-15)
    total = float(((unit.sum(axis=1)) ** 2).sum()) - float((unit**2).sum())
    mean = min(max(total / (count * (count - 1)), 0.0), 1.0)
    return mean + (1.0 - mean) * tried
