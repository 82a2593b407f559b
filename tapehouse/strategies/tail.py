"""An account no larger than its tail allows: conformal risk control of the share of sessions with a large loss.

With L(s) the share of n seen sessions whose loss, times the size s, is above a limit, the largest s in [0, 1] with
(n L(s) + 1) / (n + 1) <= rate keeps the chance that the next session's loss is above the limit at or below the rate, if
sessions are exchangeable (A. Angelopoulos and others, Conformal risk control, 2022, theorem 1 with B = 1). They are not quite:
volatility comes in clusters. So the size is set anew after every session, and what was realised stands beside what was asked.

The losses are those of the account at full size: over the validation tail of the training window, and over the sessions of the
block that are already over. Sizes apply to entries; what is held keeps the size that it was entered with.
"""

from __future__ import annotations

import math

import numpy as np

from tapehouse.strategies.sections import TailSection


def allowed_size(losses: np.ndarray, limit: float, rate: float) -> float:
    """The largest size in [0, 1] for which risk control holds; 0 where there are too few losses to say anything.

    Args:
        losses: (n,) of an account at full size, a fraction of equity; gains are negative.
    """
    beyond = math.floor(rate * (len(losses) + 1) - 1.0 + 1e-12)  # sessions of those seen that may lose more
    if beyond < 0 or beyond >= len(losses):
        return 0.0 if beyond < 0 else 1.0
    worst = np.sort(losses)[::-1][beyond]
    return 1.0 if worst <= limit else float(limit / worst)


def sizes(before: np.ndarray, during: np.ndarray, section: TailSection) -> np.ndarray:
    """Size of what is decided after each session of a block, (sessions,).

    Args:
        before: daily returns of the account at full size over the validation tail. during: over the block; after session t
            those up to t are known, and that of the first, on which nothing could fill, says nothing.
    """
    seen = np.concatenate([before, during[1:]])
    ends = len(before) + np.arange(len(during))
    return np.array([allowed_size(-seen[max(0, end - section.window) : end], section.loss, section.rate) for end in ends])


def share_beyond(returns: np.ndarray, limit: float) -> float:
    """Share of sessions that lost more than `limit`."""
    return float(np.mean(-returns > limit)) if len(returns) else 0.0
