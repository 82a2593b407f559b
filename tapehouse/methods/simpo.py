"""Preference tuning without a reference: a reward is the mean log-probability of an answer's tokens (Meng and others 2024)."""

from typing import Literal

from pydantic import Field

from tapehouse.recipe_sections import PairRecipe, Section


class LossSection(Section):
    """-log sigmoid(beta (m_w - m_l) - gamma), m the mean log-probability of a token of the answer."""

    beta: float = Field(2.0, gt=0)
    gamma: float = Field(1.0, ge=0, description="The margin by which the chosen answer is to lead, in units of beta m.")
    likelihood: float = Field(0.0, ge=0, description="Weight of the chosen answer's cross-entropy beside it (CPO, Xu 2024).")


class Recipe(PairRecipe):
    """Simple preference optimisation."""

    method: Literal["simpo"]
    loss: LossSection = LossSection()
