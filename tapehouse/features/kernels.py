"""Fixed-order kernels: everything of the price features that sums or recurses.

Sums run over a bar's window from the newest bar to the oldest, recursions from their restart to the row, both in plain
loops: a row's bits depend on the bars of its own window alone, never on where the frame began. No `fastmath`, no
parallel loops: either lets the compiler regroup sums. `cache=True` keeps the machine code between processes.
"""

import math

import numpy as np
from numba import njit

TRADING_DAYS_PER_YEAR = 252
ATR_PERIOD = 14
RSI_PERIOD = 14
MACD_FAST, MACD_SLOW, MACD_SIGNAL = 12, 26, 9
WINDOW = 20
FEATURES = (
    "ret_1d",
    "ret_5d",
    "ret_20d",
    "atr_14",
    "rsi_14",
    "macd",
    "macd_signal",
    "macd_hist",
    "realised_vol_20d",
    "momentum_10d",
    "momentum_30d",
    "vwap_distance_20d",
    "relative_strength_20d",
    "volume_zscore_20d",
)


@njit(cache=True)
def restating_factors(sessions, closes, known, ex_dates, ratios, amounts, action_known):
    """What one share of the bar before is in terms of each bar, by the actions that fall between the two.

    Args:
        sessions: (n,) days, ascending. closes: (n,) raw closes. known: (n,) int64 `known_at` of the bars.
        ex_dates: (m,) days, ascending, a dividend before a split of the same day (its amount is per old share).
        ratios: (m,) new shares per old, 1 for a dividend. amounts: (m,) cash per share, 0 for a split.
        action_known: (m,) int64 `known_at` of the actions.

    Returns:
        price (n,): multiply a price of the bar before by it: 1 / ratio of a split, 1 - amount / close of a dividend.
        volume (n,): multiply a volume of the bar before by it: the split ratio.
        latest (n,): int64, the latest `known_at` of a bar and of the actions that take effect on it.
        bad: position of a dividend that is not below the close before it, or -1.
    """
    n, m = sessions.size, ex_dates.size
    price, volume, latest = np.ones(n), np.ones(n), known.copy()
    action = 0
    while action < m and n > 0 and ex_dates[action] <= sessions[0]:
        action += 1
    for t in range(1, n):
        before = closes[t - 1]
        while action < m and ex_dates[action] <= sessions[t]:
            if amounts[action] >= before:
                return price, volume, latest, action
            factor = (1.0 - amounts[action] / before) / ratios[action]
            price[t] *= factor
            volume[t] *= ratios[action]
            before *= factor
            latest[t] = max(latest[t], action_known[action])
            action += 1
    return price, volume, latest, -1


@njit(cache=True)
def log_return(closes, factors, newest, bars):
    """Log return of a holder over the `bars` bars up to `newest`, dividends reinvested."""
    factor = 1.0
    for t in range(newest, newest - bars, -1):
        factor *= factors[t]
    return math.log(closes[newest] / (closes[newest - bars] * factor))


@njit(cache=True)
def realised_volatility(closes, factors, newest):
    """Sample deviation of the last 20 daily log returns, times the root of 252: per year."""
    returns = np.empty(WINDOW)
    total = 0.0
    for i in range(WINDOW):
        returns[i] = log_return(closes, factors, newest - i, 1)
        total += returns[i]
    mean = total / WINDOW
    squares = 0.0
    for i in range(WINDOW):
        squares += (returns[i] - mean) ** 2
    return math.sqrt(squares / (WINDOW - 1)) * math.sqrt(TRADING_DAYS_PER_YEAR)


@njit(cache=True)
def vwap_distance(highs, lows, closes, volumes, price_factors, volume_factors, newest):
    """Close over the volume-weighted mean of typical prices of the last 20 bars, less one; NaN where nothing traded."""
    value, traded = 0.0, 0.0
    price_factor, volume_factor = 1.0, 1.0
    for t in range(newest, newest - WINDOW, -1):
        shares = volumes[t] * volume_factor
        value += (highs[t] + lows[t] + closes[t]) / 3.0 * price_factor * shares
        traded += shares
        price_factor *= price_factors[t]
        volume_factor *= volume_factors[t]
    if traded <= 0.0:
        return math.nan
    return closes[newest] / (value / traded) - 1.0


@njit(cache=True)
def volume_zscore(volumes, volume_factors, newest):
    """The bar's volume in sample deviations from the mean of the 20 bars before it; NaN where those are all equal."""
    total, factor = 0.0, 1.0
    restated = np.empty(WINDOW)
    for i in range(WINDOW):
        factor *= volume_factors[newest - i]
        restated[i] = volumes[newest - 1 - i] * factor
        total += restated[i]
    mean = total / WINDOW
    squares = 0.0
    for i in range(WINDOW):
        squares += (restated[i] - mean) ** 2
    if squares <= 0.0:
        return math.nan
    return (volumes[newest] - mean) / math.sqrt(squares / (WINDOW - 1))


