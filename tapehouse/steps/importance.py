"""What a model's foresight rests on."""

import tempfile
from pathlib import Path

import polars as pl

from tapehouse.recipe_sections import ClassicalRecipe


def run(b, recipe: ClassicalRecipe, scheme: str) -> pl.DataFrame:
    """Rows of `reports.importance`: by the purged splits of the fold's training window that `scheme` declares."""
    from tapehouse.cross_fitting import fitting_points
    from tapehouse.declared_splits import declared_splits
    from tapehouse.importance import ALL, importance_rows

    inputs = {read.table: b.read(read.table) for read in b.asset.reads}
    rows = fitting_points(inputs, b.fold)
    splits = declared_splits(inputs["models.splits"], rows, scheme, b.fold.id)
    with tempfile.TemporaryDirectory() as aside:
        found = importance_rows(recipe, inputs, b.fold, rows, splits, Path(aside))
    whole = found.filter(kind=ALL).row(0, named=True)
    b.note(all_features=whole["value"], log_loss=whole["log_loss"], base_log_loss=whole["base_log_loss"])
    return found
