"""Answers of a classical recipe on rows that it was not fitted on, by purged splits of a training window.

A model is fitted for each split, on its training rows, and asked on its test rows. This is for methods that learn from decision
points and their labels; what else they read they are given whole.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tapehouse.declared_splits import TEST
from tapehouse.errors import TapehouseError
from tapehouse.feature_matrix import labelled
from tapehouse.folds import Fold
from tapehouse.predictions import CHANCES, KEYS, likeliest
from tapehouse.recipe_sections import ClassicalRecipe
from tapehouse.recipes import method_module
from tapehouse.splits import Split

POINTS, LABELS = "features.decision_points", "labels.triple_barrier"
Tables = dict[str, pl.DataFrame]


def fitting_points(inputs: Tables, fold: Fold) -> pl.DataFrame:
    """The rows that are split: decision points of the training window whose label is known before the validation tail."""
    return labelled(inputs[POINTS], inputs[LABELS], fold)


def check_answered_once(blocks: pl.DataFrame, scheme: str, fold: Fold, who: str) -> None:
    """Refuse a scheme that tests a row in several splits, where one answer a row is needed.

    Args:
        blocks: rows of `models.splits`. scheme: its name. who: the recipe that names it, for the error.

    Raises:
        TapehouseError: it holds more than one block out at a time.
    """
    tested = blocks.filter(scheme=scheme, fold=fold.id, role=TEST).group_by("number").len()["len"].max() or 0
    if tested > 1:
        raise TapehouseError(
            f"recipe {who}: scheme {scheme!r} holds out {tested} blocks at a time, so that a row is answered in several "
            f"splits; name a scheme of held_out: 1, or give {scheme} that in models_registry/folds.yaml and make models/splits"
        )


def cross_fitted(
    recipe: ClassicalRecipe, inputs: Tables, fold: Fold, rows: pl.DataFrame, splits: Sequence[Split], folder: Path
) -> Iterator[pl.DataFrame]:
    """For each split the answers to its test rows: `KEYS`, `split`, `action` and, where the method gives them, `CHANCES`.

    Args:
        inputs: the tables that the method reads, of the training window. rows: of `fitting_points`, which `splits` number.
        folder: an empty one, where the models of the splits are left.
    """
    method = method_module(recipe.method)
    points = inputs[POINTS]
    for split in splits:
        if not split.train.size or not split.test.size:  # a block of the window from which no row was given
            continue
        train, test = (points.join(rows[part].select(KEYS), on=KEYS, how="semi") for part in (split.train, split.test))
        own = folder / split.name
        own.mkdir(parents=True)
        known = inputs[LABELS].join(train.select(KEYS), on=KEYS, how="semi")
        method.fit(recipe, inputs | {POINTS: train, LABELS: known}, fold, own, _unreported)
        answers = method.predict(recipe, inputs | {POINTS: test}, fold, own)
        if "action" not in answers.columns:
            answers = answers.with_columns(action=likeliest(answers))
        yield answers.select(
            *KEYS, "action", *(name for name in CHANCES if name in answers.columns), split=pl.lit(split.name)
        ).sort("decision_at", "symbol", "interval")


def _unreported(facts: dict[str, Any]) -> None:
    """Progress of a fit that is one of many."""
