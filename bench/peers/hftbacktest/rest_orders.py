"""Limit orders on a stream by hftbacktest: run by its own interpreter,
`python rest_orders.py events.npy orders.npy out.npy tick lot latency_ns model repeats`.

Orders are sent one after the other as their time comes, each cancelled at the end of its window, in one pass of the stream;
none knows of the others. Writes for each order its status (0 open, 1 filled as maker, 2 as taker) and the time of the fill, and
prints the seconds of each repeat (the first compiles).
"""

import sys
import time

import numpy as np
from hftbacktest import FILLED, GTC, LIMIT, BacktestAsset, ROIVectorMarketDepthBacktest
from hftbacktest.types import event_dtype
from numba import njit


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
    hbt.elapse(1_000_000_000)
    for i in range(code.size):
        order = hbt.orders(0).get(i)
        if order is not None and order.status == FILLED:
            code[i] = 1 if order.arr[0].maker else 2
            filled_at[i] = order.exch_timestamp


def asset(events, tick, lot, latency, model, low, high):
    """The stream with its rules: constant latency, one queue model, orders filled whole."""
    made = (
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
    return made.risk_adverse_queue_model() if model == "risk_adverse" else made.power_prob_queue_model(float(model))


if __name__ == "__main__":
    source, placed, target = sys.argv[1:4]
    tick, lot, latency, model, repeats = float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]), sys.argv[7], int(sys.argv[8])
    events = np.load(source).view(event_dtype).reshape(-1)
    orders = np.load(placed)
    sent, ends = orders["sent"], orders["sent"] + orders["window"]
    order = np.argsort(np.concatenate([sent, ends]), kind="stable")
    times = np.concatenate([sent, ends])[order]
    numbers = (order % sent.size).astype(np.int64)
    # The stream's best book structure for its range of prices: a vector of ticks, a tenth beyond the orders on each side.
    low, high = orders["price"].min() * 0.9, orders["price"].max() * 1.1
    first = int(events["local_ts"][0])
    for _ in range(repeats):
        code, filled_at = np.zeros(sent.size, np.int64), np.zeros(sent.size, np.int64)
        started = time.perf_counter()
        hbt = ROIVectorMarketDepthBacktest([asset(events, tick, lot, latency, model, low, high)])
        run(
            hbt, first, times, numbers, order < sent.size, orders["side"], orders["price"], lot, code, filled_at
        )  # fmt: skip
        seconds = time.perf_counter() - started
        hbt.close()
        print(seconds)
    np.save(target, np.stack([code, filled_at]))
