"""What a predictor would have earned by other ways of leaving blocks out."""

import tempfile
from datetime import timedelta
from pathlib import Path

import polars as pl

from tapehouse.recipe_sections import ClassicalRecipe
from tapehouse.recipes import method_module


def run(b, recipe: ClassicalRecipe, scheme: str) -> pl.DataFrame:
    """Rows of `reports.paths`: by the combinatorial splits of the span that `scheme` declares."""
    from tapehouse.backtest.config import BacktestConfig
    from tapehouse.calendars import sessions
    from tapehouse.combinatorial import WHOLE, path_rows

    universe = b.settings.universe
    tables = {read.table: b.read(read.table) for read in b.asset.reads}
    config = BacktestConfig(
        exit_rule=getattr(method_module(recipe.method), "EXIT_RULE", "barrier"),
        settlement=timedelta(days=universe.settlement_lag_days),
    )
    days = sessions(b.start, b.end, universe.calendar)
    with tempfile.TemporaryDirectory() as aside:
        rows = path_rows(recipe, tables, tables["models.splits"], scheme, days, config, Path(aside))
    ratios = rows.filter(part=WHOLE)["sharpe"].drop_nulls()
    b.note(paths=rows["path"].n_unique(), **{f"sharpe_{name}": getattr(ratios, name)() for name in ("min", "median", "max")})
    return rows
