"""Fixed-order kernels of the order book: differences applied one by one, the best levels read off on a cadence.

A side is two arrays in ascending order of a key, so that the best level is the last: the key of a bid is its price, that of
an ask its negative price. A level that is gone stays as a hole, a size of 0, because it mostly comes back, and because the
next hole is where a new level's neighbours are moved to; the last place is never a hole.
"""

from numba import njit

from tapehouse.book_messages import DIFF, SNAPSHOT
from tapehouse.kernels import kernel

STATUSES = ("no_snapshot", "gap", "crossed", "snapshot_apart", "warm_up", "silent", "valid")
NO_SNAPSHOT, GAP, CROSSED, APART, WARM_UP, SILENT, VALID = range(7)
FEWEST_HOLES = 1024  # below which they are left alone
# What became of a difference.
FATES = ("none", "applied", "contained", "unusable")
NONE, APPLIED, CONTAINED, UNUSABLE = range(4)
# Positions in the vector of a book's state.
(
    STATUS,  # VALID, or why the book is not: any of the codes above but SILENT
    SYNCING,  # 1: a snapshot is loaded and waits for the difference that overlaps it
    LAST_ID,  # update id of the book
    BIDS,  # places in use, holes included
    ASKS,
    BID_HOLES,
    ASK_HOLES,
    NEXT_ROW,  # next instant of the cadence, us
    SAID,  # status at the instant before, -1 for none
    HEARD,  # receive time of the last difference, us
    EVENT,  # exchange time of the last message, us
    WARM_FROM,  # receive time at which a warm-up began, us
    STRETCH,  # number of times that the book has become unusable
    STATE,  # length of the vector
) = range(14)


@njit(cache=True)
def first_not_below(keys, n, key, near):
    """Place of the first of n ascending keys that is not below `key`, n for none; looked for from `near` outwards."""
    low, high, step = 0, n, 1
    if near < n and keys[near] < key:  # look further and further away from `near`, then halve
        low = near + 1
        while low + step < n and keys[low + step] < key:
            low += step + 1
            step *= 2
        high = min(n, low + step)
    elif n:
        high = min(near, n - 1)
        while high - step >= 0 and keys[high - step] >= key:
            high -= step
            step *= 2
        low = max(high - step, 0)
        high = min(high + 1, n)
    while low < high:
        middle = (low + high) >> 1
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def set_level(keys, sizes, n, holes, near, key, size):
    """Set the size of one level; 0 takes it away, and does nothing to one that is not held.

    Args:
        n, holes: places in use, and how many of them are holes. near: a place to look first.

    Returns:
        n, holes, and the place of the level.
    """
    low = first_not_below(keys, n, key, near)
    if low < n and keys[low] == key:
        holes += int(size == 0.0) - int(sizes[low] == 0.0)
        sizes[low] = size
    elif size > 0.0:
        if low > 0 and sizes[low - 1] == 0.0:
            low -= 1
            holes -= 1
        else:
            hole = low
            while hole < n and sizes[hole] > 0.0:
                hole += 1
            if hole == n:
                n += 1
            else:
                holes -= 1
            for i in range(hole, low, -1):
                keys[i], sizes[i] = keys[i - 1], sizes[i - 1]
        keys[low], sizes[low] = key, size
    while n > 0 and sizes[n - 1] == 0.0:
        n -= 1
        holes -= 1
    return n, holes, low


@njit(cache=True)
def without_holes(keys, sizes, n):
    """Close the holes; the number of places then in use."""
    held = 0
    for i in range(n):
        if sizes[i] > 0.0:
            keys[held], sizes[held] = keys[i], sizes[i]
            held += 1
    return held


@njit(cache=True)
def apply_levels(state, book, levels, ends, i):
    """Apply the levels of message i to both sides."""
    for side in range(2):
        keys, sizes = book[2 * side], book[2 * side + 1]
        prices, amounts = levels[2 * side], levels[2 * side + 1]
        sign = 1.0 if side == 0 else -1.0
        n, holes = state[BIDS + side], state[BID_HOLES + side]
        near = n - 1
        for j in range(ends[side, i], ends[side, i + 1]):
            n, holes, near = set_level(keys, sizes, n, holes, max(near, 0), sign * prices[j], amounts[j])
        if holes > FEWEST_HOLES and 2 * holes > n:
            n, holes = without_holes(keys, sizes, n), 0
        state[BIDS + side], state[BID_HOLES + side] = n, holes


