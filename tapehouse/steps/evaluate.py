"""Holding predictions against what came."""

from datetime import timedelta

import polars as pl

from tapehouse.recipes import Recipe

PREDICTIONS, POINTS = "models.predictions", "features.decision_points"


def run(b, recipe: Recipe) -> pl.DataFrame:
    """Rows of `reports.evaluations`; of who answers with orders, of its preferences among pairs, too."""
    from tapehouse.calendars import all_sessions
    from tapehouse.evaluations.core import evaluation_frame
    from tapehouse.evaluations.outcomes import MONTHS_AHEAD, Market, longest_horizon, paths_after
    from tapehouse.evaluations.preferences import preference_figures
    from tapehouse.evaluations.table import evaluation_rows
    from tapehouse.labels.horizons import require_lookahead
    from tapehouse.orders import load_objectives
    from tapehouse.predictions import TEST, judged_rows

    universe = b.settings.universe
    own = f"{PREDICTIONS}.{recipe.name}"
    others = [read.writer for read in b.asset.reads if read.table == PREDICTIONS and read.writer != own]
    predictions, points = b.read(PREDICTIONS, own), b.read(POINTS)
    sessions, horizon = all_sessions(universe.calendar), longest_horizon(predictions)
    require_lookahead(b.asset.name, sessions, b.fold.test_end, MONTHS_AHEAD, horizon)
    around = b.read("staging.bars"), b.read("raw.corporate_actions"), sessions, horizon
    paths = paths_after(judged_rows(points, b.fold), *around, timedelta(days=universe.settlement_lag_days))
    rows = evaluation_rows(
        recipe.name,
        b.fold,
        predictions,
        points,
        b.read("labels.triple_barrier"),
        b.read("labels.forward_returns"),
        Market(paths, load_objectives(b.settings.home / "objectives.yaml")),
        b.read(PREDICTIONS, others[0]) if others else None,
    )
    if all(read.table != "models.preferences" for read in b.asset.reads):
        return rows
    figures = preference_figures(b.read("models.preferences"), points)
    return pl.concat([rows, evaluation_frame(recipe.name, b.fold.id, TEST, figures)])
