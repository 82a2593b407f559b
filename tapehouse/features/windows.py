"""Fixed-order kernels of finite windows: every value from the bars of its own window, newest to oldest.

The loops run over the window's bars outside and over the rows inside. Each row still adds its own terms one by one, from
the newest bar to the oldest, so its bits depend on its window alone; but rows are independent of each other, so the
compiler may take several at once, which a loop over one row's window forbids. Running sums would be cheaper still, and
would carry their rounding over from wherever the frame began (promise 3). No `fastmath`, no parallel loops; NumPy's rules
for divisions, since Python's check for zero would end the loop.
"""

import math

import numpy as np
from numba import njit

TRADING_DAYS_PER_YEAR = 252
WINDOW = 20
BOLLINGER_WIDTH = 2.0
# Below this share of the values themselves a deviation is rounding: a price or volume that has not changed has none.
ROUNDING = 1e-12
# M. Parkinson, The Extreme Value Method for Estimating the Variance of the Rate of Return, J. Business 53 (1980).
PARKINSON = 1.0 / (4.0 * math.log(2.0))
# M. Garman, M. Klass, On the Estimation of Security Price Volatilities from Historical Data, J. Business 53 (1980).
GARMAN_KLASS = 2.0 * math.log(2.0) - 1.0
RETURNS = (1, 5, 10, 20, 63)
MOMENTA = (10, 30)
DIVERGENCES = (1, 5, 20)

WINDOWED = (
    "realised_vol_20d",
    "parkinson_vol_20d",
    "garman_klass_vol_20d",
    "vwap_distance_20d",
    "bollinger_position_20d",
    "support_distance_20d",
    "resistance_distance_20d",
    "volume_zscore_20d",
    "gap_1d",
    "range_1d",
)


@njit(cache=True, error_model="numpy")
def daily_log_returns(since, stop, closes, price_factors):
    """(stop,) log return of a holder over each bar from since + 1, dividends reinvested; NaN before."""
    returns = np.full(stop, math.nan)
    for t in range(since + 1, stop):
        returns[t] = math.log(closes[t] / (closes[t - 1] * price_factors[t]))
    return returns


@njit(cache=True, error_model="numpy")
def log_returns(restarts, firsts, stops, closes, price_factors, lengths):
    """Log returns of a holder over so many bars, dividends reinvested.

    Args:
        restarts, firsts, stops: for each year the bar from which its windows may run, and its rows.
        closes, price_factors: (n,). lengths: (k,) bars.

    Returns:
        (k, stops[-1] - firsts[0]), NaN where the window would begin before the restart.
    """
    begin = firsts[0]
    values = np.full((lengths.size, stops[-1] - begin), math.nan)
    for year in range(restarts.size):
        for k in range(lengths.size):
            length = lengths[k]
            low, high = max(firsts[year], restarts[year] + length), stops[year]
            if low >= high:
                continue
            factor = np.ones(high - low)
            for i in range(length):
                step = price_factors[low - i : high - i]
                for j in range(factor.size):
                    factor[j] *= step[j]
            row = values[k, low - begin : high - begin]
            newest, oldest = closes[low:high], closes[low - length : high - length]
            for j in range(factor.size):
                row[j] = math.log(newest[j] / (oldest[j] * factor[j]))
    return values


@njit(cache=True)
def simple_returns(log_returns):
    """exp(x) - 1, by the C library's exp: NumPy's vectorised one differs in the last bit between processors."""
    values = np.empty(log_returns.size)
    for i in range(values.size):
        values[i] = math.exp(log_returns[i]) - 1.0
    return values


