"""Supervised fine-tuning on the answers of a dataset; the loss is on the answer and its stop token."""

from typing import ClassVar, Literal

from pydantic import Field

from tapehouse.recipe_sections import LanguageRecipe, Section

SOURCES = {"orders": "datasets.sft_tokens", "instructions": "datasets.sft_tokens", "theses": "datasets.thesis_tokens"}


class DataSection(Section):
    """Which examples, and how they are laid into rows of the batch."""

    dataset: Literal["orders", "instructions", "theses"] = "orders"
    stage: Literal["structure", "claims", "decision"] | None = Field(None, description="One stage of the curriculum alone.")
    packed: bool = Field(False, description="Examples share rows, none cut; each sees itself alone.")
    row_tokens: int = Field(512, ge=16, description="Length of a packed row.")


class Recipe(LanguageRecipe):
    """Supervised fine-tuning."""

    method: Literal["sft"]
    data: DataSection = DataSection()

    needs: ClassVar[tuple[str, ...]] = ("input_ids", "loss_mask")

    @property
    def tokens(self) -> str:  # type: ignore[override]
        """The token table of the dataset."""
        return SOURCES[self.data.dataset]
