"""The walk from an entry to the first barrier, over arrays: what the tables and the benchmark run.

Plain loops in a fixed order, no `fastmath`: an event's result depends on the bars of its own window alone.
"""

import math

import numpy as np
from numba import njit

NOT_REACHED, UPPER, LOWER, VERTICAL, BOTH = 0, 1, 2, 3, 4
# Bars that are passed over at once where their extremes stay inside the barriers. With 16, an event of 390 bars takes about
# 50 comparisons of 390; shorter walks gain nothing.
BLOCK = 16


@njit(cache=True)
def first_touches(rows, first, last, upper, lower, by_close, opens, highs, lows, closes, shares_step, cash_step):
    """Walk each event's bars until a barrier is reached or the vertical one is.

    What is compared is the value of one share held from the event's first bar: its price times the splits since, plus
    the dividends since. A bar without an open is missing: it touches nothing.

    Args:
        rows: (d,) row of each event's path in the grid.
        first: (d,) column of the first bar that counts; negative for an event without an entry.
        last: (d,) column of the vertical barrier. At or beyond the grid's width it is never reached.
        upper, lower: (d,) barriers in the basis of the bar `first`; infinite where there is none.
        by_close: compare closes alone, and exit at them; else highs and lows, exiting at the barrier, or at an open
            that lies beyond it.
        opens, highs, lows, closes, shares_step, cash_step: (s, n) as in `tapehouse.paths.Paths`.

    Returns:
        touched (d,): one of the codes above. exit_value (d,): the value at the exit, NaN for BOTH and NOT_REACHED.
        exit_column (d,): or -1.
    """
    count, width = rows.size, opens.shape[1]
    longest = 0
    for i in range(count):
        if first[i] >= 0:
            longest = max(longest, min(last[i] + 1, width) - first[i])
    blocks = width // BLOCK if longest > 2 * BLOCK else 0
    if by_close:
        highest, lowest = _extremes(blocks, closes, closes, closes, shares_step, cash_step)
    else:
        highest, lowest = _extremes(blocks, opens, highs, lows, shares_step, cash_step)
    touched = np.zeros(count, np.int64)
    exit_value = np.full(count, math.nan)
    exit_column = np.full(count, -1, np.int64)
    for i in range(count):
        row, entered = rows[i], first[i]
        if entered < 0:
            continue
        shares, cash = 1.0, 0.0
        top, bottom = upper[i], lower[i]
        stop, t = min(last[i] + 1, width), entered - 1
        while t + 1 < stop:
            t += 1
            # The vertical barrier is never passed over. Rounding keeps order: no bar's value leaves its block's extremes.
            while t > entered and t % BLOCK == 0 and t // BLOCK < blocks and t + BLOCK < stop:
                high, low = highest[row, t // BLOCK] * shares + cash, lowest[row, t // BLOCK] * shares + cash
                if high >= top or low <= bottom:
                    break
                t += BLOCK
            if t > entered:
                cash += shares * cash_step[row, t]
                shares *= shares_step[row, t]
            if by_close:
                ended = closes[row, t] * shares + cash
                if ended >= top:
                    touched[i] = UPPER
                elif ended <= bottom:
                    touched[i] = LOWER
                elif t == last[i] and not math.isnan(ended):
                    touched[i] = VERTICAL
                else:
                    continue
                exit_value[i] = ended
            else:
                if math.isnan(opens[row, t]):
                    continue
                opened = opens[row, t] * shares + cash
                high, low = highs[row, t] * shares + cash, lows[row, t] * shares + cash
                if opened >= top:
                    touched[i], exit_value[i] = UPPER, opened
                elif opened <= bottom:
                    touched[i], exit_value[i] = LOWER, opened
                elif high >= top and low <= bottom:
                    touched[i] = BOTH
                elif high >= top:
                    touched[i], exit_value[i] = UPPER, top
                elif low <= bottom:
                    touched[i], exit_value[i] = LOWER, bottom
                elif t == last[i]:
                    touched[i], exit_value[i] = VERTICAL, closes[row, t] * shares + cash
                else:
                    continue
            exit_column[i] = t
            break
    return touched, exit_value, exit_column


@njit(cache=True)
def _extremes(blocks, opens, highs, lows, shares_step, cash_step):
    """Highest and lowest price of each block of BLOCK bars; infinite, so that none passes it over, where an action falls in.

    A bar without an open counts for nothing, and a block without bars has its extremes the other way round.
    """
    highest = np.full((opens.shape[0], blocks), -math.inf)
    lowest = np.full((opens.shape[0], blocks), math.inf)
    for row in range(opens.shape[0]):
        for block in range(blocks):
            for t in range(block * BLOCK, (block + 1) * BLOCK):
                if shares_step[row, t] != 1.0 or cash_step[row, t] != 0.0:
                    highest[row, block], lowest[row, block] = math.inf, -math.inf
                    break
                if not math.isnan(opens[row, t]):
                    highest[row, block] = max(highest[row, block], opens[row, t], highs[row, t])
                    lowest[row, block] = min(lowest[row, block], opens[row, t], lows[row, t])
    return highest, lowest
