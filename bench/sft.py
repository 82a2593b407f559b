"""Tokens a second of supervised training on packed rows by ours and by TRL's SFTTrainer (peer), 8 rows of 512 tokens a step.

Examples of 120 to 185 tokens, the last 17 of them learnt. Both sides run twice: with the rows of a step at once (TRL lays them
end to end), and one by one with accumulation; the ratio is that of the faster ones. Float32, LoRA of rank 16, no checkpointing,
equal threads and allocator, a process for each run, the median of five (of one with --quick). Asserted: the loss of a batch and
the gradients with a moved adapter are TRL's, so are the losses of every step and the tokens; and a process of ours never takes
more memory than TRL's of the same batches. The peaks go to standard error.
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
from bench.preference import ALLOCATOR  # noqa: E402

AIM = 1.0
SIDE = ROOT / "bench" / "peers" / "train_rows.py"
SIDES = ("ours", "trl", "ours_rows", "trl_rows")
STEPS, QUICK_STEPS, RUNS = 8, 2, 5


def run(side: str, steps: int) -> dict:
    """One process's figures."""
    done = subprocess.run(
        [sys.executable, str(SIDE), side, str(steps)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env=os.environ | ALLOCATOR,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare(quick: bool) -> tuple[float, float, float]:
    """Tokens a second of ours and of the better peer, and their ratio."""
    steps, runs = (QUICK_STEPS, 1) if quick else (STEPS, RUNS)
    found = {side: [] for side in SIDES}
    for _ in range(runs):  # interleaved, so that a busy moment meets all
        for side in SIDES:
            found[side].append(run(side, steps))
    ours = found["ours"][0]
    for side in SIDES[1:]:
        theirs = found[side][0]
        assert ours["tokens"] == theirs["tokens"]
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=2e-6)
        np.testing.assert_allclose(ours["gradients"], theirs["gradients"], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(ours["losses"], theirs["losses"], atol=1e-4)
    speed = {side: ours["tokens"] / median(one["seconds"] for one in found[side]) for side in SIDES}
    peak = {side: median(one["peak_mib"] for one in found[side]) for side in SIDES}
    said = ", ".join(f"{side} {speed[side]:,.0f} tokens/s and {peak[side]:,.0f} MiB" for side in SIDES)
    print(said, file=sys.stderr)
    for way in ("", "_rows"):
        assert peak[f"ours{way}"] <= peak[f"trl{way}"], f"more memory than the peer: {said}"
    best, peer = (max(speed[side], speed[f"{side}_rows"]) for side in ("ours", "trl"))
    return best, peer, best / peer


if __name__ == "__main__":
    report("sft", AIM, compare, __doc__)