@njit(cache=True)
def clear(state):
    """Forget all levels."""
    state[BIDS] = state[ASKS] = state[BID_HOLES] = state[ASK_HOLES] = 0


@njit(cache=True)
def crossed(state, book):
    """Whether the best bid is not below the best ask."""
    nb, na = state[BIDS], state[ASKS]
    return nb > 0 and na > 0 and book[0][nb - 1] >= -book[2][na - 1]


@njit(cache=True)
def follows(futures, first, last, previous, book_id, syncing):
    """What a difference is to a book: 0 contained in it, 1 the next one, 2 apart from it.

    Spot: u <= id is contained, U <= id + 1 follows. Futures: u < id of a fresh snapshot is contained, and what overlaps it
    follows (U <= id, or pu <= id, since nothing lies between pu and U); after that pu must be the u before, and what ends
    at or before the book's id has been applied already (Binance, "How to manage a local order book correctly").
    """
    if not futures:
        if last <= book_id:
            return 0
        return 1 if first <= book_id + 1 else 2
    if syncing:
        if last < book_id:
            return 0
        return 1 if previous <= book_id or first <= book_id else 2
    if last <= book_id:
        return 0
    return 1 if previous == book_id else 2


@kernel("tapehouse.book_messages")
def reach(futures, kinds, ids, snapshot_id, oldest, stop):
    """How far the differences from message `oldest` to before `stop` carry a snapshot, looking at ids alone.

    Returns:
        outcome: VALID, they join it without a gap; NO_SNAPSHOT, all are contained in it; APART, the first behind it does
            not overlap it; GAP, one is missing later on. id: reached so far.
    """
    book_id, syncing = snapshot_id, True
    for j in range(oldest, stop):
        if kinds[j] == DIFF:
            what = follows(futures, ids[0, j], ids[1, j], ids[2, j], book_id, syncing)
            if what == 2:
                return (APART if syncing else GAP), book_id
            if what == 1:
                book_id, syncing = ids[1, j], False
    return (NO_SNAPSHOT if syncing else VALID), book_id


@kernel("tapehouse.book_messages")
def take_snapshot(futures, state, book, kinds, ids, ends, levels, fates, oldest, i):
    """Load the snapshot i and replay what was received since `oldest` and lies behind it.

    A valid book takes it only where that leads to the book's own id, so that a snapshot can make no book worse.
    """
    outcome, reached = reach(futures, kinds, ids, ids[1, i], oldest, i)
    valid = state[STATUS] == VALID
    if valid and reached != state[LAST_ID]:
        return
    if not valid and (outcome in (APART, GAP)):
        if outcome == APART and state[STATUS] != WARM_UP:
            state[STATUS] = APART
        return
    clear(state)
    apply_levels(state, book, levels, ends, i)
    book_id, syncing = ids[1, i], True
    for j in range(oldest, i):
        if kinds[j] == DIFF:
            if follows(futures, ids[0, j], ids[1, j], ids[2, j], book_id, syncing) == 1:
                apply_levels(state, book, levels, ends, j)
                book_id, syncing = ids[1, j], False
                fates[j] = APPLIED
            elif fates[j] == UNUSABLE:
                fates[j] = CONTAINED
    state[LAST_ID], state[SYNCING] = reached, int(syncing and not valid)
    if state[SYNCING] == 0:
        state[STATUS] = VALID
        if crossed(state, book):
            state[STATUS] = CROSSED
            state[STRETCH] += 1


@njit(cache=True)
def take_difference(futures, warm_up, state, book, ids, ends, levels, fates, known, i):
    """Apply the difference i where it follows; else say why the book is no longer usable, and warm up if so ruled."""
    state[HEARD] = known
    syncing = state[SYNCING] == 1
    if syncing or state[STATUS] == VALID or state[STATUS] == WARM_UP:
        what = follows(futures, ids[0, i], ids[1, i], ids[2, i], state[LAST_ID], syncing)
        if what == 0:
            fates[i] = CONTAINED
            return
        state[SYNCING] = 0
        if what == 1:
            apply_levels(state, book, levels, ends, i)
            fates[i], state[LAST_ID] = APPLIED, ids[1, i]
            warm = known - state[WARM_FROM] >= warm_up and state[BIDS] > 0 and state[ASKS] > 0
            if crossed(state, book):
                fates[i] = UNUSABLE
                state[STATUS], state[STRETCH] = CROSSED, state[STRETCH] + 1
            elif syncing or state[STATUS] != WARM_UP or warm:
                state[STATUS] = VALID
            return
        state[STATUS], state[STRETCH] = (APART if syncing else GAP), state[STRETCH] + 1
    fates[i] = UNUSABLE
    if warm_up >= 0:
        state[STATUS], state[WARM_FROM], state[LAST_ID] = WARM_UP, known, ids[1, i]
        clear(state)
        apply_levels(state, book, levels, ends, i)
        fates[i] = APPLIED


