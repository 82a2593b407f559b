"""The common lines of a recorded stream read at once: a scanner of bytes that takes what it is sure of.

It takes differences, tickers and trades in the very form in which the exchange writes them (no blanks, known fields alone,
plain decimals), and leaves every other line to `tapehouse.book_judge.judge`, which decides what a line means: for all that
it takes, the two agree. A decimal of at most 2^53 in its digits over a power of ten up to 22 is read as the quotient of two
exact doubles, which IEEE 754 rounds correctly: the double that any other correct parser gives.
"""

import numpy as np
from numba import njit

from tapehouse.book_judge import EARLIEST_MS, FUTURES, LARGEST_ID, LATEST_MS, SPOT
from tapehouse.book_messages import DIFF, TICKER, TRADE
from tapehouse.kernels import kernel

KIND, MARKET, SYMBOL, RECEIVED, EVENT, FIRST, LAST, PREVIOUS, SOLD, AT, FIELDS = range(11)
TENS = 10.0 ** np.arange(23)
LONGEST_SYMBOL = 32
PADDING = bytes(32)  # the scanner looks ahead by fewer bytes before it sees that a line has ended
QUOTE, COMMA, COLON, OPEN, SHUT, DOT, ZERO, NINE = (ord(c) for c in '",:{}.09')
BRACKET, UNBRACKET, FEED, BLANK, BACKSLASH, AT_SIGN = (ord(c) for c in "[]\n \\@")
(
    E_,
    TIME_E,
    TIME_T,
    S_,
    FIRST_U,
    LAST_U,
    PU,
    B_LEVELS,
    A_LEVELS,
    B_PRICE,
    B_SIZE,
    A_PRICE,
    A_SIZE,
    P_,
    Q_,
    T_,
    M_,
    M_SPOT,
    X_,
) = (1 << i for i in range(19))
A_DIFF = E_ | TIME_E | S_ | FIRST_U | LAST_U | B_LEVELS | A_LEVELS
A_TICKER = S_ | LAST_U | B_PRICE | B_SIZE | A_PRICE | A_SIZE
A_TRADE = E_ | TIME_E | TIME_T | S_ | P_ | Q_ | T_ | M_


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


STREAM, DATA, DEPTH, PU_KEY = _bytes('{"stream":"'), _bytes(',"data":{'), _bytes("depth"), _bytes('pu"')
DEPTH_UPDATE, BOOK_TICKER, TRADE_EVENT, MARKET_TYPE = (_bytes(t) for t in ("depthUpdate", "bookTicker", "trade", "MARKET"))
TRUE, FALSE = _bytes("true"), _bytes("false")


@njit(cache=True)
def _same(data, at, word):
    for i in range(word.size):  # noqa: SIM110 - numba compiles no generators
        if data[at + i] != word[i]:
            return False
    return True


@njit(cache=True)
def _whole(data, at):
    """A whole number of up to 18 digits as JSON has it, and where it ends; -1 where it is none."""
    value, start = np.int64(0), at
    while ZERO <= data[at] <= NINE:
        value = value * 10 + (data[at] - ZERO)
        at += 1
        if at - start > 18:
            return value, -1
    if at == start or (data[start] == ZERO and at - start > 1):
        return value, -1
    return value, at


@njit(cache=True)
def _decimal(data, at):
    """A decimal number in quotes, and where it ends; -1 where it is none, or has more digits than a double is sure of."""
    if data[at] != QUOTE:
        return 0.0, -1
    at += 1
    digits, behind, start, point = np.int64(0), 0, at, -1
    while True:
        c = data[at]
        if ZERO <= c <= NINE:
            digits = digits * 10 + (c - ZERO)
        elif c == DOT and point < 0 and at > start:
            point = at
        else:
            break
        at += 1
        if at - start > 17:
            return 0.0, -1
    if c != QUOTE or at == start or point == at - 1 or digits > 9007199254740992:
        return 0.0, -1
    if point >= 0:
        behind = at - point - 1
    return digits / TENS[behind], at + 1


