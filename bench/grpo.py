"""Answers a second of GRPO, drawn, rewarded and learnt from, by ours and by TRL's GRPOTrainer with `generate` (peer).

Prompts of 256 tokens, groups of 8, 8 prompts a step, answers of 32 tokens. Float32, LoRA of rank 16, no checkpointing, equal
threads and allocator, a process for each run, the median of five (of one with --quick). Asserted first: loss and gradients of
one fixed batch with a moved adapter and clipped ratios are TRL's. What is drawn differs, for each draws from noise of its own;
that members are drawn as they would be alone is held by a test. Peaks of memory of whole processes go to standard error.
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

AIM = 1.0
SIDE = ROOT / "bench" / "peers" / "train_rollouts.py"
SIDES = ("ours", "trl")
STEPS, QUICK_STEPS, RUNS = 6, 1, 5
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "OMP_WAIT_POLICY": "PASSIVE"}


def run(side: str, steps: int) -> dict:
    """One process's figures."""
    done = subprocess.run(
        [sys.executable, str(SIDE), side, str(steps)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env=os.environ | ALLOCATOR,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare(quick: bool) -> tuple[float, float, float]:
    """Answers a second of ours and of the peer, and their ratio."""
    steps, runs = (QUICK_STEPS, 1) if quick else (STEPS, RUNS)
    found = {side: [] for side in SIDES}
    for _ in range(runs):  # interleaved, so that a busy moment meets both
        for side in SIDES:
            found[side].append(run(side, steps))
    ours, theirs = found["ours"][0], found["trl"][0]
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours["gradients"], theirs["gradients"], rtol=1e-4, atol=1e-7)
    speed = {side: ours["answers"] / median(one["seconds"] for one in found[side]) for side in SIDES}
    peak = {side: median(one["peak_mib"] for one in found[side]) for side in SIDES}
    said = ", ".join(f"{side} {speed[side]:.1f} answers/s and {peak[side]:,.0f} MiB" for side in SIDES)
    print(said, file=sys.stderr)
    return speed["ours"], speed["trl"], speed["ours"] / speed["trl"]


if __name__ == "__main__":
    report("grpo", AIM, compare, __doc__)
