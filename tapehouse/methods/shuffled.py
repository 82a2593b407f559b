"""The twin of another recipe: the same method on the same rows, fitted on labels that were drawn from a hat.

What such a model earns is what the method earns by knowing nothing; a recipe that does no better has found nothing. Within the
rows that are fitted on, and within each side, whole labels change places at random: base rates and returns stay what they are,
and nothing is left of which decision they belong to.
"""

from typing import ClassVar, Literal

import numpy as np
import polars as pl

from tapehouse.folds import fitted_until
from tapehouse.inner_recipes import OuterRecipe, taken_over
from tapehouse.recipes import method_module
from tapehouse.tables import Read

LABELS = "labels.triple_barrier"
DRAWN = ("label", "ret")


class Recipe(OuterRecipe):
    """Another recipe's model, fitted on permuted labels."""

    naming: ClassVar[str] = "twin_of"

    method: Literal["shuffled"]
    twin_of: str


complete = taken_over


def fit_reads(recipe: Recipe) -> tuple[Read, ...]:
    """What the twin reads."""
    return _asked(recipe, "fit_reads")


def predict_reads(recipe: Recipe) -> tuple[Read, ...]:
    """What the twin reads."""
    return _asked(recipe, "predict_reads")


def fit(recipe: Recipe, inputs, fold, folder, report=None) -> dict:
    """What the twin's fit says, on permuted labels."""
    drawn = inputs | {LABELS: permuted(inputs[LABELS], fold, recipe.seed)}
    return method_module(recipe.inner_recipe.method).fit(recipe.inner_recipe, drawn, fold, folder, report)


def predict(recipe: Recipe, inputs, fold, folder) -> pl.DataFrame:
    """The twin's answers."""
    return method_module(recipe.inner_recipe.method).predict(recipe.inner_recipe, inputs, fold, folder)


def permuted(labels: pl.DataFrame, fold, seed: int) -> pl.DataFrame:
    """`labels` with `label` and `ret` permuted among the rows of one side that are known by the end of what is fitted on.

    Times and keys stay: which rows are fitted on does not change. Rows without a label, and those known later, keep theirs.
    """
    rng = np.random.default_rng(seed)
    known = (pl.col("label_known_at") < fitted_until(fold)) & pl.col("label").is_not_null()
    labels = labels.sort("decision_at", "symbol", "interval", "side").with_row_index("_row")
    parts = [labels.filter(~known | known.is_null())]
    for part in labels.filter(known).partition_by("side", maintain_order=True):
        drawn = part.select(DRAWN)[rng.permutation(part.height)]
        parts.append(part.with_columns(drawn))
    return pl.concat(parts).sort("_row").drop("_row")


def _asked(recipe: Recipe, name: str) -> tuple[Read, ...]:
    asked = getattr(method_module(recipe.inner_recipe.method), name, None)
    return asked(recipe.inner_recipe) if asked else ()
