"""One side of `bench/preference.py` in a process of its own: `train_pairs.py SIDE PAIRS`; prints one JSON object.

SIDE is `ours`, `trl` or `trl_precomputed`. Equal model, adapter, pairs, batches, threads, precision (float32) and allocator.
The reference's cost is counted on every side: ours and the precomputed one compute it before the first step, inside the time.
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

import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback, TrainingArguments  # noqa: E402

PROMPT, ANSWER, VOCABULARY, BATCH, BETA = 256, 32, 512, 8, 0.1
ARGUMENTS = {
    "per_device_train_batch_size": BATCH, "learning_rate": 1e-3, "lr_scheduler_type": "constant", "max_grad_norm": 1.0,
    "num_train_epochs": 1, "logging_steps": 1, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
    "gradient_checkpointing": False, "use_cpu": True, "bf16": False, "seed": 3, "data_seed": 3, "output_dir": "/tmp/none",
    "dataloader_pin_memory": False,
}  # fmt: skip


def adapted() -> torch.nn.Module:
    """A decoder of 3 million weights with a LoRA adapter, drawn from one seed."""
    torch.manual_seed(3)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, hidden_size=192, intermediate_size=768, num_hidden_layers=5, num_attention_heads=6,
                    tie_word_embeddings=True, pad_token_id=0, bos_token_id=None, eos_token_id=1)
    )  # fmt: skip
    lora = LoraConfig(r=16, lora_alpha=32, task_type="CAUSAL_LM", target_modules="all-linear")
    return get_peft_model(model, lora)


def pairs(count: int) -> list[tuple[list[int], list[int], list[int]]]:
    """Prompts of 256 tokens with two answers of 32, the last being the stop token."""
    draw = torch.Generator().manual_seed(5)
    ids = torch.randint(2, VOCABULARY, (count, PROMPT + 2 * ANSWER), generator=draw)
    ids[:, [PROMPT + ANSWER - 1, -1]] = 1
    return [(row[:PROMPT], row[PROMPT : PROMPT + ANSWER], row[PROMPT + ANSWER :]) for row in ids.tolist()]


def tokenizer() -> PreTrainedTokenizerFast:
    """What TRL asks for; it encodes nothing here."""
    from tokenizers import Tokenizer, models

    words = {"<pad>": 0, "<stop>": 1} | {f"w{i}": i for i in range(2, VOCABULARY)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "<pad>")), pad_token="<pad>",
                                   eos_token="<stop>")  # fmt: skip


def trainer(side: str, rows: list):
    """The trainer of a side over the rows."""
    if side == "ours":
        from tapehouse.training.preference import PreferenceTrainer

        arguments = TrainingArguments(**ARGUMENTS, remove_unused_columns=False)
        return PreferenceTrainer(adapted(), rows, 0, ("sigmoid",), (1.0,), BETA, args=arguments)
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class OfTokens(DPOTrainer):
        """Rows are token ids already."""

        def _prepare_dataset(self, dataset, *arguments, **options):
            return dataset

    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    dataset = Dataset.from_list([dict(zip(columns, row, strict=True)) for row in rows])
    config = DPOConfig(**ARGUMENTS, beta=BETA, max_length=None, precompute_ref_log_probs=side == "trl_precomputed")
    return OfTokens(model=adapted(), args=config, train_dataset=dataset, processing_class=tokenizer())


def import_libraries(side: str) -> float:
    """Import what a side needs, and say what the process holds then, MiB."""
    if side == "ours":
        import tapehouse.training.preference  # noqa: F401
    else:
        from trl import DPOTrainer  # noqa: F401
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def first_gradients(side: str, rows: list) -> tuple[float, list[float]]:
    """Loss of one fixed batch, and the norm of every adapter weight's gradient, with the adapter moved from its start."""
    made = trainer(side, rows)
    model = made.model.model if side == "ours" else made.model
    if side == "ours":
        made.data_collator.known |= made._reference()
    torch.manual_seed(9)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B.default" in name:  # TRL keeps a copy beside it as the reference
                weight.normal_(std=0.02)
    made.model.train()
    batch = made.data_collator(list(range(BATCH)) if side == "ours" else [made.train_dataset[i] for i in range(BATCH)])
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    return loss.item(), [p.grad.norm().item() for n, p in sorted(model.named_parameters()) if p.grad is not None]


def main(side: str, count: int) -> None:
    """Time one epoch over the pairs."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    imported = import_libraries(side)
    loss, gradients = first_gradients(side, pairs(BATCH))
    rows = pairs(count)
    started = time.perf_counter()
    made = trainer(side, rows)  # precomputing is part of TRL's construction
    made.remove_callback(PrinterCallback)
    made.train()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    last = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    memory = {"peak_mib": peak, "imported_mib": imported}
    print(json.dumps({"seconds": seconds, **memory, "loss": loss, "gradients": gradients, "losses": last}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
