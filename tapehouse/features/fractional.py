"""Fractionally differenced log prices: for each d of a declared grid a fixed window of weights, in the decision's basis.

M. Lopez de Prado, Advances in Financial Machine Learning (2018), chapter 5: with the weights w_0 = 1,
w_k = -w_(k-1) (d - k + 1) / k of (1 - B)^d, cut to the newest WEIGHTS of them, the value of a decision is the sum of
w_k x_k over its window, x_k being the log price k bars before it less the log price of the window's oldest bar.

Written with returns r_j = x_j - x_(j+1), that sum is the sum of r_j (w_0 + ... + w_j), and w_0 + ... + w_j are the
weights of d - 1. So one pass over log returns gives it, splits taken out and dividends reinvested, without the level of
the price ever being formed: prices in another unit, or in the basis of another day, give the same values. Which d a fold
uses is fitted on its training window (`smallest_d`); the columns know nothing of folds.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError
from tapehouse.features.collected import Collected
from tapehouse.features.history import DECISION_LAG, batches, in_order
from tapehouse.features.kernels import latest_known
from tapehouse.features.windows import daily_log_returns

# At 100 bars the weight of d = 0.1 is 5e-4; a longer window would keep decisions of young symbols waiting for it.
WEIGHTS = 100
GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Snippets 5.4: a constant, one lag, 95 % confidence.
ADF_LAGS = 1
ADF_LEVEL = 0.05
# Fewer values than this say nothing about a unit root.
ADF_OBSERVATIONS = 60


def column(d: float) -> str:
    """`fracdiff_40` of d = 0.4: the order in percent."""
    return f"fracdiff_{round(d * 100):02d}"


FIT_SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "d": pl.Float64,
    "column": pl.String,
    "statistic": pl.Float64,
    "p_value": pl.Float64,
    "observations": pl.Int64,
}


def weights(d: float, count: int) -> np.ndarray:
    """(count,) weights of (1 - B)^d, the newest bar's first, by their recursion (Lopez de Prado 2018, 5.4.2)."""
    out = np.ones(count)
    for k in range(1, count):
        out[k] = -out[k - 1] * (d - k + 1) / k
    return out


def reach(d: float) -> int:
    """Bars in the window of d: `WEIGHTS`, or d + 1 for a whole d, whose further weights are zero."""
    return int(d) + 1 if float(d).is_integer() else WEIGHTS


def fractional_features(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    start: datetime,
    end: datetime,
    decision_lag: timedelta = DECISION_LAG,
    grid: Sequence[float] = GRID,
) -> pl.DataFrame:
    """Fractionally differenced log closes of every decision in [start, end), one column for each d.

    Args:
        versions, actions, decision_lag: as for `tapehouse.features.price.price_features`.
        start, end: UTC bounds of `decision_at`.
        grid: orders of differencing, each in (0, 1], in hundredths.

    Returns:
        One row per (symbol, interval, decision_at), sorted by it, for every bar that was known at its own decision, with
        the columns `fracdiff_<d in percent>`; null until the window of d (100 bars, 2 for d = 1) is full.

    Raises:
        TapehouseError: for a d outside of (0, 1], and as `price_features` does.
    """
    _check(grid)
    # Of d the returns take the weights of d - 1, one fewer than prices have.
    taps = np.zeros((len(grid), WEIGHTS - 1))
    lengths = np.array([reach(d) - 1 for d in grid])
    for i, d in enumerate(grid):
        taps[i, : lengths[i]] = weights(d - 1.0, lengths[i])
    bars, names = in_order(versions), [column(d) for d in grid]
    rows = Collected(bars, names)
    for batch in batches(bars, actions, start, end, decision_lag, None, "features.fractional"):
        years = batch.restarts, batch.firsts, batch.stops
        returns = daily_log_returns(batch.restarts[0], batch.stops[-1], batch.own.prices[3], batch.own.price_factors)
        values = weighted_returns(*years, returns, taps, lengths)
        rows.add(batch, dict(zip(names, values, strict=True)), latest_known(*years, batch.own.latest))
    return rows.frame(["symbol", "interval", "decision_at", "session", "known_at", *names])


