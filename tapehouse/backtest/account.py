"""The account, session by session: fills, exits, corporate actions, vetoes and the ledger, as one Numba kernel over a panel.

Order of events in a session:

1. Borrow fees and interest for the time since the last close. Corporate actions with this ex-date, in raw prices: a
   dividend is paid on the shares of the evening before (debited on shorts), a split multiplies shares; barriers and resting
   orders are restated, so that neither looks like a fall. A delisting ends positions at its value and cancels orders.
2. Exits that were decided fill at the open.
3. Entries. A market order fills at the open. A limit order fills at the open where the bar opens through it, and at its
   limit where the bar trades strictly through it. Each is at most its share of the average daily volume; entries of one
   session that together would break the gross or the net limit are scaled alike; capital that an exit of the same
   session frees is not counted on.
4. Exits at stop, target and deadline. A gap through a level exits at the open; a bar that touches both takes the stop; an
   entry inside the bar can be stopped out on it, but not take its profit.
5. The close: marks, the deadline, the ledger. Stops then move (break-even, trailing) for the next session.
6. Decisions of this session become orders for the next one, sized by this close, unless a veto holds.
"""

import numpy as np

from tapehouse.backtest.fills import charged, exit_of_bar, fill_of_order, in_lots, paid_price
from tapehouse.backtest.guards import GUARDED, guard_after, guard_of, guard_trade, new_guard
from tapehouse.backtest.layout import (
    CENTRE,
    COUNTS,
    DEADLINE,
    DECIDED,
    DELISTED,
    END,
    ENTRY_PRICE,
    EXIT_LONGS,
    EXIT_NOW,
    EXIT_PRICE,
    EXIT_SHORTS,
    EXPIRED,
    FILLED,
    FIRST,
    LEAVING,
    LEDGER,
    LEFT,
    LIMIT,
    LOT_COLUMNS,
    LOWER,
    NOT_NOW,
    ORDER_COLUMNS,
    QUANTITY,
    REFERENCE,
    REFERENCE_FX,
    REFUSED,
    SCALED,
    SHARES,
    SIDE,
    SIGNAL,
    TRADE,
    TRADE_INDICES,
    TRADE_NUMBERS,
    UPPER,
    VERTICAL,
    WIDTH,
)
from tapehouse.backtest.positions import moved_stop, open_lot, order_of, restate_lot, restate_order
from tapehouse.kernels import kernel


