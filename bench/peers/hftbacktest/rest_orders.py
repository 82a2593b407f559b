"""Limit orders on a stream by hftbacktest: run by its own interpreter,
`python rest_orders.py events.npy orders.npy out.npy tick lot latency_ns model repeats`.

Orders are sent when their time comes and cancelled at the end of their windows. With `repeats` above zero all of them live in
one pass of the stream, that many times; with 0 each has a pass of its own, from the beginning of the stream to its end, which
is how such a library tries one order after the other. None knows of the others either way. Writes for each order its status
(0 open, 1 filled as maker, 2 as taker) and the time of the fill, and prints the seconds of each repeat, compiling apart.
"""

import sys
import time

import numpy as np
from hftbacktest import FILLED, GTC, LIMIT, BacktestAsset, ROIVectorMarketDepthBacktest
from hftbacktest.types import event_dtype
from numba import njit

AFTERWARDS = 1_000_000_000  # ns, for the last cancellation to be answered


@njit
def run(hbt, first, times, numbers, sends, sides, prices, quantity, code, filled_at):
    """Send and cancel in order of time; then read what became of each order."""
    now = first
    for k in range(times.size):
        if times[k] > now:
            hbt.elapse(times[k] - now)
            now = times[k]
        i = numbers[k]
        if sends[k]:
            if sides[i] > 0:
                hbt.submit_buy_order(0, i, prices[i], quantity, GTC, LIMIT, False)
            else:
                hbt.submit_sell_order(0, i, prices[i], quantity, GTC, LIMIT, False)
        else:
            order = hbt.orders(0).get(i)
            if order is not None and order.cancellable:
                hbt.cancel(0, i, False)
    hbt.elapse(AFTERWARDS)
    for i in range(code.size):
        order = hbt.orders(0).get(i)
        if order is not None and order.status == FILLED:
            code[i] = 1 if order.arr[0].maker else 2
            filled_at[i] = order.exch_timestamp


def backtest(events, tick, lot, latency, model, low, high):
    """The stream with its rules: constant latency, one queue model, orders filled whole, the book a vector of ticks."""
    asset = (
        BacktestAsset()
        .data(events)
        .linear_asset(1.0)
        .constant_order_latency(latency, 0)
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(tick)
        .lot_size(lot)
        .last_trades_capacity(0)
        .roi_lb(low)
        .roi_ub(high)
    )
    chosen = asset.risk_adverse_queue_model() if model == "risk_adverse" else asset.power_prob_queue_model(float(model))
    return ROIVectorMarketDepthBacktest([chosen])


def live(orders, events, lot, rules, code, filled_at):
    """Let these orders live through one pass."""
    sent, ends = orders["sent"], orders["sent"] + orders["window"]
    order = np.argsort(np.concatenate([sent, ends]), kind="stable")
    times = np.concatenate([sent, ends])[order]
    numbers = (order % sent.size).astype(np.int64)
    hbt = backtest(events, *rules)
    first = int(events["local_ts"][0])
    run(hbt, first, times, numbers, order < sent.size, orders["side"], orders["price"], lot, code, filled_at)
    hbt.close()


if __name__ == "__main__":
    source, placed, target = sys.argv[1:4]
    tick, lot, latency, model, repeats = float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]), sys.argv[7], int(sys.argv[8])
    events, orders = np.load(source).view(event_dtype).reshape(-1), np.load(placed)
    code, filled_at = np.zeros(orders.size, np.int64), np.zeros(orders.size, np.int64)
    rules = tick, lot, latency, model, orders["price"].min() * 0.9, orders["price"].max() * 1.1
    live(orders[:1], events, lot, rules, code[:1], filled_at[:1])  # compiles
    for _ in range(max(repeats, 1)):
        code[:], filled_at[:] = 0, 0
        started = time.process_time()
        if repeats:
            live(orders, events, lot, rules, code, filled_at)
        else:
            for i in range(orders.size):
                live(orders[i : i + 1], events, lot, rules, code[i : i + 1], filled_at[i : i + 1])
        print(time.process_time() - started)
    np.save(target, np.stack([code, filled_at]))
