"""One side of `bench/sft.py` in a process of its own: `train_rows.py SIDE STEPS`; prints one JSON object.

SIDE is `ours` or `trl`, whose steps take a batch of packed rows at once, or `ours_rows` or `trl_rows`, which take them one by
one and accumulate. Equal model, adapter, examples, rows, batches, threads, precision (float32) and allocator. Packing is done
before the clock starts.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import PrinterCallback, TrainingArguments  # noqa: E402

from bench.peers.train_pairs import adapted, tokenizer  # noqa: E402

VOCABULARY, ROW, BATCH, ANSWER = 512, 512, 8, 17
LENGTHS = (120, 185)  # tokens of an order and of an instruction, with their prompts; between them here
ARGUMENTS = {
    "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no",
    "report_to": "none", "disable_tqdm": True, "gradient_checkpointing": False, "use_cpu": True, "bf16": False, "seed": 3,
    "data_seed": 3, "output_dir": "/tmp/none", "dataloader_pin_memory": False,
}  # fmt: skip


def examples(count: int) -> pl.DataFrame:
    """Examples whose last 17 tokens are the answer, its stop token among them."""
    draw = np.random.default_rng(5)
    ids = [[*draw.integers(2, VOCABULARY, length - 1).tolist(), 1] for length in draw.integers(*LENGTHS, count, endpoint=True)]
    masks = [[place >= len(row) - ANSWER for place in range(len(row))] for row in ids]
    return pl.DataFrame({"input_ids": ids, "loss_mask": masks}).cast({"input_ids": pl.List(pl.Int32)})


def trainer(side: str, rows: pl.DataFrame, steps: int):
    """The trainer of a side over the rows, packed."""
    side, _, one_by_one = side.partition("_")
    parts = BATCH if one_by_one else 1
    batch = {"per_device_train_batch_size": BATCH // parts, "gradient_accumulation_steps": parts, "max_steps": steps}
    if side == "ours":
        from tapehouse.training.supervised import SupervisedTrainer, batch_rows

        arguments = TrainingArguments(**ARGUMENTS, **batch, remove_unused_columns=False, include_num_input_tokens_seen="all")
        return SupervisedTrainer(adapted(), batch_rows(rows, ROW), args=arguments)
    from trl import SFTConfig, SFTTrainer

    dataset = Dataset.from_list(
        [{"input_ids": ids, "completion_mask": [int(learnt) for learnt in mask]} for ids, mask in rows.iter_rows()]
    )
    config = SFTConfig(**ARGUMENTS, **batch, packing=True, max_length=ROW, completion_only_loss=True)
    return SFTTrainer(model=adapted(), args=config, train_dataset=dataset, processing_class=tokenizer())


def first_gradients(side: str, rows: pl.DataFrame) -> tuple[float, list[float]]:
    """Loss of one fixed batch, and the norm of every adapter weight's gradient, with the adapter moved from its start."""
    made = trainer(side.partition("_")[0], rows, 1)
    torch.manual_seed(9)
    with torch.no_grad():
        for name, weight in made.model.named_parameters():
            if "lora_B.default" in name:
                weight.normal_(std=0.02)
    made.model.train()
    batch = made.data_collator([made.train_dataset[place] for place in range(BATCH)])
    learnt = batch["labels"].ne(-100).sum()
    loss = made.compute_loss(made.model, batch, num_items_in_batch=learnt)
    loss.backward()
    return loss.item(), [p.grad.norm().item() for n, p in sorted(made.model.named_parameters()) if p.grad is not None]


def main(side: str, steps: int) -> None:
    """Time the steps."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    rows = examples(steps * BATCH * 4)  # of which a row holds three or four
    made = trainer(side, rows, steps)
    made.remove_callback(PrinterCallback)
    started = time.perf_counter()
    made.train()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    loss, gradients = first_gradients(side, rows[: BATCH * 4])
    entries = [entry for entry in made.state.log_history if "loss" in entry]
    told = {"losses": [entry["loss"] for entry in entries], "tokens": int(entries[-1]["num_tokens"])}
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "loss": loss, "gradients": gradients, **told}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
