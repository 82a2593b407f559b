"""Tokens a second, memory and FLOPs of training on one GPU, ours against TRL: `train.py WHAT MODEL [--device cpu]`.

WHAT is `sft` (packed rows of 2,048 tokens, 16 a step) or `preference` (prompt 256, answers 32, 16 pairs a step). MODEL is a
shape with random weights, see `SHAPES`. Sides run in processes of their own; README.md beside this file says what is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402

QWEN3 = {"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
         "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151936, "tie_word_embeddings": True}  # fmt: skip
QWEN2 = {"model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
         "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False}  # fmt: skip
TINY = {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 32,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 512, "tie_word_embeddings": True}  # fmt: skip
# Shape, how it is quantised, and whether activations are checkpointed.
SHAPES = {"qwen3_0_6b": (QWEN3, "none", False), "qwen2_5_7b_nf4": (QWEN2, "nf4", True), "tiny": (TINY, "none", False)}
ROW, BATCH, STEPS = 2048, 16, 20
TINY_ROW, TINY_BATCH, TINY_STEPS = 256, 2, 2
PROMPT, ANSWER, LEARNT, WARM = 256, 32, 17, 3
CEILING, TINY_CEILING = 8192, 512


def main() -> None:
    """Prepare the weights once, run each side in a process, and print what it said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sft", "preference"))
    parser.add_argument("model", choices=SHAPES)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(measure(given.what, given.model, given.device, given.side, given.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_base(given.model, Path(folder))
        write_rows(given.model, Path(folder))
        said = []
        for side in ("ours", "trl"):
            command = [sys.executable, __file__, given.what, given.model, "--device", given.device]
            done = subprocess.run(
                [*command, "--side", side, "--folder", folder], stdout=subprocess.PIPE, text=True, check=True
            )
            said.append(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(said[0]["first_loss"], said[1]["first_loss"], rtol=0.02)
    for facts in said:
        print(json.dumps(facts))


def write_base(name: str, folder: Path) -> None:
    """Random weights of a shape, in bfloat16."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    shape = dict(SHAPES[name][0])
    config = AutoConfig.for_model(shape.pop("model_type"), **shape, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder / "base")


def sizes(name: str) -> tuple[int, int, int]:
    """Tokens of a packed row, rows a step, and steps that are timed."""
    return (TINY_ROW, TINY_BATCH, TINY_STEPS) if name == "tiny" else (ROW, BATCH, STEPS)


def write_rows(name: str, folder: Path) -> None:
    """Examples of 120 to 185 tokens, packed and not, and pairs."""
    from tapehouse.packing import pack_examples

    draw, vocabulary = np.random.default_rng(5), SHAPES[name][0]["vocab_size"]
    row, batch, steps = sizes(name)
    rows = (WARM + steps) * batch
    count = rows * (row // 120 + 1)
    ids = [[*draw.integers(2, vocabulary, length - 1).tolist(), 1] for length in draw.integers(120, 185, count, endpoint=True)]
    masks = [[place >= len(example) - LEARNT for place in range(len(example))] for example in ids]
    examples = pl.DataFrame({"input_ids": ids, "loss_mask": masks}).cast({"input_ids": pl.List(pl.Int32)})
    examples.write_parquet(folder / "examples.parquet")
    pack_examples(examples, row).write_parquet(folder / "packed.parquet")
    parts = [draw.integers(2, vocabulary, (rows, size)).tolist() for size in (PROMPT, ANSWER, ANSWER)]
    pl.DataFrame(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), parts, strict=True))).write_parquet(
        folder / "pairs.parquet"
    )


def measure(what: str, name: str, device: str, side: str, folder: Path) -> dict:
    """One side's figures over the steps after the first few."""
    import torch
    from transformers import PrinterCallback, TrainerCallback

    shape, (row, batch, steps) = SHAPES[name][0], sizes(name)
    ceiling = matmul_flops(device)
    made, learnt = trainer(what, name, device, side, folder)
    clock: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **named):
            if device == "cuda":
                torch.cuda.synchronize()
            clock.append(time.perf_counter())

    made.remove_callback(PrinterCallback)
    made.add_callback(Clock())
    made.train()
    seconds = clock[-1] - clock[WARM - 1]
    tokens = steps * batch * (row if what == "sft" else PROMPT + 2 * ANSWER)
    blocks = sum(p.numel() for n, p in shape_parameters(shape) if ".layers." in n)
    head = shape["hidden_size"] * shape["vocab_size"]
    flops = 4 * (tokens * blocks + steps * batch * learnt * head)
    return {
        "what": what,
        "model": name,
        "side": side,
        "tokens_per_s": round(tokens / seconds, 1),
        "peak_mib": round(torch.cuda.max_memory_allocated() / 2**20) if device == "cuda" else None,
        "model_flops_of_ceiling": round(flops / seconds / ceiling, 4),
        "ceiling_tflops": round(ceiling / 1e12, 2),
        "first_loss": next(entry["loss"] for entry in made.state.log_history if "loss" in entry),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def trainer(what: str, name: str, device: str, side: str, folder: Path):
    """A side's trainer, and the learnt tokens of a row (of a pair)."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import TrainingArguments

    from bench.peers.train_pairs import tokenizer
    from tapehouse.recipe_sections import QuantisationSection
    from tapehouse.training.lora import load_base

    (_, quantised, checkpointed), (row, batch, steps) = SHAPES[name], sizes(name)
    model = load_base(folder / "base", None, QuantisationSection(kind=quantised), device)
    if quantised != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointed)
    torch.manual_seed(3)
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, task_type="CAUSAL_LM", target_modules="all-linear"))
    arguments = {
        "per_device_train_batch_size": batch, "max_steps": WARM + steps, "learning_rate": 1e-4, "logging_steps": 1,
        "lr_scheduler_type": "constant", "save_strategy": "no", "report_to": "none", "disable_tqdm": True, "bf16": True,
        "use_cpu": device == "cpu", "gradient_checkpointing": checkpointed, "seed": 3, "data_seed": 3,
        "output_dir": str(folder),
    }  # fmt: skip
    if what == "sft":
        packed = pl.read_parquet(folder / "packed.parquet")
        learnt = packed["loss_mask"].list.sum().mean()
        if side == "ours":
            from tapehouse.training.supervised import SupervisedTrainer, batch_rows

            given = TrainingArguments(**arguments, remove_unused_columns=False, include_num_input_tokens_seen="all")
            return SupervisedTrainer(model, batch_rows(packed), args=given), learnt
        from trl import SFTConfig, SFTTrainer

        rows = pl.read_parquet(folder / "examples.parquet").rows()
        dataset = Dataset.from_list([{"input_ids": ids, "completion_mask": list(map(int, mask))} for ids, mask in rows])
        config = SFTConfig(**arguments, packing=True, max_length=row, completion_only_loss=True)
        return SFTTrainer(model=model, args=config, train_dataset=dataset, processing_class=tokenizer()), learnt
    pairs = pl.read_parquet(folder / "pairs.parquet")
    if side == "ours":
        from tapehouse.training.preference import PreferenceTrainer

        given = TrainingArguments(**arguments, remove_unused_columns=False)
        return PreferenceTrainer(model, pairs.rows(), 0, ("sigmoid",), (1.0,), 0.1, args=given), 2 * ANSWER
    from trl import DPOConfig, DPOTrainer

    class OfTokens(DPOTrainer):
        """Rows are token ids already."""

        def _prepare_dataset(self, dataset, *arguments, **options):
            return dataset

    config = DPOConfig(**arguments, beta=0.1, max_length=None, precompute_ref_log_probs=True)
    dataset = Dataset.from_list(pairs.to_dicts())
    return OfTokens(model=model, args=config, train_dataset=dataset, processing_class=tokenizer()), 2 * ANSWER


def matmul_flops(device: str) -> float:
    """FLOPs a second of a product of two square matrices in bfloat16, the best of five."""
    import torch

    size = CEILING if device == "cuda" else TINY_CEILING
    one = torch.randn(size, size, dtype=torch.bfloat16, device=device)
    best = float("inf")
    for _ in range(6):  # the first one warms up
        started = time.perf_counter()
        one @ one
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def shape_parameters(shape: dict):
    """Names and sizes of a shape's weights, without making them."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    rest = {key: value for key, value in shape.items() if key != "model_type"}
    with torch.device("meta"):
        return list(AutoModelForCausalLM.from_config(AutoConfig.for_model(shape["model_type"], **rest)).named_parameters())


if __name__ == "__main__":
    main()
