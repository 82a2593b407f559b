"""Direct preference optimisation (Rafailov et al. 2023): TRL's DPOTrainer on stored token ids.

The reference is what training starts from: the base with the adapter switched off, or a copy of the parent's adapter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import DPOConfig, DPOTrainer

from tapehouse.recipes import DpoRecipe
from tapehouse.tokens import as_transformers
from tapehouse.training.lora import Reports, save_adapter, starting_point, trainer_arguments


class StoredTokensDPOTrainer(DPOTrainer):
    """DPOTrainer for rows that are token ids already; TRL 1.16 insists on text (KeyError 'chosen')."""

    def _prepare_dataset(self, dataset, *arguments, **options):
        return dataset


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
    reports = Reports(report)
    trainer = StoredTokensDPOTrainer(
        **starting_point(recipe, jobdir),
        args=DPOConfig(
            **trainer_arguments(recipe, jobdir / "trainer", seed),
            beta=recipe.loss.beta,
            loss_type=list(recipe.loss.types),
            loss_weights=recipe.loss.weights,
            max_length=None,  # an answer is never cut
        ),
        train_dataset=Dataset.from_list(tokens.select("prompt_ids", "chosen_ids", "rejected_ids").to_dicts()),
        processing_class=as_transformers(jobdir / "tokenizer"),
        callbacks=[reports],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    save_adapter(trainer.model, recipe.base, folder)
    return {"tokens": reports.last["tokens"], "steps": recipe.budget.steps, "loss": reports.last["loss"]}
