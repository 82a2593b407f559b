"""The kernel of simulated order books: a day's messages played on a ladder of ticks."""

import numpy as np

from tapehouse.book_messages import DIFF, SNAPSHOT
from tapehouse.kernels import kernel

FEWEST_LEVELS = 20  # a side keeps these


@kernel("tapehouse.book_messages")
def walk(kinds, counts, changes, choices, jumps, bids, asks, first_id, delays):
    """Play a day's messages on the ladder; `bids` and `asks` end as the closing book.

    Returns:
        ids (n, 3): U, u and the u before. ends (n, 2): ends of each message's levels in the two lists that follow.
        bid_levels, ask_levels (_, 2): tick and lots. best (n, 4): bid tick, lots, ask tick, lots after the message.
        taker (n,): whether a trade's aggressor bought. lots (n,): of a trade.
    """
    n, half = kinds.size, bids.size // 2
    ids, ends, best = np.zeros((n, 3), np.int64), np.zeros((n, 2), np.int64), np.zeros((n, 4), np.int64)
    snapshots = 0
    for i in range(n):
        snapshots += kinds[i] == SNAPSHOT
    room = changes.shape[0] + snapshots * bids.size + 1
    levels = np.zeros((2, room, 2), np.int64)
    taker, lots = np.zeros(n, np.bool_), np.zeros(n, np.int64)
    held_bids, held_asks = int(np.sum(bids > 0)), int(np.sum(asks > 0))
    bid, ask = half - 1, half + 1
    while bids[bid] == 0:
        bid -= 1
    while asks[ask] == 0:
        ask += 1
    update, at, c = first_id, np.zeros(2, np.int64), 0
    # A snapshot holds the book as it was some messages before it was received.
    next_snapshot = -1
    taken_id, taken_bids, taken_asks = update, bids.copy(), asks.copy()
    for i in range(n):
        if next_snapshot < i:
            next_snapshot = i
            while next_snapshot < n and kinds[next_snapshot] != SNAPSHOT:
                next_snapshot += 1
        if next_snapshot < n and i == max(next_snapshot - delays[next_snapshot], 0):
            taken_id, taken_bids[:], taken_asks[:] = update, bids, asks
        if kinds[i] == SNAPSHOT:
            ids[i, 1] = taken_id
            for tick in range(bids.size - 1, -1, -1):
                if taken_bids[tick] > 0:
                    levels[0, at[0], 0], levels[0, at[0], 1] = tick, taken_bids[tick]
                    at[0] += 1
            for tick in range(bids.size):
                if taken_asks[tick] > 0:
                    levels[1, at[1], 0], levels[1, at[1], 1] = tick, taken_asks[tick]
                    at[1] += 1
        elif kinds[i] == DIFF:
            ids[i, 2], ids[i, 0] = update, update + jumps[i]
            update += jumps[i] - 1 + counts[i]
            ids[i, 1] = update
            for _ in range(counts[i]):
                buys, what, where, size = changes[c]
                c += 1
                side = 0 if buys < 0.5 else 1
                new = 1 + int(size * 4999)
                away = int(-8.0 * np.log(1.0 - where))
                if what < 0.15:  # the touch is taken away
                    away, new = 0, 0
                elif what < 0.35 and ask - bid > 1:  # or improved
                    away = -1
                elif what < 0.5 and away > 0:
                    new = 0
                tick = max(bid - away, 0) if side == 0 else min(ask + away, bids.size - 1)
                ladder = bids if side == 0 else asks
                few = (held_bids if side == 0 else held_asks) <= FEWEST_LEVELS
                at_edge = (side == 0 and bid < FEWEST_LEVELS * 2) or (side == 1 and ask > bids.size - FEWEST_LEVELS * 2)
                if new == 0 and ladder[tick] > 0 and (few or (at_edge and away == 0)):
                    new = ladder[tick] + 1
                change = int(new > 0) - int(ladder[tick] > 0)
                ladder[tick] = new
                if side == 0:
                    held_bids += change
                    bid = max(bid, tick) if new > 0 else bid
                    while bids[bid] == 0:
                        bid -= 1
                else:
                    held_asks += change
                    ask = min(ask, tick) if new > 0 else ask
                    while asks[ask] == 0:
                        ask += 1
                levels[side, at[side], 0], levels[side, at[side], 1] = tick, new
                at[side] += 1
        else:
            ids[i, 1] = update
            taker[i] = choices[i, 0] < 0.5
            lots[i] = 1 + int(choices[i, 1] * 500)
        ends[i, 0], ends[i, 1] = at[0], at[1]
        best[i, 0], best[i, 1], best[i, 2], best[i, 3] = bid, bids[bid], ask, asks[ask]
    return ids, ends, levels[0, : at[0]], levels[1, : at[1]], best, taker, lots
