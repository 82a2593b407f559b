"""Splits a second for the probability of backtest overfitting: 100 strategies, 16 blocks, 12,870 splits of 4,000 days.

The peer is a plain numpy loop over the splits: it puts the blocks of either half together and takes means and deviations
along the days, as the method is usually written. It runs 500 of the splits, spread over all (100 with --quick); ours runs all.
On those the best strategy and its rank must be equal, and the ratios to 1e-9.
"""

import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from tapehouse.statistics.overfitting import overfitting  # noqa: E402

AIM = 50.0
DAYS, STRATEGIES, BLOCKS = 4_000, 100, 16
SHOWN = 500


def returns() -> np.ndarray:
    """Correlated daily returns of strategies without skill (days, strategies)."""
    draw = np.random.default_rng(11)
    return 0.006 * draw.standard_t(4, (DAYS, 1)) + 0.008 * draw.standard_t(4, (DAYS, STRATEGIES))


def plain_loop(ret: np.ndarray, splits: list[tuple[int, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best strategy in sample, its ratio out of sample, and the logit of its rank there, split by split."""
    parts = np.split(ret, BLOCKS)
    best, outside, logits = [], [], []
    for split in splits:
        inner = np.concatenate([parts[b] for b in split])
        outer = np.concatenate([parts[b] for b in range(BLOCKS) if b not in split])
        inner_ratios = inner.mean(axis=0) / inner.std(axis=0, ddof=1)
        outer_ratios = outer.mean(axis=0) / outer.std(axis=0, ddof=1)
        chosen = int(np.argmax(inner_ratios))
        share = ((outer_ratios < outer_ratios[chosen]).sum() + 1) / (STRATEGIES + 1)
        best.append(chosen)
        outside.append(outer_ratios[chosen])
        logits.append(np.log(share / (1 - share)))
    return np.array(best), np.array(outside), np.array(logits)


def compare(quick: bool) -> tuple[float, float, float]:
    """Splits a second of either, and their ratio."""
    ret = returns()
    splits = list(combinations(range(BLOCKS), BLOCKS // 2))
    shown = np.linspace(0, len(splits) - 1, 100 if quick else SHOWN).astype(int)
    started = time.perf_counter()
    best, outside, logits = plain_loop(ret, [splits[i] for i in shown])
    peer = len(shown) / (time.perf_counter() - started)
    found = overfitting(ret, BLOCKS)
    assert found is not None
    assert np.array_equal(found.chosen[shown], best)
    np.testing.assert_allclose(found.out_of_sample[shown], outside, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.logits[shown], logits, rtol=1e-9, atol=1e-12)
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        overfitting(ret, BLOCKS)
        taken.append(time.perf_counter() - started)
    ours = len(splits) / min(taken)
    return ours, peer, ours / peer


if __name__ == "__main__":
    report("pbo", AIM, compare, __doc__)
