"""Fixed-order kernels of resting limit orders: messages and trades go by once, and each order takes from them what is its own.

Orders wait in the order of arrival, rest in a list for each side and price, and are looked up only where a level or a trade
is at their price. The worst mid since an order's arrival comes from two monotone stacks. So a message costs the levels that
it changes, whatever the number of orders.

Sizes are in units of 10^-8, as floats that hold whole numbers: subtraction is exact.
"""

import math

import numpy as np
from numba import njit

from tapehouse.book_kernels import first_not_below
from tapehouse.kernels import kernel

WAITING, RESTING, THROUGH, QUEUED, TAKEN, ENDED, UNKNOWN = range(7)
OUTCOMES = ("waiting", "resting", "through", "queue", "taken", "ended", "unknown")
BEHIND, PROPORTIONAL, AHEAD = range(3)  # where sizes are taken to vanish that no trade explains
UNITS = 1e8  # of a size: exchanges print at most eight decimals
# What the tuples of arrays hold; see `play_orders`.
ARRIVES, ENDS, SIDE, LIMIT, PLACE, NEXT, BY_ARRIVAL, BY_END = range(8)
CODE, PRICE, TIME, MID, WORST, SHOWN, BY_TIME, SIZE_AHEAD, TRADED, MARKOUT, TOUCHED = range(11)
PRICES, SIZES, HEADS = range(3)
# Positions in a book's vector of whole numbers.
(
    USABLE,  # 1 where the book is valid
    HEARD,  # receive time of the last difference, us
    NOW,  # clock of the last event, us
    ARRIVED,  # orders that have arrived, in the order of arrival
    OVER,  # orders whose window is over, in the order of ends
    FILLS,  # orders executed, in the order of execution
    MARKED,  # of these, those with a markout
    TOP_BUY,  # no order rests to buy above this place among the prices
    LOW_SELL,  # no order rests to sell below this one
    HIGHS,  # entries of the stacks of mids
    LOWS,
    FIELDS,
) = range(12)


@njit(cache=True)
def mid_of(quote):
    """Mid of (bid, ask); NaN where a side is empty."""
    return (quote[0] + quote[1]) / 2.0 if quote[0] > 0.0 and quote[1] > 0.0 else math.nan


@njit(cache=True)
def push(stack, held, at, value, sign):
    """Put a mid on a stack of the worst ones: entries later in time are ever better ones. Returns how many are held."""
    while held > 0 and sign * stack[held - 1, 1] <= sign * value:
        held -= 1
    stack[held, 0], stack[held, 1] = at, value
    return held + 1


@njit(cache=True)
def worst_since(stack, held, at):
    """The worst mid later than `at`, NaN where there was none."""
    low, high = 0, held
    while low < high:
        middle = (low + high) >> 1
        if stack[middle, 0] <= at:
            low = middle + 1
        else:
            high = middle
    return stack[low, 1] if low < held else math.nan


@njit(cache=True)
def close_order(state, stacks, orders, results, i, code, price, at):
    """An order is over: `code` says how. WORST is the worst mid for it since its arrival, that at arrival included."""
    results[CODE][i] = code
    if code == UNKNOWN:
        return
    side = orders[SIDE][i]
    results[PRICE][i], results[TIME][i] = price, at
    held = state[HIGHS] if side > 0 else state[LOWS]
    worst = worst_since(stacks[0] if side > 0 else stacks[1], held, orders[ARRIVES][i])
    began = results[MID][i]  # the mid at arrival
    results[WORST][i] = began if math.isnan(worst) else side * max(side * began, side * worst)
    if code != ENDED:
        results[BY_TIME][state[FILLS]] = i
        state[FILLS] += 1


@njit(cache=True)
def arrive(state, quote, stacks, orders, ladder, results, silence, i):
    """Order i reaches the book: it takes at once what it crosses, else it joins the end of the queue at its price."""
    at, side, limit = orders[ARRIVES][i], orders[SIDE][i], orders[LIMIT][i]
    mid = mid_of(quote)
    if state[USABLE] == 0 or at - state[HEARD] > silence or math.isnan(mid):
        results[CODE][i] = UNKNOWN
        return
    results[MID][i] = mid
    against = quote[1] if side > 0 else quote[0]
    if side * (limit - against) >= 0.0:
        close_order(state, stacks, orders, results, i, TAKEN, against, at)
        return
    sizes, heads = ladder[SIZES], ladder[HEADS]
    place, row = orders[PLACE][i], 0 if side > 0 else 1
    results[CODE][i] = RESTING
    results[SHOWN][i] = results[SIZE_AHEAD][i] = sizes[row, place]
    results[TRADED][i] = 0.0
    orders[NEXT][i] = heads[row, place]
    heads[row, place] = i
    if side > 0:
        state[TOP_BUY] = max(state[TOP_BUY], place)
    else:
        state[LOW_SELL] = min(state[LOW_SELL], place)


