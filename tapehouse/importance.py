"""Permutation importance: how much worse a model foretells labels that it was not fitted on once a feature is in disorder.

For each purged block of a training window the model is fitted on the other blocks. Then, on the block, the values of one
feature change places among the rows, and what the log loss rises by is the feature's importance; below 0 the model did better
without it. L. Breiman, Random Forests (Machine Learning, 2001), section 10; under purged cross-validation it is the mean
decrease in accuracy of M. López de Prado, Advances in Financial Machine Learning (2018), 8.3.

Of two features that say the same each stands in for the other, and neither seems to matter (8.4 there). So groups of features
that go together change places together, too (López de Prado, Machine Learning for Asset Managers, 2020, 6.5.2), and all of
them at once: what the model knows in all. A model may know whether a barrier will be reached and not which: the log loss is
also given for the side alone, of rows in which one was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from tapehouse.bootstrap import FEWEST, block_length, quantiles, resample
from tapehouse.feature_matrix import PRICE_UNITS, matrix
from tapehouse.predictions import CHANCES, KEYS
from tapehouse.recipes import method_module

if TYPE_CHECKING:
    from tapehouse.folds import Fold
    from tapehouse.recipe_sections import ClassicalRecipe
    from tapehouse.splits import Split

Tables = dict[str, pl.DataFrame]
Level = tuple[str, tuple[str, ...]]  # its kind, and the features that change places together

POINTS, LABELS = "features.decision_points", "labels.triple_barrier"
FEATURE, GROUP, ALL = KINDS = ("feature", "group", "all")
REPEATS: Final = 3  # permutations of each feature in each block
SEED: Final = 20_180_803
TOGETHER: Final = 0.5  # least absolute rank correlation of any two features of a group
HOLD_CLASS: Final = 1
SMALLEST: Final = 1e-12  # a probability of nothing would cost an infinity
IMPORTANCE: Final = {
    "subject": pl.String,
    "fold": pl.String,
    "kind": pl.String,
    "level": pl.String,
    "features": pl.Int64,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "deviation": pl.Float64,
    "blocks": pl.Int64,
    "n": pl.Int64,
    "log_loss": pl.Float64,
    "base_log_loss": pl.Float64,
    "side_log_loss": pl.Float64,
    "base_side_log_loss": pl.Float64,
}


def importance_rows(
    recipe: ClassicalRecipe,
    inputs: Tables,
    fold: Fold,
    rows: pl.DataFrame,
    splits: Sequence[Split],
    folder: Path,
    repeats: int = REPEATS,
) -> pl.DataFrame:
    """Rows of `reports.importance` for one recipe and fold, by kind and level.

    Args:
        recipe: of a method whose `fit` says its `features` and whose answers are the three probabilities.
        inputs: the tables that the method reads, of the training window. rows: of `cross_fitting.fitting_points`, which
            `splits` number. folder: an empty one, where the models of the splits are left.
        repeats: permutations of each feature in each block.

    Raises:
        ValueError: a method that says no features, or no block that both trains and tests.
    """
    blocks = list(_blocks(recipe, inputs, fold, rows, splits, folder, repeats))
    if not blocks:
        raise ValueError(f"{recipe.name} {fold.id}: no split has rows to train and to test on; is models.splits of this fold?")
    rises = np.hstack([block.rises for block in blocks])
    # (levels, blocks): each block's own mean, whose spread says how steady the figure is from one time to another.
    means = np.stack([block.rises.mean(axis=1) for block in blocks], axis=1)
    lows, highs = _intervals(np.concatenate([block.instants for block in blocks]), rises)
    levels = blocks[0].levels
    return pl.DataFrame(
        {
            "subject": [recipe.name] * len(levels),
            "fold": [fold.id] * len(levels),
            "kind": [kind for kind, _ in levels],
            "level": [" + ".join(names) if kind != ALL else "" for kind, names in levels],
            "features": [len(names) for _, names in levels],
            "value": rises.mean(axis=1),
            "low": lows,
            "high": highs,
            "deviation": means.std(axis=1, ddof=1) if len(blocks) > 1 else [None] * len(levels),
            "blocks": [len(blocks)] * len(levels),
            "n": [rises.shape[1]] * len(levels),
            **{
                name: [_mean([getattr(block, of)[part] for block in blocks])] * len(levels)
                for name, of, part in (
                    ("log_loss", "losses", 0),
                    ("base_log_loss", "base_losses", 0),
                    ("side_log_loss", "losses", 1),
                    ("base_side_log_loss", "base_losses", 1),
                )
            },
        },
        schema=IMPORTANCE,
    ).sort("kind", "level")


@dataclass(frozen=True)
class _Block:
    """What a model that was fitted on the other blocks answered on one, in order and in disorder.

    rises: (levels, rows) by how much the log loss of a row is higher in disorder, the mean of all permutations.
    losses, base_losses: log loss of the model, and of the shares of the labels that it was fitted on: (rows,) of the label, and
    (rows with a barrier reached,) of its side.
    """

    instants: np.ndarray
    levels: list[Level]
    rises: np.ndarray
    losses: tuple[np.ndarray, np.ndarray]
    base_losses: tuple[np.ndarray, np.ndarray]


def _blocks(
    recipe: ClassicalRecipe, inputs: Tables, fold: Fold, rows: pl.DataFrame, splits: Sequence[Split], folder: Path, repeats: int
) -> Iterator[_Block]:
    method = method_module(recipe.method)
    levels: list[Level] = []
    for number, split in enumerate(splits):
        if not split.train.size or not split.test.size:  # a block of the window from which no row was given
            continue
        train = inputs[POINTS].join(rows[split.train].select(KEYS), on=KEYS, how="semi")
        own = folder / split.name
        own.mkdir(parents=True)
        known = inputs[LABELS].join(train.select(KEYS), on=KEYS, how="semi")
        facts = method.fit(recipe, inputs | {POINTS: train, LABELS: known}, fold, own, _unreported)
        features = facts.get("features")
        if not features:
            raise ValueError(f"{recipe.name}: {recipe.method} says no features that it learns from; nothing can be permuted")
        if not levels:  # by what goes together in the whole window, so that groups are the same in every block
            levels = levels_of(features, correlated(matrix(rows, features), features))
        test = rows[split.test].select(*KEYS, "close", "label", *features)
        truth = test["label"].to_numpy() + 1
        chances = _chances(method, recipe, inputs, test, fold, own)
        losses = _losses(chances, truth)
        rng = np.random.default_rng((SEED, number))
        orders = [rng.permutation(test.height) for _ in range(repeats)]  # the same for all levels, which are compared
        shown = pl.concat([disordered(test, names, order) for _, names in levels for order in orders])
        answered = _chances(method, recipe, inputs, shown, fold, own)  # asked once: a model is loaded for each question
        after = _losses(answered, np.tile(truth, len(levels) * repeats)).reshape(len(levels), repeats, -1)
        rises = after.mean(axis=1) - losses
        fitted = np.bincount(rows[split.train]["label"].to_numpy() + 1, minlength=3) / split.train.size
        base = np.tile(fitted, (test.height, 1))
        both, of_base = (losses, _side_losses(chances, truth)), (_losses(base, truth), _side_losses(base, truth))
        yield _Block(test["decision_at"].to_numpy(), levels, rises, both, of_base)


def levels_of(features: Sequence[str], groups: Sequence[Sequence[str]]) -> list[Level]:
    """What changes places together, as (kind, features): each feature, each group of several, and all of them."""
    several = [(GROUP, tuple(group)) for group in groups if len(group) > 1]
    return [*((FEATURE, (name,)) for name in features), *several, (ALL, tuple(features))]


def correlated(values: np.ndarray, features: Sequence[str]) -> list[list[str]]:
    """Groups of `features` any two of which have an absolute rank correlation of at least 0.5, in the order given.

    Complete linkage on one less the absolute correlation of Spearman. What is not known stands at its column's median; a
    feature that does not vary is a group of its own.

    Args:
        values: (rows, features).
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata

    if len(features) < 2:
        return [[name] for name in features]
    filled = np.asarray(values, np.float64)
    known = ~np.isnan(filled)
    middles = [np.median(column[there]) if there.any() else 0.0 for column, there in zip(filled.T, known.T, strict=True)]
    ranks = rankdata(np.where(known, filled, middles), axis=0)
    away = ranks - ranks.mean(axis=0)
    norms = np.sqrt((away**2).sum(axis=0))
    unit = np.divide(away, norms, out=np.zeros_like(away), where=norms > 0)
    apart = np.clip(1.0 - np.abs(unit.T @ unit), 0.0, 1.0)
    np.fill_diagonal(apart, 0.0)
    numbers = fcluster(linkage(squareform(apart, checks=False), "complete"), 1.0 - TOGETHER + 1e-12, "distance")
    found: dict[int, list[str]] = {}
    for name, number in zip(features, numbers, strict=True):
        found.setdefault(int(number), []).append(name)
    return list(found.values())