@kernel("tapehouse.backtest.fills", "tapehouse.backtest.guards", "tapehouse.backtest.layout", "tapehouse.backtest.positions")
def simulate(
    open_, high, low, close, ratio, dividend, fx, volume, volatility, delisting, elapsed, rate, tick, lot,
    signal, limit, valid, width, weight, command, blocked_long, blocked_short,
    initial_cash, commission, half_spread, slippage, impact, borrow, participation,
    gross_limit, net_limit, symbol_limit, lots,
    stop_width, take_multiple, vertical, break_even, trail_width, trail_from, centred_on_fill, guards,
):  # fmt: skip
    """Run one account over (sessions, symbols) arrays.

    Args:
        open_, high, low, close: raw prices; NaN where the symbol has no bar in the session.
        ratio, dividend: what one share of the session before becomes: a number of shares, and cash.
        fx: account currency for one unit of the price's. delisting: return from the last mark at which a symbol leaves, NaN.
        volume, volatility: average daily volume (shares) and daily volatility as known before the session; where the volume is
            NaN there is neither a cap nor impact.
        elapsed, rate: (sessions,) years since the last close, and what cash earns a year. tick, lot: (symbols,) 0 for none.
            Where there is a tick, bars and limits are whole numbers of it, dividends and widths are in ticks, and `fx` is for
            one (`tapehouse.backtest.ticks`).
        signal: -1, 0, 1 decided after the session's close. limit, valid: limit price (NaN for a market order) and the
            sessions that it rests. width: the unit of stops (an ATR) at the decision, in its basis; weight: notional
            over equity. command: bits that act on the open position. blocked_long, blocked_short: number of the veto that
            holds for the symbol, or -1.
        commission, half_spread, slippage: fractions of notional. impact: times volatility times √(shares / volume).
        borrow: fraction a year of a short's value. participation: largest share of the average volume, inf for none.
        gross_limit, net_limit, symbol_limit: over equity. lots: open positions that a symbol may have.
        stop_width: of the stop, in widths (inf: none); take_multiple: of the stop's distance (inf: none); vertical: sessions
            (0: none); break_even: gain in risks after which the stop moves to the entry (inf: never); trail_width: in
            widths (inf: none), from a gain of trail_from risks on. centred_on_fill: else on the open of the first bar that
            could fill the order, as labels are.
        guards: see `tapehouse.backtest.guards`.

    Returns:
        ledger (sessions, LEDGER), trade numbers (trades, TRADE_NUMBERS), trade indices (trades, TRADE_INDICES), counts
        (COUNTS), fate (sessions, symbols) of each decision.
    """
    sessions, symbols = close.shape
    ledger = np.zeros((sessions, len(LEDGER)))
    room_for = 256
    numbers = np.zeros((room_for, len(TRADE_NUMBERS)))
    indices = np.zeros((room_for, len(TRADE_INDICES)), np.int64)
    counts = np.zeros(len(COUNTS), np.int64)
    fate = np.zeros((sessions, symbols), np.int16)
    trades = 0

    cash, realised, dividends, interest = initial_cash, 0.0, 0.0, 0.0
    commissions, slippages, borrowed, equity = 0.0, 0.0, 0.0, initial_cash
    mark = np.full(symbols, np.nan)
    mark_fx = np.ones(symbols)
    held = np.zeros((symbols, lots, LOT_COLUMNS))
    count = np.zeros(symbols, np.int64)
    order = np.zeros((symbols, ORDER_COLUMNS))
    guard = new_guard(guards, initial_cash)
    taker = half_spread + slippage

    entered = np.zeros(symbols, np.int64)
    fill = np.zeros(symbols)
    executed = np.zeros(symbols)
    wanted = np.zeros(symbols)

    for t in range(sessions):
        traded = 0.0
        if rate[t] != 0.0 and cash > 0.0:
            earned = cash * rate[t] * elapsed[t]
            cash += earned
            interest += earned

        for s in range(symbols):
            if count[s] > 0 and borrow > 0.0:
                for k in range(lots):
                    if held[s, k, SHARES] < 0.0:
                        fee = -held[s, k, SHARES] * mark[s] * mark_fx[s] * borrow * elapsed[t]
                        cash -= fee
                        borrowed += fee
                        numbers[int(held[s, k, TRADE]), 8] += fee
            if dividend[t, s] != 0.0 or ratio[t, s] != 1.0:
                d, r = dividend[t, s], ratio[t, s]
                for k in range(lots):
                    if held[s, k, SHARES] == 0.0:
                        continue
                    if d != 0.0:
                        payment = held[s, k, SHARES] * d * fx[t, s]
                        cash += payment
                        dividends += payment
                        numbers[int(held[s, k, TRADE]), 7] += payment
                    restate_lot(held[s, k], d, r, tick[s] > 0.0)
                restate_order(order[s], d, r, mark[s], tick[s] > 0.0)
                mark[s] = (mark[s] - d) / r

        # Which orders fill, and at what price.
        gross_wanted, net_wanted = 0.0, 0.0
        worth, gross, net, dearest = cash, 0.0, 0.0, taker
        for s in range(symbols):
            entered[s] = NOT_NOW
            present = not np.isnan(close[t, s])
            gone = not np.isnan(delisting[t, s])
            price = open_[t, s] if present else mark[s]
            own = 0.0
            if count[s] > 0:
                for k in range(lots):
                    value = held[s, k, SHARES] * price * fx[t, s]
                    worth += value
                    own += abs(value)
                    gross += abs(value)
                    net += value
            if gone and order[s, SIDE] != 0.0:
                order[s, SIDE] = 0.0
                counts[EXPIRED] += 1
            if order[s, SIDE] == 0.0 or not present:
                continue
            if np.isnan(order[s, CENTRE]):
                order[s, CENTRE] = price
                order[s, FIRST] = t
            side = order[s, SIDE]
            pushed = taker
            if impact > 0.0 and volume[t, s] > 0.0:
                taken = min(order[s, QUANTITY], participation * volume[t, s])
                pushed += impact * volatility[t, s] * np.sqrt(taken / volume[t, s])
            dearest = max(dearest, pushed)
            when, fill[s], executed[s] = fill_of_order(
                side, order[s, LIMIT], price, low[t, s], high[t, s], order[s, FIRST] == t, pushed, tick[s] > 0.0
            )
            entered[s] = when
            if when == NOT_NOW:
                continue
            if tick[s] > 0.0:  # a taker pays a tick more at least
                dearest = max(dearest, side * (executed[s] / fill[s] - 1.0))
            quantity = order[s, QUANTITY]
            if volume[t, s] > 0.0:
                quantity = min(quantity, participation * volume[t, s])
            if symbol_limit < np.inf:
                quantity = min(quantity, max(symbol_limit * equity - own, 0.0) / (fill[s] * fx[t, s]))
            wanted[s] = quantity
            gross_wanted += quantity * fill[s] * fx[t, s]
            net_wanted += side * quantity * fill[s] * fx[t, s]

        cost = dearest + commission * (1.0 + dearest)
        scale = 1.0
        if gross_wanted > 0.0:
            room = (gross_limit * worth - gross) / (1.0 + gross_limit * cost)
            if gross_wanted > room:
                scale = max(room, 0.0) / gross_wanted
            if abs(net + net_wanted * scale) > net_limit * worth and net_wanted != 0.0:
                space = (net_limit * worth - (net if net_wanted > 0.0 else -net)) / (1.0 + net_limit * cost)
                scale = min(scale, max(space, 0.0) / abs(net_wanted))

        for s in range(symbols):
            if entered[s] == NOT_NOW:
                continue
            side = order[s, SIDE]
            order[s, SIDE] = 0.0
            cut = scale < 1.0 or wanted[s] < order[s, QUANTITY]
            quantity = in_lots(wanted[s] * scale, lot[s])
            if quantity <= 0.0:
                entered[s] = NOT_NOW
                counts[REFUSED] += 1
                continue
            counts[FILLED] += 1
            if cut:
                counts[SCALED] += 1
            k = 0
            while held[s, k, SHARES] != 0.0:
                k += 1
            fee, slip = charged(quantity, executed[s], fill[s], commission, fx[t, s])
            cash -= side * quantity * executed[s] * fx[t, s] + fee
            commissions += fee
            slippages += slip
            traded += quantity * executed[s] * fx[t, s]
            count[s] += 1
            open_lot(
                held[s, k], side, quantity, fill[s], fx[t, s], fill[s] if centred_on_fill else order[s, CENTRE],
                stop_width * order[s, WIDTH], take_multiple, order[s, FIRST] + vertical - 1 if vertical > 0 else np.inf,
                trail_width < np.inf and trail_from <= 0.0, trades, tick[s] > 0.0,
            )  # fmt: skip
            if trades == len(numbers):
                numbers = np.concatenate((numbers, np.zeros_like(numbers)))
                indices = np.concatenate((indices, np.zeros_like(indices)))
            numbers[trades, ENTRY_PRICE] = executed[s]
            numbers[trades, 2] = quantity
            numbers[trades, 5] = fee
            numbers[trades, 6] = slip
            indices[trades, 0] = s
            indices[trades, 1] = np.int64(side)
            indices[trades, 2] = np.int64(order[s, DECIDED])
            indices[trades, 3] = t
            trades += 1

        last = t == sessions - 1
        for s in range(symbols):
            present = not np.isnan(close[t, s])
            gone = not np.isnan(delisting[t, s])
            if gone:
                mark[s] *= 1.0 + delisting[t, s]
            elif present:
                mark[s] = close[t, s]
            mark_fx[s] = fx[t, s]
            if count[s] == 0:
                continue
            for k in range(lots):
                quantity = held[s, k, SHARES]
                if quantity == 0.0:
                    continue
                price, reason = np.nan, END
                if gone:
                    price, reason = mark[s], DELISTED
                elif present:
                    young = NOT_NOW
                    if indices[int(held[s, k, TRADE]), 3] == t:
                        young = entered[s]
                    start = open_[t, s] if young == NOT_NOW else held[s, k, REFERENCE]
                    if held[s, k, LEAVING] != 0.0 and young == NOT_NOW:
                        price, reason = start, SIGNAL
                    else:
                        price, reason = exit_of_bar(
                            quantity, start, low[t, s], high[t, s], held[s, k, LOWER], held[s, k, UPPER], young
                        )
                        if np.isnan(price) and t >= held[s, k, DEADLINE]:
                            price, reason = close[t, s], VERTICAL
                if np.isnan(price) and last:
                    price, reason = mark[s], END
                if np.isnan(price):
                    continue
                pushed = taker
                if impact > 0.0 and volume[t, s] > 0.0:
                    pushed += impact * volatility[t, s] * np.sqrt(abs(quantity) / volume[t, s])
                if reason == DELISTED:
                    pushed = 0.0
                side = 1.0 if quantity > 0.0 else -1.0
                exit_price = price * (1.0 - side * pushed)
                if reason != DELISTED:
                    exit_price = paid_price(exit_price, -side, tick[s] > 0.0)
                fee, slip = charged(abs(quantity), exit_price, price, commission, fx[t, s])
                gain = quantity * (price * fx[t, s] - held[s, k, REFERENCE] * held[s, k, REFERENCE_FX])
                cash += quantity * exit_price * fx[t, s] - fee
                realised += gain
                commissions += fee
                slippages += slip
                traded += abs(quantity) * exit_price * fx[t, s]
                j = int(held[s, k, TRADE])
                numbers[j, EXIT_PRICE] = exit_price
                numbers[j, 3] = abs(quantity)
                numbers[j, 5] += fee
                numbers[j, 6] += slip
                numbers[j, 4] = gain + numbers[j, 7] - numbers[j, 5] - numbers[j, 6] - numbers[j, 8]
                indices[j, 4] = t
                indices[j, 5] = reason
                held[s, k, SHARES] = 0.0
                count[s] -= 1
                guard_trade(guards, guard, t, numbers[j, 4])

        unrealised, longs, shorts = 0.0, 0.0, 0.0
        for s in range(symbols):
            if count[s] == 0:
                continue
            for k in range(lots):
                if held[s, k, SHARES] != 0.0:
                    value = held[s, k, SHARES] * (mark[s] * mark_fx[s])
                    since = mark[s] * mark_fx[s] - held[s, k, REFERENCE] * held[s, k, REFERENCE_FX]
                    unrealised += held[s, k, SHARES] * since
                    if value > 0.0:
                        longs += value
                    else:
                        shorts -= value
        equity = cash + longs - shorts
        row = ledger[t]
        row[0], row[1], row[2], row[3] = equity, cash, longs, shorts
        row[4], row[5], row[6], row[7] = realised, unrealised, dividends, interest
        row[8], row[9], row[10], row[11] = commissions, slippages, borrowed, traded
        guard_after(guards, guard, t, equity)

        for s in range(symbols):
            if order[s, SIDE] != 0.0 and not np.isnan(order[s, LIMIT]):
                order[s, LEFT] -= 1.0
                if order[s, LEFT] <= 0.0:
                    order[s, SIDE] = 0.0
                    counts[EXPIRED] += 1
            if last and order[s, SIDE] != 0.0:
                order[s, SIDE] = 0.0
                counts[EXPIRED] += 1
            said = command[t, s]
            if count[s] > 0 and not np.isnan(close[t, s]):
                for k in range(lots):
                    if held[s, k, SHARES] == 0.0:
                        continue
                    if said & EXIT_NOW or said & (EXIT_LONGS if held[s, k, SHARES] > 0.0 else EXIT_SHORTS):
                        held[s, k, LEAVING] = 1.0
                    moved_stop(held[s, k], close[t, s], said, break_even, trail_width / stop_width, trail_from, tick[s] > 0.0)
            if signal[t, s] == 0:
                continue
            veto = blocked_long[t, s] if signal[t, s] > 0 else blocked_short[t, s]
            if veto < 0:
                paused = guard_of(guards, guard, t)
                veto = GUARDED + paused if paused >= 0 else -1
            fate[t, s] = order_of(
                order[s], counts, t, last, signal[t, s], limit[t, s], valid[t, s], width[t, s], weight[t, s], veto,
                count[s] < lots, equity, mark[s], fx[t, s],
            )  # fmt: skip

    return ledger, numbers[:trades], indices[:trades], counts, fate
