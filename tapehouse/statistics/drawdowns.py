"""What an account went through: drawdowns, tails, and ratios that weigh losses.

Returns are simple, one a period; equity starts at 1 before the first. Where empyrical-reloaded has the figure the two agree
to 1e-12; where they differ a function's docstring says why.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PERIODS_A_YEAR = 252


@dataclass(frozen=True)
class Drawdowns:
    """Falls below an earlier high. Depths are fractions of the high, at most 0; lengths are periods below it.

    Attributes:
        deepest, mean: over the separate drawdowns, each at its own bottom; 0 where there is none.
        longest, mean_length: one that still lasts at the end counts with its length so far.
        count: separate drawdowns.
    """

    deepest: float
    mean: float
    longest: int
    mean_length: float
    count: int


def drawdowns(ret: np.ndarray) -> Drawdowns:
    """Drawdowns of the equity that returns (n,) make; the opening equity counts as a high."""
    return drawdowns_of(np.concatenate([[1.0], np.cumprod(1.0 + ret)]))


def drawdowns_of(equity: np.ndarray) -> Drawdowns:
    """Drawdowns of an equity curve (n,) that begins with the opening equity."""
    depth = equity / np.maximum.accumulate(equity) - 1.0
    below = depth < 0.0
    if not below.any():
        return Drawdowns(0.0, 0.0, 0, 0.0, 0)
    edges = np.diff(np.concatenate([[False], below, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    depths = np.array([depth[a:b].min() for a, b in zip(starts, ends, strict=True)])
    lengths = ends - starts
    return Drawdowns(float(depths.min()), float(depths.mean()), int(lengths.max()), float(lengths.mean()), len(starts))


def annual_return(ret: np.ndarray) -> float | None:
    """Growth compounded to a year; None for no periods, or where everything was lost."""
    return annualised(float(np.prod(1.0 + ret)), len(ret))


def annualised(grown: float, periods: int) -> float | None:
    """What one became over so many periods, compounded to a year and less one.

    None for no periods, or where everything was lost.
    """
    return grown ** (PERIODS_A_YEAR / periods) - 1.0 if grown > 0.0 and periods else None


def calmar(ret: np.ndarray) -> float | None:
    """Annual return over the deepest drawdown; None without one."""
    annual, deepest = annual_return(ret), drawdowns(ret).deepest
    return annual / -deepest if annual is not None and deepest < 0 else None


def sortino(ret: np.ndarray) -> float | None:
    """Mean over the root mean square of negative returns (all periods counted), times √252; None without a loss."""
    worse = np.minimum(ret, 0.0)
    return float(ret.mean() / np.sqrt(np.mean(worse**2)) * np.sqrt(PERIODS_A_YEAR)) if (worse < 0).any() else None


def tail_ratio(ret: np.ndarray) -> float | None:
    """The 95th percentile over the size of the 5th (linear interpolation); None where the 5th is 0 or for no periods."""
    if not len(ret):
        return None
    high, low = np.percentile(ret, [95, 5])
    return float(abs(high) / abs(low)) if low != 0 else None
