"""Supervised fine-tuning: TRL's SFTTrainer on stored token ids, the loss on the answer and its stop token."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from tapehouse.tokens import as_transformers
from tapehouse.training.job import Job
from tapehouse.training.lora import Reports, save_adapter, starting_point, trainer_arguments


def train(job: Job) -> dict[str, Any]:
    """Train a LoRA adapter on rows of input_ids and loss_mask, and save it; numbers for the manifest."""
    recipe, jobdir, seed = job.recipe, job.folder, job.seed
    rows = [
        {"input_ids": ids, "completion_mask": [int(learnt) for learnt in mask]}
        for ids, mask in job.rows.select("input_ids", "loss_mask").iter_rows()
    ]
    torch.manual_seed(seed)  # the adapter is initialised before the trainer sets its own seed
    reports = Reports(job.report)
    trainer = SFTTrainer(
        **starting_point(recipe, jobdir),
        args=SFTConfig(
            **trainer_arguments(recipe, jobdir / "trainer", seed),
            completion_only_loss=True,
            max_length=None,  # an answer is never cut
            packing=False,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=as_transformers(jobdir / "tokenizer"),
        callbacks=[reports],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    save_adapter(trainer.model, recipe.model.base, job.out)
    return {"tokens": reports.last["tokens"], "steps": recipe.budget.steps, "loss": reports.last["loss"]}
