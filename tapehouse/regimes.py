"""Regimes at a decision: by rule (bullish, bearish, sideways), and by the hidden states of a model fitted for a fold.

The rule: over W bars a decision is sideways if |mean return| · √W < ½ · the sample deviation of the returns, else bullish
or bearish by the mean's sign. Without √W, which scales the mean's own error away, 96 % of days would be sideways. The window is
finite and its sums run in a fixed order, so a month alone has the bits of that month in a range.

The hidden states: filtered probabilities, from an anchor on, of the model in `tapehouse.hmm`.
"""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.features.history import RESTART_MONTH, RESTART_YEARS_BACK, UTC_DATETIME, batches, in_order
from tapehouse.folds import Fold
from tapehouse.hmm import INPUTS, STATES, States, filtered, inputs
from tapehouse.versions import microseconds

WINDOW_BARS = 20  # W, a month of sessions
SIDEWAYS_BELOW = 0.5  # of the deviation
# A window that spans more days than this (a halt) has no regime: what it reaches back to would depend on what was read.
LONGEST_WINDOW_DAYS = 45
BULLISH, BEARISH, SIDEWAYS = "bullish", "bearish", "sideways"
OLDEST_MARKET = timedelta(days=10)  # as in features.decision_points: an older market row is none
RULE_COLUMNS = (
    *("symbol", "interval", "decision_at", "session", "known_at"),
    *("mean_ret_20d", "ret_deviation_20d", "drift_score_20d", "regime"),
)
REGIME_COLUMNS = (
    *("fold", "symbol", "interval", "decision_at", "known_at"),
    *(f"p_{state}" for state in STATES),
    *("regime", "bars_of_history"),
)


def rule_regimes(
    versions: pl.DataFrame, actions: pl.DataFrame, start: datetime, end: datetime, decision_lag: timedelta
) -> pl.DataFrame:
    """The rule regime of every decision in [start, end).

    Args:
        versions: `staging.bars`, at least those with `event_at` in [start - 45 days, end).
        actions: `raw.corporate_actions` of the same span.
        start, end: UTC bounds of `decision_at`.
        decision_lag: how long after a session's close its decision is taken.

    Returns:
        One row per (symbol, interval, decision_at) for every bar that was known at its own decision, sorted by it; columns
        as in `checks/features/regime.yaml`. The regime is null until 21 bars, the row's own included, lie within 45 days.

    Raises:
        TapehouseError: as `tapehouse.features.history.batches` does.
    """
    bars = in_order(versions)
    parts = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)), np.empty(0, np.int64))]
    for batch in batches(bars, actions, start, end, decision_lag, None, "features.regime"):
        own = batch.own
        drift, known = drift_rows(
            batch.chosen, own.sessions, own.prices[3], own.price_factors, own.latest, WINDOW_BARS, LONGEST_WINDOW_DAYS
        )
        parts.append((batch.rows, batch.decisions, drift, known))
    rows, decisions, drifts, stamps = (np.concatenate(column) for column in zip(*parts, strict=True))
    mean, deviation = pl.col("mean_ret_20d"), pl.col("ret_deviation_20d")
    return (
        bars[rows]
        .select("symbol", "interval", "session")
        .with_columns(
            decision_at=pl.Series(decisions).cast(UTC_DATETIME),
            known_at=pl.Series(stamps).cast(UTC_DATETIME),
            mean_ret_20d=pl.Series(drifts[:, 0], nan_to_null=True),
            ret_deviation_20d=pl.Series(drifts[:, 1], nan_to_null=True),
        )
        .with_columns(
            drift_score_20d=pl.when(deviation > 0).then(mean * math.sqrt(WINDOW_BARS) / deviation),
            regime=rule(mean, deviation, WINDOW_BARS),
        )
        .select(RULE_COLUMNS)
    )


def rule(mean: pl.Expr, deviation: pl.Expr, bars: int) -> pl.Expr:
    """The regime's name from the mean and the sample deviation of the returns over `bars` bars; null where they are.

    Prices that have not moved at all are sideways.
    """
    quiet = (mean.abs() * math.sqrt(bars) < SIDEWAYS_BELOW * deviation) | (mean == 0)
    return (
        pl.when(mean.is_null() | deviation.is_null())
        .then(None)
        .when(quiet)
        .then(pl.lit(SIDEWAYS))
        .when(mean > 0)
        .then(pl.lit(BULLISH))
        .otherwise(pl.lit(BEARISH))
    )


