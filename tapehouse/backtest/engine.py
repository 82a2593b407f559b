"""The account, session by session: fills, exits, corporate actions and the ledger, as one Numba kernel over a panel.

Order of events in a session:

1. Corporate actions with this ex-date, in raw prices: a dividend is paid on the shares of the evening before (debited
   on shorts), a split multiplies shares; barriers and resting limits are restated, so that neither looks like a fall.
2. Entries. A market order fills at the open. A limit order fills at the open where the bar opens through it, and at its
   limit where the bar trades strictly through it. All entries of a session are scaled alike where together they would
   break the gross limit; capital that an exit of the same session frees is not counted on.
3. Exits at the decision's barriers, which lie around the open of the first bar that could fill it, for limit orders too;
   the horizon counts from that bar. A gap through a barrier exits at the open; a bar that touches both takes the stop;
   an entry inside the bar can be stopped out on it, but not take its profit.
4. The close: marks, then the vertical barrier, then the ledger.
5. Decisions of this session become orders for the next one, sized by this close. One position or order a symbol.
"""

import numpy as np
from numba import njit

STOP, TAKE, VERTICAL, END = 0, 1, 2, 3
EXIT_REASONS = ("stop", "take", "vertical", "end")

LEDGER = (
    "equity",
    "cash",
    "long_value",
    "short_value",
    "realised",
    "unrealised",
    "dividends",
    "commission",
    "slippage",
    "traded",
)
TRADE_NUMBERS = (
    "entry_price",
    "exit_price",
    "shares",
    "exit_shares",
    "pnl",
    "commission",
    "slippage",
    "dividends",
)
TRADE_INDICES = ("symbol", "side", "decision", "entry", "exit", "reason")
COUNTS = ("signals", "filled", "skipped", "expired", "unexecuted", "scaled", "refused")
SIGNALS, FILLED, SKIPPED, EXPIRED, UNEXECUTED, SCALED, REFUSED = range(7)

NOT_NOW, AT_OPEN, INSIDE_BAR = 0, 1, 2


