"""Preference tuning on single answers, each wished for or not: prospect theory's loss (Ethayarajh and others 2024).

A pair is two examples, its chosen answer and its rejected one; which of them were a pair is not used.
"""

from typing import Literal

from pydantic import Field, model_validator

from tapehouse.recipe_sections import PairRecipe, Section


class LossSection(Section):
    """1 - sigmoid(beta (r - z)) of an answer wished for, 1 - sigmoid(beta (z - r)) of another, times its weight.

    r is the log-ratio of the answer under policy and reference; z the mean log-ratio of answers to other prompts of the batch,
    at least 0, an estimate of the divergence.
    """

    beta: float = Field(0.1, gt=0)
    desirable_weight: float = Field(1.0, gt=0)
    undesirable_weight: float = Field(1.0, gt=0)


class Recipe(PairRecipe):
    """Kahneman-Tversky optimisation."""

    method: Literal["kto"]
    loss: LossSection = LossSection()

    @model_validator(mode="after")
    def _others_in_the_batch(self) -> "Recipe":
        if self.budget.batch_size // self.budget.accumulation < 2:
            raise ValueError(
                "budget: the divergence is estimated from other answers of a batch's part; make that 2 or more"
            )
        return self