@njit(cache=True)
def drift_rows(wanted, sessions, closes, factors, latest, bars, longest):
    """Mean and sample deviation of the last `bars` log returns of each wanted bar, added from the newest to the oldest.

    Args:
        wanted: (m,) positions. sessions (n,): days. closes (n,). factors (n,): restate a price of the bar before.
        latest: (n,) int64 `known_at` of a bar and of the actions that take effect on it.

    Returns:
        values (m, 2): NaN where `bars` returns do not lie within `longest` days.
        known (m,): int64, the latest `known_at` of the bars and actions of the window.
    """
    values = np.full((wanted.size, 2), math.nan)
    known = np.empty(wanted.size, np.int64)
    returns = np.empty(bars)
    for row in range(wanted.size):
        t = wanted[row]
        known[row] = latest[t]
        if t < bars or sessions[t] - sessions[t - bars] > longest:
            continue
        total = 0.0
        for i in range(bars):
            returns[i] = math.log(closes[t - i] / (closes[t - i - 1] * factors[t - i]))
            total += returns[i]
            known[row] = max(known[row], latest[t - i])
        known[row] = max(known[row], latest[t - bars])
        mean = total / bars
        squares = 0.0
        for i in range(bars):
            squares += (returns[i] - mean) ** 2
        values[row, 0], values[row, 1] = mean, math.sqrt(squares / (bars - 1))
    return values, known


def hidden_regimes(points: pl.DataFrame, market: pl.DataFrame, states: States | None, fold: Fold) -> pl.DataFrame:
    """Filtered probabilities of the market's hidden states at each decision point of a fold.

    Args:
        points: rows with `symbol`, `interval` and `decision_at` from the start of the fold's training to the end of its test.
        market: rows of `features.price` of the benchmark, from 32 months before.
        states: the model fitted on the fold's training window; None gives rows without probabilities.
        fold: whose model it is.

    Returns:
        One row for each of `points`, columns as in `checks/models/regimes.yaml`. Each market row counts as it was known at its
        own decision. `known_at` is never before the end of training, from when on the model is known.
    """
    observed = inputs(market)
    probabilities, history = np.full((observed.height, len(STATES)), np.nan), np.zeros(observed.height, np.int32)
    known = microseconds(observed["known_at"])
    if states is not None:
        values = observed.select(INPUTS).to_numpy()
        years, stamps = observed["decision_at"].dt.year().to_numpy(), observed["decision_at"]
        for year in np.unique(years).tolist():
            restart = int(stamps.search_sorted(datetime(year - RESTART_YEARS_BACK, RESTART_MONTH, 1, tzinfo=UTC)))
            own = np.flatnonzero(years == year)
            run = filtered(states, values[restart : own[-1] + 1])
            probabilities[own], history[own] = run[own - restart], own - restart + 1
            known[own] = np.maximum.accumulate(known[restart : own[-1] + 1])[own - restart]
    known = np.maximum.accumulate(known)
    decided = microseconds(points["decision_at"])
    at = np.searchsorted(known, decided, side="right") - 1
    recent = at >= 0
    if observed.height:
        recent &= known[at] >= decided - OLDEST_MARKET // timedelta(microseconds=1)
    chosen = np.where(recent, at, 0)
    fitted_at = microseconds(pl.Series([fold.train_end]).cast(UTC_DATETIME))[0]
    columns = {f"p_{state}": _where(recent, probabilities[:, i], chosen) for i, state in enumerate(STATES)}
    likeliest = pl.concat_list(list(columns)).list.arg_max()
    return (
        points.select("symbol", "interval", "decision_at")
        .with_columns(
            fold=pl.lit(fold.id),
            known_at=pl.Series(_where(recent, known, chosen, fitted_at).clip(min=fitted_at)).cast(UTC_DATETIME),
            **{name: pl.Series(values).fill_nan(None) for name, values in columns.items()},
            bars_of_history=pl.Series(_where(recent, history, chosen, 0)).cast(pl.Int32),
        )
        .with_columns(regime=likeliest.replace_strict(dict(enumerate(STATES)), return_dtype=pl.String))
        .select(REGIME_COLUMNS)
        .sort("symbol", "interval", "decision_at")
    )


def _where(there: np.ndarray, values: np.ndarray, chosen: np.ndarray, otherwise: float = np.nan) -> np.ndarray:
    return np.where(there, values[chosen], otherwise) if values.size else np.full(there.size, otherwise)
