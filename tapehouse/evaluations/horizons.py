"""What the answers' directions earned over 1, 5, 10 and 30 sessions, and whether their scores rank what followed.

Returns are those of `labels.forward_returns`, from the next session's open, gross of costs; of a SELL with the other sign. They
overlap, so that blocks of resamples are as long as the horizon and t-statistics allow for it. Rank correlations are of returns
that do not overlap: decisions of every session, fifth, tenth and thirtieth session of the block. How they change with the
horizon is how fast what is known decays (R. Grinold, R. Kahn, Active Portfolio Management, 2nd ed. 2000, chapter 13).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from tapehouse.bootstrap import BLOCK_SESSIONS
from tapehouse.evaluations.answers import FORWARD
from tapehouse.evaluations.barriers import correlation, correlation_of, correlation_terms
from tapehouse.evaluations.core import ALL, Derived, Metric, Part, Ratio, Stated, Term
from tapehouse.evaluations.drawing import grouped_sums
from tapehouse.evaluations.rows import Rows
from tapehouse.labels.forward import HORIZONS
from tapehouse.statistics.panels import overlapping_t

FEWEST_NAMES: Final = 10  # of a cross-section that has a rank correlation
MEANING: Final = {
    name.format(h): text.format(f"{h} session{'s' if h > 1 else ''}")
    for h in HORIZONS
    for name, text in {
        "hit_rate_{}d": "Share of BUY and SELL answers whose direction earned a positive return over {} from the next open.",
        "mean_ret_{}d": "Mean return of the taken direction over {} from the next open, gross of costs [fraction].",
        "sd_ret_{}d": "Standard deviation of those returns over {} [fraction].",
        "t_ret_{}d": "t-statistic of their mean over {}, allowing for overlap (Newey, West); 1.96 is 5 % of chance.",
        "rank_ic_{}d": "Spearman correlation of p_buy - p_sell with the long return over {}, pooled; returns do not overlap.",
        "daily_rank_ic_{}d": "Mean over sessions of that correlation across names, over {}; null below ten names.",
    }.items()
}


def directional(rows: Rows, horizon: int) -> np.ndarray:
    """Return of the answered direction over a horizon, (rows,) fractions; NaN for HOLD and where it is not known."""
    return np.select([rows["action"] == 2, rows["action"] == 0], [1.0, -1.0], np.nan) * rows[FORWARD.format(horizon)]


def apart(rows: Rows, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and long returns over a horizon of the decisions whose returns do not overlap; NaN for the others."""
    return rows["p_buy"] - rows["p_sell"], np.where(rows.dates % horizon == 0, rows[FORWARD.format(horizon)], np.nan)


def daily_correlations(rows: Rows, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman correlation across the names of a session, at the first of its rows; NaN elsewhere and below ten names."""
    found = np.full(len(rows), np.nan)
    both = ~(np.isnan(a) | np.isnan(b))
    keys = rows.groups * rows.sessions + rows.dates
    sections = rows.group_count * rows.sessions
    names = np.bincount(keys[both], minlength=sections)
    if not (names >= FEWEST_NAMES).any():
        return found
    x, y = (rows.ranks(np.where(both, values, np.nan), by_date=True) for values in (a, b))
    sums = grouped_sums(np.column_stack([np.ones(len(x)) * both, x, y, x * x, y * y, x * y]), keys, sections)[0]
    of_section = correlation(*sums.T)
    at, first = np.unique(keys[both], return_index=True)
    enough = names[at] >= FEWEST_NAMES
    found[np.flatnonzero(both)[first[enough]]] = of_section[at[enough]]
    return found


def _taken(rows: Rows) -> list[Term]:
    found = []
    for h in HORIZONS:
        ret = directional(rows, h)
        unknown = np.isnan(ret)
        found += [
            Term(f"ret_{h}", ret),
            Term(f"won_{h}", np.where(unknown, np.nan, ret > 0)),
            Term(f"square_{h}", ret**2),
            Term(f"taken_{h}", np.where(unknown, np.nan, 1.0)),
        ]
    return found


def _deviation(n: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    return np.where(n > 1, np.sqrt(np.maximum(squares - total**2 / n, 0.0) / np.maximum(n - 1, 1)), np.nan)


def _t_statistic(horizon: int) -> Callable[[Rows], tuple[np.ndarray, np.ndarray]]:
    def stated(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        keys = rows.groups * rows.sessions + rows.dates
        sums, counts = grouped_sums(directional(rows, horizon)[:, None], keys, rows.group_count * rows.sessions)
        sums, counts = (values.reshape(rows.group_count, rows.sessions).T for values in (sums, counts))
        return overlapping_t(sums, counts, horizon), counts.sum(axis=0)

    return stated


def _taken_metrics(h: int) -> tuple[Metric, ...]:
    blocks = max(h, BLOCK_SESSIONS)
    return (
        Ratio(f"hit_rate_{h}d", f"won_{h}", horizon=blocks),
        Ratio(f"mean_ret_{h}d", f"ret_{h}", horizon=blocks),
        Derived(f"sd_ret_{h}d", (f"taken_{h}", f"ret_{h}", f"square_{h}"), _deviation, chance=None, horizon=blocks),
        Stated(f"t_ret_{h}d", _t_statistic(h)),
    )


def _ranked(rows: Rows) -> list[Term]:
    return [term for h in HORIZONS for term in correlation_terms(rows, *apart(rows, h), f"ranked_{h}_")]


def _ranked_metric(h: int) -> Metric:
    terms = correlation_of(f"ranked_{h}_")
    return Derived(f"rank_ic_{h}d", terms, correlation, chance=0.0, horizon=max(h, BLOCK_SESSIONS))


def _crossed(rows: Rows) -> list[Term]:
    return [Term(f"crossed_{h}", daily_correlations(rows, *apart(rows, h))) for h in HORIZONS]


def _crossed_metric(h: int) -> Metric:
    return Ratio(f"daily_rank_ic_{h}d", f"crossed_{h}", chance=0.0, horizon=max(h, BLOCK_SESSIONS))


# Of the whole alone where a slice would leave too few names, or too few decisions that do not overlap.
WHOLE: Final = frozenset({ALL})
HORIZON_PARTS: Final = (
    Part(_taken, tuple(metric for h in HORIZONS for metric in _taken_metrics(h))),
    Part(_ranked, tuple(_ranked_metric(h) for h in HORIZONS), WHOLE),
    Part(_crossed, tuple(_crossed_metric(h) for h in HORIZONS), WHOLE),
)
