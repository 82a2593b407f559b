"""The account of a declared reference policy at each decision: what a prompt says of position, profit and record.

A trading agent's prompt tells of a position and of how trading has gone so far. Both must come from somewhere that is known
at the decision: from this policy, one account a symbol, walked over the bars and actions as they were known at each decision
(`tapehouse.features.history`). It is no recommendation; it is plain, so that a prompt can be recomputed by hand.

- Flat, with `START_BALANCE`, on the first bar of each calendar year: the anchor of promise 3.
- Where it is flat it goes with the rule regime (`tapehouse.regimes`), long if bullish, short if bearish, at the next open.
- It stakes what loses `RISK` of its balance at the stop, at most the balance itself. The stop lies `STOP_ATR` of the
  decision's ATR from the entry. At `BREAK_EVEN_ATR` of profit at a close it moves to the entry; from `TRAIL_FROM_ATR` on it
  follows the close at a distance of `STOP_ATR`, never back.
- A bar that opens beyond the stop exits at its open, one that reaches it exits at the stop; the entry's own bar counts. It
  leaves at the next open where the regime has turned against it, or after `MAX_BARS` bars.
- Each side of a trade costs `COST_BPS`. What is carried over a split or dividend is restated by the factor that restates
  past prices, so that a dividend counts as reinvested.

A row is the account at the close of the decision's bar, before what the policy decides there.
"""

import math
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.features import kernels
from tapehouse.features.history import DECISION_LAG, UTC_DATETIME, Batch, batches, in_order
from tapehouse.regimes import LONGEST_WINDOW_DAYS, SIDEWAYS_BELOW, WINDOW_BARS, drift_rows

START_BALANCE = 100_000.0  # in the currency of the prices
RISK = 0.01  # of the balance, lost at the first stop before costs
STOP_ATR = 1.5  # as the triple barrier's width
BREAK_EVEN_ATR = 1.0
TRAIL_FROM_ATR = 2.0
MAX_BARS = 20
COST_BPS = 15.0  # commission 5 and slippage 10, as backtests pay by default
DAY = np.datetime64(0, "D")

STATE = (
    *("position", "entry_price", "stop_price", "trailing", "bars_held", "stake", "unrealised_ret", "unrealised_atr"),
    *("unrealised_pnl", "trades", "win_rate", "consecutive_losses", "balance", "drawdown"),
)
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "session": pl.Date,
    "known_at": UTC_DATETIME,
    **dict.fromkeys(STATE, pl.Float64),
    "position": pl.Int32,
    "trailing": pl.Boolean,
    "bars_held": pl.Int32,
    "trades": pl.Int32,
    "consecutive_losses": pl.Int32,
}


def policy_states(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    start: datetime,
    end: datetime,
    decision_lag: timedelta = DECISION_LAG,
) -> pl.DataFrame:
    """The policy's account at every decision in [start, end).

    Args:
        versions: `staging.bars`, at least those with `event_at` in [start - 33 months, end), in any order.
        actions: `raw.corporate_actions` of the same span.
        start, end: UTC bounds of `decision_at`.
        decision_lag: how long after a session's close its decision is taken.

    Returns:
        One row per (symbol, interval, decision_at), sorted by it, for every bar that was known at its own decision; columns as
        in `checks/features/policy_state.yaml`, prices in the price basis of the decision.

    Raises:
        TapehouseError: as `tapehouse.features.history.batches` does.
    """
    bars = in_order(versions)
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty((len(STATE), 0)))]
    for batch in batches(bars, actions, start, end, decision_lag, None, "features.policy_state"):
        states, known = _walked(batch)
        chosen = batch.chosen - batch.first
        parts.append((batch.rows, batch.decisions, known[chosen], states[:, chosen]))
    rows, decisions, known = (np.concatenate([part[i] for part in parts]) for i in range(3))
    states = np.concatenate([part[3] for part in parts], axis=1)
    return (
        bars[rows]
        .select("symbol", "interval", "session")
        .with_columns(
            decision_at=pl.Series(decisions).cast(UTC_DATETIME),
            known_at=pl.Series(known).cast(UTC_DATETIME),
            **{name: pl.Series(values, nan_to_null=True) for name, values in zip(STATE, states, strict=True)},
        )
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    )


