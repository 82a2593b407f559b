"""Fixed-order kernels of what recurses: restating factors, Wilder's averages and the exponential ones.

Recursions run from their restart to the row in plain loops: a row's bits depend on the bars since the restart alone,
never on where the frame began. No `fastmath`, no parallel loops: either lets the compiler regroup sums. `cache=True`
keeps the machine code between processes.
"""

import math

import numpy as np
from numba import njit

# J. W. Wilder, New Concepts in Technical Trading Systems (1978): one period for ATR, RSI and the directional movement.
PERIOD = 14
MACD_FAST, MACD_SLOW, MACD_SIGNAL = 12, 26, 9
# TA-Lib's own bound below which it takes a denominator for zero.
ZERO = 1e-14
RECURSIVE = ("atr_14", "rsi_14", "macd", "macd_signal", "macd_hist", "plus_di_14", "minus_di_14", "adx_14")


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
def latest_known(restarts, firsts, stops, latest):
    """For each bar of firsts[0]..stops[-1]-1 the latest of `latest` since its year's restart, (m,) int64."""
    known = np.empty(stops[-1] - firsts[0], np.int64)
    for year in range(restarts.size):
        newest = latest[restarts[year]]
        for t in range(restarts[year], stops[year]):
            newest = max(newest, latest[t])
            if t >= firsts[year]:
                known[t - firsts[0]] = newest
    return known


@njit(cache=True)
def recursive_features(restarts, firsts, stops, highs, lows, closes, price_factors):
    """Indicators with a memory, for each year's bars restarted at the bar restarts[year] with TA-Lib's seeds.

    Wilder's averages of the true range and of gains and losses start from the plain mean of their first 14 values. His
    directional movement and its true range start from the sum of their first 13 values and lose a fourteenth a bar; DI
    is 100 times their ratio, ADX starts from the mean of the first 14 DX and is carried over a bar without movement in
    either direction. MACD's two averages start at its 26th bar, from the means of the last 12 and of all 26 closes, its
    signal from the mean of the first nine values (Wilder 1978; TA-Lib 0.6). When a bar brings an action, whatever is
    carried over from the bars before is multiplied by its factor, so that each row is in the price basis of its own bar.

    Returns:
        (8, stops[-1] - firsts[0]): rows as in `RECURSIVE`, NaN where too few bars have gone before, or undefined.
    """
    begin = firsts[0]
    values = np.full((len(RECURSIVE), stops[-1] - begin), math.nan)
    fast_weight = 2.0 / (MACD_FAST + 1)
    slow_weight = 2.0 / (MACD_SLOW + 1)
    signal_weight = 2.0 / (MACD_SIGNAL + 1)
    for year in range(restarts.size):
        restart, first = restarts[year], firsts[year]
        atr = gain = loss = fast = slow = signal = 0.0
        rising = falling = ranged = adx = 0.0
        for t in range(restart, stops[year]):
            age = t - restart
            dx = math.nan
            if age > 0:
                factor = price_factors[t]
                before = closes[t - 1] * factor
                span = max(highs[t], before) - min(lows[t], before)
                change = closes[t] - before
                up, down = max(change, 0.0), max(-change, 0.0)
                if factor != 1.0:
                    atr, gain, loss = atr * factor, gain * factor, loss * factor
                    fast, slow, signal = fast * factor, slow * factor, signal * factor
                    rising, falling, ranged = rising * factor, falling * factor, ranged * factor
                if age > PERIOD:
                    atr = (atr * (PERIOD - 1) + span) / PERIOD
                    gain = (gain * (PERIOD - 1) + up) / PERIOD
                    loss = (loss * (PERIOD - 1) + down) / PERIOD
                else:
                    atr, gain, loss = atr + span, gain + up, loss + down
                    if age == PERIOD:
                        atr, gain, loss = atr / PERIOD, gain / PERIOD, loss / PERIOD

                if age >= PERIOD:
                    rising -= rising / PERIOD
                    falling -= falling / PERIOD
                    ranged -= ranged / PERIOD
                ranged += span
                upward = highs[t] - highs[t - 1] * factor
                downward = lows[t - 1] * factor - lows[t]
                rising += upward if upward > 0.0 and upward > downward else 0.0
                falling += downward if downward > 0.0 and downward > upward else 0.0
                if age >= PERIOD:
                    moved = rising / ranged + falling / ranged if ranged > ZERO else 0.0
                    if moved > ZERO:
                        dx = 100.0 * (abs(rising / ranged - falling / ranged) / moved)
                    if age < 2 * PERIOD:
                        adx += 0.0 if math.isnan(dx) else dx
                        if age == 2 * PERIOD - 1:
                            adx /= PERIOD
                    elif not math.isnan(dx):
                        adx = (adx * (PERIOD - 1) + dx) / PERIOD
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

            row = t - begin
            if age >= PERIOD:
                values[0, row] = atr
                if gain + loss > 0.0:
                    values[1, row] = 100.0 * (gain / (gain + loss))
                if ranged > ZERO:
                    values[5, row] = 100.0 * (rising / ranged)
                    values[6, row] = 100.0 * (falling / ranged)
            if signal_age >= MACD_SIGNAL - 1:
                values[2, row], values[3, row], values[4, row] = macd, signal, macd - signal
            if age >= 2 * PERIOD - 1 and ranged > ZERO:
                values[7, row] = adx
    return values
