"""Adversarial validation: how well decisions of a test block can be told from those of its training window, and by what.

Trees learn which side a row is of, and the area under their ROC curve says how well they do on rows that they were not fitted
on: the chance that a row of the block looks more like the block than a row of the window does (A. Bickel, M. Brückner,
T. Scheffer, Discriminative Learning for Differing Training and Test Distributions, ICML 2007). At 0.5 a model of these features
meets in the block what it was fitted on; at 1 it is asked about something that it has never seen.

Neighbouring sessions share most of what their features look back on. Drawn row by row, any half-year is told apart from any
other, by its neighbours. So block and window are each cut into parts of consecutive sessions; one part of both is left out at a
time, and what lies within GAP_SESSIONS of it is not fitted on. The same is done to blocks of as many sessions inside the
window, each held against the rest of it (`inside`): how much any such stretch differs from its surroundings. Only what is
above that speaks of the test block.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tapehouse.bootstrap import FEWEST, Resamples, block_length, quantiles, resample
from tapehouse.feature_matrix import feature_names, matrix
from tapehouse.predictions import KEYS
from tapehouse.recipes import FOLDER, load_recipes

if TYPE_CHECKING:
    from tapehouse.folds import Fold
    from tapehouse.recipes import Recipe

ALL, INSIDE, FEATURE = KINDS = ("all", "inside", "feature")
PARTS: Final = 5
GAP_SESSIONS: Final = 20  # what most features look back on
WINDOW_SESSIONS: Final = 300  # of a long window, evenly: the days between two of them add little to what they show
INSIDE_BLOCKS: Final = 3
TREES: Final = {
    "objective": "binary:logistic",
    "tree_method": "hist",
    "max_depth": 2,
    "learning_rate": 0.15,
    "max_bin": 64,
    "seed": 7,
    "nthread": 1,
}
ROUNDS: Final = 20
ADVERSARIAL: Final = {
    "fold": pl.String,
    "kind": pl.String,
    "level": pl.String,
    "auc": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "gain": pl.Float64,
    "n_train": pl.Int64,
    "n_test": pl.Int64,
}


@dataclass(frozen=True)
class Side:
    """Decisions of one side, by time.

    values: (rows, features). place: (rows,) the row's session among those of the side. days: (sessions,) each one's place in
    the calendar of both sides. part: (sessions,) the stretch of consecutive ones it is in. step: sessions to the next one.
    """

    values: np.ndarray
    place: np.ndarray
    days: np.ndarray
    part: np.ndarray
    step: int


@dataclass(frozen=True)
class Pairs:
    """Of each session of the block and each of the window: pairs of rows, and of those the ones in which the block's is higher.

    Both are (sessions of the block, sessions of the window); a draw is even, and counts one half.
    """

    count: np.ndarray
    higher: np.ndarray

    @property
    def auc(self) -> float | None:
        """The share of all pairs in which the block's row is higher; None where there are none."""
        total = float(self.count.sum(dtype=np.float64))
        return float(self.higher.sum(dtype=np.float64)) / total if total else None


