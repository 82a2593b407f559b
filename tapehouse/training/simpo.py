"""Simple preference optimisation: TRL's CPOTrainer with the loss of SimPO, on stored token ids."""

from __future__ import annotations

from typing import Any

import polars as pl
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.utils import DPODataCollatorWithPadding

from tapehouse.tokens import as_transformers
from tapehouse.training.job import Job
from tapehouse.training.lora import adapted_model, save_adapter
from tapehouse.training.stored import OfStored, Verified, row_sets
from tapehouse.training.trainer import arguments, run

LEARNT_NOT = -100


class Simple(OfStored, CPOTrainer):
    """TRL's trainer on rows that are tokens already."""

    def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
        """The row as it is: its ids are the stored ones."""
        return feature


def train(job: Job) -> dict[str, Any]:
    """Train on rows of two answers to a prompt, and save what was trained; numbers for the manifest."""
    recipe, model = job.recipe, adapted_model(job)
    tokenizer = as_transformers(job.folder / "tokenizer")
    rows, tail = row_sets(job, _rows)
    parts = [
        (f"{side}_input_ids", f"{side}_attention_mask", lambda row, side=side: row[f"{side}_input_ids"])
        for side in ("chosen", "rejected")
    ]
    trainer = Simple(
        model,
        CPOConfig(
            **arguments(recipe, job),
            remove_unused_columns=False,
            loss_type="simpo",
            beta=recipe.loss.beta,
            simpo_gamma=recipe.loss.gamma,
            cpo_alpha=recipe.loss.likelihood,
            max_length=tokenizer.model_max_length,
        ),
        data_collator=Verified(DPODataCollatorWithPadding(tokenizer.pad_token_id), parts),
        train_dataset=rows,
        eval_dataset=tail,
        processing_class=tokenizer,
    )
    facts = run(trainer, job)
    save_adapter(model, recipe.model.base, job.out)
    return facts


def _rows(tokens: pl.DataFrame) -> list[dict[str, list[int]]]:
    rows = []
    for prompt, *answers in tokens.select("prompt_ids", "chosen_ids", "rejected_ids").iter_rows():
        row = {}
        for side, answer in zip(("chosen", "rejected"), answers, strict=True):
            row[f"{side}_input_ids"] = prompt + answer
            row[f"{side}_attention_mask"] = [1] * (len(prompt) + len(answer))
            row[f"{side}_labels"] = [LEARNT_NOT] * len(prompt) + answer
        rows.append(row)
    return rows
