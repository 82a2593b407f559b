"""Normalised views of the price features, apart from the raw ones, which keep their units.

Two kinds. A rolling z-score needs no fitting: each value against its own trailing window, as a table of its own. A scaler
is fitted: means and deviations of one fold's training window, kept with the fold's fits and applied by a view.

Sums run in fixed order: over a window from the newest row to the oldest, over a training window by symbol and time.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError
from tapehouse.features.price import FEATURES
from tapehouse.features.windows import ROUNDING, TRADING_DAYS_PER_YEAR
from tapehouse.kernels import kernel
from tapehouse.versions import microseconds

WINDOW_ROWS = TRADING_DAYS_PER_YEAR
# A year of sessions fits in; what a suspended symbol said longer ago does not count.
WINDOW_DAYS = 400
# Half a year: a deviation of fewer values is too rough to divide by.
LEAST_ROWS = 126
# In units of price: taken over the close, or a split would step through their windows.
IN_PRICE_UNITS = ("atr_14", "macd", "macd_signal", "macd_hist")
UTC_DATETIME = pl.Datetime("us", "UTC")
GRAIN = ("symbol", "interval", "decision_at")
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "known_at": UTC_DATETIME,
    **{f"{name}_z": pl.Float64 for name in FEATURES},
    "rows_in_window": pl.Int32,
}
SCALER_SCHEMA = {"column": pl.String, "mean": pl.Float64, "deviation": pl.Float64, "observations": pl.Int64}


def rolling_zscores(rows: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
    """Each price feature less its mean over the row's trailing window, in sample deviations of that window.

    Args:
        rows: rows of `features.price` with `decision_at` in [start - 400 days, end), in any order.
        start, end: UTC bounds of the rows that are wanted.

    Returns:
        One row per (symbol, interval, decision_at), sorted by it. The window is the last 252 rows of the symbol, the own
        included, as far as they were decided within 400 days; each counts as it was known at its own decision. A z-score
        is null with fewer than 126 values, where they are all equal, and where the feature is null.
    """
    rows = rows.sort(GRAIN)
    parts = [pl.DataFrame(schema=SCHEMA)]
    for own in rows.partition_by("symbol", "interval", maintain_order=True):
        decided = microseconds(own["decision_at"])
        oldest = np.searchsorted(decided, decided - WINDOW_DAYS * timedelta(days=1) // timedelta(microseconds=1), side="right")
        oldest = np.maximum(oldest, np.arange(own.height) - WINDOW_ROWS + 1)
        first, stop = (int(own["decision_at"].search_sorted(bound)) for bound in (start, end))
        if first == stop:
            continue
        values = np.empty((len(FEATURES), own.height))
        for i, name in enumerate(FEATURES):
            values[i] = own[name].to_numpy()
            if name in IN_PRICE_UNITS:  # by NumPy: polars divides by a constant column as a product, with other last bits
                values[i] /= own["close"].to_numpy()
        scores = trailing_zscores(values, oldest, first, stop)
        known = window_maximum(microseconds(own["known_at"]), oldest, first, stop)
        named = {f"{name}_z": pl.Series(row).fill_nan(None) for name, row in zip(FEATURES, scores, strict=True)}
        counts = np.arange(first, stop) - oldest[first:stop] + 1
        wanted = own[first:stop].with_columns(
            **named, known_at=pl.Series(known).cast(UTC_DATETIME), rows_in_window=pl.Series(counts)
        )
        parts.append(wanted.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items()))
    return pl.concat(parts)


@kernel("tapehouse.features.windows", error_model="numpy")
def trailing_zscores(values, oldest, first, stop):
    """Z-scores of the rows first..stop-1 over the windows oldest[t]..t, from the newest row to the oldest.

    Args:
        values: (k, n), NaN where there is none. oldest: (n,) ascending positions.

    Returns:
        (k, stop - first), NaN with fewer than `LEAST_ROWS` values in the window, or without deviation.
    """
    out = np.full((values.shape[0], stop - first), math.nan)
    longest = 0
    for t in range(first, stop):
        longest = max(longest, t - oldest[t] + 1)
    m = stop - first
    for k in range(values.shape[0]):
        total, count, squares, largest = np.zeros(m), np.zeros(m), np.zeros(m), np.zeros(m)
        for i in range(longest):
            begin = max(0, i - first)
            for j in range(begin, m):
                value = values[k, first + j - i]
                if first + j - i >= oldest[first + j] and not math.isnan(value):
                    total[j] += value
                    count[j] += 1.0
                    largest[j] = max(largest[j], abs(value))
        for i in range(longest):
            begin = max(0, i - first)
            for j in range(begin, m):
                value = values[k, first + j - i]
                if first + j - i >= oldest[first + j] and not math.isnan(value):
                    squares[j] += (value - total[j] / count[j]) ** 2
        for j in range(m):
            deviation = math.sqrt(squares[j] / (count[j] - 1.0))
            if count[j] >= LEAST_ROWS and deviation > ROUNDING * largest[j]:
                out[k, j] = (values[k, first + j] - total[j] / count[j]) / deviation
    return out


@njit(cache=True)
def window_maximum(values, oldest, first, stop):
    """(stop - first,) the largest of values[oldest[t]..t] for each t."""
    out = np.empty(stop - first, values.dtype)
    for t in range(first, stop):
        newest = values[t]
        for i in range(oldest[t], t):
            newest = max(newest, values[i])
        out[t - first] = newest
    return out


def fit_scaler(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """Mean and sample deviation of each column, pooled over symbols: a fit of the fold whose training rows these are.

    Args:
        rows: the decisions of one fold's training window, with the columns of the grain (symbol, interval, decision_at),
            in any order: they are summed by symbol and time.
        columns: names of columns of numbers; nulls are left out.

    Returns:
        One row a column, in the order asked for: `column`, `mean` and `deviation` in the column's own unit, and
        `observations`. Both are null without values; the deviation also with one value, or where all are equal.

    Raises:
        TapehouseError: for a column that is missing or holds no numbers.
    """
    for name in columns:
        if name not in rows.columns or not rows.schema[name].is_numeric():
            raise TapehouseError(f"fit_scaler: {name!r} is no column of numbers in the rows; name one of {rows.columns}")
    rows = rows.sort(GRAIN)
    found = []
    for name in columns:
        values = rows[name].cast(pl.Float64).fill_nan(None).drop_nulls().to_numpy(writable=True)
        mean, deviation = moments(values)
        found.append((name, mean, deviation, values.size))
    return pl.DataFrame(found, schema=SCALER_SCHEMA, orient="row").with_columns(pl.col("mean", "deviation").fill_nan(None))


def scale(rows: pl.DataFrame, scaler: pl.DataFrame) -> pl.DataFrame:
    """The rows with a column `<name>_scaled` beside each column of the scaler: less its mean, over its deviation.

    A column without a deviation gives nulls. The raw columns stay as they are.
    """
    views = []
    for name, mean, deviation in scaler.select("column", "mean", "deviation").iter_rows():
        values = rows[name].cast(pl.Float64).to_numpy()
        scaled = np.full(values.size, math.nan) if deviation is None else (values - mean) / deviation
        views.append(pl.Series(f"{name}_scaled", scaled, nan_to_null=True))
    return rows.with_columns(views)


@kernel("tapehouse.features.windows", error_model="numpy")
def moments(values):
    """Mean and sample deviation of (n,) numbers, summed in their order; NaN where they are not defined, or it is rounding."""
    total, largest = 0.0, 0.0
    for value in values:
        total += value
        largest = max(largest, abs(value))
    mean = total / values.size if values.size else math.nan
    squares = 0.0
    for value in values:
        squares += (value - mean) ** 2
    deviation = math.sqrt(squares / (values.size - 1)) if values.size > 1 else math.nan
    return mean, deviation if deviation > ROUNDING * largest else math.nan
