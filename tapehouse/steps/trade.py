"""Trading predictions in an account."""

from datetime import timedelta

import polars as pl

from tapehouse.recipes import Recipe, method_module


def run(b, recipe: Recipe) -> dict[str, pl.DataFrame]:
    """Rows of the backtest, its equity and trades, and of what it would have earned under other lags, costs and capital."""
    from tapehouse.account_trials import record_traded
    from tapehouse.backtest.config import BacktestConfig
    from tapehouse.backtest.panel import build_orders
    from tapehouse.backtest.run import panel_of, simulate_orders
    from tapehouse.calendars import sessions
    from tapehouse.metrics import backtest_rows
    from tapehouse.sensitivity import sensitivity_rows
    from tapehouse.strategies.terms import plain_terms

    universe = b.settings.universe
    block = sessions(b.fold.test_first_session, b.fold.test_end.date(), universe.calendar)
    config = BacktestConfig(
        exit_rule=getattr(method_module(recipe.method), "EXIT_RULE", "barrier"),
        settlement=timedelta(days=universe.settlement_lag_days),
    )
    points = b.read("features.decision_points")
    panel, block = panel_of(
        points,
        b.read("staging.bars"),
        b.read("raw.corporate_actions"),
        block.filter(pl.col("session") <= b.fold.test_last_session),
        config,
        liquidity=True,  # for the curve over capital
    )
    panel = plain_terms(panel, b.read("raw.instruments"), block["close_at"][-1] + config.settlement)
    orders = build_orders(b.read("models.predictions").filter(split="test"), points, panel, block, config.weight)
    result = simulate_orders(panel, orders, config)
    record_traded(b, recipe, recipe.hash, result.equity)
    keys = {"subject": pl.lit(recipe.name), "fold": pl.lit(b.fold.id)}
    b.note(trades=result.trades.height, final_equity=float(result.equity["equity"][-1]), **result.counts)
    return {
        "reports.backtests": backtest_rows(recipe.name, b.fold.id, result),
        "reports.backtest_equity": result.equity.with_columns(**keys),
        "reports.backtest_trades": result.trades.with_columns(**keys),
        "reports.sensitivity": sensitivity_rows(panel, orders, config).with_columns(**keys),
    }