def adversarial_rows(points: pl.DataFrame, fold: Fold, features: Sequence[str]) -> pl.DataFrame:
    """Rows of `reports.adversarial` for one fold.

    Args:
        points: of `features.decision_points`, from the start of the training window to the end of the test block.
        features: that models learn from; each is also held against its own distribution.

    Raises:
        ValueError: no decision in the training window, or none in the test block.
    """
    points = (
        points.select(*KEYS, "session", "close", *features)
        .sort("decision_at", "symbol", "interval")
        .with_columns(day=pl.col("session").rank("dense").cast(pl.Int64))
    )
    before = points.filter(pl.col("decision_at").is_between(fold.train_start, fold.train_end, closed="left"))
    tested = points.filter(pl.col("decision_at").is_between(fold.test_start, fold.test_end, closed="left"))
    if before.is_empty() or tested.is_empty():
        raise ValueError(
            f"fold {fold.id}: {before.height} decisions in the training window and {tested.height} in the test block; both "
            "are needed to tell them apart"
        )
    window, block = side_of(before, features, WINDOW_SESSIONS), side_of(tested, features)
    scores, gains = held_out_scores(window, block)
    draws = _draws(window, scores[0]), _draws(block, scores[1])
    sizes = window.place.size, block.place.size
    told = pairs(*scores, window, block)
    rows: list[tuple] = [(fold.id, ALL, "", told.auc, *interval(told, *draws, min(sizes)), None, *sizes)]
    inside = [auc for auc in _inside(before, features, block.days.size) if auc is not None]
    if inside:
        rows.append((fold.id, INSIDE, "", float(np.mean(inside)), min(inside), max(inside), None, None, None))
    for number, name in enumerate(features):
        alone = pairs(window.values[:, number], block.values[:, number], window, block, within=False)
        rows.append((fold.id, FEATURE, name, alone.auc, *interval(alone, *draws, min(sizes)), float(gains[number]), *sizes))
    return pl.DataFrame(rows, schema=ADVERSARIAL, orient="row").sort("kind", "level")


