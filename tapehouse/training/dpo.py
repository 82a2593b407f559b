"""Direct preference optimisation (Rafailov et al. 2023) on stored token ids, the prompt run once for both answers.

The reference is what training starts from: the base, or the parent's adapter that the recipe goes on from.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch
from peft import get_peft_model
from transformers import PrinterCallback, TrainingArguments

from tapehouse.recipes import DpoRecipe
from tapehouse.tokens import load_tokenizer, pad_id
from tapehouse.training.lora import Reports, save_adapter, starting_point, trainer_arguments
from tapehouse.training.preference import PreferenceTrainer


def train_dpo(
    recipe: DpoRecipe,
    tokens: pl.DataFrame,
    jobdir: Path,
    folder: Path,
    seed: int,
    report: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Train a LoRA adapter on `tokens` (prompt_ids, chosen_ids, rejected_ids); numbers for the manifest."""
    torch.manual_seed(seed)  # the adapter is initialised before the trainer sets its own seed
    start = starting_point(recipe, jobdir)
    model = start["model"] if start["peft_config"] is None else get_peft_model(start["model"], start["peft_config"])
    # Only what the budget can use, so that the reference is not computed for pairs that are never seen.
    used = torch.randperm(tokens.height, generator=torch.Generator().manual_seed(seed))[: _pairs_used(recipe)]
    pairs = tokens.select("prompt_ids", "chosen_ids", "rejected_ids")[used.sort().values.numpy()].rows()
    reports = Reports(report)
    trainer = PreferenceTrainer(
        model,
        pairs,
        pad_id(load_tokenizer(jobdir / "tokenizer")),
        kinds=recipe.loss.types,
        kind_weights=recipe.loss.weights or [1.0] * len(recipe.loss.types),
        beta=recipe.loss.beta,
        args=TrainingArguments(**trainer_arguments(recipe, jobdir / "trainer", seed), remove_unused_columns=False),
        callbacks=[reports],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    save_adapter(model, recipe.base, folder)
    return {"tokens": reports.last["tokens"], "steps": recipe.budget.steps, "loss": reports.last["loss"]}


def _pairs_used(recipe: DpoRecipe) -> int:
    return recipe.budget.steps * recipe.budget.batch_size