def disordered(points: pl.DataFrame, features: Sequence[str], order: np.ndarray) -> pl.DataFrame:
    """`points` with the values of `features` taken from the rows in `order`, all of one row together.

    What is in currency is moved as a share of the close, which is what a model sees of it.
    """
    moved = []
    for name in features:
        if name in PRICE_UNITS:
            moved.append((points[name] / points["close"])[order] * points["close"])
        else:
            moved.append(points[name][order])
    return points.with_columns(column.alias(name) for column, name in zip(moved, features, strict=True))


def _chances(
    method: Any, recipe: ClassicalRecipe, inputs: Tables, points: pl.DataFrame, fold: Fold, folder: Path
) -> np.ndarray:
    answers = method.predict(recipe, inputs | {POINTS: points}, fold, folder)
    missing = [name for name in CHANCES if name not in answers.columns]
    if missing:
        raise ValueError(f"{recipe.name}: {recipe.method} answers without {missing}; a log loss needs all three probabilities")
    return answers.select(CHANCES).to_numpy().astype(np.float64)


def _losses(chances: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return -np.log(np.maximum(chances[np.arange(len(truth)), truth], SMALLEST))


def _side_losses(chances: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Log loss of which barrier was reached, given that one was, (rows in which one was,)."""
    reached = truth != HOLD_CLASS
    sides = chances[reached][:, [0, 2]]
    right = sides[np.arange(len(sides)), truth[reached] // 2]
    return -np.log(np.maximum(right, SMALLEST) / np.maximum(sides.sum(axis=1), SMALLEST))


def _mean(parts: Sequence[np.ndarray]) -> float | None:
    found = np.concatenate(parts)
    return float(found.mean()) if found.size else None


def _intervals(instants: np.ndarray, rises: np.ndarray) -> tuple[list[float | None], list[float | None]]:
    """95 % intervals of the means of `rises` (levels, rows), all rows of an instant drawn together."""
    if rises.shape[1] < FEWEST:
        return [None] * len(rises), [None] * len(rises)
    days, place = np.unique(instants, return_inverse=True)
    counts = np.bincount(place, minlength=len(days)).astype(np.float64)
    sums = np.stack([np.bincount(place, rise, minlength=len(days)) for rise in rises])
    drawn = resample(len(days), block_length(sums[-1]))  # of all features, which is the sum that varies most
    totals = drawn.sums(counts)
    ends = [quantiles(drawn.sums(row) / totals, drawn) for row in sums]
    return [low for low, _ in ends], [high for _, high in ends]


def _unreported(facts: dict[str, Any]) -> None:
    """Progress of a fit that is one of many."""