@njit(cache=True, error_model="numpy")
def window_features(restarts, firsts, stops, opens, highs, lows, closes, volumes, price_factors, volume_factors, returns):
    """Features of the last 20 bars, restated to each row's own bar; `returns` as from `daily_log_returns`.

    Returns:
        (10, stops[-1] - firsts[0]): rows as in `WINDOWED`, NaN where too few bars have gone before, or undefined.
    """
    begin, newest = firsts[0], stops[-1]
    values = np.full((len(WINDOWED), newest - begin), math.nan)
    oldest = min(max(restarts[0], 0), begin)
    spread = np.full(newest, math.nan)
    body = np.full(newest, math.nan)
    for t in range(oldest, newest):
        if lows[t] > 0.0 and opens[t] > 0.0:
            spread[t] = math.log(highs[t] / lows[t]) ** 2
            body[t] = 0.5 * spread[t] - GARMAN_KLASS * math.log(closes[t] / opens[t]) ** 2
    for year in range(restarts.size):
        first, stop = firsts[year], stops[year]
        for t in range(first, stop):
            values[9, t - begin] = (highs[t] - lows[t]) / closes[t]
            if t > restarts[year] and opens[t] > 0.0:
                values[8, t - begin] = math.log(opens[t] / (closes[t - 1] * price_factors[t]))
        low = max(first, restarts[year] + WINDOW - 1)
        if low < stop:
            out = values[:, low - begin : stop - begin]
            _volatilities_of_ranges(low, stop, spread, body, out[1], out[2])
            _prices(low, stop, highs, lows, closes, volumes, price_factors, volume_factors, out[3], out[4], out[5], out[6])
        low = max(first, restarts[year] + WINDOW)
        if low < stop:
            out = values[:, low - begin : stop - begin]
            _close_to_close(low, stop, returns, out[0])
            _volume_zscore(low, stop, volumes, volume_factors, out[7])
    return values


@njit(cache=True, error_model="numpy")
def _close_to_close(low, high, returns, out):
    """Sample deviation of the last 20 daily log returns, times the root of 252."""
    total, squares = np.zeros(high - low), np.zeros(high - low)
    for i in range(WINDOW):
        step = returns[low - i : high - i]
        for j in range(total.size):
            total[j] += step[j]
    for i in range(WINDOW):
        step = returns[low - i : high - i]
        for j in range(total.size):
            squares[j] += (step[j] - total[j] / WINDOW) ** 2
    for j in range(total.size):
        out[j] = math.sqrt(squares[j] / (WINDOW - 1)) * math.sqrt(TRADING_DAYS_PER_YEAR)


@njit(cache=True, error_model="numpy")
def _volatilities_of_ranges(low, high, spread, body, parkinson, garman_klass):
    spreads, bodies = np.zeros(high - low), np.zeros(high - low)
    for i in range(WINDOW):
        step, other = spread[low - i : high - i], body[low - i : high - i]
        for j in range(spreads.size):
            spreads[j] += step[j]
            bodies[j] += other[j]
    for j in range(spreads.size):
        parkinson[j] = math.sqrt(spreads[j] / WINDOW * PARKINSON) * math.sqrt(TRADING_DAYS_PER_YEAR)
        # Negative only if a close or open lies outside of its bar's range.
        garman_klass[j] = math.sqrt(bodies[j] / WINDOW) * math.sqrt(TRADING_DAYS_PER_YEAR) if bodies[j] >= 0.0 else math.nan


