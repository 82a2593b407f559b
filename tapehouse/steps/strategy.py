"""Trading a strategy in an account."""

from __future__ import annotations

from collections.abc import Callable, Container
from datetime import timedelta
from typing import TYPE_CHECKING

import polars as pl

from tapehouse.strategies.schema import Strategy

if TYPE_CHECKING:
    from tapehouse.strategies.trading import Market
    from tapehouse.universe import Universe


def run(b, strategy: Strategy, setting: str) -> dict[str, pl.DataFrame]:
    """Rows of the backtest and of it under other lags, costs and capital, of what became of its signals, and of its vetoes.

    Args:
        setting: what identifies the strategy and its predictors among trials.
    """
    from tapehouse.account_trials import record_traded
    from tapehouse.metrics import backtest_rows, metric_rows
    from tapehouse.sensitivity import sensitivity_rows
    from tapehouse.strategies.trading import trade

    predictions, market = market_of(strategy, b.read, {read.table for read in b.asset.reads}, b.settings.universe)
    traded = trade(strategy, b.fold, predictions, market)
    result = traded.result
    record_traded(b, strategy, setting, result.equity)
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


def market_of(
    strategy: Strategy, read: Callable[..., pl.DataFrame], declared: Container[str], universe: Universe
) -> tuple[dict[str, pl.DataFrame], Market]:
    """The predictions that a strategy follows, by recipe, and what it trades them on.

    Args:
        read: rows of a table, or of one writer of it, for a fold. declared: the tables that the strategy reads.
    """
    from tapehouse.strategies.trading import Market

    predictions = {name: read("models.predictions", f"models.predictions.{name}") for name in strategy.predictors}
    market = Market(
        points=read("features.decision_points"),
        bars=read("staging.bars"),
        actions=read("raw.corporate_actions"),
        events=read("raw.calendar_events") if "raw.calendar_events" in declared else None,
        hidden=read("models.regimes") if "models.regimes" in declared else None,
        instruments=read("raw.instruments"),
        series=read("features.macro_series") if "features.macro_series" in declared else None,
        calendar=universe.calendar,
        settlement=timedelta(days=universe.settlement_lag_days),
    )
    return predictions, market
