"""From tables to arrays: settled bars and actions on the grid of sessions, and decisions as orders on the same grid."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl

from tapehouse.backtest.liquidity import known_liquidity
from tapehouse.paths import SETTLEMENT_LAG, settled_paths

SIGN = {"SELL": -1, "HOLD": 0, "BUY": 1}
DAYS_A_YEAR = 365.0  # of a fee by calendar days


@dataclass(frozen=True)
class Panel:
    """Arrays of shape (sessions, symbols); a price is NaN where the symbol has no settled bar in the session.

    `ratio` and `dividend` are what one share of the session before becomes: a number of shares, and cash. `volume` and
    `volatility` are what was known before each session (`tapehouse.backtest.liquidity`), NaN where nothing was. `fx` is
    account currency for a unit of the price's; `delisting` the return from the last mark with which a symbol leaves, NaN for
    none. `elapsed` and `rate`, (sessions,), are the years since the session before and what cash earns in one. `tick` and
    `lot`, (symbols,), are 0 where none is declared.
    """

    symbols: tuple[str, ...]
    sessions: tuple[date, ...]
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    ratio: np.ndarray
    dividend: np.ndarray
    volume: np.ndarray
    volatility: np.ndarray
    fx: np.ndarray
    delisting: np.ndarray
    elapsed: np.ndarray
    rate: np.ndarray
    tick: np.ndarray
    lot: np.ndarray


@dataclass(frozen=True)
class Orders:
    """Decisions as arrays of shape (sessions, symbols), each at the session after whose close it was taken.

    `weight` is the notional over equity. `command` acts on the open position (`tapehouse.backtest.layout`). `blocked_long` and
    `blocked_short` number the veto that holds for an entry, -1 for none.
    """

    signal: np.ndarray
    limit: np.ndarray
    valid: np.ndarray
    atr: np.ndarray
    weight: np.ndarray
    command: np.ndarray
    blocked_long: np.ndarray
    blocked_short: np.ndarray
    decision_at: dict[tuple[int, int], datetime]


def build_panel(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: pl.DataFrame,
    symbols: Sequence[str],
    settlement: timedelta = SETTLEMENT_LAG,
    liquidity: bool = False,
) -> Panel:
    """The prices and corporate actions of `symbols` over `sessions`, as settled (`tapehouse.paths`).

    Args:
        versions: rows of `staging.bars`, every version, of one interval; other symbols and dates are ignored.
        actions: rows of `raw.corporate_actions`. An ex-date that is no session acts on the next one.
        sessions: `session`, `open_at`, `close_at`, ascending, without gaps: the test block.
        symbols: the columns, in this order.
        settlement: a bar or action is read in the version known so long after the session's close.
        liquidity: whether volume and volatility are wanted; they take bars from before the block.

    Raises:
        ValueError: more than one interval, or a dividend that is not below the close before it.
    """
    here = versions.filter(pl.col("symbol").is_in(list(symbols)))
    if here["interval"].n_unique() > 1:
        raise ValueError(f"one interval at a time, got {sorted(here['interval'].unique())}")
    # An action before the block acts on no position in it; without this it would be moved to the first session.
    inside = actions.filter(pl.col("ex_date") > sessions["session"][0])
    paths = settled_paths(here, inside, sessions, list(symbols), settlement)
    open_, high, low, close, ratio, dividend = (
        np.ascontiguousarray(grid.T) for grid in (paths.open, paths.high, paths.low, paths.close, paths.shares, paths.cash)
    )
    days = tuple(sessions["session"].to_list())
    before = _last_close_before(close)
    if (dividend >= before).any():
        t, s = np.argwhere(dividend >= before)[0]
        raise ValueError(
            f"{symbols[s]} {days[t]}: dividend {dividend[t, s]} is not below the close before it, {before[t, s]}; "
            "correct raw.corporate_actions"
        )
    volume, volatility = np.full(close.shape, np.nan), np.full(close.shape, np.nan)
    if liquidity:
        volume, volatility = known_liquidity(here, actions, sessions, tuple(symbols), ratio)
    return Panel(
        symbols=tuple(symbols),
        sessions=days,
        open=open_,
        high=high,
        low=low,
        close=close,
        ratio=ratio,
        dividend=dividend,
        volume=volume,
        volatility=volatility,
        fx=np.ones(close.shape),
        delisting=np.full(close.shape, np.nan),
        elapsed=np.array([0.0, *((b - a).days / DAYS_A_YEAR for a, b in pairwise(days))]),
        rate=np.zeros(len(days)),
        tick=np.zeros(len(symbols)),
        lot=np.zeros(len(symbols)),
    )


def symbols_by_then(decisions: pl.DataFrame, panel: Panel, sessions: pl.DataFrame) -> np.ndarray:
    """(sessions,): how many of the panel's symbols have had a decision in the block by each session; at least 1.

    What is listed inside the block divides the capital from its first decision on: that it will come is not known before.

    Args:
        decisions: `symbol`, `decision_at`. sessions: `session`, `close_at` of the block.
    """
    closes = sessions["close_at"].sort()
    own = decisions.filter(pl.col("symbol").is_in(list(panel.symbols)) & (pl.col("decision_at") >= closes[0]))
    first = own.group_by("symbol").agg(pl.col("decision_at").min())["decision_at"]
    begins = closes.search_sorted(first, side="right").to_numpy().astype(np.int64) - 1  # its session closed last by then
    return np.maximum(np.bincount(begins, minlength=len(panel.sessions)).cumsum(), 1)


def build_orders(
    predictions: pl.DataFrame, decisions: pl.DataFrame, panel: Panel, sessions: pl.DataFrame, weight: float | None = None
) -> Orders:
    """`predictions` as orders on the grid of `panel`.

    Args:
        predictions: rows of `models.predictions` of one subject: `symbol`, `decision_at`, `action`, `limit_price`,
            `limit_valid_sessions`. At most one a symbol and decision; those outside the sessions are an error.
        decisions: `symbol`, `decision_at`, `atr_14`, of every symbol: what the barriers are made of.
        weight: notional of an entry over equity; by default one over the number of symbols by then (`symbols_by_then`).

    Raises:
        ValueError: two predictions for one decision, an unknown action, a BUY or SELL without ATR or without a bar, a
            limit price that is not above 0 or has no validity.
    """
    keys = ["symbol", "decision_at"]
    doubled = predictions.filter(pl.struct(keys).is_duplicated())
    if doubled.height:
        raise ValueError(f"two predictions for {doubled.select(keys).row(0)}: keep one objective a decision")
    unknown = set(predictions["action"].unique()) - set(SIGN)
    if unknown:
        raise ValueError(f"unknown action {sorted(map(str, unknown))}: use BUY, SELL or HOLD")

    calendar = sessions.select("session", pl.col("close_at").alias("decision_at")).sort("decision_at")
    rows = (
        predictions.select("symbol", "decision_at", "action", "limit_price", "limit_valid_sessions")
        .join(decisions.select(*keys, pl.col("atr_14").alias("atr")), on=keys, how="left", validate="1:1")
        .sort("decision_at", "symbol")
        .join_asof(calendar, on="decision_at", strategy="backward")
    )
    shape = panel.close.shape
    orders = Orders(
        signal=np.zeros(shape, np.int64),
        limit=np.full(shape, np.nan),
        valid=np.zeros(shape, np.int64),
        atr=np.full(shape, np.nan),
        weight=np.empty(shape),
        command=np.zeros(shape, np.int64),
        blocked_long=np.full(shape, -1),
        blocked_short=np.full(shape, -1),
        decision_at={},
    )
    orders.weight[:] = 1.0 / symbols_by_then(decisions, panel, sessions)[:, None] if weight is None else weight
    row = {day: i for i, day in enumerate(panel.sessions)}
    column = {symbol: i for i, symbol in enumerate(panel.symbols)}
    for symbol, decision_at, action, limit, valid, atr, session in rows.iter_rows():
        if action == "HOLD":
            continue
        where = f"{symbol} {decision_at:%Y-%m-%d %H:%M}"
        if session not in row or symbol not in column or np.isnan(panel.close[row[session], column[symbol]]):
            raise ValueError(f"{where}: no bar of this symbol in the session of the decision")
        if atr is None or not atr > 0:
            raise ValueError(f"{where}: no ATR at the decision, so no barriers; predict decision points only")
        if limit is not None and not (limit > 0 and (valid or 0) > 0):
            raise ValueError(f"{where}: a limit order needs a price above 0 and limit_valid_sessions of at least 1")
        cell = row[session], column[symbol]
        if cell in orders.decision_at:
            raise ValueError(f"{where}: a second decision in one session")
        orders.signal[cell] = SIGN[action]
        orders.limit[cell] = np.nan if limit is None else limit
        orders.valid[cell] = valid or 0
        orders.atr[cell] = atr
        orders.decision_at[cell] = decision_at
    return orders


def _last_close_before(close: np.ndarray) -> np.ndarray:
    """For each cell, the symbol's last close in an earlier session; NaN where there is none."""
    before = np.full(close.shape, np.nan)
    for t in range(1, len(close)):
        before[t] = np.where(np.isnan(close[t - 1]), before[t - 1], close[t - 1])
    return before
