"""Reinforcement learning from verifiable rewards: a group of answers to each prompt, the better ones made likelier.

Group-relative policy optimisation (Shao and others, DeepSeekMath, 2024) with the loss of DAPO (Yu and others 2025): clipped at
two different bounds, averaged over tokens, and groups that earn the same throughout are drawn again. A prompt serves one
stage of the curriculum: what the form of an answer earns and what its decision earned are never added up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import LanguageRecipe, Section
from tapehouse.tables import Read

if TYPE_CHECKING:
    import polars as pl

PROMPTS, CLASSES = "datasets.rl_prompts", "models.signal_classes"
GRAIN = ("symbol", "interval", "decision_at", "family", "objective")


class DataSection(Section):
    """Which prompts: those of one family that serve one stage."""

    family: Literal["order", "thesis"] = "order"
    stage: Literal["structure", "claims", "decision"] = Field(
        description="What is rewarded: the form of an answer, whether it states what is so, or what its decision earned."
    )


class RolloutSection(Section):
    """How answers are drawn, and how often they are learnt from before the next ones are."""

    group: int = Field(8, ge=2, description="Answers to each prompt.")
    most_tokens: int = Field(32, ge=1, description="An answer without a stop token by then is cut, and states nothing.")
    temperature: float = Field(1.0, gt=0)
    updates: int = Field(1, ge=1, description="Parts of a rollout; each is a batch of one optimiser step.")
    passes: int = Field(1, ge=1, description="Times that a rollout is gone through.")
    redraws: int = Field(3, ge=0, description="Times that groups without variance are replaced by groups of other prompts.")

    @property
    def steps(self) -> int:
        """Optimiser steps from one rollout to the next."""
        return self.updates * self.passes


class LossSection(Section):
    """The bounds of the ratio of probabilities, new to old: it is cut below 1 - epsilon and above 1 + epsilon_high.

    `divergence` weighs that from what training starts from, token by token (0 in DAPO): an answer which is worth little, but
    the same whatever the prompt says, is found long before the one that takes the prompt into account.
    """

    epsilon: float = Field(0.20, gt=0, lt=1)
    epsilon_high: float = Field(0.28, gt=0)
    divergence: float = Field(0.0, ge=0)


class Recipe(LanguageRecipe):
    """Group-relative policy optimisation; `budget.batch_size` counts answers, not prompts."""

    method: Literal["grpo"]
    data: DataSection
    rollout: RolloutSection = RolloutSection()
    loss: LossSection = LossSection()

    tokens: ClassVar[str] = "datasets.rl_tokens"
    # A ratio of two policies that drop out different weights is none of policies.
    ignores_dropout: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Ids of the prompt, and all that its reward is made of."""
        from tapehouse.rl_prompts import SCHEMA

        return ("prompt_ids", "lines_dropped", "signal_class", *SCHEMA)

    @model_validator(mode="after")
    def _rollouts_are_whole(self) -> Recipe:
        drawn = self.budget.batch_size * self.rollout.updates
        if drawn % self.rollout.group:
            raise ValueError(
                f"rollout.group {self.rollout.group} does not divide the {drawn} answers of a rollout, budget.batch_size times "
                "rollout.updates; a group is drawn whole"
            )
        for key, steps in (
            ("budget.steps", self.budget.steps),
            ("budget.checkpoint_every", self.budget.checkpoint_every),
            ("evaluation.every", self.evaluation.every if self.evaluation else None),
        ):
            if steps and steps % self.rollout.steps:
                raise ValueError(
                    f"{key} {steps} is no multiple of the {self.rollout.steps} steps of a rollout (rollout.updates times "
                    "rollout.passes): training stops and starts between rollouts alone"
                )
        if self.loss.divergence and self.adapter.kind == "full":
            raise ValueError(
                f"loss.divergence {self.loss.divergence} is from what training starts from, which an adapter keeps and "
                "adapter.kind 'full' does not; take 'lora', or divergence 0.0"
            )
        if self.data.family == "thesis" and self.rollout.most_tokens < 64:
            raise ValueError(f"rollout.most_tokens {self.rollout.most_tokens} cuts every thesis; give it room, as in 256")
        return self


def training_reads(recipe: Recipe) -> tuple[Read, ...]:
    """What a row of the token table does not carry: its reward, and of theses the fold's class of what followed."""
    return (Read(PROMPTS, window="train"), *((Read(CLASSES),) if recipe.data.family == "thesis" else ()))


def training_rows(recipe: Recipe, tokens: pl.DataFrame, inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Rows of the recipe's family and stage, each with its prompt's ids and with all that its reward is made of.

    Args:
        tokens: `datasets.rl_tokens` of one tokenizer. inputs: the tables of `training_reads`, by name.

    Raises:
        TapehouseError: no prompt serves the stage.
    """
    import polars as pl

    from tapehouse.rl_prompts import of_fold

    rewarded = inputs[PROMPTS].filter(family=recipe.data.family, stage=recipe.data.stage)
    if recipe.data.family == "thesis":
        rewarded = of_fold(rewarded, inputs[CLASSES])
    else:
        rewarded = rewarded.with_columns(signal_class=pl.lit(None, pl.String))
    rows = tokens.select(*GRAIN, "prompt_ids", "lines_dropped").join(rewarded, on=GRAIN, how="inner", maintain_order="left")
    if recipe.data.stage == "claims":  # what is true of a claim may stand in a line that the prompt has lost
        rows = rows.filter(lines_dropped=0)
    if rows.is_empty():
        served = f"family {recipe.data.family!r} and stage {recipe.data.stage!r}"
        raise TapehouseError(
            f"models.{recipe.name}: no row of {PROMPTS} has {served} in the training window; materialise it and "
            "datasets.rl_tokens there"
        )
    return rows
