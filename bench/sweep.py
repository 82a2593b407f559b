"""Seconds for 1,000 settings of a rule on 20 years x 5 symbols by the account's kernel (ours) and by vectorbt (peer).

Settings are a momentum's look-back and threshold: in while the return over the look-back exceeds the threshold. vectorbt
broadcasts all settings at once; ours runs them one after the other. Signals are part of either time. Final equities are
equal to a relative 1e-9. Ratio = peer / ours; peaks of memory, of which ours should be a tenth, go to standard error. With
--quick 100 settings.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.backtest import CASH, FEES, OFF, PEER, PEER_PYTHON, SLIPPAGE  # noqa: E402
from bench.harness import report  # noqa: E402
from tapehouse.backtest.account import simulate  # noqa: E402
from tapehouse.backtest.layout import EXIT_NOW  # noqa: E402

AIM = 1.0
BARS, SYMBOLS, SETTINGS, QUICK_SETTINGS = 20 * 252, 5, 1_000, 100


def market() -> tuple[np.ndarray, np.ndarray]:
    """Opens and closes of random walks."""
    draw = np.random.default_rng(23)
    close = 100.0 * np.exp(np.cumsum(draw.normal(0.0002, 0.015, (BARS, SYMBOLS)), axis=0))
    return close * np.exp(draw.normal(0, 0.004, close.shape)), close


def rules(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Look-backs (sessions) and thresholds (returns) of so many settings."""
    lookbacks = np.linspace(5, 250, count // 4).astype(int)
    return np.repeat(lookbacks, 4), np.tile([-0.02, 0.0, 0.02, 0.05], len(lookbacks))


def ours(opened: np.ndarray, close: np.ndarray, lookbacks: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Final equity (settings x symbols,), symbols of a setting side by side."""
    ones, nothing, zeros = np.ones((BARS, 1)), np.full((BARS, 1), np.nan), np.zeros((BARS, 1))
    none, free, idle = np.full((BARS, 1), -1), np.zeros(1), np.zeros(BARS)
    valid, large = np.zeros((BARS, 1), np.int64), np.full((BARS, 1), 10.0)
    bars = [tuple(np.ascontiguousarray(grid[:, s : s + 1]) for grid in (opened, close)) for s in range(SYMBOLS)]
    final = []
    for lookback, threshold in zip(lookbacks, thresholds, strict=True):
        moved = close[lookback:] / close[:-lookback] - 1.0
        for s in range(SYMBOLS):
            signal, command = np.zeros((BARS, 1), np.int64), np.zeros((BARS, 1), np.int64)
            signal[lookback:-3, 0] = moved[:-3, s] > threshold
            command[lookback:, 0] = (moved[:, s] <= threshold) * EXIT_NOW
            command[-3:] = EXIT_NOW
            own_open, own_close = bars[s]
            ledger, *_ = simulate(
                own_open, own_close, own_close, own_close, ones, zeros, ones, nothing, nothing, nothing, idle, idle, free, free,
                signal, nothing, valid, nothing, large, command, none, none,
                CASH, FEES, 0.0, SLIPPAGE, 0.0, 0.0, np.inf, 1.0, np.inf, np.inf, 1,
                np.inf, np.inf, 0, np.inf, np.inf, 0.0, False, OFF,
            )  # fmt: skip
            final.append(ledger[-1, 0])
    return np.array(final)


def compare(quick: bool) -> tuple[float, float, float]:
    """Seconds of either, and their ratio, after the final equities have been compared."""
    if not PEER_PYTHON.exists():
        raise SystemExit("bench/sweep.py: no environment for vectorbt; run `make bench-env` first")
    opened, close = market()
    lookbacks, thresholds = rules(QUICK_SETTINGS if quick else SETTINGS)
    ours(opened, close, lookbacks[:1], thresholds[:1])  # compiles
    started = time.perf_counter()
    final = ours(opened, close, lookbacks, thresholds)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "market.npz", Path(folder) / "found.npz"
        np.savez(source, open=opened, close=close, lookbacks=lookbacks, thresholds=thresholds, fees=FEES, slippage=SLIPPAGE,
                 cash=CASH)  # fmt: skip
        command = [str(PEER_PYTHON), str(PEER), str(source), str(target)]
        said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
        with np.load(target) as stored:
            np.testing.assert_allclose(final, stored["final"], rtol=1e-9)
    print(f"peaks: ours {peak:,.0f} MiB, peer {float(said[-1]):,.0f} MiB: {peak / float(said[-1]):.2f}", file=sys.stderr)
    return seconds, float(said[-2]), float(said[-2]) / seconds


if __name__ == "__main__":
    report("sweep", AIM, compare, __doc__)
