"""Where an order fills in a bar and what it pays, where a stop moves, what an action restates: what knows one bar alone."""

import numpy as np
from numba import njit

from tapehouse.backtest.layout import (
    AT_OPEN,
    BEST,
    CENTRE,
    ENTRY_LEVEL,
    INSIDE_BAR,
    LIMIT,
    LOWER,
    NOT_NOW,
    QUANTITY,
    REFERENCE,
    RISK,
    SHARES,
    SIDE,
    STOP,
    TAKE,
    TO_BREAK_EVEN,
    TRAIL_OFF,
    TRAIL_ON,
    TRAILING,
    UPPER,
    WIDTH,
)
from tapehouse.kernels import kernel

# A price on the tick up to rounding stays there.
ROUNDING = 1e-6  # ticks
ULPS = 1e-15  # of a price of very many ticks


@kernel("tapehouse.backtest.layout", inline="always")
def fill_of_order(side, level, price, low, high, first, pushed, whole):
    """When an order fills (NOT_NOW, AT_OPEN, INSIDE_BAR), the price before costs, and the price that is paid.

    Args:
        side: 1.0 buy, -1.0 sell. level: its limit, NaN for a market order. price: the open. first: the first session that could
            fill it. pushed: what taking liquidity costs, a fraction of the price. whole: whether prices are in ticks.
    """
    if np.isnan(level):
        return AT_OPEN, price, paid_price(price * (1.0 + side * pushed), side, whole)
    if side * (level - price) > 0.0:
        if not first:
            return AT_OPEN, price, price
        # Sent through the market: it takes liquidity, though never beyond its limit.
        taken = paid_price(price * (1.0 + side * pushed), side, whole)
        return AT_OPEN, price, min(level, taken) if side > 0.0 else max(level, taken)
    if (side > 0.0 and low < level) or (side < 0.0 and high > level):
        return INSIDE_BAR, level, level
    return NOT_NOW, np.nan, np.nan


@kernel("tapehouse.backtest.layout", inline="always")
def exit_of_bar(quantity, start, low, high, lower, upper, young):
    """Price and reason of an exit at stop or target; NaN for none.

    Args:
        quantity: signed shares. start: the open, or the fill of an entry of this bar. lower, upper: the levels, infinite for
            none.
        young: how the position was entered in this bar, NOT_NOW for an older one.
    """
    side = 1.0 if quantity > 0.0 else -1.0
    stop = lower if side > 0.0 else upper
    take = upper if side > 0.0 else lower
    worst = low if side > 0.0 else high
    best = high if side > 0.0 else low
    if side * (start - stop) <= 0.0:
        return start, STOP
    if young == NOT_NOW and side * (start - take) >= 0.0:
        return start, TAKE
    if side * (worst - stop) <= 0.0:
        return stop, STOP
    if young != INSIDE_BAR and side * (best - take) >= 0.0:
        return take, TAKE
    return np.nan, STOP


@njit(cache=True, inline="always")
def down(price, whole):
    """The tick at or below a price in ticks; as it is without ticks."""
    return np.floor(price * (1.0 + ULPS) + ROUNDING) if whole else price


@njit(cache=True, inline="always")
def up(price, whole):
    """The tick at or above a price in ticks; as it is without ticks."""
    return np.ceil(price * (1.0 - ULPS) - ROUNDING) if whole else price


@njit(cache=True, inline="always")
def paid_price(price, side, whole):
    """The tick that is no better for a buyer (1.0) or seller (-1.0), at least one; as it is without ticks."""
    if not whole:
        return price
    return max(up(price, whole) if side > 0.0 else down(price, whole), 1.0)


@njit(cache=True, inline="always")
def in_lots(quantity, lot):
    """Whole lots of a quantity; as it is without lots."""
    return np.floor(quantity / lot + 1e-9) * lot if lot > 0.0 else quantity


@njit(cache=True, inline="always")
def charged(quantity, executed, fill, commission, fx):
    """Commission, and what was paid beyond the price before costs, both in account currency."""
    return quantity * executed * commission * fx, quantity * abs(executed - fill) * fx


@kernel("tapehouse.backtest.layout", inline="always")
def restate_lot(lot, dividend, ratio, whole):
    """A position after a dividend (cash a share of the evening before) and a split (shares that one becomes).

    In ticks (`whole`) its stop and target stay on them, away from the price.
    """
    lot[SHARES] *= ratio
    lot[REFERENCE] /= ratio
    lot[RISK] /= ratio
    for level in (UPPER, LOWER, BEST, ENTRY_LEVEL):
        lot[level] = (lot[level] - dividend) / ratio
    lot[UPPER], lot[LOWER] = up(lot[UPPER], whole), down(lot[LOWER], whole)


@kernel("tapehouse.backtest.layout", inline="always")
def restate_order(order, dividend, ratio, mark, whole):
    """A resting order after the same. A width shrinks in proportion, as in the features; a level falls by the cash paid."""
    order[QUANTITY] *= ratio
    order[WIDTH] *= (1.0 - dividend / mark) / ratio
    level = (order[LIMIT] - dividend) / ratio
    order[LIMIT] = down(level, whole) if order[SIDE] > 0.0 else up(level, whole)
    order[CENTRE] = (order[CENTRE] - dividend) / ratio


@kernel("tapehouse.backtest.layout", inline="always")
def moved_stop(lot, close, said, break_even, trail_risks, trail_from, whole):
    """Move the stop of a position after a close: it never moves away from the price.

    Args:
        lot: the position's state. close: of this session. said: bits of the decision's command.
        break_even, trail_from: gains in risks, by the close. trail_risks: distance of the trailing stop in risks.
        whole: whether prices are in ticks; the stop then stays on them, away from the price.
    """
    side = 1.0 if lot[SHARES] > 0.0 else -1.0
    lot[BEST] = max(lot[BEST], close) if side > 0.0 else min(lot[BEST], close)
    if lot[RISK] == np.inf:
        return
    gained = side * (close - lot[ENTRY_LEVEL])
    stop = LOWER if side > 0.0 else UPPER
    if said & TRAIL_ON or gained >= trail_from * lot[RISK]:
        lot[TRAILING] = 1.0
    if said & TRAIL_OFF:
        lot[TRAILING] = 0.0
    # To the entry only from the right side of it: a stop beyond the price would be an exit at the next open.
    if (gained >= break_even * lot[RISK] or said & TO_BREAK_EVEN) and gained > 0.0:
        level = lot[ENTRY_LEVEL]
        lot[stop] = max(lot[stop], down(level, whole)) if side > 0.0 else min(lot[stop], up(level, whole))
    if lot[TRAILING] != 0.0 and trail_risks < np.inf:
        level = lot[BEST] - side * trail_risks * lot[RISK]
        lot[stop] = max(lot[stop], down(level, whole)) if side > 0.0 else min(lot[stop], up(level, whole))
