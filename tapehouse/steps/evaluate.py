"""Holding predictions against what came."""

import polars as pl

from tapehouse.recipes import Recipe


def run(b, recipe: Recipe) -> pl.DataFrame:
    """Rows of `reports.evaluations`."""
    from tapehouse.evaluations.table import evaluation_rows

    tables = ("models.predictions", "features.decision_points", "labels.triple_barrier", "labels.forward_returns")
    return evaluation_rows(recipe.name, b.fold, *(b.read(table) for table in tables))
