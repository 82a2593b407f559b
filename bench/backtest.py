"""Seconds for a backtest of 100,000 bars x 10 symbols by our account and by vectorbt (peer); ratio = peer / ours.

`Portfolio.from_signals(close, entries.shift(1), exits.shift(1), price=open)` with fees and slippage, one account a symbol, all
cash in at each entry: signals of one bar in 25, fees of 5 bps, slippage of 10. Orders and equity out. Every order's bar is
equal, price, size and equity to a relative 1e-9. The figure with every veto and moving stop switched on goes to standard error
(its aim is 0.7: other trades, so nothing to compare). vectorbt runs in an environment of its own (`make bench-env`). With
--quick 20,000 bars.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.backtest.account import simulate  # noqa: E402
from tapehouse.backtest.guards import GUARDS, PARAMETERS  # noqa: E402
from tapehouse.backtest.layout import EXIT_NOW  # noqa: E402

AIM = 1.0
BARS, QUICK_BARS, SYMBOLS = 100_000, 20_000, 10
FEES, SLIPPAGE, CASH = 0.0005, 0.001, 1e6
PEER = ROOT / "bench" / "peers" / "vectorbt" / "from_signals.py"
PEER_PYTHON = ROOT / ".venv-vectorbt" / "bin" / "python"
REPEATS = 5
OFF = np.full((len(GUARDS), len(PARAMETERS)), np.nan)
ALL_GUARDS = np.array([[3.0, 20, 10, 5], [0.4, 20, 10, 5], [0.2, 20, 10, 5]])


def market(bars: int) -> dict[str, np.ndarray]:
    """Bars of a random walk, and signals: an entry in one bar of 50, an exit in another; flat at the end."""
    draw = np.random.default_rng(17)
    close = 100.0 * np.exp(np.cumsum(draw.normal(0, 0.001, (bars, SYMBOLS)), axis=0))
    opened = close * np.exp(draw.normal(0, 0.0005, close.shape))
    which = draw.random(close.shape)
    entries, exits = which < 0.02, which > 0.98
    entries[-5:], exits[-5:] = False, False
    exits[-4] = True
    spread = np.abs(draw.normal(0, 0.0005, (2, *close.shape)))
    return {
        "open": opened,
        "high": np.maximum(opened, close) * (1 + spread[0]),
        "low": np.minimum(opened, close) * (1 - spread[1]),
        "close": close,
        "entries": entries,
        "exits": exits,
    }


def ours(data: dict[str, np.ndarray], guarded: bool = False) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Equity (bars, symbols), and trade numbers and indices of every symbol's account."""
    bars = len(data["close"])
    ones, nothing, zeros = np.ones((bars, 1)), np.full((bars, 1), np.nan), np.zeros((bars, 1))
    none, free = np.full((bars, 1), -1), np.zeros(1)
    valid, elapsed, large = np.zeros((bars, 1), np.int64), np.zeros(bars), np.full((bars, 1), 10.0)
    equity, numbers, indices = np.empty_like(data["close"]), [], []
    for s in range(SYMBOLS):
        opened, high, low, close = (np.ascontiguousarray(data[name][:, s : s + 1]) for name in ("open", "high", "low", "close"))
        signal = data["entries"][:, s : s + 1].astype(np.int64)
        command = data["exits"][:, s : s + 1] * EXIT_NOW
        width = 0.02 * close if guarded else nothing
        stops = (1.0, 2.0, 500, 1.0, 1.0, 0.5, True, ALL_GUARDS) if guarded else (
            np.inf, np.inf, 0, np.inf, np.inf, 0.0, False, OFF,
        )  # fmt: skip
        ledger, own, where, _, _ = simulate(
            opened, high, low, close, ones, zeros, ones, nothing, nothing, nothing, elapsed, elapsed, free, free,
            signal, nothing, valid, width, large, command, none, none,
            CASH, FEES, 0.0, SLIPPAGE, 0.0, 0.0, np.inf, 1.0, np.inf, np.inf, 1, *stops,
        )  # fmt: skip
        equity[:, s] = ledger[:, 0]
        numbers.append(own)
        indices.append(where)
    return equity, numbers, indices


def by_vectorbt(data: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """Orders and equity by the peer, and its seconds."""
    if not PEER_PYTHON.exists():
        raise SystemExit("bench/backtest.py: no environment for vectorbt; run `make bench-env` first")
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "market.npz", Path(folder) / "found.npz"
        np.savez(source, **data, fees=FEES, slippage=SLIPPAGE, cash=CASH)
        command = [str(PEER_PYTHON), str(PEER), str(source), str(target)]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        with np.load(target) as stored:
            return dict(stored), float(said[-2])


def least_seconds(data: dict[str, np.ndarray], guarded: bool) -> float:
    """Of several runs, the compiled kernel's."""
    ours(data, guarded)
    taken = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        ours(data, guarded)
        taken.append(time.perf_counter() - started)
    return min(taken)


def compare(quick: bool) -> tuple[float, float, float]:
    """Seconds of either, and their ratio, after every order has been compared."""
    data = market(QUICK_BARS if quick else BARS)
    found, seconds = by_vectorbt(data)
    equity, numbers, indices = ours(data)
    np.testing.assert_allclose(equity, found["equity"], rtol=1e-9)
    for s in range(SYMBOLS):
        own = found["column"] == s
        bars = indices[s][:, [3, 4]].ravel()
        assert np.array_equal(bars, found["bar"][own]), f"symbol {s}: other orders than the peer's"
        np.testing.assert_allclose(numbers[s][:, [0, 1]].ravel(), found["price"][own], rtol=1e-9)
        np.testing.assert_allclose(numbers[s][:, [2, 3]].ravel(), found["size"][own], rtol=1e-9)
    free, guarded = least_seconds(data, False), least_seconds(data, True)
    print(f"{sum(map(len, numbers)):,} trades; with every veto and stop {seconds / guarded:.2f} (aim 0.7)", file=sys.stderr)
    return free, seconds, seconds / free


if __name__ == "__main__":
    report("backtest", AIM, compare, __doc__)
