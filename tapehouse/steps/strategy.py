"""Trading a strategy in an account."""

from datetime import timedelta

import polars as pl

from tapehouse.strategies.schema import Strategy


def run(b, strategy: Strategy) -> dict[str, pl.DataFrame]:
    """Rows of the backtest and of it under other lags, costs and capital, of what became of its signals, and of its vetoes."""
    from tapehouse.metrics import backtest_rows, metric_rows
    from tapehouse.sensitivity import sensitivity_rows
    from tapehouse.strategies.trading import Market, trade

    universe = b.settings.universe
    predictions = {name: b.read("models.predictions", f"models.predictions.{name}") for name in strategy.predictors}
    declared = {read.table for read in b.asset.reads}
    market = Market(
        points=b.read("features.decision_points"),
        bars=b.read("staging.bars"),
        actions=b.read("raw.corporate_actions"),
        events=b.read("raw.calendar_events") if "raw.calendar_events" in declared else None,
        hidden=b.read("models.regimes") if "models.regimes" in declared else None,
        instruments=b.read("raw.instruments"),
        series=b.read("features.macro_series") if "features.macro_series" in declared else None,
        calendar=universe.calendar,
        settlement=timedelta(days=universe.settlement_lag_days),
    )
    traded = trade(strategy, b.fold, predictions, market)
    result = traded.result
    keys = {"subject": pl.lit(strategy.name), "fold": pl.lit(b.fold.id)}
    b.note(trades=result.trades.height, final_equity=float(result.equity["equity"][-1]), **result.counts, **traded.figures)
    own = metric_rows(strategy.name, b.fold.id, traded.figures)
    return {
        "reports.backtests": pl.concat([backtest_rows(strategy.name, b.fold.id, result), own]),
        "reports.backtest_equity": result.equity.with_columns(**keys),
        "reports.backtest_trades": result.trades.with_columns(**keys),
        "reports.sensitivity": sensitivity_rows(traded.panel, traded.orders, result.config).with_columns(**keys),
        "reports.strategy_decisions": traded.decisions.with_columns(**keys),
        "reports.veto_log": traded.vetoes.with_columns(**keys),
    }
