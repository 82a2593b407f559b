"""The walk of resting orders over their windows, compiled: one order, many orders, and pairs of orders drawn by a hash."""

import math

import numpy as np
from numba import njit

BPS = 10_000.0
MISSED, RESTED, TAKEN = 0, 1, 2  # of an order: not filled, filled as a maker, filled as a taker
# What became of a placement; the first four are counted, the last is a pair.
LEFT_OUT, OUT_OF_BAND, INCOMPLETE, NEAR_TIE, TOLD = 0, 1, 2, 3, 4
OFFSET_STEPS, LIMIT_STEPS = 100.0, 1e10  # offsets have two decimals; a price on the tick is the double that prints so
_ONE, _TWO, _THREE = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


@njit(cache=True)
def rest_one(row, column, side, limit, arrival, window, half_spread, opens, highs, lows, ends, shares_step, cash_step):
    """Let one order rest over its window.

    Args:
        row, column: place of the decision's session in the grid. side: 1.0 buy, -1.0 sell.
        limit, arrival: prices in the decision's basis. half_spread: a fraction of the price.
        opens, highs, lows, ends, shares_step, cash_step: (s, n) as in `tapehouse.paths.Paths`, `ends` being the closes.

    Returns:
        filled: `MISSED`, `RESTED`, `TAKEN`, or -1 where the window's last bar is missing. executed: price in the decision's
        basis, NaN for -1. waited: sessions before the fill's, or the window. adverse: largest move against the order in the
        sessions that it rested through unfilled, a fraction of the arrival price, at least 0; the fill's own session is not
        among them, since its bar does not tell what came before the fill. The window's last close in the decision's basis.
    """
    end = column + window
    if end >= opens.shape[1] or math.isnan(ends[row, end]):
        return -1, math.nan, 0, 0.0, math.nan
    shares, cash = 1.0, 0.0
    filled, executed, waited, adverse, opened_yet = MISSED, math.nan, window, 0.0, False
    for t in range(column + 1, end + 1):
        cash += shares * cash_step[row, t]
        shares *= shares_step[row, t]
        if filled != MISSED or math.isnan(opens[row, t]):
            continue
        first, opened_yet = not opened_yet, True
        opened = opens[row, t] * shares + cash
        high, low = highs[row, t] * shares + cash, lows[row, t] * shares + cash
        reach = low if side > 0 else high
        if side * (limit - reach) > 0.0:
            filled, executed, waited = RESTED, limit, t - column - 1
            if side * (limit - opened) > 0.0:
                executed = opened
                if first:  # it never rested: it takes liquidity, though never beyond its limit
                    paid = opens[row, t] * (1.0 + side * half_spread) * shares + cash
                    filled, executed = TAKEN, min(limit, paid) if side > 0 else max(limit, paid)
            continue
        worst = high if side > 0 else low
        adverse = max(adverse, side * (worst / arrival - 1.0))
    if filled == MISSED:
        executed = ends[row, end] * (1.0 + side * half_spread) * shares + cash
    return filled, executed, waited, adverse, ends[row, end] * shares + cash


@njit(cache=True)
def parts(side, arrival, filled, executed, adverse, ended, costs):
    """Shortfall, fees, certainty, risk and markout of one order in bps; `costs` as `tapehouse.orders.terms` gives them."""
    shortfall = -side * (executed / arrival - 1.0) * BPS
    fees = costs[1] if filled == RESTED else costs[2]
    certainty = -costs[3] if filled == MISSED else 0.0
    markout = math.nan if filled == MISSED else side * (ended / executed - 1.0) * BPS
    return shortfall, fees, certainty, -adverse * BPS, markout


@njit(cache=True)
def weighed(shortfall, fees, certainty, risk, weights):
    """The reward: the parts weighed by price, certainty, risk and fees."""
    return weights[0] * shortfall - weights[3] * fees + weights[1] * certainty + weights[2] * risk


@njit(cache=True)
def paid_orders(
    rows, columns, sides, limits, arrivals, window, costs, weights, opens, highs, lows, ends, shares_step, cash_step
):
    """Filled (k,) and waited (k,) as of `rest_one`, and (7, k): executed, shortfall, fees, certainty, risk, reward, markout."""
    count = rows.size
    filled, waited, numbers = np.empty(count, np.int64), np.empty(count, np.int64), np.empty((7, count))
    for i in range(count):
        filled[i], executed, waited[i], adverse, ended = rest_one(
            rows[i], columns[i], sides[i], limits[i], arrivals[i], window, costs[0],
            opens, highs, lows, ends, shares_step, cash_step,
        )  # fmt: skip
        shortfall, fees, certainty, risk, markout = parts(sides[i], arrivals[i], filled[i], executed, adverse, ended, costs)
        numbers[0, i], numbers[1, i], numbers[2, i], numbers[3, i] = executed, shortfall, fees, certainty
        numbers[4, i], numbers[5, i], numbers[6, i] = risk, weighed(shortfall, fees, certainty, risk, weights), markout
    return filled, waited, numbers