@njit(cache=True)
def _text(data, at):
    """Where a quoted text of plain ASCII begins and ends; -1 where it is none."""
    if data[at] != QUOTE:
        return at, -1
    start = at + 1
    at = start
    while data[at] != QUOTE:
        if data[at] < BLANK or data[at] > 126 or data[at] == BACKSLASH:
            return start, -1
        at += 1
    return start, at


@njit(cache=True)
def _levels(data, at, prices, sizes, held):
    """Pairs of price and size, written from `held` on; how many are held then, and where they end, -1 where they are none."""
    at += 1
    if data[at] == UNBRACKET:
        return held, at + 1
    while True:
        if data[at] != BRACKET:
            return held, -1
        price, at = _decimal(data, at + 1)
        if at < 0 or data[at] != COMMA or price <= 0.0:
            return held, -1
        size, at = _decimal(data, at + 1)
        if at < 0 or data[at] != UNBRACKET:
            return held, -1
        prices[held], sizes[held] = price, size
        held += 1
        at += 2
        if data[at - 1] == UNBRACKET:
            return held, at
        if data[at - 1] != COMMA:
            return held, -1


@njit(cache=True)
def _symbol(data, start, stop, symbols):
    """Position of a known symbol, else -1; a row of `symbols` is its length and its bytes."""
    for k in range(symbols.shape[0]):
        if symbols[k, 0] == stop - start and _same(data, start, symbols[k, 1 : 1 + stop - start]):
            return k
    return -1


