"""Direct preference optimisation (Rafailov et al. 2023) on stored token ids, the prompt run once for both answers.

The reference is what training starts from: the base, or the parent's adapter that the recipe goes on from.
"""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl
import torch
from transformers import TrainingArguments

from tapehouse.methods.dpo import Recipe
from tapehouse.tokens import load_tokenizer, pad_id
from tapehouse.training.job import Job
from tapehouse.training.lora import adapted_model, save_adapter
from tapehouse.training.preference import PreferenceTrainer
from tapehouse.training.references import reference_file
from tapehouse.training.trainer import Durable, arguments, measured_rows, run

IDS = ("prompt_ids", "chosen_ids", "rejected_ids")


class Preference(Durable, PreferenceTrainer):
    """Resumable."""

    kept: ClassVar[tuple[str, ...]] = (*Durable.kept, "tokens", "seen", "better")


def train(job: Job) -> dict[str, Any]:
    """Train on rows of two answers to a prompt and their margin_bps, and save what was trained; numbers for the manifest."""
    recipe: Recipe = job.recipe
    rows, tail = budgeted_rows(job), measured_rows(job)
    tail = rows.clear() if tail is None else tail
    margins = torch.from_numpy(pl.concat([rows, tail])["margin_bps"].to_numpy().astype("float32"))
    model = adapted_model(job)
    trainer = Preference(
        model,
        rows.select(IDS).rows(),
        pad_id(load_tokenizer(job.folder / "tokenizer")),
        kinds=recipe.loss.kinds,
        kind_weights=recipe.loss.kind_weights or [1.0] * len(recipe.loss.kinds),
        beta=recipe.loss.beta,
        weights=margins / margins[: rows.height].mean() if recipe.loss.weighted == "margin" else None,
        validation=tail.select(IDS).rows(),
        reference=reference_file(job),
        args=TrainingArguments(**arguments(recipe, job), remove_unused_columns=False),
    )
    facts = run(trainer, job)
    save_adapter(model, recipe.model.base, job.out)
    return facts


def budgeted_rows(job: Job) -> pl.DataFrame:
    """A draw of the job's rows that is no larger than its budget can use: of others no reference has to be computed."""
    budget = job.recipe.budget
    drawn = torch.randperm(job.rows.height, generator=torch.Generator().manual_seed(job.seed))
    return job.rows[drawn[: budget.steps * budget.batch_size].sort().values.numpy()]
