"""Supervised fine-tuning on the answers of a dataset; the loss is on the answer and its stop token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import LanguageRecipe, Section

if TYPE_CHECKING:
    import polars as pl

SOURCES = {"orders": "datasets.sft_tokens", "instructions": "datasets.sft_tokens", "theses": "datasets.thesis_tokens"}


class DataSection(Section):
    """Which examples, and how they are laid into rows of the batch."""

    dataset: Literal["orders", "instructions", "theses"] = "orders"
    stage: Literal["structure", "claims", "decision"] | None = Field(None, description="One stage of the curriculum alone.")
    row_tokens: int | None = Field(
        None, ge=16, description="Packed: examples share rows of so many tokens, none cut, each blind to the others."
    )

    @property
    def family(self) -> str:
        """The family of the prompts of the dataset."""
        return {"orders": "order", "instructions": "agent", "theses": "thesis"}[self.dataset]


class Recipe(LanguageRecipe):
    """Supervised fine-tuning."""

    method: Literal["sft"]
    data: DataSection = DataSection()

    needs: ClassVar[tuple[str, ...]] = ("input_ids", "loss_mask")

    @property
    def tokens(self) -> str:  # type: ignore[override]
        """The token table of the dataset."""
        return SOURCES[self.data.dataset]


def laid_out(recipe: Recipe, examples: pl.DataFrame) -> pl.DataFrame:
    """Examples as rows of a batch: packed, with `block_lengths`, where the recipe says so, else each a row of its own.

    Raises TapehouseError where an example is longer than a row; nothing is cut.
    """
    if recipe.data.row_tokens is None:
        return examples
    from tapehouse.packing import BLOCKS, pack_examples

    return pack_examples(examples, recipe.data.row_tokens).select(*recipe.needs, BLOCKS)


def training_rows(recipe: Recipe, tokens: pl.DataFrame, inputs: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Examples of the recipe's dataset and stage, out of a token table. Raises TapehouseError where there are none."""
    rows = tokens.filter(dataset=recipe.data.dataset) if "dataset" in tokens.columns else tokens
    if recipe.data.stage is not None:
        rows = rows.filter(stage=recipe.data.stage)
    if rows.is_empty():
        raise TapehouseError(
            f"models.{recipe.name}: {recipe.tokens} holds no example of {recipe.data.dataset}"
            f"{f' at stage {recipe.data.stage!r}' if recipe.data.stage else ''} for its base; materialise it over the fold"
        )
    return rows
