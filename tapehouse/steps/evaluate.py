"""Holding predictions against what came."""

import polars as pl

from tapehouse.recipes import Recipe


def run(b, recipe: Recipe) -> pl.DataFrame:
    """Rows of `reports.evaluations`."""
    from tapehouse.evaluation import evaluation_rows

    tables = (b.read(t) for t in ("models.predictions", "features.decision_points", "labels.triple_barrier"))
    return evaluation_rows(recipe.name, b.fold.id, *tables)