@njit(cache=True)
def uniform(key, what):
    """`tapehouse.keyed.mixed_uniform` of one key: the finaliser of SplitMix64, the upper 53 bits."""
    state = (key ^ what) + _ONE
    state = (state ^ (state >> _30)) * _TWO
    state = (state ^ (state >> _27)) * _THREE
    return np.float64((state ^ (state >> _31)) >> _11) * 2.0**-53


@njit(cache=True)
def draw_one(key, whats, buy_share, strata):
    """Side, near and far offset of one placement; `whats` are the hashes of side, stratum, near, far, keep, `strata` (m, 4)."""
    side = 1.0 if uniform(key, whats[0]) < buy_share else -1.0
    which = int(uniform(key, whats[1]) * strata.shape[0])
    near = strata[which, 0] + uniform(key, whats[2]) * (strata[which, 1] - strata[which, 0])
    far = strata[which, 2] + uniform(key, whats[3]) * (strata[which, 3] - strata[which, 2])
    return side, np.rint(near * OFFSET_STEPS) / OFFSET_STEPS, np.rint(far * OFFSET_STEPS) / OFFSET_STEPS


@njit(cache=True)
def tick_one(price, tick_size):
    """A price on the nearest tick, as the double that prints with the tick's decimals."""
    return np.rint(np.rint(price / tick_size) * tick_size * LIMIT_STEPS) / LIMIT_STEPS


@njit(cache=True)
def paid_pairs(
    keys, whats, buy_shares, rates, side_rates, strata, arrivals, atrs, rows, columns, window, costs, weights, near_tie, band,
    largest, tick_size, opens, highs, lows, ends, shares_step, cash_step,
):  # fmt: skip
    """Draw one placement a decision, let both orders rest, and keep the pairs that are told apart.

    Args:
        keys: (k,) of `tapehouse.keyed.row_keys`. whats: (5,) hashes of what is drawn. buy_shares, rates: (k,) chance of a buy,
            and of being kept; side_rates: (2,) factors of the latter for sells and buys. strata: (m, 4) ranges in ATR.
        arrivals, atrs: (k,) in currency. rows, columns, window, costs, weights, opens …: as of `paid_orders`.
        near_tie: smallest margin in bps. band: farthest limit, a fraction of the arrival price. largest: limit, and
            tick_size: in currency.

    Returns:
        counts (5,) of what became of the placements; of the pairs told apart, in the order of the decisions: `at` (m,) which
        decision, `buys` (m,), `fills` (2, m) whether chosen and rejected filled, and `numbers` (8, m), reward, limit, offset
        and markout, each of the chosen and then of the rejected order.
    """
    count = keys.size
    counts = np.zeros(5, np.int64)
    at, buys, fills, numbers = (
        np.empty(count, np.int64),
        np.empty(count, np.bool_),
        np.empty((2, count), np.bool_),
        np.empty((8, count)),
    )
    found = 0
    offsets, limits, rewards, markouts, filled = np.empty(2), np.empty(2), np.empty(2), np.empty(2), np.empty(2, np.int64)
    for i in range(count):
        side, offsets[0], offsets[1] = draw_one(keys[i], whats, buy_shares[i], strata)
        if not uniform(keys[i], whats[4]) < rates[i] * side_rates[1 if side > 0 else 0]:
            counts[LEFT_OUT] += 1
            continue
        for which in range(2):
            limits[which] = tick_one(arrivals[i] - side * offsets[which] * atrs[i], tick_size)
        sane = abs(limits[1] / arrivals[i] - 1.0) <= band and max(limits[0], limits[1]) <= largest
        if not (sane and side * (limits[0] - limits[1]) > 0 and limits[1] > 0):
            counts[OUT_OF_BAND] += 1
            continue
        for which in range(2):
            filled[which], executed, _, adverse, ended = rest_one(
                rows[i], columns[i], side, limits[which], arrivals[i], window, costs[0],
                opens, highs, lows, ends, shares_step, cash_step,
            )  # fmt: skip
            if filled[which] < 0:
                break
            shortfall, fees, certainty, risk, markouts[which] = parts(
                side, arrivals[i], filled[which], executed, adverse, ended, costs
            )
            rewards[which] = weighed(shortfall, fees, certainty, risk, weights)
        if filled[0] < 0 or filled[1] < 0:
            counts[INCOMPLETE] += 1
            continue
        margin = rewards[1] - rewards[0]
        if not abs(margin) >= near_tie:
            counts[NEAR_TIE] += 1
            continue
        chosen = 1 if margin > 0 else 0
        at[found], buys[found] = i, side > 0
        for place, which in enumerate((chosen, 1 - chosen)):
            fills[place, found] = filled[which] != MISSED
            numbers[place, found], numbers[2 + place, found] = rewards[which], limits[which]
            numbers[4 + place, found], numbers[6 + place, found] = offsets[which], markouts[which]
        found += 1
    counts[TOLD] = found
    return counts, at[:found], buys[:found], fills[:, :found], numbers[:, :found]