@njit(cache=True)
def price_rows(
    restart, first, stop,
    highs, lows, closes, volumes, price_factors, volume_factors, latest,
    market_position, market_closes, market_factors, market_latest,
):  # fmt: skip
    """Features of the bars first..stop-1, recursions restarted at the bar `restart` with TA-Lib's seeds.

    Wilder's averages start from the plain mean of their first 14 values; MACD's two averages start at its 26th bar,
    from the means of the last 12 and of all 26 closes, its signal from the mean of the first nine values (J. W. Wilder,
    New Concepts in Technical Trading Systems, 1978; TA-Lib 0.6). When a bar brings an action, whatever is carried over
    from the bars before is multiplied by its factor, so that each row is in the price basis of its own bar.

    Returns:
        values (stop - first, 14): columns as in `FEATURES`, NaN where too few bars have gone before.
        known (stop - first,): int64, the latest `known_at` of the bars and actions since `restart`, and of the
            market's bars of the 20-bar window.
    """
    values = np.full((stop - first, len(FEATURES)), math.nan)
    known = np.empty(stop - first, np.int64)
    fast_weight = 2.0 / (MACD_FAST + 1)
    slow_weight = 2.0 / (MACD_SLOW + 1)
    signal_weight = 2.0 / (MACD_SIGNAL + 1)
    atr = gain = loss = fast = slow = signal = macd = 0.0
    latest_known = latest[restart]
    for t in range(restart, stop):
        age = t - restart
        latest_known = max(latest_known, latest[t])
        if age > 0:
            factor = price_factors[t]
            before = closes[t - 1] * factor
            span = max(highs[t], before) - min(lows[t], before)
            change = closes[t] - before
            up, down = max(change, 0.0), max(-change, 0.0)
            atr, gain, loss = atr * factor, gain * factor, loss * factor
            fast, slow, signal = fast * factor, slow * factor, signal * factor
            if age < ATR_PERIOD:
                atr += span
            elif age == ATR_PERIOD:
                atr = (atr + span) / ATR_PERIOD
            else:
                atr = (atr * (ATR_PERIOD - 1) + span) / ATR_PERIOD
            if age < RSI_PERIOD:
                gain, loss = gain + up, loss + down
            elif age == RSI_PERIOD:
                gain, loss = (gain + up) / RSI_PERIOD, (loss + down) / RSI_PERIOD
            else:
                gain = (gain * (RSI_PERIOD - 1) + up) / RSI_PERIOD
                loss = (loss * (RSI_PERIOD - 1) + down) / RSI_PERIOD
        else:
            fast = slow = 0.0
        if age < MACD_SLOW:
            slow += closes[t]
            if age >= MACD_SLOW - MACD_FAST:
                fast += closes[t]
            if age == MACD_SLOW - 1:
                slow, fast = slow / MACD_SLOW, fast / MACD_FAST
        else:
            slow += slow_weight * (closes[t] - slow)
            fast += fast_weight * (closes[t] - fast)
        macd = fast - slow
        signal_age = age - (MACD_SLOW - 1)
        if 0 <= signal_age < MACD_SIGNAL:
            signal += macd
            if signal_age == MACD_SIGNAL - 1:
                signal /= MACD_SIGNAL
        elif signal_age >= MACD_SIGNAL:
            signal += signal_weight * (macd - signal)
        if t < first:
            continue

        row = values[t - first]
        row_known = latest_known
        if age >= 1:
            row[0] = log_return(closes, price_factors, t, 1)
        if age >= 5:
            row[1] = log_return(closes, price_factors, t, 5)
        if age >= WINDOW:
            row[2] = log_return(closes, price_factors, t, WINDOW)
            row[8] = realised_volatility(closes, price_factors, t)
            row[13] = volume_zscore(volumes, volume_factors, t)
        if age >= ATR_PERIOD:
            row[3] = atr
        if age >= RSI_PERIOD and gain + loss > 0.0:
            row[4] = 100.0 * (gain / (gain + loss))
        if signal_age >= MACD_SIGNAL - 1:
            row[5], row[6], row[7] = macd, signal, macd - signal
        if age >= 10:
            row[9] = math.exp(log_return(closes, price_factors, t, 10)) - 1.0
        if age >= 30:
            row[10] = math.exp(log_return(closes, price_factors, t, 30)) - 1.0
        if age >= WINDOW - 1:
            row[11] = vwap_distance(highs, lows, closes, volumes, price_factors, volume_factors, t)
        if age >= WINDOW and market_position[t] >= 0 and market_position[t - WINDOW] >= 0:
            newest, oldest = market_position[t], market_position[t - WINDOW]
            row[12] = row[2] - log_return(market_closes, market_factors, newest, newest - oldest)
            for i in range(oldest, newest + 1):
                row_known = max(row_known, market_latest[i])
        known[t - first] = row_known
    return values, known
