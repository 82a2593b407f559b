"""Prompts a second for the log-probabilities of five answers (stop token included) by one pass (ours) and by five (peer).

Prompts of 256 tokens, answers of at most 4. The peer runs prompt + answer for each of the five answers, sixteen prompts at a
time, and makes logits at the answer alone (`logits_to_keep`); ours takes as many prompts at a time as adapters are asked with.
Asserted first: the scores are equal to 1e-5. Float32, equal threads and allocator, a process for each run, the median of five
(of one with --quick, and a quarter of the prompts). Peaks of memory of whole processes go to standard error.
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

AIM = 4.0
SIDE = ROOT / "bench" / "peers" / "score_answers.py"
SIDES = ("one_pass", "five_passes")
PROMPTS, QUICK_PROMPTS, RUNS = 128, 32, 5
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "OMP_WAIT_POLICY": "PASSIVE"}


def run(side: str, prompts: int) -> dict:
    """One process's figures."""
    done = subprocess.run(
        [sys.executable, str(SIDE), side, str(prompts)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env=os.environ | ALLOCATOR,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare(quick: bool) -> tuple[float, float, float]:
    """Prompts a second of either, and their ratio."""
    prompts, runs = (QUICK_PROMPTS, 1) if quick else (PROMPTS, RUNS)
    found = {side: [] for side in SIDES}
    for _ in range(runs):  # interleaved, so that a busy moment meets both
        for side in SIDES:
            found[side].append(run(side, prompts))
    np.testing.assert_allclose(*(found[side][0]["scores"] for side in SIDES), rtol=0, atol=1e-5)
    speed = {side: prompts / median(one["seconds"] for one in found[side]) for side in SIDES}
    peak = {side: median(one["peak_mib"] for one in found[side]) for side in SIDES}
    print(", ".join(f"{side} {speed[side]:.2f} prompts/s and {peak[side]:,.0f} MiB" for side in SIDES), file=sys.stderr)
    ours, peer = (speed[side] for side in SIDES)
    return ours, peer, ours / peer


if __name__ == "__main__":
    report("score_actions", AIM, compare, __doc__)