def _walked(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """States (len(STATE), m) of every bar in [batch.first, batch.stop), and the latest `known_at` of what they rest on."""
    own = batch.own
    opens, highs, lows, closes = own.prices
    # A batch may begin in the midst of a year; its account has been open since the year's first bar.
    year = (DAY + own.sessions[batch.first]).astype("datetime64[Y]").astype("datetime64[D]")
    anchors = batch.firsts.copy()
    anchors[0] = np.searchsorted(own.sessions, (year - DAY).astype(np.int64))
    years = batch.restarts, anchors, batch.stops
    atr = kernels.recursive_features(*years, highs, lows, closes, own.price_factors)[kernels.RECURSIVE.index("atr_14")]
    wanted = np.arange(anchors[0], batch.stops[-1])
    drift, _ = drift_rows(wanted, own.sessions, closes, own.price_factors, own.latest, WINDOW_BARS, LONGEST_WINDOW_DAYS)
    states = walk(anchors, batch.stops, opens, highs, lows, closes, own.price_factors, atr, trend(drift))
    return states[:, batch.first - anchors[0] :], kernels.latest_known(batch.restarts, batch.firsts, batch.stops, own.latest)


def trend(drift: np.ndarray) -> np.ndarray:
    """1 bullish, -1 bearish, 0 sideways or unknown, of (m, 2) mean and deviation: the rule of `tapehouse.regimes.rule`."""
    mean, deviation = drift[:, 0], drift[:, 1]
    loud = np.abs(mean) * math.sqrt(WINDOW_BARS) >= SIDEWAYS_BELOW * deviation
    return np.where(loud & (mean != 0), np.sign(mean), 0.0)


@njit(cache=True)
def walk(anchors, stops, opens, highs, lows, closes, price_factors, atr, trends):
    """The account at the close of each bar, opened anew at each anchor.

    Args:
        anchors, stops: for each year its first bar and the bar after its last one; a year begins where the last one stops.
        opens, highs, lows, closes: (n,) raw. price_factors: (n,) restate a price of the bar before.
        atr, trends: (stops[-1] - anchors[0],) of the bars from anchors[0] on; ATR in the basis of its bar, NaN if unknown.

    Returns:
        (14, stops[-1] - anchors[0]): rows as in `STATE`, NaN where there is no position, or no closed trade.
    """
    begin = anchors[0]
    states = np.full((14, stops[-1] - begin), math.nan)
    cost = COST_BPS / 10_000.0
    for year in range(anchors.size):
        balance = peak = START_BALANCE
        side = ordered = 0.0  # 1 long, -1 short: what is held, and what is to be bought at the next open
        entry = stop = unit = stake = 0.0
        leaving = trailing = False
        held = trades = wins = losses = 0
        for t in range(anchors[year], stops[year]):
            i = t - begin
            entry, stop, unit = entry * price_factors[t], stop * price_factors[t], unit * price_factors[t]
            exit_price = math.nan
            if ordered != 0.0:
                side, entry, held, trailing = ordered, opens[t], 0, False
                stop = entry - side * STOP_ATR * unit
                stake = min(1.0, RISK * entry / (STOP_ATR * unit))
                ordered = 0.0
            if side != 0.0:
                held += 1
                if leaving or side * (opens[t] - stop) <= 0.0:
                    exit_price = opens[t]
                elif side * ((lows[t] if side > 0.0 else highs[t]) - stop) <= 0.0:
                    exit_price = stop
            if not math.isnan(exit_price):
                gain = side * (exit_price / entry - 1.0) - cost * (1.0 + exit_price / entry)
                balance *= 1.0 + stake * gain
                trades += 1
                if gain > 0.0:
                    wins, losses = wins + 1, 0
                else:
                    losses += 1
                side, leaving = 0.0, False

            unrealised = side * (closes[t] / entry - 1.0) if side != 0.0 else 0.0
            equity = balance * (1.0 + stake * unrealised)
            peak = max(peak, equity)
            states[0, i] = side
            if side != 0.0:
                states[1, i], states[2, i], states[3, i] = entry, stop, 1.0 if trailing else 0.0
                states[4, i], states[5, i], states[6, i] = held, stake, unrealised
                states[7, i], states[8, i] = side * (closes[t] - entry) / unit, balance * stake * unrealised
            states[9, i] = trades
            if trades > 0:
                states[10, i] = wins / trades
            states[11, i], states[12, i], states[13, i] = losses, balance, 1.0 - equity / peak

            if side == 0.0:
                if trends[i] != 0.0 and atr[i] > 0.0:
                    ordered, unit = trends[i], atr[i]
            elif trends[i] == -side or held >= MAX_BARS:
                leaving = True
            else:
                profit = side * (closes[t] - entry) / unit
                trailing = trailing or profit >= TRAIL_FROM_ATR
                level = entry if profit >= BREAK_EVEN_ATR else stop
                if trailing:
                    follows = closes[t] - side * STOP_ATR * unit
                    level = max(level, follows) if side > 0.0 else min(level, follows)
                stop = max(stop, level) if side > 0.0 else min(stop, level)
    return states
