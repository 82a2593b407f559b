"""Preference tuning with a reference: the policy learns which of two answers is better paid.

The reference is what training starts from, `model.init_from` or the base.
"""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from tapehouse.recipe_sections import PairRecipe, Section


class LossSection(Section):
    """A loss of `tapehouse.training.losses`, summed with others where several are named."""

    kinds: list[Literal["sigmoid", "sigmoid_norm", "ipo", "soft_clip"]] = Field(["sigmoid"], min_length=1)
    kind_weights: list[float] | None = None
    beta: float = Field(0.1, gt=0)
    weighted: Literal["equal", "margin"] = Field(
        "equal", description="Weight of a pair: one, or the margin of its rewards over the mean margin of the pairs drawn."
    )

    @model_validator(mode="after")
    def _one_weight_a_kind(self) -> "LossSection":
        if len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"kinds {self.kinds} name a loss twice; give it a larger weight in kind_weights instead")
        if self.kind_weights is not None and len(self.kind_weights) != len(self.kinds):
            raise ValueError(f"kind_weights has {len(self.kind_weights)} numbers for {len(self.kinds)} kinds; give one each")
        return self


class Recipe(PairRecipe):
    """Direct preference optimisation and its variants (Rafailov and others 2023)."""

    method: Literal["dpo"]
    loss: LossSection = LossSection()

    needs: ClassVar[tuple[str, ...]] = ("prompt_ids", "chosen_ids", "rejected_ids", "margin_bps")