@njit(cache=True)
def simulate(
    open_,
    high,
    low,
    close,
    ratio,
    dividend,
    signal,
    limit,
    valid,
    atr,
    initial_cash,
    commission,
    slippage,
    barrier_atr,
    vertical,
    gross_limit,
    hold,
):
    """Run one account over `sessions x symbols` arrays.

    Args:
        open_, high, low, close: raw prices; NaN where the symbol has no bar in the session.
        ratio, dividend: what one share of the session before becomes: a number of shares, and cash.
        signal: -1, 0, 1 decided after the session's close.
        limit, valid: limit price (NaN for a market order) and the sessions that it rests.
        atr: average true range at the decision, in its basis; read only where a signal is not 0.
        hold: no barrier ends a position.

    Returns:
        ledger (sessions x LEDGER), trade numbers (trades x TRADE_NUMBERS), trade indices (trades x TRADE_INDICES),
        counts (COUNTS).
    """
    sessions, symbols = close.shape
    ledger = np.zeros((sessions, 10))
    numbers = np.zeros((sessions * symbols, 8))
    indices = np.zeros((sessions * symbols, 6), np.int64)
    counts = np.zeros(7, np.int64)
    trades = 0

    cash = initial_cash
    realised = 0.0
    dividends = 0.0
    commissions = 0.0
    slippages = 0.0

    mark = np.full(symbols, np.nan)
    # The open position of each symbol; shares are signed.
    shares = np.zeros(symbols)
    entry_reference = np.zeros(symbols)
    upper = np.full(symbols, np.inf)
    lower = np.full(symbols, -np.inf)
    deadline = np.zeros(symbols, np.int64)
    slot = np.zeros(symbols, np.int64)
    # The resting order of each symbol.
    order_side = np.zeros(symbols, np.int64)
    order_shares = np.zeros(symbols)
    order_limit = np.full(symbols, np.nan)
    order_left = np.zeros(symbols, np.int64)
    order_atr = np.zeros(symbols)
    order_centre = np.full(symbols, np.nan)
    order_first = np.zeros(symbols, np.int64)
    order_decision = np.zeros(symbols, np.int64)

    fill = np.full(symbols, np.nan)
    executed = np.full(symbols, np.nan)
    entered = np.zeros(symbols, np.int64)

    for t in range(sessions):
        traded = 0.0
        for s in range(symbols):
            if dividend[t, s] != 0.0 and shares[s] != 0.0:
                payment = shares[s] * dividend[t, s]
                cash += payment
                dividends += payment
                numbers[slot[s], 7] += payment
            if dividend[t, s] != 0.0 or ratio[t, s] != 1.0:
                shares[s] *= ratio[t, s]
                entry_reference[s] /= ratio[t, s]
                order_shares[s] *= ratio[t, s]
                # A width shrinks in proportion, as in the features; a level falls by the cash that a share has paid.
                order_atr[s] *= (1.0 - dividend[t, s] / mark[s]) / ratio[t, s]
                mark[s] = (mark[s] - dividend[t, s]) / ratio[t, s]
                upper[s] = (upper[s] - dividend[t, s]) / ratio[t, s]
                lower[s] = (lower[s] - dividend[t, s]) / ratio[t, s]
                order_limit[s] = (order_limit[s] - dividend[t, s]) / ratio[t, s]
                order_centre[s] = (order_centre[s] - dividend[t, s]) / ratio[t, s]

        # Which orders fill, and at what price.
        wanted = 0.0
        equity = cash
        gross = 0.0
        for s in range(symbols):
            entered[s] = NOT_NOW
            present = not np.isnan(close[t, s])
            price = open_[t, s] if present else mark[s]
            if shares[s] != 0.0:
                equity += shares[s] * price
                gross += abs(shares[s]) * price
            if order_side[s] == 0 or not present:
                continue
            if np.isnan(order_centre[s]):
                order_centre[s] = price
                order_first[s] = t
            side = order_side[s]
            level = order_limit[s]
            if np.isnan(level):
                entered[s] = AT_OPEN
                fill[s] = price
                executed[s] = price * (1.0 + side * slippage)
            elif side * (level - price) > 0.0:
                entered[s] = AT_OPEN
                fill[s] = price
                if order_first[s] == t:
                    # Sent through the market: it takes liquidity, though never beyond its limit.
                    taken = price * (1.0 + side * slippage)
                    executed[s] = min(level, taken) if side > 0 else max(level, taken)
                else:
                    executed[s] = price
            elif (side > 0 and low[t, s] < level) or (side < 0 and high[t, s] > level):
                entered[s] = INSIDE_BAR
                fill[s] = level
                executed[s] = level
            if entered[s] != NOT_NOW:
                wanted += order_shares[s] * fill[s]

        cost = slippage + commission * (1.0 + slippage)
        room = (gross_limit * equity - gross) / (1.0 + gross_limit * cost)
        scale = 1.0
        if wanted > 0.0 and wanted > room:
            scale = max(room, 0.0) / wanted

        for s in range(symbols):
            if entered[s] == NOT_NOW:
                continue
            side = order_side[s]
            quantity = side * order_shares[s] * scale
            order_side[s] = 0
            if quantity == 0.0:
                entered[s] = NOT_NOW
                counts[REFUSED] += 1
                continue
            counts[FILLED] += 1
            if scale < 1.0:
                counts[SCALED] += 1
            shares[s] = quantity
            entry_reference[s] = fill[s]
            fee = abs(quantity) * executed[s] * commission
            slip = abs(quantity) * abs(executed[s] - fill[s])
            cash -= quantity * executed[s] + fee
            commissions += fee
            slippages += slip
            traded += abs(quantity) * executed[s]
            deadline[s] = order_first[s] + vertical - 1
            upper[s] = np.inf
            lower[s] = -np.inf
            if not hold:
                upper[s] = order_centre[s] + barrier_atr * order_atr[s]
                lower[s] = order_centre[s] - barrier_atr * order_atr[s]
            slot[s] = trades
            numbers[trades, 0] = executed[s]
            numbers[trades, 2] = abs(quantity)
            numbers[trades, 5] = fee
            numbers[trades, 6] = slip
            indices[trades, 0] = s
            indices[trades, 1] = side
            indices[trades, 2] = order_decision[s]
            indices[trades, 3] = t
            trades += 1

        for s in range(symbols):
            present = not np.isnan(close[t, s])
            if present:
                mark[s] = close[t, s]
            if shares[s] == 0.0:
                continue
            price = np.nan
            reason = STOP
            if present:
                side = 1.0 if shares[s] > 0.0 else -1.0
                stop = lower[s] if side > 0.0 else upper[s]
                take = upper[s] if side > 0.0 else lower[s]
                worst = low[t, s] if side > 0.0 else high[t, s]
                best = high[t, s] if side > 0.0 else low[t, s]
                start = open_[t, s] if entered[s] == NOT_NOW else fill[s]
                if side * (start - stop) <= 0.0:
                    price = start
                elif entered[s] == NOT_NOW and side * (start - take) >= 0.0:
                    price = start
                    reason = TAKE
                elif side * (worst - stop) <= 0.0:
                    price = stop
                elif entered[s] != INSIDE_BAR and side * (best - take) >= 0.0:
                    price = take
                    reason = TAKE
                elif not hold and t >= deadline[s]:
                    price = close[t, s]
                    reason = VERTICAL
            if np.isnan(price) and t == sessions - 1:
                price = mark[s]
                reason = END
            if np.isnan(price):
                continue
            quantity = shares[s]
            exit_price = price * (1.0 - slippage) if quantity > 0.0 else price * (1.0 + slippage)
            fee = abs(quantity) * exit_price * commission
            slip = abs(quantity) * abs(exit_price - price)
            gain = quantity * (price - entry_reference[s])
            cash += quantity * exit_price - fee
            realised += gain
            commissions += fee
            slippages += slip
            traded += abs(quantity) * exit_price
            k = slot[s]
            numbers[k, 1] = exit_price
            numbers[k, 3] = abs(quantity)
            numbers[k, 5] += fee
            numbers[k, 6] += slip
            numbers[k, 4] = gain + numbers[k, 7] - numbers[k, 5] - numbers[k, 6]
            indices[k, 4] = t
            indices[k, 5] = reason
            shares[s] = 0.0

        unrealised = 0.0
        longs = 0.0
        shorts = 0.0
        for s in range(symbols):
            if shares[s] != 0.0:
                value = shares[s] * mark[s]
                unrealised += shares[s] * (mark[s] - entry_reference[s])
                if value > 0.0:
                    longs += value
                else:
                    shorts -= value
        equity = cash + longs - shorts
        ledger[t, 0] = equity
        ledger[t, 1] = cash
        ledger[t, 2] = longs
        ledger[t, 3] = shorts
        ledger[t, 4] = realised
        ledger[t, 5] = unrealised
        ledger[t, 6] = dividends
        ledger[t, 7] = commissions
        ledger[t, 8] = slippages
        ledger[t, 9] = traded

        last = t == sessions - 1
        for s in range(symbols):
            if order_side[s] != 0 and not np.isnan(order_limit[s]):
                order_left[s] -= 1
                if order_left[s] <= 0:
                    order_side[s] = 0
                    counts[EXPIRED] += 1
            if last and order_side[s] != 0:
                order_side[s] = 0
                counts[EXPIRED] += 1
            if signal[t, s] == 0:
                continue
            counts[SIGNALS] += 1
            if last:
                counts[UNEXECUTED] += 1
                continue
            if shares[s] != 0.0 or order_side[s] != 0 or equity <= 0.0:
                counts[SKIPPED] += 1
                continue
            level = limit[t, s]
            reference = mark[s] if np.isnan(level) else level
            order_side[s] = signal[t, s]
            order_shares[s] = equity / symbols / reference
            order_limit[s] = level
            order_left[s] = valid[t, s]
            order_atr[s] = atr[t, s]
            order_centre[s] = np.nan
            order_decision[s] = t

    return ledger, numbers[:trades], indices[:trades], counts
