"""Run in vectorbt's own environment: `from_signals.py SOURCE.npz TARGET.npz`; prints seconds (least of several) and peak MiB.

SOURCE has `open`, `close`, `entries`, `exits` of (bars, columns), `fees`, `slippage`, `cash`; signals are those of a bar's
close and are shifted to the next open here. With `lookbacks` and `thresholds` it is a sweep: a momentum rule for every
setting, all at once, as vectorbt broadcasts. TARGET gets `equity`, or of a sweep the `final` equity.
"""

import resource
import sys
import time

import numpy as np
import pandas as pd
import vectorbt as vbt

REPEATS = 5


def portfolio(data, entries, exits):
    """One account a column."""
    return vbt.Portfolio.from_signals(
        data["close"],
        pd.DataFrame(entries).vbt.fshift(1),
        pd.DataFrame(exits).vbt.fshift(1),
        price=data["open"],
        fees=float(data["fees"]),
        slippage=float(data["slippage"]),
        init_cash=float(data["cash"]),
    )


def single(data) -> dict[str, np.ndarray]:
    """Orders and equity of every column."""
    made = portfolio(
        {**data, "close": pd.DataFrame(data["close"]), "open": pd.DataFrame(data["open"])}, data["entries"], data["exits"]
    )
    orders = made.order_records
    return {"equity": made.value().to_numpy(), "price": orders["price"], "size": orders["size"], "bar": orders["idx"],
            "column": orders["col"]}  # fmt: skip


def sweep(data) -> dict[str, np.ndarray]:
    """Final equity of every setting and column."""
    close, columns = data["close"], data["close"].shape[1]
    entries = np.zeros((len(close), columns * len(data["lookbacks"])), bool)
    exits = np.zeros_like(entries)
    for i, (lookback, threshold) in enumerate(zip(data["lookbacks"], data["thresholds"], strict=True)):
        moved = close[lookback:] / close[:-lookback] - 1.0
        entries[lookback:-3, i * columns : (i + 1) * columns] = moved[:-3] > threshold
        exits[lookback:, i * columns : (i + 1) * columns] = moved <= threshold
    exits[-3:] = True
    tiled = {name: pd.DataFrame(np.tile(data[name], len(data["lookbacks"]))) for name in ("open", "close")}
    made = portfolio({**data, **tiled}, entries, exits)
    return {"final": made.final_value().to_numpy()}


def main(source: str, target: str) -> None:
    """Measure the run that the source asks for."""
    with np.load(source) as stored:
        data = dict(stored)
    way = sweep if "lookbacks" in data else single
    found = way(data)  # compiles
    taken = []
    for _ in range(1 if way is sweep else REPEATS):
        started = time.perf_counter()
        found = way(data)
        taken.append(time.perf_counter() - started)
    np.savez(target, **found)
    print(min(taken), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
