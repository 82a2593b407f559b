"""Direct preference optimisation (Rafailov et al. 2023) on stored token ids, the prompt run once for both answers.

The reference is what training starts from: the base, or the parent's adapter that the recipe goes on from.
"""

from __future__ import annotations

from typing import Any

import torch
from peft import get_peft_model
from transformers import PrinterCallback, TrainingArguments

from tapehouse.methods.dpo import Recipe
from tapehouse.tokens import load_tokenizer, pad_id
from tapehouse.training.job import Job
from tapehouse.training.lora import Reports, save_adapter, starting_point, trainer_arguments
from tapehouse.training.preference import PreferenceTrainer


def train(job: Job) -> dict[str, Any]:
    """Train a LoRA adapter on rows of prompt_ids, chosen_ids and rejected_ids, and save it; numbers for the manifest."""
    recipe, jobdir, seed, tokens = job.recipe, job.folder, job.seed, job.rows
    torch.manual_seed(seed)  # the adapter is initialised before the trainer sets its own seed
    start = starting_point(recipe, jobdir)
    model = start["model"] if start["peft_config"] is None else get_peft_model(start["model"], start["peft_config"])
    # Only what the budget can use, so that the reference is not computed for pairs that are never seen.
    used = torch.randperm(tokens.height, generator=torch.Generator().manual_seed(seed))[: _pairs_used(recipe)]
    pairs = tokens.select("prompt_ids", "chosen_ids", "rejected_ids")[used.sort().values.numpy()].rows()
    reports = Reports(job.report)
    trainer = PreferenceTrainer(
        model,
        pairs,
        pad_id(load_tokenizer(jobdir / "tokenizer")),
        kinds=recipe.loss.kinds,
        kind_weights=recipe.loss.kind_weights or [1.0] * len(recipe.loss.kinds),
        beta=recipe.loss.beta,
        args=TrainingArguments(**trainer_arguments(recipe, jobdir / "trainer", seed), remove_unused_columns=False),
        callbacks=[reports],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    save_adapter(model, recipe.model.base, job.out)
    return {"tokens": reports.last["tokens"], "steps": recipe.budget.steps, "loss": reports.last["loss"]}


def _pairs_used(recipe: Recipe) -> int:
    return recipe.budget.steps * recipe.budget.batch_size
