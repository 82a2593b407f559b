"""First touches by mlfinpy: run by its own interpreter, `python first_touches.py closes.npy out.npy horizon width`.

Minute bars, every one an event, both barriers at `width` (a fraction) of the event's close, touch by close, one process.
Writes the bar of each event's first touch, -1 for none, and prints the seconds of `get_events` and the peak of memory in MiB.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd
from mlfinpy.labeling.labeling import add_vertical_barrier, get_events

if __name__ == "__main__":
    source, target, horizon, width = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    prices = np.load(source)
    close = pd.Series(prices, pd.date_range("2020-01-01", periods=prices.size, freq="min"))
    # Without a side both barriers lie at the first multiple of the target.
    vertical = add_vertical_barrier(close.index, close, num_minutes=horizon)
    started = time.perf_counter()
    events = get_events(close, close.index, [1, 1], pd.Series(width, close.index), 0.0, 1, vertical, verbose=False)
    seconds = time.perf_counter() - started
    np.save(target, close.index.get_indexer(events["t1"]))
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
