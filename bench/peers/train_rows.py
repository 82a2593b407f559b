"""One side of `bench/sft.py` in a process of its own: `train_rows.py SIDE STEPS FOLDER`; prints one JSON object.

SIDE is `ours` or `trl`, whose steps take a batch of packed rows at once, or `ours_rows` or `trl_rows`, which take them one by
one and accumulate. Equal model, adapter, examples, rows, batches, threads, precision (float32) and allocator. FOLDER holds the
examples and, as a job of ours is given them, packed rows; TRL packs before the clock starts.
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

import polars as pl  # noqa: E402
import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import PrinterCallback, TrainingArguments  # noqa: E402

from bench.peers.train_pairs import adapted, tokenizer  # noqa: E402

ROW, BATCH = 512, 8
ARGUMENTS = {
    "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 1.0, "logging_steps": 1, "save_strategy": "no",
    "report_to": "none", "disable_tqdm": True, "gradient_checkpointing": False, "use_cpu": True, "bf16": False, "seed": 3,
    "data_seed": 3, "output_dir": "/tmp/none", "dataloader_pin_memory": False,
}  # fmt: skip


def trainer(side: str, folder: Path, steps: int):
    """The trainer of a side."""
    side, _, one_by_one = side.partition("_")
    parts = BATCH if one_by_one else 1
    batch = {"per_device_train_batch_size": BATCH // parts, "gradient_accumulation_steps": parts, "max_steps": steps}
    if side == "ours":
        from tapehouse.training.supervised import SupervisedTrainer, batch_rows

        arguments = TrainingArguments(**ARGUMENTS, **batch, remove_unused_columns=False, include_num_input_tokens_seen="all")
        return SupervisedTrainer(adapted(), batch_rows(pl.read_parquet(folder / "packed.parquet")), args=arguments)
    from trl import SFTConfig, SFTTrainer

    examples = pl.read_parquet(folder / "examples.parquet").rows()
    dataset = Dataset.from_list([{"input_ids": ids, "completion_mask": list(map(int, learnt))} for ids, learnt in examples])
    config = SFTConfig(**ARGUMENTS, **batch, packing=True, max_length=ROW, completion_only_loss=True)
    return SFTTrainer(model=adapted(), args=config, train_dataset=dataset, processing_class=tokenizer())


def first_gradients(side: str, folder: Path) -> tuple[float, list[float]]:
    """Loss of one fixed batch, and the norm of every adapter weight's gradient, with the adapter moved from its start."""
    made = trainer(side.partition("_")[0], folder, 1)
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


def main(side: str, steps: int, folder: Path) -> None:
    """Time the steps."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    made = trainer(side, folder, steps)
    made.remove_callback(PrinterCallback)
    started = time.perf_counter()
    made.train()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    loss, gradients = first_gradients(side, folder)
    entries = [entry for entry in made.state.log_history if "loss" in entry]
    told = {"losses": [entry["loss"] for entry in entries], "tokens": int(entries[-1]["num_tokens"])}
    print(json.dumps({"seconds": seconds, "peak_mib": peak, "loss": loss, "gradients": gradients, **told}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