@njit(cache=True)
def emit(rules, state, book, until, at, marks, tops, held):
    """Rows of the instants before `until`, from row `at` on; the number of rows held then, or -1 where there is no room.

    An instant has a row where the book is valid, where its status has changed since the one before, and where the range
    begins. Args: rules (cadence, silence, first, stop) in us.
    """
    cadence, silence, first, stop = rules
    until = min(until, stop)
    depth = tops.shape[2]
    while state[NEXT_ROW] < until:
        t = state[NEXT_ROW]
        status = state[STATUS]
        if status == VALID and t - state[HEARD] > silence:
            status = SILENT
        if t >= first and (status == VALID or status != state[SAID] or t - cadence < first):
            if at == marks.shape[0]:
                return -1
            marks[at, 0], marks[at, 1], marks[at, 2] = t, status, state[LAST_ID]
            marks[at, 3], marks[at, 4] = state[EVENT], state[HEARD]
            for side in range(2):
                keys, sizes, n = book[2 * side], book[2 * side + 1], 0
                place = state[BIDS + side] - 1 if status == VALID else -1
                while place >= 0 and n < depth:
                    if sizes[place] > 0.0:
                        tops[at, 2 * side, n], tops[at, 2 * side + 1, n] = abs(keys[place]), sizes[place]
                        n += 1
                    place -= 1
                held[at, side] = n
            at += 1
        state[SAID] = status
        state[NEXT_ROW] = t + cadence
        if status != VALID:  # nothing changes before the next message
            jump = -(-until // cadence) * cadence
            if t < first:
                jump = min(jump, -(-first // cadence) * cadence)
            state[NEXT_ROW] = max(state[NEXT_ROW], jump)
    return at


@kernel("tapehouse.book_messages")
def play(
    rules, buffer, warm_up, futures, state, book, start, rows,
    kinds, sequences, times, ids, ends, levels, fates, notes, best, marks, tops, held,
):  # fmt: skip
    """Take the messages from `start` on, in order of arrival, and read the book off at each instant of the cadence.

    Args:
        rules: cadence, silence, first and stop of the rows, us. warm_up: us, negative for none.
        buffer: how far back in `sequences` a snapshot finds differences to replay.
        state, book: of the book, changed in place; `book` has room for every level of these messages.
        kinds (n,). sequences (n,): ascending. times (2, n): receive and exchange time, us. ids (3, n): U, u, pu.
        ends (2, n + 1), levels: bid prices, bid sizes, ask prices, ask sizes, message i holding ends[i]:ends[i + 1].
        fates (n,), notes (n, 4): filled in: what became of each message; after it the book's status and stretch, the book's
            id (before it, where a stretch began), and whether one began.
        best (n, 4): filled in: best bid, its size, best ask, its size after the message; 0 where there is none.
        marks, tops, held: room for rows, `rows` of which are there already.

    Returns:
        The number of messages taken and of rows there; fewer than all where the room for rows ran out.
    """
    oldest = 0
    for i in range(start, kinds.size):
        known = times[0, i]
        if state[NEXT_ROW] < 0:
            state[NEXT_ROW] = -(-known // rules[0]) * rules[0]
        made = emit(rules, state, book, known, rows, marks, tops, held)
        if made < 0:
            return i, marks.shape[0]
        rows = made
        state[EVENT] = times[1, i]
        book_id, stretch = state[LAST_ID], state[STRETCH]
        if kinds[i] == SNAPSHOT:
            while sequences[oldest] < sequences[i] - buffer:
                oldest += 1
            take_snapshot(futures, state, book, kinds, ids, ends, levels, fates, oldest, i)
        elif kinds[i] == DIFF:
            take_difference(futures, warm_up, state, book, ids, ends, levels, fates, known, i)
        began = state[STRETCH] != stretch
        notes[i, 0], notes[i, 1], notes[i, 3] = state[STATUS], state[STRETCH], began
        notes[i, 2] = book_id if began else state[LAST_ID]
        for side in range(2):
            n = state[BIDS + side]
            best[i, 2 * side] = abs(book[2 * side][n - 1]) if n else 0.0
            best[i, 2 * side + 1] = book[2 * side + 1][n - 1] if n else 0.0
    return kinds.size, rows
