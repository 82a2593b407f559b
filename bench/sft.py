"""Tokens a second of supervised training on packed rows by ours and by TRL's SFTTrainer (peer), 8 rows of 512 tokens a step.

Examples of 120 to 185 tokens, the last 17 of them learnt. Both sides run twice: with the rows of a step at once (TRL lays them
end to end), and one by one with accumulation; the ratio is that of the faster ones. Float32, LoRA of rank 16, no checkpointing,
equal threads and allocator, a process for each run, the median of five (--quick: one, row by row). Asserted: the loss of a
batch and the gradients with a moved adapter are TRL's, so are the losses of all steps and the tokens; and a process of ours
never takes more memory than TRL's of the same batches. The peaks go to standard error.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.harness import report  # noqa: E402
from bench.preference import ALLOCATOR  # noqa: E402
from tapehouse.packing import pack_examples  # noqa: E402

AIM = 1.0
SIDE = ROOT / "bench" / "peers" / "train_rows.py"
SIDES = ("ours", "trl", "ours_rows", "trl_rows")
STEPS, QUICK_STEPS, RUNS = 8, 3, 5
ROW, BATCH, VOCABULARY, ANSWER = 512, 8, 512, 17
LENGTHS = (120, 185)  # tokens of an order and of an instruction with their prompts; between them here


def write_examples(folder: Path, count: int) -> None:
    """Examples whose last 17 tokens are the answer, its stop token among them; and packed, as a job is given them."""
    draw = np.random.default_rng(5)
    ids = [[*draw.integers(2, VOCABULARY, length - 1).tolist(), 1] for length in draw.integers(*LENGTHS, count, endpoint=True)]
    masks = [[place >= len(row) - ANSWER for place in range(len(row))] for row in ids]
    examples = pl.DataFrame({"input_ids": ids, "loss_mask": masks}).cast({"input_ids": pl.List(pl.Int32)})
    examples.write_parquet(folder / "examples.parquet")
    pack_examples(examples, ROW).write_parquet(folder / "packed.parquet")


def run(side: str, steps: int, folder: Path) -> dict:
    """One process's figures."""
    done = subprocess.run(
        [sys.executable, str(SIDE), side, str(steps), str(folder)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, env=os.environ | ALLOCATOR,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compare(quick: bool) -> tuple[float, float, float]:
    """Tokens a second of ours and of the better peer, and their ratio."""
    steps, runs, sides = (QUICK_STEPS, 1, SIDES[2:]) if quick else (STEPS, RUNS, SIDES)
    found = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        write_examples(Path(folder), steps * BATCH * 4)  # of which a row holds three or four
        for _ in range(runs):  # interleaved, so that a busy moment meets all
            for side in sides:
                found[side].append(run(side, steps, Path(folder)))
    ours = found[sides[0]][0]
    for side in sides[1:]:
        theirs = found[side][0]
        assert ours["tokens"] == theirs["tokens"]
        np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=2e-6)
        np.testing.assert_allclose(ours["gradients"], theirs["gradients"], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(ours["losses"], theirs["losses"], atol=1e-4)
    speed = {side: ours["tokens"] / median(one["seconds"] for one in found[side]) for side in sides}
    peak = {side: median(one["peak_mib"] for one in found[side]) for side in sides}
    said = ", ".join(f"{side} {speed[side]:,.0f} tokens/s and {peak[side]:,.0f} MiB" for side in sides)
    print(said, file=sys.stderr)
    for mine, theirs in zip(sides[::2], sides[1::2], strict=True):
        assert peak[mine] <= peak[theirs], f"more memory than the peer: {said}"
    best, peer = max(speed[side] for side in sides[::2]), max(speed[side] for side in sides[1::2])
    return best, peer, best / peer


if __name__ == "__main__":
    report("sft", AIM, compare, __doc__)