@kernel("tapehouse.book_judge", "tapehouse.book_messages")
def scan(data, at, size, market, symbols, heads, ends, levels, singles, n):
    """Read lines from position `at` until one that is not surely usable, or the end.

    Args:
        data: uint8, whole lines up to `size`, and PADDING behind them. market: as `judge`, -1 for either.
        symbols: (k, 1 + LONGEST_SYMBOL) uint8, known ones.
        heads (rows, FIELDS), ends (rows + 1, 2), levels, singles (rows, 2: price and size of a trade): written from row n on.

    Returns:
        Where the first line that was not taken begins, and the number of rows.
    """
    while at < size:
        line, seen = at, 0
        received = np.uint64(0)
        while ZERO <= data[at] <= NINE and at - line < 20:
            received = received * np.uint64(10) + np.uint64(data[at] - ZERO)
            at += 1
        milliseconds = np.int64(received // np.uint64(1_000_000))
        if at - line > 19 or data[at] != BLANK or milliseconds < EARLIEST_MS or milliseconds >= LATEST_MS:
            return line, n
        at += 1
        wrapped, partial = _same(data, at, STREAM), False
        if wrapped:
            start, at = _text(data, at + STREAM.size - 1)
            if at < 0 or not _same(data, at + 1, DATA):
                return line, n
            for i in range(start, at - DEPTH.size - 1):
                if data[i] == AT_SIGN and _same(data, i + 1, DEPTH) and ZERO <= data[i + 1 + DEPTH.size] <= NINE:
                    partial = True
            at += 1 + DATA.size
        elif data[at] == OPEN:
            at += 1
        else:
            return line, n
        held_bids, held_asks = ends[n, 0], ends[n, 1]
        event, symbol = -1, -1
        first = last = previous = sent = done = np.int64(-1)
        bid = bid_size = ask = ask_size = price = amount = 0.0
        sold = market_trade = False
        while True:
            bit = 0
            if data[at] != QUOTE:
                return line, n
            key = data[at + 1]
            if _same(data, at + 1, PU_KEY):
                at += 1
            elif data[at + 2] != QUOTE:
                return line, n
            if data[at + 3] != COLON:
                return line, n
            long_key = data[at + 2] == QUOTE and data[at] != QUOTE
            at += 4
            if long_key:
                previous, at = _whole(data, at)
                bit = PU
            elif key == ord("U"):
                first, at = _whole(data, at)
                bit = FIRST_U
            elif key == ord("u"):
                last, at = _whole(data, at)
                bit = LAST_U
            elif key == ord("t"):
                last, at = _whole(data, at)
                bit = T_
            elif key == ord("E"):
                sent, at = _whole(data, at)
                bit = TIME_E
            elif key == ord("T"):
                done, at = _whole(data, at)
                bit = TIME_T
            elif key == ord("b") and data[at] == BRACKET:
                held_bids, at = _levels(data, at, levels[0], levels[1], held_bids)
                bit = B_LEVELS
            elif key == ord("a") and data[at] == BRACKET:
                held_asks, at = _levels(data, at, levels[2], levels[3], held_asks)
                bit = A_LEVELS
            elif key == ord("b"):
                bid, at = _decimal(data, at)
                bit = B_PRICE
            elif key == ord("B"):
                bid_size, at = _decimal(data, at)
                bit = B_SIZE
            elif key == ord("a"):
                ask, at = _decimal(data, at)
                bit = A_PRICE
            elif key == ord("A"):
                ask_size, at = _decimal(data, at)
                bit = A_SIZE
            elif key == ord("p"):
                price, at = _decimal(data, at)
                bit = P_
            elif key == ord("q"):
                amount, at = _decimal(data, at)
                bit = Q_
            elif key == ord("m") or key == ord("M"):
                bit = M_ if key == ord("m") else M_SPOT
                yes = _same(data, at, TRUE)
                if not yes and not _same(data, at, FALSE):
                    return line, n
                at += TRUE.size if yes else FALSE.size
                sold = yes if bit == M_ else sold
            elif key == ord("e") or key == ord("s") or key == ord("X"):
                start, at = _text(data, at)
                if at < 0:
                    return line, n
                if key == ord("e"):
                    bit = E_
                    for code, word in ((DIFF, DEPTH_UPDATE), (TICKER, BOOK_TICKER), (TRADE, TRADE_EVENT)):
                        if at - start == word.size and _same(data, start, word):
                            event = code
                elif key == ord("s"):
                    bit, symbol = S_, _symbol(data, start, at, symbols)
                else:
                    bit, market_trade = X_, at - start == MARKET_TYPE.size and _same(data, start, MARKET_TYPE)
                at += 1
            if bit == 0 or at < 0 or seen & bit:
                return line, n
            seen |= bit
            at += 1
            if data[at - 1] == SHUT:
                break
            if data[at - 1] != COMMA:
                return line, n
        if wrapped:
            if data[at] != SHUT:
                return line, n
            at += 1
        if data[at] != FEED or symbol < 0:
            return line, n
        at += 1
        of = SPOT
        if event == DIFF and (seen == A_DIFF or seen == A_DIFF | TIME_T | PU):
            of = FUTURES if seen & PU else SPOT
            moment = done if of == FUTURES else sent
            if first > last or previous > last or partial:
                return line, n
        elif (event == TICKER and seen == A_TICKER | E_ | TIME_E | TIME_T) or seen == A_TICKER:
            event, of = TICKER, FUTURES if seen & E_ else SPOT
            moment = done
            levels[0][held_bids], levels[1][held_bids] = bid, bid_size
            levels[2][held_asks], levels[3][held_asks] = ask, ask_size
            held_bids, held_asks = held_bids + 1, held_asks + 1
        elif event == TRADE and (seen == A_TRADE | M_SPOT or (seen == A_TRADE | X_ and market_trade)):
            of = FUTURES if seen & X_ else SPOT
            moment = done
            singles[n, 0], singles[n, 1] = price, amount
            if price <= 0.0 or amount <= 0.0:
                return line, n
        else:
            return line, n
        timed = EARLIEST_MS <= moment < LATEST_MS or (event == TICKER and of == SPOT)
        if not timed or (market >= 0 and of != market) or max(last, previous) >= LARGEST_ID:
            return line, n
        heads[n, KIND], heads[n, MARKET], heads[n, SYMBOL] = event, of, symbol
        heads[n, RECEIVED], heads[n, EVENT], heads[n, SOLD] = np.int64(received), moment, sold
        heads[n, FIRST], heads[n, LAST], heads[n, PREVIOUS], heads[n, AT] = first, last, previous, line
        n += 1
        ends[n, 0], ends[n, 1] = held_bids, held_asks
    return at, n