@njit(cache=True, error_model="numpy")
def weighted_returns(restarts, firsts, stops, returns, taps, lengths):
    """Sums of the last returns by weight, from the newest to the oldest, as in `tapehouse.features.windows`.

    Args:
        restarts, firsts, stops: for each year the bar from which its windows may run, and its rows.
        returns: (n,) log returns. taps: (k, m) weights, the newest's first. lengths: (k,) how many of them count.

    Returns:
        (k, stops[-1] - firsts[0]), NaN where the window would begin before the restart.
    """
    begin = firsts[0]
    values = np.full((lengths.size, stops[-1] - begin), math.nan)
    for year in range(restarts.size):
        for k in range(lengths.size):
            low, high = max(firsts[year], restarts[year] + lengths[k]), stops[year]
            if low >= high:
                continue
            total = np.zeros(high - low)
            for i in range(lengths[k]):
                weight, step = taps[k, i], returns[low - i : high - i]
                for j in range(total.size):
                    total[j] += weight * step[j]
            values[k, low - begin : high - begin] = total
    return values


def smallest_d(
    rows: pl.DataFrame,
    grid: Sequence[float] = GRID,
    lags: int = ADF_LAGS,
    level: float = ADF_LEVEL,
) -> pl.DataFrame:
    """The smallest d of each symbol whose series has no unit root by the augmented Dickey-Fuller test.

    To be called with the rows of one fold's training window; what it returns is a fit of that fold.

    Args:
        rows: rows of `features.fractional`, in any order.
        grid: the orders to try, ascending.
        lags: lagged differences in the test's regression, which has a constant and no trend; not chosen from the data.
        level: the largest p-value (MacKinnon's) that passes.

    Returns:
        One row per (symbol, interval), sorted by it: `d`, its `column`, and `statistic`, `p_value` and `observations` of
        its test. Where no d passes, `d` and `column` are null and the test is that of the largest d; with fewer than 60
        values, or where they are all equal, the test's columns are null too.

    Raises:
        TapehouseError: for a d whose column is missing, or outside of (0, 1]; a level outside of (0, 1); negative lags.
    """
    _check(grid)
    if not 0.0 < level < 1.0 or lags < 0:
        raise TapehouseError(f"smallest_d: level {level} must lie between 0 and 1, lags {lags} must not be negative")
    missing = [column(d) for d in grid if column(d) not in rows.columns]
    if missing:
        raise TapehouseError(f"smallest_d: no column {missing[0]!r} in the rows; add its d to the grid of features.fractional")
    found = []
    for (symbol, interval), own in rows.sort("symbol", "interval", "decision_at").group_by(
        ["symbol", "interval"], maintain_order=True
    ):
        series = {d: own[column(d)].drop_nulls().to_numpy() for d in sorted(grid)}
        found.append({"symbol": symbol, "interval": interval} | _smallest(series, lags, level))
    return pl.DataFrame(found, schema=FIT_SCHEMA)


def _smallest(series: Mapping[float, np.ndarray], lags: int, level: float) -> dict:
    tested: dict = {"d": None, "column": None, "statistic": None, "p_value": None, "observations": 0}
    for d, values in series.items():
        tested["observations"] = values.size
        if values.size < ADF_OBSERVATIONS or np.ptp(values) == 0.0:
            continue
        statistic, p_value = dickey_fuller(values, lags)
        tested |= {"statistic": statistic, "p_value": p_value}
        if p_value <= level:
            return tested | {"d": d, "column": column(d)}
    return tested


def dickey_fuller(values: np.ndarray, lags: int = ADF_LAGS) -> tuple[float, float]:
    """Statistic and MacKinnon p-value of the augmented Dickey-Fuller test with a constant and so many lags."""
    from statsmodels.tsa.stattools import adfuller

    statistic, p_value, *_ = adfuller(values, maxlag=lags, regression="c", autolag=None)
    return float(statistic), float(p_value)


def _check(grid: Sequence[float]) -> None:
    for d in grid:
        if not 0.0 < d <= 1.0 or abs(d * 100 - round(d * 100)) > 1e-9:
            raise TapehouseError(f"fractional differencing: d = {d} is no hundredth in (0, 1]; correct the grid")