def side_of(points: pl.DataFrame, features: Sequence[str], most: int | None = None) -> Side:
    """One side of `points` (with `day`, by time): of more than `most` sessions every so manyth, so that as many are left."""
    days = points["day"].unique().sort()
    step = 1 if most is None else max(1, -(-len(days) // most))
    kept = days.gather_every(step)
    rows = points.filter(pl.col("day").is_in(kept.implode()))
    place = np.searchsorted(kept.to_numpy(), rows["day"].to_numpy())
    stretches = np.array_split(np.arange(len(kept)), PARTS)
    part = np.concatenate([np.full(len(stretch), number) for number, stretch in enumerate(stretches)])
    return Side(matrix(rows, features), place, kept.to_numpy(), part, step)


def held_out_scores(window: Side, block: Side) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """How much each row of window and block looks like the block to trees that saw nothing near it.

    Returns:
        The scores of both sides, (rows,) each, NaN in a part beside which too little was left to fit on, and the share of each
        feature (features,) in what the trees gained.
    """
    import xgboost

    scores = np.full(window.place.size, np.nan), np.full(block.place.size, np.nan)
    gains = np.zeros(window.values.shape[1])
    for number in range(PARTS):
        held = [side.part == number for side in (window, block)]
        spans = [
            (side.days[own].min(), side.days[own].max()) for side, own in zip((window, block), held, strict=True) if own.any()
        ]
        fitted = [_away(side, spans)[side.place] for side in (window, block)]
        if not all(own.any() for own in (*held, *fitted)):
            continue
        values = np.vstack([window.values[fitted[0]], block.values[fitted[1]]])
        truth = np.repeat([0, 1], [fitted[0].sum(), fitted[1].sum()])
        trees = xgboost.train(TREES, xgboost.DMatrix(values, label=truth, nthread=1), num_boost_round=ROUNDS)
        for side, own, found in zip((window, block), held, scores, strict=True):
            rows = own[side.place]
            found[rows] = trees.predict(xgboost.DMatrix(side.values[rows], nthread=1), output_margin=True)
        for name, gain in trees.get_score(importance_type="total_gain").items():
            gains[int(name.removeprefix("f"))] += gain
    return scores, gains / gains.sum() if gains.sum() > 0 else gains


def pairs(ours: np.ndarray, theirs: np.ndarray, window: Side, block: Side, within: bool = True) -> Pairs:
    """Pairs of a row of the window, with the value `ours` (rows,), and one of the block, with `theirs`, by their sessions.

    Rows whose value is not known are in no pair. With `within`, pairs are of the same part alone: scores of one model are not
    to be compared with those of another.
    """
    known = [np.isfinite(theirs).astype(np.float32), np.isfinite(ours).astype(np.float32)]
    sizes = [np.bincount(side.place, weight, side.days.size) for side, weight in zip((block, window), known, strict=True)]
    higher = (theirs[:, None] > ours[None, :]).astype(np.float32) + 0.5 * (theirs[:, None] == ours[None, :])
    starts = [np.flatnonzero(np.diff(side.place, prepend=-1)) for side in (block, window)]  # rows are in the order of sessions
    by_session = np.add.reduceat(np.add.reduceat(higher, starts[0], axis=0), starts[1], axis=1)
    count = np.outer(*sizes).astype(np.float32)
    if within:
        same = block.part[:, None] == window.part[None, :]
        count, by_session = np.where(same, count, 0.0), np.where(same, by_session, 0.0)
    return Pairs(count.astype(np.float32), by_session.astype(np.float32))


def interval(found: Pairs, window: Resamples, block: Resamples, rows: int) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of the area, the sessions of window and block drawn each by themselves.

    To the first order, as in E. DeLong, D. DeLong, D. Clarke-Pearson (Biometrics 1988): what a draw adds or leaves out of one
    side is counted against the other side as it is. None below 30 rows.

    Args:
        rows: of the smaller side.
    """
    if rows < FEWEST:
        return None, None
    count, higher = (
        block.sums(of.sum(axis=1, dtype=np.float64)) + window.sums(of.sum(axis=0, dtype=np.float64)) - of.sum(dtype=np.float64)
        for of in (found.count, found.higher)
    )
    some = count > 0.5  # running sums leave no exact zero
    return quantiles(np.clip(higher[some] / count[some], 0.0, 1.0), window, block)


def _away(side: Side, spans: Iterable[tuple[int, int]]) -> np.ndarray:
    """(sessions,) whether a session lies further than GAP_SESSIONS from each of the spans of days."""
    free = np.ones(side.days.size, bool)
    for first, last in spans:
        free &= (side.days < first - GAP_SESSIONS) | (side.days > last + GAP_SESSIONS)
    return free


def _draws(side: Side, scores: np.ndarray) -> Resamples:
    """Draws of the side's sessions, in blocks at least as long as features look back."""
    known = np.isfinite(scores)
    counts = np.bincount(side.place[known], minlength=side.days.size)
    sums = np.bincount(side.place[known], scores[known], minlength=side.days.size)
    means = np.divide(sums, counts, out=np.zeros(side.days.size), where=counts > 0)
    return resample(side.days.size, block_length(means, -(-GAP_SESSIONS // side.step)))


def _inside(points: pl.DataFrame, features: Sequence[str], sessions: int) -> Iterator[float | None]:
    """The area of blocks of so many sessions, evenly spaced inside the window, each against the rest of it."""
    days = points["day"].unique().sort().to_numpy()
    if days.size < 2 * sessions:
        return
    for number in range(1, INSIDE_BLOCKS + 1):
        first = round((days.size - sessions) * number / (INSIDE_BLOCKS + 1))
        own = pl.col("day").is_between(days[first], days[first + sessions - 1])
        window, block = side_of(points.filter(~own), features, WINDOW_SESSIONS), side_of(points.filter(own), features)
        yield pairs(*held_out_scores(window, block)[0], window, block).auc


def learned_features(recipes: Iterable[Recipe], points: pl.DataFrame) -> list[str]:
    """What the recipes that are made by default learn from, in the order of the table."""
    wanted: set[str] = set()
    for recipe in recipes:
        params = getattr(recipe, "params", None)
        if recipe.selected and hasattr(params, "features"):
            wanted |= set(feature_names(recipe.name, params.features, points))
    return [name for name in points.columns if name in wanted]


def declared_features(home: Path) -> str:
    """What decides which features are used, as a text: the names that the recipes give."""
    recipes = load_recipes(home / FOLDER)
    named = {name: getattr(getattr(r, "params", None), "features", None) for name, r in recipes.items() if r.selected}
    return ";".join(f"{name}={','.join(features)}" for name, features in named.items() if features is not None)
