"""Holding predictions against what came."""

import polars as pl

from tapehouse.recipes import Recipe


def run(b, recipe: Recipe) -> pl.DataFrame:
    """Rows of `reports.evaluations`; of who answers with orders, of its preferences among pairs, too."""
    from tapehouse.evaluations.core import evaluation_frame
    from tapehouse.evaluations.preferences import preference_figures
    from tapehouse.evaluations.table import evaluation_rows
    from tapehouse.predictions import TEST

    tables = ("models.predictions", "features.decision_points", "labels.triple_barrier", "labels.forward_returns")
    rows = evaluation_rows(recipe.name, b.fold, *(b.read(table) for table in tables))
    if all(read.table != "models.preferences" for read in b.asset.reads):
        return rows
    figures = preference_figures(b.read("models.preferences"), b.read("features.decision_points"))
    return pl.concat([rows, evaluation_frame(recipe.name, b.fold.id, TEST, figures)])