@njit(cache=True)
def advance(state, quote, stacks, orders, ladder, results, rules, until):
    """Arrivals, ends of windows and markouts before the instant `until`, in order of time.

    What happens at an instant is seen by whoever is told of it by then: all events up to an order's arrival and up to its
    end, the instants included, come before. The stream must be seen to go on after an end, else what was missed is unknown.
    """
    silence, markout, goes_on = rules
    by_arrival, by_end = orders[BY_ARRIVAL], orders[BY_END]
    count = by_arrival.size
    never = np.iinfo(np.int64).max
    while True:
        first = orders[ARRIVES][by_arrival[state[ARRIVED]]] if state[ARRIVED] < count else never
        second = orders[ENDS][by_end[state[OVER]]] if state[OVER] < count else never
        third = results[TIME][results[BY_TIME][state[MARKED]]] + markout if state[MARKED] < state[FILLS] else never
        if min(first, second, third) >= until:
            return
        if first <= second and first <= third:
            arrive(state, quote, stacks, orders, ladder, results, silence, by_arrival[state[ARRIVED]])
            state[ARRIVED] += 1
            continue
        at = min(second, third)
        known = state[USABLE] == 1 and at - state[HEARD] <= silence and until - at <= goes_on
        if second <= third:
            i = by_end[state[OVER]]
            state[OVER] += 1
            if results[CODE][i] == RESTING:
                against = quote[1] if orders[SIDE][i] > 0 else quote[0]
                code = ENDED if known and against > 0.0 else UNKNOWN
                close_order(state, stacks, orders, results, i, code, against, second)
        else:
            i = results[BY_TIME][state[MARKED]]
            state[MARKED] += 1
            results[MARKOUT][i] = mid_of(quote) if known else math.nan


@kernel("tapehouse.book_kernels")
def place_of(prices, price, near):
    """Place of a price among ascending ones, or -1 less that of the first above it; looked for from `near` outwards."""
    n = prices.size
    low = first_not_below(prices, n, price, near)
    return low if low < n and prices[low] == price else -1 - low


@njit(cache=True)
def resting(orders, ladder, results, row, place):
    """First order that rests at a place, those that are over being taken off the list; -1 for none."""
    heads = ladder[HEADS]
    i = heads[row, place]
    while i >= 0 and results[CODE][i] != RESTING:
        i = orders[NEXT][i]
    heads[row, place] = i
    j = i
    while j >= 0:
        following = orders[NEXT][j]
        while following >= 0 and results[CODE][following] != RESTING:
            following = orders[NEXT][following]
        orders[NEXT][j] = following
        j = following
    return i


@njit(cache=True)
def shift(orders, ladder, results, cancellations, row, place, before, size):
    """The displayed size at a price has changed: what is ahead of each order there follows by the declared rule."""
    i = resting(orders, ladder, results, row, place)
    while i >= 0:
        ahead, gone = results[SIZE_AHEAD][i], before - size - results[TRADED][i]  # what vanished and was not traded
        results[TRADED][i] = 0.0
        if gone > 0.0 and cancellations == AHEAD:
            ahead = max(ahead - gone, 0.0)
        elif gone > 0.0 and cancellations == PROPORTIONAL and before > 0.0:
            ahead -= gone * min(max(ahead, 0.0) / before, 1.0)
        results[SIZE_AHEAD][i] = min(ahead, size)
        i = orders[NEXT][i]


