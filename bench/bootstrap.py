"""Resamples a second for the interval of a Sharpe ratio: 10,000 circular block resamples of 5,000 days, by ours and by arch.

The peer is `arch.bootstrap.CircularBlockBootstrap.apply` with a function of numpy. Both draw from the same generator, and
the program asserts first that the indices are identical and every resampled ratio is equal to 1e-9. With --quick 1,000
resamples.
"""

import sys
import time
from pathlib import Path

import numpy as np
from arch.bootstrap import CircularBlockBootstrap

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.bootstrap import SEED, resample, sharpe_draws  # noqa: E402

AIM = 5.0
DAYS, BLOCK = 5_000, 10


def returns() -> np.ndarray:
    """Heavy-tailed daily returns with clustered volatility."""
    draw = np.random.default_rng(3)
    volatility = 0.01 * np.exp(np.convolve(draw.normal(0, 0.1, DAYS), np.ones(20), "same"))
    return 0.0003 + volatility * draw.standard_t(5, DAYS)


def ratio(ret: np.ndarray) -> float:
    """Sharpe ratio a day."""
    return ret.mean() / ret.std(ddof=1)


def by_arch(ret: np.ndarray, draws: int) -> np.ndarray:
    """Resampled ratios (draws,) by arch."""
    return CircularBlockBootstrap(BLOCK, ret, seed=np.random.Generator(np.random.PCG64(SEED))).apply(ratio, draws)[:, 0]


def ours(ret: np.ndarray, draws: int) -> np.ndarray:
    """The same, drawing included."""
    return sharpe_draws(ret, resample(len(ret), BLOCK, draws))


def compare(quick: bool) -> tuple[float, float, float]:
    """Resamples a second of either, and their ratio."""
    draws = 1_000 if quick else 10_000
    ret = returns()
    peer = CircularBlockBootstrap(BLOCK, ret, seed=np.random.Generator(np.random.PCG64(SEED)))
    first = next(iter(peer.bootstrap(1)))[0][0]
    assert np.array_equal(first, ret[resample(DAYS, BLOCK, 1).indices[0]]), "other indices than the peer's"
    np.testing.assert_allclose(ours(ret, draws), by_arch(ret, draws), rtol=1e-9, atol=1e-12)
    seconds = {}
    for way in (ours, by_arch):
        taken = []
        for _ in range(3):
            started = time.perf_counter()
            way(ret, draws)
            taken.append(time.perf_counter() - started)
        seconds[way] = min(taken)
    return draws / seconds[ours], draws / seconds[by_arch], seconds[by_arch] / seconds[ours]


if __name__ == "__main__":
    report("bootstrap", AIM, compare, __doc__)
