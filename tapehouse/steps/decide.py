"""Asking a baseline."""

import polars as pl

from tapehouse.recipes import Recipe
from tapehouse.steps.rows import action_shares


def run(b, recipe: Recipe) -> pl.DataFrame:
    """The baseline's decision at every decision point of the test block."""
    from tapehouse.baselines import predict

    folder = b.settings.root / b.read("models.adapters").row(0, named=True)["path"]
    rows = predict(recipe, b.read("features.decision_points"), b.fold, folder)
    b.note(**action_shares(rows["action"]))
    return rows