@kernel("tapehouse.book_kernels")
def trade(state, quote, stacks, orders, ladder, results, at, price, size, bought):
    """A trade: it fills what it goes through, and eats the queue of what rests at its price on the side that it took."""
    prices, m = ladder[PRICES], ladder[PRICES].size
    found = place_of(prices, price, max(min(state[TOP_BUY], m - 1), 0))
    first = found if found >= 0 else -1 - found  # the first price not below that of the trade
    above = first + 1 if found >= 0 else first  # the first price above it
    for row in range(2):
        if row == 0:
            low, high = above, state[TOP_BUY]  # buys above the trade
        else:
            low, high = state[LOW_SELL], first - 1  # sells below it
        for place in range(low, high + 1):
            if ladder[HEADS][row, place] >= 0:
                i = resting(orders, ladder, results, row, place)
                while i >= 0:
                    results[TOUCHED][i] = 1
                    close_order(state, stacks, orders, results, i, THROUGH, prices[place], at)
                    i = orders[NEXT][i]
                ladder[HEADS][row, place] = -1
        if row == 0:
            state[TOP_BUY] = min(state[TOP_BUY], above - 1)
        else:
            state[LOW_SELL] = max(state[LOW_SELL], first)
    row = 1 if bought else 0
    if found < 0 or ladder[HEADS][row, found] < 0:
        return
    i = resting(orders, ladder, results, row, found)
    while i >= 0:
        results[TOUCHED][i] = 1
        results[SIZE_AHEAD][i] -= size
        results[TRADED][i] += size
        if results[SIZE_AHEAD][i] < 0.0:
            close_order(state, stacks, orders, results, i, QUEUED, prices[found], at)
        i = orders[NEXT][i]


@kernel("tapehouse.book_kernels")
def play_orders(
    state, quote, stacks, orders, ladder, results, rules, cancellations,
    known, heard, applied, usable, emptied, best, ends, levels, start, trades, places,
):  # fmt: skip
    """Let orders live through messages and trades.

    Args:
        state (FIELDS,), quote (2,): of the book, changed in place: best bid and ask, 0 for none.
        stacks: two (_, 2) of time and mid, for the worst mids of buys and of sells.
        orders: ARRIVES and ENDS (us), SIDE, LIMIT, PLACE of the limit on the ladder, NEXT in its list; then the orders
            BY_ARRIVAL and BY_END; each (k,).
        ladder: PRICES, the limits, ascending (m,); displayed SIZES (2, m); HEADS, the first order resting at each (2, m).
        results: CODE, PRICE and TIME (us) of execution, MID at arrival, WORST mid, size SHOWN at arrival, orders BY_TIME of
            execution, SIZE_AHEAD, TRADED since the level last changed, mid at the MARKOUT, TOUCHED by a trade; each (k,).
        rules: how long a book may be silent, when after an execution its markout is, how soon the stream must go on, us.
        cancellations: BEHIND, PROPORTIONAL or AHEAD.
        known (n,): clock of the messages, us, ascending. heard, applied, usable, emptied (n,): whether it is a difference,
            changed the book, left it valid, and began it from nothing. best (n, 4), ends, levels: as in
            `tapehouse.book_kernels.play`.
        start: the first message that is new.
        trades: clock (us), price, size (units), whether the buyer took: (t,). places (t,): the message that comes next.
    """
    prices, sizes, heads = ladder
    m, t = prices.size, 0
    for i in range(start, known.size):
        while t < places.size and places[t] <= i:
            at = trades[0][t]
            advance(state, quote, stacks, orders, ladder, results, rules, at)
            state[NOW] = at
            trade(state, quote, stacks, orders, ladder, results, at, trades[1][t], trades[2][t], trades[3][t])
            t += 1
        at = known[i]
        advance(state, quote, stacks, orders, ladder, results, rules, at)
        state[NOW] = at
        if heard[i]:
            state[HEARD] = at
        if emptied[i]:
            ladder[SIZES][:] = 0.0
        if applied[i]:
            for row in range(2):
                near, told, amounts = 0, levels[2 * row], levels[2 * row + 1]
                for j in range(ends[row, i], ends[row, i + 1]):
                    price = told[j]
                    if price < prices[0] or price > prices[m - 1]:
                        continue
                    place = place_of(prices, price, near)
                    near = place if place >= 0 else min(-1 - place, m - 1)
                    if place >= 0:
                        before, size = sizes[row, place], np.rint(amounts[j] * UNITS)
                        sizes[row, place] = size
                        if heads[row, place] >= 0:
                            shift(orders, ladder, results, cancellations, row, place, before, size)
        if usable[i]:
            changed = quote[0] != best[i, 0] or quote[1] != best[i, 2]
            state[USABLE], quote[0], quote[1] = 1, best[i, 0], best[i, 2]
            mid = mid_of(quote)
            if changed and not math.isnan(mid):
                state[HIGHS] = push(stacks[0], state[HIGHS], at, mid, 1.0)
                state[LOWS] = push(stacks[1], state[LOWS], at, mid, -1.0)
        elif state[USABLE] == 1:
            state[USABLE] = 0
            for k in range(state[ARRIVED]):
                if results[CODE][orders[BY_ARRIVAL][k]] == RESTING:
                    results[CODE][orders[BY_ARRIVAL][k]] = UNKNOWN  # what went on meanwhile is not known
