"""Every two subjects side by side, `reports.differences`: how far their Sharpe ratios differ over the sessions that both have.

Blocks of sessions are resampled in pairs, as in the verdicts and with the same draws, so that what both say of a pair is the
same to the bit. Nothing here is corrected for the number of pairs: one question asked beforehand may be read off, the best of
many not (the verdicts are for that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from itertools import combinations
from typing import Final

import numpy as np
import polars as pl

from tapehouse.bootstrap import FEWEST, Resamples, block_length, p_value, quantiles, resample, sharpe_draws
from tapehouse.metrics import sharpe
from tapehouse.statistics.drawdowns import PERIODS_A_YEAR
from tapehouse.verdicts import Curve, draws_for

ROWS: Final = {
    "subject": pl.String,
    "other": pl.String,
    "sessions": pl.Int64,
    "first_session": pl.Date,
    "last_session": pl.Date,
    "sharpe": pl.Float64,
    "other_sharpe": pl.Float64,
    "difference": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p_value": pl.Float64,
    "correlation": pl.Float64,
}


def difference_rows(found: Mapping[str, Curve]) -> pl.DataFrame:
    """Rows of `ROWS` for both orders of every pair that shares a session, sorted.

    Args:
        found: of :func:`tapehouse.verdicts.curves`. A curve that never traded has ratio 0.
    """
    draws, shared = draws_for(len(found)), {}
    rows = []
    for a, b in combinations(sorted(found), 2):
        one, other = found[a], found[b]
        both = _both(one, other)
        if not both:
            continue
        over = shared.setdefault(both, _Over(both, draws))
        ours, theirs = over.returns(one), over.returns(other)
        mine, their = sharpe(ours) or 0.0, sharpe(theirs) or 0.0
        gaps = over.gaps(one, other)
        correlation = float(np.corrcoef(ours, theirs)[0, 1]) if len(ours) > 2 and ours.std() > 0 and theirs.std() > 0 else None
        for subject, versus, x, y, sign in ((a, b, mine, their, 1.0), (b, a, their, mine, -1.0)):
            low, high = quantiles(sign * gaps[0], gaps[1]) if gaps else (None, None)
            p = p_value(sign * gaps[0], gaps[1]) if gaps else None
            rows.append((subject, versus, len(both), both[0], both[-1], x, y, x - y, low, high, p, correlation))
    return pl.DataFrame(rows, ROWS, orient="row").sort("subject", "other")


class _Over:
    """What is drawn over one set of sessions, each curve once for each length of block."""

    def __init__(self, sessions: Sequence[date], draws: int):
        self.sessions, self.draws = sessions, draws
        self._returns: dict[str, np.ndarray] = {}
        self._blocks: dict[str, int] = {}
        self._resamples: dict[int, Resamples] = {}
        self._drawn: dict[tuple[str, int], np.ndarray] = {}

    def returns(self, curve: Curve) -> np.ndarray:
        if curve.subject not in self._returns:
            at = {session: place for place, session in enumerate(curve.sessions)}
            self._returns[curve.subject] = curve.ret[[at[session] for session in self.sessions]]
            self._blocks[curve.subject] = block_length(self._returns[curve.subject])
        return self._returns[curve.subject]

    def gaps(self, one: Curve, other: Curve) -> tuple[np.ndarray, Resamples] | None:
        """Annual difference of the ratios in each draw, and the draws; None below 30 sessions."""
        if len(self.sessions) < FEWEST:
            return None
        block = max(self._blocks[one.subject], self._blocks[other.subject])
        if block not in self._resamples:
            self._resamples[block] = resample(len(self.sessions), block, self.draws)
        gaps = (self._ratios(one, block) - self._ratios(other, block)) * np.sqrt(PERIODS_A_YEAR)
        return gaps, self._resamples[block]

    def _ratios(self, curve: Curve, block: int) -> np.ndarray:
        key = curve.subject, block
        if key not in self._drawn:
            self._drawn[key] = sharpe_draws(self.returns(curve), self._resamples[block])
        return self._drawn[key]


def _both(one: Curve, other: Curve) -> tuple[date, ...]:
    """Sessions of both, in order."""
    return one.sessions if one.sessions == other.sessions else tuple(sorted(set(one.sessions) & set(other.sessions)))
