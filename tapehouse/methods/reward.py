"""A reward model: a score for an answer to a prompt, learnt from which of two answers was better paid.

It decides nothing. `reports.evaluations` says how its scores go with the rewards that answers earned over the test block.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tapehouse.recipe_sections import PairRecipe, Section
from tapehouse.tables import Read


class LossSection(Section):
    """-log sigmoid(s_w - s_l - m) of scores s (Bradley and Terry 1952), and what keeps scores around zero.

    `margin` takes for m the margin of the rewards in units of `margin_bps` (Touvron and others, Llama 2, 2023), so that a pair
    is learnt to be as far apart as it was paid.
    """

    margin: bool = False
    margin_bps: float = Field(250.0, gt=0)
    centre: float | None = Field(0.01, gt=0, description="Weight of the mean of (s_w + s_l)^2 (Eisenstein and others 2023).")


class Recipe(PairRecipe):
    """A reward model."""

    method: Literal["reward"]
    loss: LossSection = LossSection()
    prompt: None = Field(None, description="Nothing is asked of a reward model.")

    predicts: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ("prompt_ids", "chosen_ids", "rejected_ids", "margin_bps")

    @model_validator(mode="after")
    def _has_a_head_of_its_own(self) -> "Recipe":
        if self.model.init_from is not None:
            raise ValueError("model.init_from: an adapter that answers has no head that scores; remove it")
        if self.adapter.kind == "full":
            raise ValueError("adapter.kind: a reward model is low-rank factors and a head; take 'lora'")
        return self

    def idle(self) -> dict[str, str]:
        """The unit of margins, too, where no margin is in the loss."""
        return super().idle() | ({} if self.loss.margin else {"loss.margin_bps": "loss.margin is false"})


def judged_reads(recipe: Recipe) -> tuple[Read, ...]:
    """Pairs of the test block, as tokens and with the rewards that their answers earned."""
    return (Read(recipe.tokens, window="test"), Read("datasets.preference_pairs", window="test"))
