"""The engine of evaluations: every figure is a function of sums over rows.

Rows become terms, terms become sums by group and joint date, and a resample is a sum of blocks of dates. So whole and slices,
all figures and all draws come of the same sums, and a figure is declared, not programmed: a `Ratio` of two terms, a function
of several (`Derived`), or, where sums do not suffice, a value that is `Stated`.

What no knowledge scores stands beside each figure: the mean over permutations of the outcomes among the rows of the block,
with the answers as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import polars as pl

from tapehouse.bootstrap import BLOCK_SESSIONS, FEWEST
from tapehouse.evaluations.drawing import Blocks, draw_sums, grouped_sums, intervals, tails
from tapehouse.evaluations.rows import Rows
from tapehouse.statistics.panels import fewest_spanned, spanned

PERMUTED: Final = "permuted"
PERMUTATIONS = 10
TOGETHER = 8  # groups whose draws are held at once
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
    """Figures of the rows, whole (slice `all`, level '') and in slices; `FIGURES`, sorted as slices, levels and parts are.

    Args:
        main: the term whose daily sums set the length of blocks, by Politis and White's rule; without one it is the horizon's.

    Figures of a slice with no observation are left out; of the whole they are null. No interval stands on fewer than 30, or
    on such that span fewer than 30 sessions or four horizons (`panels.spanned`).
    """
    whole = Slice(ALL, ("",), np.zeros(len(rows), np.int64))
    blocks = Blocks(rows.sessions, _main_series(rows, parts, main))
    permuted = rows.permuted(PERMUTATIONS)
    # What is asked of the same parts is measured in one go.
    families: dict[tuple[int, ...], list[Slice]] = {}
    for division in (whole, *slices):
        asked = tuple(i for i, p in enumerate(parts) if (division.name in p.slices if p.slices else not division.own))
        if asked and division.levels:
            families.setdefault(asked, []).append(division)
    found: dict[str, pl.DataFrame] = {}
    for asked, divisions in families.items():
        found |= _family([parts[i] for i in asked], divisions, rows, permuted, blocks)
    return pl.concat(found[d.name] for d in (whole, *slices) if d.name in found)


def evaluation_frame(subject: str, fold: str, split: str, figures: pl.DataFrame) -> pl.DataFrame:
    """Rows of `reports.evaluations` of one subject, fold and split from what `measure` gave."""
    return figures.select(pl.lit(subject).alias("subject"), pl.lit(fold).alias("fold"), pl.lit(split).alias("split"), *FIGURES)


def _main_series(rows: Rows, parts: Sequence[Part], main: str | None) -> np.ndarray | None:
    for part in parts if main is not None else ():
        for term in part.terms(rows):
            if term.name == main:
                return grouped_sums(term.values[:, None], rows.dates, rows.sessions)[0][:, 0]
    if main is not None:
        raise ValueError(f"no part has a term {main!r} to set the length of blocks by; name one that there is")
    return None


@dataclass(frozen=True)
class _Placed:
    """A figure, the columns of sums that it is a function of, and the term whose rows are the observations behind it."""

    metric: Ratio | Derived
    columns: tuple[int, ...]
    observed: int

    def of(self, totals: np.ndarray | Mapping[int, np.ndarray]) -> np.ndarray:
        """The figure by `totals`: of each column an array of any shape."""
        used = [totals[i] for i in self.columns]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = self.metric.function(*used) if isinstance(self.metric, Derived) else used[0] / used[1]
        return np.where(np.isfinite(found), found, np.nan)


def _placed(parts: Sequence[Part], rows: Rows, wanted: Callable[[Metric], bool]) -> tuple[np.ndarray, list[_Placed]]:
    """The wanted figures, and the terms that they are made of (rows, terms); columns from `terms` on are their counts."""
    columns, found = [], []
    for part in parts:
        metrics = [m for m in part.metrics if not isinstance(m, Stated) and wanted(m)]
        named = {term.name: term.values for term in part.terms(rows)} if metrics else {}
        place: dict[str, int] = {}
        for metric in metrics:
            for name in _terms_of(metric):
                if name not in named:
                    raise ValueError(f"{metric.name} asks for the term {name!r}; its part has {', '.join(sorted(named))}")
                if name not in place:
                    place[name] = len(columns)
                    columns.append(named[name])
        found += [(metric, place) for metric in metrics]
    matrix = np.column_stack(columns).astype(float) if columns else np.zeros((len(rows), 0))
    return matrix, [_Placed(metric, *_columns(metric, place, len(columns))) for metric, place in found]


def _terms_of(metric: Ratio | Derived) -> tuple[str, ...]:
    if isinstance(metric, Derived):
        return metric.terms
    return (metric.numerator,) if metric.denominator is None else (metric.numerator, metric.denominator)


def _columns(metric: Ratio | Derived, place: Mapping[str, int], terms: int) -> tuple[tuple[int, ...], int]:
    """What a figure is a function of, and the term whose rows count."""
    used = tuple(place[name] for name in _terms_of(metric))
    if isinstance(metric, Derived):
        return used, used[0]
    return (used[0], used[0] + terms) if len(used) == 1 else used, used[-1]


def _family(
    parts: Sequence[Part], divisions: Sequence[Slice], rows: Rows, permuted: Rows, blocks: Blocks
) -> dict[str, pl.DataFrame]:
    """`FIGURES` of each division: figures within levels."""
    rows = rows.divided([(d.codes, len(d.levels)) for d in divisions])
    matrix, placed = _placed(parts, rows, lambda _: True)
    sums, counts = grouped_sums(matrix, rows.groups * rows.sessions + rows.dates, rows.group_count * rows.sessions)
    # (groups, sessions, sums and then counts of terms)
    daily = np.concatenate([sums, counts], axis=1).reshape(rows.group_count, rows.sessions, 2 * matrix.shape[1])
    totals = daily.sum(axis=1).T
    values = {p.metric.name: p.of(totals) for p in placed}
    observed = {p.metric.name: totals[p.observed + matrix.shape[1]] for p in placed}
    metrics = [metric for part in parts for metric in part.metrics]
    if len({m.name for m in metrics}) < len(metrics):
        raise ValueError(f"two figures of one name in slice {divisions[0].name}: {sorted(m.name for m in metrics)}; rename one")
    for metric in metrics:
        if isinstance(metric, Stated):
            values[metric.name], observed[metric.name] = metric.function(rows)
    low, high = _ends(placed, daily, observed, blocks)
    chance = _chance(parts, placed, permuted, divisions)
    columns = {"value": values, "low": low, "high": high, "n": observed, "shuffled": chance}
    nothing = np.full(rows.group_count, np.nan)
    # (groups, metrics) each
    arrays = {column: np.stack([of.get(m.name, nothing) for m in metrics], axis=1) for column, of in columns.items()}
    found, first = {}, 0
    for division in divisions:
        places = slice(first, first + len(division.levels))
        first += len(division.levels)
        named = {
            "slice": np.full(len(division.levels) * len(metrics), division.name),
            "level": np.repeat(division.levels, len(metrics)),
            "metric": np.tile([m.name for m in metrics], len(division.levels)),
        }
        frame = pl.DataFrame(named | {column: array[places].ravel() for column, array in arrays.items()})
        frame = frame.with_columns(pl.col("value", "low", "high", "shuffled").fill_nan(None)).cast(FIGURES)
        found[division.name] = frame if division.name == ALL else frame.filter(pl.col("n") > 0)
    return found


def _ends(
    placed: Sequence[_Placed], daily: np.ndarray, observed: Mapping[str, np.ndarray], blocks: Blocks
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Lower and upper ends of the interval of each figure that has one, (groups,); NaN where too few sessions carry it."""
    asked = [p for p in placed if p.metric.interval and (observed[p.metric.name] >= FEWEST).any()]
    low, high = ({p.metric.name: np.full(len(daily), np.nan) for p in asked} for _ in range(2))
    for horizon in sorted({p.metric.horizon for p in asked}):
        some, resamples = [p for p in asked if p.metric.horizon == horizon], blocks.of(horizon)
        # (figures, groups): what sessions without observations do not add to.
        spans = spanned(daily[:, :, [p.observed + daily.shape[2] // 2 for p in some]], horizon).T
        sure = (np.stack([observed[p.metric.name] for p in some]) >= FEWEST) & (spans >= fewest_spanned(horizon))
        used = sorted({column for p in some for column in p.columns})
        measured = np.flatnonzero(sure.any(axis=0))
        for first in range(0, len(measured), TOGETHER):
            groups = measured[first : first + TOGETHER]
            drawn = np.stack([draw_sums(daily[group][:, used], resamples) for group in groups], axis=1)
            totals = dict(zip(used, drawn, strict=True))
            enough = sure[:, groups]
            drawn = np.concatenate([p.of(totals)[kept] for p, kept in zip(some, enough, strict=True)])
            ends = intervals(drawn, tails(resamples, spans[:, groups][enough]))
            after = np.cumsum([kept.sum() for kept in enough])
            for p, kept, stop in zip(some, enough, after, strict=True):
                for found, end in zip((low, high), ends, strict=True):
                    found[p.metric.name][groups[kept]] = end[stop - kept.sum() : stop]
    return low, high


def _chance(
    parts: Sequence[Part], placed: Sequence[_Placed], permuted: Rows, divisions: Sequence[Slice]
) -> dict[str, np.ndarray]:
    """What no knowledge scores, (groups,) of each figure for which that says anything."""
    levels = sum(len(d.levels) for d in divisions)
    fixed = {p.metric.name: p.metric.chance for p in placed if p.metric.chance not in (PERMUTED, None)}
    found = {name: np.full(levels, chance) for name, chance in fixed.items()}
    permuted = permuted.divided([(np.tile(d.codes, PERMUTATIONS), len(d.levels)) for d in divisions])
    matrix, placed = _placed(parts, permuted, lambda metric: metric.chance == PERMUTED)
    totals = np.concatenate(grouped_sums(matrix, permuted.groups, permuted.group_count), axis=1).T
    for p in placed:
        values = p.of(totals).reshape(PERMUTATIONS, levels)
        some = ~np.isnan(values)
        total = np.where(some, values, 0.0).sum(axis=0)
        found[p.metric.name] = np.divide(total, some.sum(axis=0), out=np.full(levels, np.nan), where=some.any(axis=0))
    return found
