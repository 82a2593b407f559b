"""Supervised fine-tuning on stored token ids, the loss on the answer and its stop token (`tapehouse.training.supervised`)."""

from __future__ import annotations

from typing import Any

from transformers import TrainingArguments

from tapehouse.training.job import Job
from tapehouse.training.lora import adapted_model, save_adapter
from tapehouse.training.supervised import SupervisedTrainer, batch_rows
from tapehouse.training.trainer import Durable, arguments, measured_rows, run


class Supervised(Durable, SupervisedTrainer):
    """Resumable."""


def train(job: Job) -> dict[str, Any]:
    """Train on rows of input_ids and loss_mask, and save what was trained; numbers for the manifest.

    Packed (`tapehouse.methods.sft.laid_out`), a row of the batch is several examples; `batch_rows` of the manifest counts them.
    """
    recipe = job.recipe
    rows, tail = batch_rows(job.rows), measured_rows(job)
    model = adapted_model(job)
    trainer = Supervised(
        model,
        rows,
        () if tail is None else batch_rows(tail),
        args=TrainingArguments(
            **arguments(recipe, job), remove_unused_columns=False, include_num_input_tokens_seen="all"
        ),
    )
    facts = run(trainer, job)
    save_adapter(model, recipe.model.base, job.out)
    return facts | {"batch_rows": len(rows)}
