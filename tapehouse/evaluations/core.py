"""The engine of evaluations: every figure is a function of sums over rows.

Rows become terms, terms become sums by group and joint date, and a resample is a sum of blocks of dates. So whole and slices,
all figures and all draws come of the same sums, and a figure is declared, not programmed: a `Ratio` of two terms, a function
of several (`Derived`), or, where sums do not suffice, a value that is `Stated`.

What no knowledge scores stands beside each figure: the mean over permutations of the outcomes among the rows of the block,
with the answers as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl

from tapehouse.bootstrap import BLOCK_SESSIONS, FEWEST, Resamples, block_length, resample
from tapehouse.evaluations.drawing import draw_sums, grouped_sums, intervals
from tapehouse.evaluations.rows import Rows

PERMUTED: Final = "permuted"
PERMUTATIONS = 20
ALL: Final = "all"
FIGURES = {
    "slice": pl.String,
    "level": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "n": pl.Int64,
    "shuffled": pl.Float64,
}
EVALUATIONS = {"subject": pl.String, "fold": pl.String, "split": pl.String, **FIGURES}


@dataclass(frozen=True)
class Term:
    """What is added up: `values` (rows,), NaN where a row does not count."""

    name: str
    values: np.ndarray


@dataclass(frozen=True)
class Ratio:
    """Sum of one term over that of another; without a denominator, the mean of the rows that count in the numerator.

    Attributes:
        chance: what no knowledge scores, where theory knows it; PERMUTED, the mean over permutations; None, without sense.
        horizon: sessions that an outcome spans; blocks of resamples are at least as long.
        interval: whether there is one; a count has none.

    Observations behind it are the rows that count in the denominator.
    """

    name: str
    numerator: str
    denominator: str | None = None
    chance: float | Literal["permuted"] | None = PERMUTED
    horizon: int = BLOCK_SESSIONS
    interval: bool = True


@dataclass(frozen=True)
class Derived:
    """`function` of the sums of `terms`: arrays of one shape in, one of the same shape out, NaN where it is not defined.

    Other attributes as those of `Ratio`. Observations behind it are the rows that count in the first term.
    """

    name: str
    terms: tuple[str, ...]
    function: Callable[..., np.ndarray]
    chance: float | Literal["permuted"] | None = PERMUTED
    horizon: int = BLOCK_SESSIONS
    interval: bool = True


@dataclass(frozen=True)
class Stated:
    """A figure that is no function of sums and has no interval, such as a t-statistic.

    Attributes:
        function: of the rows; gives values and observations of each group, both (group_count,), NaN where not defined.
    """

    name: str
    function: Callable[[Rows], tuple[np.ndarray, np.ndarray]]


Metric = Ratio | Derived | Stated


@dataclass(frozen=True)
class Part:
    """Figures that share their terms.

    Attributes:
        slices: names of those it is measured in; None, in every one that is for all.
    """

    terms: Callable[[Rows], list[Term]]
    metrics: tuple[Metric, ...]
    slices: frozenset[str] | None = None


@dataclass(frozen=True)
class Slice:
    """A division of the rows by something known at the decision.

    Attributes:
        codes: (rows,) place of each row's level in `levels`; -1 for none. own: whether only parts that name it are measured.
    """

    name: str
    levels: tuple[str, ...]
    codes: np.ndarray
    own: bool = False


def slice_of(name: str, values: pl.Series, own: bool = False) -> Slice:
    """The rows by the values of a column, in their order; null is no level."""
    levels = sorted(values.drop_nulls().unique().to_list())
    codes = values.replace_strict({level: i for i, level in enumerate(levels)}, default=-1, return_dtype=pl.Int64)
    return Slice(name, tuple(str(level) for level in levels), codes.to_numpy(), own)


def measure(rows: Rows, parts: Sequence[Part], slices: Sequence[Slice] = (), main: str | None = None) -> pl.DataFrame:
    """Figures of the rows, whole (slice `all`, level '') and in slices; `FIGURES`, sorted as the parts and slices are.

    Args:
        main: the term whose daily sums set the length of blocks, by Politis and White's rule; without one it is the horizon's.

    Figures of a slice with no observation are left out; of the whole they are null. No interval stands on fewer than 30.
    """
    whole = Slice(ALL, ("",), np.zeros(len(rows), np.int64))
    blocks = _Blocks(rows.sessions, _main_series(rows, parts, main))
    permuted = rows.permuted(PERMUTATIONS)
    found = []
    for division in (whole, *slices):
        asked = [p for p in parts if (division.name in p.slices if p.slices is not None else not division.own)]
        if not asked or not division.levels:
            continue
        levels = len(division.levels)
        grouped = rows.split(division.codes, levels)
        shuffled = permuted.split(np.tile(division.codes, PERMUTATIONS), levels)
        for part in asked:
            found += _part(part, division, grouped, shuffled, blocks)
    return pl.DataFrame(found, schema=FIGURES, orient="row")


def evaluation_frame(subject: str, fold: str, split: str, figures: pl.DataFrame) -> pl.DataFrame:
    """Rows of `reports.evaluations` of one subject, fold and split from what `measure` gave."""
    return figures.select(
        pl.lit(subject).alias("subject"), pl.lit(fold).alias("fold"), pl.lit(split).alias("split"), *FIGURES
    )


class _Blocks:
    """Resamples of the block's sessions by the horizon of what is resampled."""

    def __init__(self, sessions: int, series: np.ndarray | None) -> None:
        self.sessions, self.series = sessions, series
        self.best = 1 if series is None else block_length(series, floor=1)

    def of(self, horizon: int) -> Resamples:
        longest = max(self.sessions // 3, 1)  # so that a draw has three blocks
        return resample(self.sessions, min(max(self.best, horizon), longest))


def _main_series(rows: Rows, parts: Sequence[Part], main: str | None) -> np.ndarray | None:
    for part in parts if main is not None else ():
        for term in part.terms(rows):
            if term.name == main:
                return grouped_sums(term.values[:, None], rows.dates, rows.sessions)[0][:, 0]
    if main is not None:
        raise ValueError(f"no part has a term {main!r} to set the length of blocks by; name one that there is")
    return None


def _part(part: Part, division: Slice, rows: Rows, permuted: Rows, blocks: _Blocks) -> list[tuple]:
    """Rows of `FIGURES` of one part and division: metrics within levels."""
    summed = [m for m in part.metrics if not isinstance(m, Stated)]
    terms = part.terms(rows)
    place = {term.name: i for i, term in enumerate(terms)}
    matrix = np.column_stack([t.values for t in terms]).astype(float) if terms else np.zeros((len(rows), 0))
    keys = rows.groups * rows.sessions + rows.dates
    shape = (rows.group_count, rows.sessions, len(terms))
    sums, counts = (a.reshape(shape) for a in grouped_sums(matrix, keys, rows.group_count * rows.sessions))
    observed = counts.sum(axis=1)
    chance = _chance(part, summed, rows.group_count, permuted)
    stated = {m.name: m.function(rows) for m in part.metrics if isinstance(m, Stated)}
    found = []
    for group, level in enumerate(division.levels):
        daily = np.concatenate([sums[group], counts[group]], axis=1)
        values = {m.name: float(_value(m, place, daily.sum(axis=0))) for m in summed}
        n = {m.name: int(observed[group, place[_counted(m)]]) for m in summed}
        ends = _ends([m for m in summed if m.interval and n[m.name] >= FEWEST], place, daily, blocks)
        for m in part.metrics:
            if isinstance(m, Stated):
                value, count = (float(a[group]) for a in stated[m.name])
                line = (value, np.nan, np.nan, int(count), np.nan)
            else:
                line = (values[m.name], *ends.get(m.name, (np.nan, np.nan)), n[m.name], chance[m.name][group])
            if division.name == ALL or line[3] > 0:
                found.append((division.name, level, m.name, *(None if np.isnan(v) else v for v in line)))
    return found


def _counted(metric: Ratio | Derived) -> str:
    """The term whose rows are the observations behind a figure."""
    if isinstance(metric, Ratio):
        return metric.denominator or metric.numerator
    return metric.terms[0]


def _needed(metric: Ratio | Derived, place: dict[str, int]) -> list[int]:
    """Columns of sums, followed by those of counts, that a figure is a function of."""
    if isinstance(metric, Derived):
        return [place[t] for t in metric.terms]
    top = place[metric.numerator]
    return [top, top + len(place) if metric.denominator is None else place[metric.denominator]]


def _value(metric: Ratio | Derived, place: dict[str, int], totals: np.ndarray | dict[int, np.ndarray]) -> np.ndarray:
    """The figure by `totals`: of each column number, sums of terms and then counts, an array of any shape."""
    used = [totals[i] for i in _needed(metric, place)]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = metric.function(*used) if isinstance(metric, Derived) else used[0] / used[1]
    return np.where(np.isfinite(found), found, np.nan)


def _ends(
    metrics: list[Ratio | Derived], place: dict[str, int], daily: np.ndarray, blocks: _Blocks
) -> dict[str, tuple[float, float]]:
    found = {}
    for horizon in sorted({m.horizon for m in metrics}):
        some = [m for m in metrics if m.horizon == horizon]
        used = sorted({i for m in some for i in _needed(m, place)})
        sums = draw_sums(daily[:, used], blocks.of(horizon))
        drawn = dict(zip(used, sums, strict=True))
        low, high = intervals(np.stack([_value(m, place, drawn) for m in some]))
        found |= {m.name: (low[i], high[i]) for i, m in enumerate(some)}
    return found


def _chance(part: Part, metrics: list[Ratio | Derived], groups: int, permuted: Rows) -> dict[str, np.ndarray]:
    """What no knowledge scores, (groups,) of each metric."""
    asked = [m for m in metrics if m.chance == PERMUTED]
    known = {m.name: np.full(groups, np.nan if m.chance is None else m.chance) for m in metrics if m.chance != PERMUTED}
    if not asked:
        return known
    terms = part.terms(permuted)
    place = {term.name: i for i, term in enumerate(terms)}
    sums, counts = grouped_sums(np.column_stack([t.values for t in terms]).astype(float), permuted.groups, permuted.group_count)
    totals = np.concatenate([sums, counts], axis=1).T
    for m in asked:
        values = _value(m, place, totals).reshape(-1, groups)
        some = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            known[m.name] = np.where(some, values, 0.0).sum(axis=0) / some.sum(axis=0)
    return known
