"""Pairs a second of preference training by ours and by TRL's DPOTrainer (peer), prompts of 256 tokens, answers of 32.

The peer is the better of `DPOTrainer` as it is and with `precompute_ref_log_probs`; the reference's cost is inside the time on
every side. Float32, LoRA of rank 16, no checkpointing, equal threads and allocator, a process for each run, the median of five
(of one with --quick). Asserted first: the loss of a batch and the gradients with a moved adapter are TRL's, and so are the
losses of every step (to 2e-4, for steps add up). Peaks of memory go to standard error: of the whole process, and above
what it holds once its libraries are imported.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402

AIM = 1.8
SIDE = ROOT / "bench" / "peers" / "train_pairs.py"
SIDES = ("ours", "trl", "trl_precomputed")
PAIRS, QUICK_PAIRS, RUNS = 160, 48, 5
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "OMP_WAIT_POLICY": "PASSIVE"}


def run(side: str, pairs: int) -> dict:
    """One process's figures."""
    done = subprocess.run(
        [sys.executable, str(SIDE), side, str(pairs)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env=os.environ | ALLOCATOR,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare(quick: bool) -> tuple[float, float, float]:
    """Pairs a second of ours and of the better peer, and their ratio."""
    pairs, runs = (QUICK_PAIRS, 1) if quick else (PAIRS, RUNS)
    found = {side: [] for side in SIDES}
    for _ in range(runs):  # interleaved, so that a busy moment meets all
        for side in SIDES:
            found[side].append(run(side, pairs))
    ours = found["ours"][0]
    for side in SIDES[1:]:
        theirs = found[side][0]
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=2e-6)
        np.testing.assert_allclose(ours["gradients"], theirs["gradients"], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(ours["losses"], theirs["losses"], atol=2e-4)
    speed = {side: pairs / median(one["seconds"] for one in found[side]) for side in SIDES}
    peak, imported = (
        {side: median(one[name] for one in found[side]) for side in SIDES} for name in ("peak_mib", "imported_mib")
    )
    said = ", ".join(
        f"{side} {speed[side]:.2f} pairs/s, {peak[side]:,.0f} MiB, {peak[side] - imported[side]:,.0f} MiB above its imports"
        for side in SIDES
    )
    print(said, file=sys.stderr)
    best = max(speed[side] for side in SIDES[1:])
    return speed["ours"], best, speed["ours"] / best


if __name__ == "__main__":
    report("preference", AIM, compare, __doc__)
