"""Trading predictions in an account."""

from datetime import timedelta

import polars as pl

from tapehouse.recipes import Recipe, method_module


def run(b, recipe: Recipe) -> dict[str, pl.DataFrame]:
    """Rows of `reports.backtests`, `reports.backtest_equity` and `reports.backtest_trades`."""
    from tapehouse.backtest.config import BacktestConfig
    from tapehouse.backtest.run import run_backtest
    from tapehouse.calendars import sessions
    from tapehouse.metrics import backtest_rows

    universe = b.settings.universe
    block = sessions(b.fold.test_first_session, b.fold.test_end.date(), universe.calendar)
    result = run_backtest(
        b.read("models.predictions").filter(split="test"),
        b.read("features.decision_points"),
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        block.filter(pl.col("session") <= b.fold.test_last_session),
        BacktestConfig(
            exit_rule=getattr(method_module(recipe.method), "EXIT_RULE", "barrier"),
            settlement=timedelta(days=universe.settlement_lag_days),
        ),
    )
    keys = {"subject": pl.lit(recipe.name), "fold": pl.lit(b.fold.id)}
    b.note(trades=result.trades.height, final_equity=float(result.equity["equity"][-1]), **result.counts)
    return {
        "reports.backtests": backtest_rows(recipe.name, b.fold.id, result),
        "reports.backtest_equity": result.equity.with_columns(**keys),
        "reports.backtest_trades": result.trades.with_columns(**keys),
    }
