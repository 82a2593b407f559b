"""Holding predictions against what came."""

import polars as pl

from tapehouse.recipes import Recipe


def run(b, recipe: Recipe) -> pl.DataFrame:
    """Rows of `reports.evaluations`."""
    from tapehouse.evaluation import evaluation_rows
    from tapehouse.folds import block_rows

    tables = (b.read(t) for t in ("models.predictions", "features.decision_points", "labels.triple_barrier"))
    predictions, points, labels = tables
    points = block_rows(points, b.fold)
    return evaluation_rows(recipe.name, b.fold.id, predictions.filter(split="test"), points, labels)
