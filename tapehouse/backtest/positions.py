"""The state of one position and of one resting order: how they begin, what an action restates, where a stop moves."""

import numpy as np

from tapehouse.backtest.fills import down, up
from tapehouse.backtest.layout import (
    BEST,
    CENTRE,
    DEADLINE,
    DECIDED,
    ENTRY_LEVEL,
    LEAVING,
    LEFT,
    LIMIT,
    LOWER,
    NO_SIZE,
    ORDERED,
    PASSED_OVER,
    QUANTITY,
    REFERENCE,
    REFERENCE_FX,
    REFUSED,
    RISK,
    SHARES,
    SIDE,
    SIGNALS,
    SKIPPED,
    TO_BREAK_EVEN,
    TOO_LATE,
    TRADE,
    TRAIL_OFF,
    TRAIL_ON,
    TRAILING,
    UNEXECUTED,
    UPPER,
    VETO,
    VETOED,
    WIDTH,
)
from tapehouse.kernels import kernel


@kernel("tapehouse.backtest.layout", inline="always")
def order_of(order, counts, t, last, side, level, valid, width, weight, veto, room, equity, mark, fx):
    """Make the order of a decision after the close of session t, if it comes to one; the decision's fate, counted.

    Args:
        side: 1 or -1. level, valid, width, weight, fx: of the decision, as of `tapehouse.backtest.account.simulate`.
        veto: number of the one that holds, -1 for none. room: whether the symbol may have one more position.
    """
    counts[SIGNALS] += 1
    if last:
        counts[UNEXECUTED] += 1
        return TOO_LATE
    if veto >= 0:
        counts[VETOED] += 1
        return VETO + veto
    if not room or order[SIDE] != 0.0 or equity <= 0.0:
        counts[SKIPPED] += 1
        return PASSED_OVER
    if not weight > 0.0:
        counts[REFUSED] += 1
        return NO_SIZE
    order[SIDE] = side
    order[QUANTITY] = equity * weight / ((mark if np.isnan(level) else level) * fx)
    order[LIMIT] = level
    order[LEFT] = valid
    order[WIDTH] = width
    order[CENTRE] = np.nan
    order[DECIDED] = t
    return ORDERED


@kernel("tapehouse.backtest.fills", "tapehouse.backtest.layout", inline="always")
def open_lot(lot, side, quantity, fill, fx, centre, risk, take_multiple, deadline, trailing, trade, whole):
    """A new position. `risk`: distance of the stop from `centre`; `whole`: whether prices are in ticks."""
    gain = risk * take_multiple if risk < np.inf else np.inf
    lot[SHARES] = side * quantity
    lot[REFERENCE] = lot[ENTRY_LEVEL] = lot[BEST] = fill
    lot[REFERENCE_FX] = fx
    lot[RISK] = risk
    lot[UPPER] = up(centre + (gain if side > 0.0 else risk), whole)
    lot[LOWER] = down(centre - (risk if side > 0.0 else gain), whole)
    lot[TRAILING] = 1.0 if trailing else 0.0
    lot[DEADLINE] = deadline
    lot[TRADE] = trade
    lot[LEAVING] = 0.0


@kernel("tapehouse.backtest.fills", "tapehouse.backtest.layout", inline="always")
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


@kernel("tapehouse.backtest.fills", "tapehouse.backtest.layout", inline="always")
def restate_order(order, dividend, ratio, mark, whole):
    """A resting order after the same. A width shrinks in proportion, as in the features; a level falls by the cash paid."""
    order[QUANTITY] *= ratio
    order[WIDTH] *= (1.0 - dividend / mark) / ratio
    level = (order[LIMIT] - dividend) / ratio
    order[LIMIT] = down(level, whole) if order[SIDE] > 0.0 else up(level, whole)
    order[CENTRE] = (order[CENTRE] - dividend) / ratio


@kernel("tapehouse.backtest.fills", "tapehouse.backtest.layout", inline="always")
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
