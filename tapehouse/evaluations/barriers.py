"""What the taken directions earned by the barriers of their decisions, gross of costs, and how well a score ranks returns."""

from __future__ import annotations

import numpy as np

from tapehouse.evaluations.answers import taken_return
from tapehouse.evaluations.core import Derived, Part, Ratio, Term
from tapehouse.evaluations.rows import Rows

ROUNDING = 1e-12  # share of a sum of squares that may be left of nothing

MEANING = {
    "n_taken": "BUY and SELL predictions with a settled label of their side.",
    "hit_rate": "Share of those whose direction earned a positive return by its barriers, gross of costs.",
    "mean_ret": "Mean return of the taken direction by its barriers, gross of costs [fraction].",
    "rank_ic": "Spearman correlation of p_buy - p_sell with the long return by the barriers, pooled over symbols and sessions; "
    "these returns overlap (`rank_ic_1d` and on: those that do not); null for rules.",
}


def _taken(rows: Rows) -> list[Term]:
    ret = taken_return(rows)
    unknown = np.isnan(ret)
    return [
        Term("taken", np.where(unknown, np.nan, 1.0)),
        Term("ret", ret),
        Term("won", np.where(unknown, np.nan, ret > 0)),
    ]


def correlation_terms(rows: Rows, a: np.ndarray, b: np.ndarray, prefix: str = "") -> list[Term]:
    """Terms of the correlation of ranks of two series (rows,) within each group, where both are known.

    Ranks are those of the group as it is, in every resample too.
    """
    known = ~(np.isnan(a) | np.isnan(b))
    x, y = (rows.ranks(np.where(known, values, np.nan)) for values in (a, b))
    return [
        Term(f"{prefix}pairs", np.where(known, 1.0, np.nan)),
        *(Term(f"{prefix}{name}", values) for name, values in {"x": x, "y": y, "xx": x * x, "yy": y * y, "xy": x * y}.items()),
    ]


def correlation_of(prefix: str = "") -> tuple[str, ...]:
    """Names of the terms that `correlation` is a function of, in its order."""
    return tuple(f"{prefix}{name}" for name in ("pairs", "x", "y", "xx", "yy", "xy"))


def correlation(n: np.ndarray, x: np.ndarray, y: np.ndarray, xx: np.ndarray, yy: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Pearson's correlation from sums; NaN for fewer than three, and where a side is constant."""
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    # A side that is constant in a draw leaves nothing but rounding.
    defined = (n >= 3) & (spread_x > ROUNDING * n * xx) & (spread_y > ROUNDING * n * yy)
    root = np.sqrt(np.where(defined, spread_x, 1.0)) * np.sqrt(np.where(defined, spread_y, 1.0))
    return np.where(defined, (n * xy - x * y) / root, np.nan)


def _scored(rows: Rows) -> list[Term]:
    return correlation_terms(rows, rows["p_buy"] - rows["p_sell"], rows["ret"])


TAKEN = Part(
    _taken,
    (
        Derived("n_taken", ("taken",), lambda taken: taken, None, interval=False),
        Ratio("hit_rate", "won"),
        Ratio("mean_ret", "ret"),
    ),
)
RANKED = Part(_scored, (Derived("rank_ic", correlation_of(), correlation, chance=0.0),))
BARRIERS = (TAKEN, RANKED)
