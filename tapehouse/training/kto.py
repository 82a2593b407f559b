"""Kahneman-Tversky optimisation: TRL's KTOTrainer on stored token ids.

The trainer estimates the divergence from each prompt with the answer of another row of the batch, paired once before training,
so that it must draw its rows in one order. Here they are paired when the batch is made, and drawn as everywhere.
"""

from __future__ import annotations

from typing import Any

import polars as pl
from peft import PeftModel
from peft.utils.other import TrainableTokensWrapper
from transformers import PreTrainedModel
from trl import KTOConfig, KTOTrainer
from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

from tapehouse.tokens import as_transformers
from tapehouse.training.job import Job
from tapehouse.training.lora import adapted_model, copy_reference, save_adapter
from tapehouse.training.stored import OfStored, Verified, row_sets
from tapehouse.training.trainer import arguments, run


class Unpaired(OfStored, KTOTrainer):
    """TRL's trainer on rows that are tokens already."""

    def _prepare_dataset(self, dataset: Any, *arguments: Any) -> Any:
        return dataset


def train(job: Job) -> dict[str, Any]:
    """Train on single answers to prompts, half of them wished for, and save what was trained; numbers for the manifest."""
    recipe, model = job.recipe, with_bias(adapted_model(job))
    tokenizer = as_transformers(job.folder / "tokenizer")
    rows, tail = row_sets(job, _rows)
    parts = [
        ("input_ids", "attention_mask", lambda row: row["prompt_ids"] + row["completion_ids"]),
        ("KL_input_ids", "KL_attention_mask", lambda row: row["prompt_ids"] + row["KL_completion_ids"]),
    ]
    trainer = Unpaired(
        model,
        ref_model=None if isinstance(model, PeftModel) else adapted_model(job),
        args=KTOConfig(
            **arguments(recipe, job),
            remove_unused_columns=False,
            train_sampling_strategy="sequential",  # what the trainer insists on; the rows are drawn by `Durable`
            beta=recipe.loss.beta,
            desirable_weight=recipe.loss.desirable_weight,
            undesirable_weight=recipe.loss.undesirable_weight,
            max_length=None,  # an answer is never cut
        ),
        data_collator=Verified(DataCollatorForUnpairedPreference(tokenizer.pad_token_id), parts, with_answers_of_others),
        train_dataset=rows,
        eval_dataset=tail,
        processing_class=tokenizer,
    )
    if isinstance(model, PeftModel):
        copy_reference(model)
    facts = run(trainer, job)
    save_adapter(model, recipe.model.base, job.out)
    return facts


def with_bias(model: PreTrainedModel | PeftModel) -> PreTrainedModel | PeftModel:
    """The model, its output layer with a bias to ask for, if only None.

    The trainer takes log-probabilities from the layer's weight and bias; where rows of added tokens are trained, a wrapper of
    peft's is in the layer's place, which hands on the weight alone.
    """
    head = model.get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        head.bias = head.original_module.bias
    return model


def with_answers_of_others(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each row with the answer of the row before it in the batch, the first with that of the last."""
    others = [rows[place - 1]["completion_ids"] for place in range(len(rows))]
    return [row | {"KL_completion_ids": other} for row, other in zip(rows, others, strict=True)]


def _rows(tokens: pl.DataFrame) -> list[dict[str, Any]]:
    rows = []
    for prompt, chosen, rejected in tokens.select("prompt_ids", "chosen_ids", "rejected_ids").iter_rows():
        rows += [
            {"prompt_ids": prompt, "completion_ids": answer, "label": wished}
            for answer, wished in ((chosen, True), (rejected, False))
        ]
    return rows