@njit(cache=True, error_model="numpy")
def _prices(low, high, highs, lows, closes, volumes, price_factors, volume_factors, vwap, bollinger, support, resistance):
    """Distances of the close from what the last 20 bars traded at, all in the price basis of the newest."""
    m = high - low
    value, traded, total, squares = np.zeros(m), np.zeros(m), np.zeros(m), np.zeros(m)
    lowest, highest = np.full(m, math.inf), np.zeros(m)
    price, shares = np.ones(m), np.ones(m)
    newest = closes[low:high]
    for i in range(WINDOW):
        top, bottom, close = highs[low - i : high - i], lows[low - i : high - i], closes[low - i : high - i]
        price_step, share_step = price_factors[low - i : high - i], volume_factors[low - i : high - i]
        volume = volumes[low - i : high - i]
        for j in range(m):
            amount = volume[j] * shares[j]
            value[j] += (top[j] + bottom[j] + close[j]) / 3.0 * price[j] * amount
            traded[j] += amount
            total[j] += close[j] * price[j]
            lowest[j] = min(lowest[j], bottom[j] * price[j])
            highest[j] = max(highest[j], top[j] * price[j])
            price[j] *= price_step[j]
            shares[j] *= share_step[j]
    for j in range(m):
        price[j] = 1.0
    for i in range(WINDOW):
        close, price_step = closes[low - i : high - i], price_factors[low - i : high - i]
        for j in range(m):
            squares[j] += (close[j] * price[j] - total[j] / WINDOW) ** 2
            price[j] *= price_step[j]
    for j in range(m):
        vwap[j] = newest[j] / (value[j] / traded[j]) - 1.0 if traded[j] > 0.0 else math.nan
        band = BOLLINGER_WIDTH * math.sqrt(squares[j] / WINDOW)
        mean = total[j] / WINDOW
        bollinger[j] = (newest[j] - (mean - band)) / (2.0 * band) if band > ROUNDING * mean else math.nan
        support[j] = newest[j] / lowest[j] - 1.0
        resistance[j] = newest[j] / highest[j] - 1.0


@njit(cache=True, error_model="numpy")
def _volume_zscore(low, high, volumes, volume_factors, out):
    """The bar's volume in sample deviations from the mean of the 20 bars before it; NaN where those are all equal."""
    m = high - low
    total, squares, factor = np.zeros(m), np.zeros(m), np.ones(m)
    for i in range(WINDOW):
        step, past = volume_factors[low - i : high - i], volumes[low - i - 1 : high - i - 1]
        for j in range(m):
            factor[j] *= step[j]
            total[j] += past[j] * factor[j]
    for j in range(m):
        factor[j] = 1.0
    for i in range(WINDOW):
        step, past = volume_factors[low - i : high - i], volumes[low - i - 1 : high - i - 1]
        for j in range(m):
            factor[j] *= step[j]
            squares[j] += (past[j] * factor[j] - total[j] / WINDOW) ** 2
    newest = volumes[low:high]
    for j in range(m):
        deviation = math.sqrt(squares[j] / (WINDOW - 1))
        mean = total[j] / WINDOW
        out[j] = (newest[j] - mean) / deviation if deviation > ROUNDING * mean else math.nan


@njit(cache=True, error_model="numpy")
def market_returns(restarts, firsts, stops, matched, market_closes, market_factors, market_latest, lengths):
    """Log returns of the index between the closes of the ends of each row's windows.

    Args:
        matched: (n,) for each own bar the position of the index bar that closes with it, or -1.
        lengths: (k,) own bars of the windows, ascending.

    Returns:
        (k, stops[-1] - firsts[0]) returns, NaN where the window would begin before the restart, or the index lacks an
        end; known: (stops[-1] - firsts[0],) int64, the latest of `market_latest` in the longest of the windows, or the
        least int64 without any.
    """
    begin = firsts[0]
    returns = np.full((lengths.size, stops[-1] - begin), math.nan)
    known = np.full(stops[-1] - begin, np.iinfo(np.int64).min)
    for year in range(restarts.size):
        for t in range(firsts[year], stops[year]):
            newest = matched[t]
            if newest < 0:
                continue
            factor, newest_known, reached = 1.0, market_latest[newest], newest
            for k in range(lengths.size):
                start = t - lengths[k]
                if start < restarts[year] or matched[start] < 0:
                    continue
                while reached > matched[start]:
                    factor *= market_factors[reached]
                    reached -= 1
                    newest_known = max(newest_known, market_latest[reached])
                returns[k, t - begin] = math.log(market_closes[newest] / (market_closes[reached] * factor))
                known[t - begin] = newest_known
    return returns, known
