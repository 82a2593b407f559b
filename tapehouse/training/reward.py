"""Reward models: TRL's RewardTrainer on stored token ids; low-rank factors, and a head that scores an answer's last token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from peft import PeftModel, TaskType, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from trl import RewardConfig, RewardTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference

from tapehouse.recipe_sections import AdapterSection, QuantisationSection
from tapehouse.tokens import as_transformers, load_tokenizer, pad_id
from tapehouse.training.job import Job
from tapehouse.training.lora import AS_IT_IS, load_base, lora_config, save_adapter
from tapehouse.training.stored import OfStored, Verified, row_sets
from tapehouse.training.trainer import arguments, run

HEAD = "score"
BATCH = 64


class Scorer(OfStored, RewardTrainer):
    """TRL's trainer, resumable."""


def train(job: Job) -> dict[str, Any]:
    """Train on rows of two answers to a prompt, and save what was trained; numbers for the manifest."""
    recipe = job.recipe
    torch.manual_seed(job.seed)
    trusted = any((job.folder / "base").glob("*.py"))
    base = scoring_base(job.folder / "base", job.folder / "tokenizer", recipe.quantisation, recipe.model.device, trusted)
    if recipe.quantisation.kind != "none":
        base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=recipe.budget.activation_checkpointing)
    tokenizer = as_transformers(job.folder / "tokenizer")
    model = get_peft_model(base, scoring_config(recipe.adapter, base, job.folder / "tokenizer"))
    scale = recipe.loss.margin_bps if recipe.loss.margin else None
    rows, tail = row_sets(job, lambda tokens: _rows(tokens, scale))
    parts = [("input_ids", "attention_mask", lambda row, side=side: row[f"{side}_ids"]) for side in ("chosen", "rejected")]
    trainer = Scorer(
        model,
        args=RewardConfig(
            **arguments(recipe, job),
            remove_unused_columns=False,
            center_rewards_coefficient=recipe.loss.centre,
            max_length=None,  # a row is never left out for its length
        ),
        data_collator=Verified(DataCollatorForPreference(tokenizer.pad_token_id), parts),
        train_dataset=rows,
        eval_dataset=tail,
        processing_class=tokenizer,
    )
    facts = run(trainer, job)
    save_adapter(model, recipe.model.base, job.out)
    return facts


def scoring_base(
    base: Path,
    tokenizer: Path,
    quantisation: QuantisationSection = AS_IT_IS,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """The layers of a base under a new head of one score; the head is drawn from torch's state.

    Raises TapehouseError as `load_base`.
    """
    answering = load_base(base, tokenizer, quantisation, device, trust_remote_code)
    config = answering.config
    config.num_labels, config.pad_token_id = 1, pad_id(load_tokenizer(tokenizer))
    with torch.device("meta"):  # its layers are taken from the base; only the head is of its own
        scoring = AutoModelForSequenceClassification.from_config(config)
    setattr(scoring, scoring.base_model_prefix, answering.base_model)
    head = torch.nn.Linear(config.get_text_config().hidden_size, 1, bias=False)
    torch.nn.init.normal_(head.weight, std=config.get_text_config().initializer_range)
    setattr(scoring, HEAD, head.to(answering.device))
    return scoring


def scoring_config(section: AdapterSection, base: PreTrainedModel, tokenizer: Path) -> Any:
    """The adapter of a reward model: the recipe's factors, the rows of added tokens, and the head."""
    config = lora_config(section, base, load_tokenizer(tokenizer))
    config.task_type, config.modules_to_save = TaskType.SEQ_CLS, [HEAD]
    if config.trainable_token_indices:  # there is no output of tokens
        config.trainable_token_indices.pop("lm_head", None)
    return config


def load_scorer(
    base: Path,
    trained: Path,
    tokenizer: Path,
    quantisation: QuantisationSection = AS_IT_IS,
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> PeftModel:
    """A trained reward model, its base held as it was in training."""
    model = scoring_base(base, tokenizer, quantisation, device, trust_remote_code)
    return PeftModel.from_pretrained(model, trained, local_files_only=True).eval()


@torch.inference_mode()
def scores(model: PeftModel, sequences: Sequence[Sequence[int]], pad: int) -> torch.Tensor:
    """The score of each sequence of a prompt and its answer, stop token included, (sequences,), sorted by length inside."""
    found = torch.empty(len(sequences))
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    for start in range(0, len(order), BATCH):
        picked = order[start : start + BATCH]
        width = len(sequences[picked[-1]])
        ids = torch.full((len(picked), width), pad)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(picked):
            ids[place, : len(sequences[row])] = torch.as_tensor(sequences[row])
            mask[place, : len(sequences[row])] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        found[picked] = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0].float().cpu()
    return found


def _rows(tokens: pl.DataFrame, scale: float | None) -> list[dict[str, Any]]:
    """Whole sequences of both answers; with `scale` the margin of their rewards in units of so many basis points."""
    rows = []
    for prompt, chosen, rejected, margin in tokens.select("prompt_ids", "chosen_ids", "rejected_ids", "margin_bps").iter_rows():
        row = {"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected}
        rows.append(row if scale is None else row | {"margin": margin / scale})
    return rows
