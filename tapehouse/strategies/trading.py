"""One strategy over one test block: signals, gates, vetoes and sizes, then the account, then what became of every signal.

Each block opens a new account and ends flat: where out-of-sample pieces are joined, positions are closed, at cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tapehouse.backtest.layout import EXIT_LONGS, EXIT_SHORTS
from tapehouse.backtest.panel import Orders, Panel, build_orders, symbols_by_then
from tapehouse.backtest.run import BacktestResult, panel_of, simulate_orders
from tapehouse.calendars import sessions
from tapehouse.predictions import BUY, HOLD, KEYS, SELL, TEST, VALIDATION
from tapehouse.strategies.gates import Judgement, gate
from tapehouse.strategies.log import decision_rows, veto_rows
from tapehouse.strategies.schema import Strategy
from tapehouse.strategies.signals import signals_of
from tapehouse.strategies.sizing import training_deviation, weights_of
from tapehouse.strategies.states import states_of
from tapehouse.strategies.tail import share_beyond, sizes
from tapehouse.strategies.terms import on_terms
from tapehouse.strategies.vetoes import blocked, judge_market

if TYPE_CHECKING:
    from tapehouse.folds import Fold

SHOWN = ("session", "close", "atr_14", "realised_vol_20d")


@dataclass(frozen=True)
class Market:
    """What a strategy reads beside predictions.

    Attributes:
        points: rows of features.decision_points from the start of the validation tail (of training, for what is fitted there)
            to the end of the block. bars, actions: rows of staging.bars and raw.corporate_actions of the tail and the block,
            with a month on either side. events: rows of raw.calendar_events around them, where a veto asks. hidden: rows of
            models.regimes.
        instruments: rows of raw.instruments. series: rows of features.macro_series.
        calendar: name of the exchange's. settlement: a bar counts in the version known so long after its close.
    """

    points: pl.DataFrame
    bars: pl.DataFrame
    actions: pl.DataFrame
    events: pl.DataFrame | None
    hidden: pl.DataFrame | None
    instruments: pl.DataFrame
    series: pl.DataFrame | None
    calendar: str
    settlement: timedelta


@dataclass(frozen=True)
class Traded:
    """What a strategy did in a block.

    result: of the account. decisions: rows of reports.strategy_decisions without subject and fold; vetoes: of reports.veto_log.
    figures: of its own, beside those of every account. panel, orders: what the account ran over, with volume and volatility.
    """

    result: BacktestResult
    decisions: pl.DataFrame
    vetoes: pl.DataFrame
    figures: dict[str, float | None]
    panel: Panel
    orders: Orders


@dataclass(frozen=True)
class _Prepared:
    """Signals of one split with all that was decided about them, and the grid that they trade on."""

    rows: pl.DataFrame
    judgements: list[Judgement]
    panel: Panel
    orders: Orders


def trade(strategy: Strategy, fold: Fold, predictions: Mapping[str, pl.DataFrame], market: Market) -> Traded:
    """Trade the test block of `fold`.

    Args:
        predictions: rows of models.predictions of the fold, both splits, by recipe.

    Raises:
        ValueError: see `tapehouse.backtest.run`.
    """
    config = strategy.config(market.settlement)
    sources = {s: states_of(s, market.points, market.hidden, fold) for s in strategy.regime_sources}
    signals = signals_of(strategy.signals, predictions, sources.get(strategy.signals.regime_source))
    test = _prepared(strategy, fold, TEST, signals, predictions, sources, market)
    orders, figures = test.orders, {}
    if strategy.tail is not None:
        before = _tail_returns(strategy, fold, signals, predictions, sources, market)
        full = simulate_orders(test.panel, orders, config).equity["ret"].to_numpy()
        allowed = sizes(before, full, strategy.tail)
        orders = replace(orders, weight=orders.weight * allowed[:, None])
        figures = {
            "tail_loss": strategy.tail.loss,
            "tail_target": strategy.tail.rate,
            "tail_realised": None,
            "tail_at_full_size": share_beyond(full[1:], strategy.tail.loss),
            "tail_size": float(allowed.mean()),
        }
    result = simulate_orders(test.panel, orders, config)
    if strategy.tail is not None:
        figures["tail_realised"] = share_beyond(result.equity["ret"].to_numpy()[1:], strategy.tail.loss)
    decisions = decision_rows(test.rows, test.panel, orders, result)
    vetoes = veto_rows(strategy, decisions, test.rows, test.judgements)
    wanted = decisions.filter(pl.col("action") != HOLD)
    figures["gated"] = float(wanted["fate"].str.starts_with("gate.").sum())
    figures["disagreements"] = float(decisions["disagreement"].sum())
    return Traded(result, decisions, vetoes, figures, test.panel, orders)


def tail_returns(strategy: Strategy, fold: Fold, predictions: Mapping[str, pl.DataFrame], market: Market) -> np.ndarray:
    """Daily returns at full size over the validation tail of `fold`, from its second session on; none without answers there.

    Arguments as of :func:`trade`; nothing of the test block decides any of them.
    """
    sources = {s: states_of(s, market.points, market.hidden, fold) for s in strategy.regime_sources}
    signals = signals_of(strategy.signals, predictions, sources.get(strategy.signals.regime_source))
    return _tail_returns(strategy, fold, signals, predictions, sources, market)


def _tail_returns(
    strategy: Strategy,
    fold: Fold,
    signals: pl.DataFrame,
    predictions: Mapping[str, pl.DataFrame],
    sources: Mapping[str, pl.DataFrame],
    market: Market,
) -> np.ndarray:
    if not (signals["split"] == VALIDATION).any():
        return np.zeros(0)
    tail = _prepared(strategy, fold, VALIDATION, signals, predictions, sources, market)
    return simulate_orders(tail.panel, tail.orders, strategy.config(market.settlement)).equity["ret"].to_numpy()[1:]


def _prepared(
    strategy: Strategy,
    fold: Fold,
    split: str,
    signals: pl.DataFrame,
    predictions: Mapping[str, pl.DataFrame],
    sources: Mapping[str, pl.DataFrame],
    market: Market,
) -> _Prepared:
    """Gates, vetoes, sizes and orders of one split, on the grid of its sessions."""
    block = _block(fold, split, market.calendar)
    config = strategy.config(market.settlement)
    panel, block = panel_of(market.points, market.bars, market.actions, block, config, liquidity=split == TEST)
    panel = on_terms(panel, strategy.costs, market.instruments, market.series, block["close_at"][-1] + market.settlement)
    rows = signals.filter(split=split)
    rows = rows.join(market.points.select(*KEYS, *SHOWN), on=KEYS, how="left", maintain_order="left")
    source = strategy.gates.regime.source if strategy.gates.regime else ""
    judgements = gate(strategy.gates, rows, signals, sources.get(source), predictions)
    gated = pl.Series([None] * rows.height, dtype=pl.String)
    for judgement in reversed(judgements):
        gated = pl.select(pl.when(pl.Series(judgement.blocks)).then(pl.lit(judgement.name)).otherwise(gated)).to_series()
    recent = market.points.filter(pl.col("decision_at") >= (fold.validation_start or fold.test_start)).sort(KEYS)
    of_market = judge_market(strategy.vetoes, recent, market.events, market.calendar)
    place = rows.select(KEYS).join(recent.select(KEYS).with_row_index("place"), on=KEYS, how="left", maintain_order="left")
    picked = place["place"].to_numpy()
    of_market = [replace(j, blocks=j.blocks[picked], missing=j.missing[picked]) for j in of_market]
    longs, shorts = blocked(of_market, rows.height)
    deviation = training_deviation(market.points, fold) if strategy.sizing.kind == "training" else None
    by_then = dict(zip(panel.sessions, symbols_by_then(market.points, panel, block).tolist(), strict=True))
    symbols = np.array([by_then.get(day, len(panel.symbols)) for day in rows["session"]], float)
    weight = weights_of(strategy.sizing, strategy.orders, rows, symbols, deviation)
    rows = rows.with_columns(
        gated=gated,
        weight=pl.Series(weight),
        blocked_long=pl.Series(longs),
        blocked_short=pl.Series(shorts),
        passed=pl.when(gated.is_null()).then(pl.col("action")).otherwise(pl.lit(HOLD)),
    )
    return _Prepared(rows, [*judgements, *of_market], panel, _orders(strategy, rows, panel, block))


def _block(fold: Fold, split: str, calendar: str) -> pl.DataFrame:
    """Sessions of the test block, or of the validation tail."""
    if split == TEST:
        block = sessions(fold.test_first_session, fold.test_end.date(), calendar)
        return block.filter(pl.col("session") <= fold.test_last_session)
    assert fold.validation_start is not None
    block = sessions(fold.validation_start.date(), fold.train_end.date(), calendar)
    return block.filter(pl.col("open_at").is_between(fold.validation_start, fold.train_end, closed="left"))


def _orders(strategy: Strategy, rows: pl.DataFrame, panel: Panel, block: pl.DataFrame) -> Orders:
    """Signals that passed their gates as orders on the grid, with weights, exits and vetoes."""
    said, declared = rows.with_columns(action="passed"), strategy.orders
    if declared.entry == "predicted":
        valid = pl.when(pl.col("limit_valid_sessions") > 0).then("limit_valid_sessions").otherwise(declared.valid_sessions)
        said = said.with_columns(limit_valid_sessions=valid)
    elif declared.entry == "limit":
        better = pl.when(pl.col("action") == BUY).then(-1.0).otherwise(1.0) * declared.limit_atr * pl.col("atr_14")
        said = said.with_columns(
            limit_price=pl.col("close") + better, limit_valid_sessions=pl.lit(declared.valid_sessions, pl.Int32)
        )
    else:
        said = said.with_columns(limit_price=pl.lit(None, pl.Float64))
    orders = build_orders(said, rows, panel, block)
    session = {day: t for t, day in enumerate(panel.sessions)}
    symbol = {name: s for s, name in enumerate(panel.symbols)}
    places = [
        (session[day], symbol[name]) if day in session and name in symbol else None
        for name, day in rows.select("symbol", "session").iter_rows()
    ]
    kept = np.array([place is not None for place in places], bool)
    cells = tuple(np.array([place for place in places if place is not None], np.int64).reshape(-1, 2).T)
    for column in ("weight", "blocked_long", "blocked_short"):
        getattr(orders, column)[cells] = rows[column].to_numpy()[kept]
    if declared.exit_on_opposite:
        leave = {BUY: EXIT_SHORTS, SELL: EXIT_LONGS, HOLD: 0}
        orders.command[cells] = np.array([leave[action] for action in rows["passed"]], np.int64)[kept]
    return orders
