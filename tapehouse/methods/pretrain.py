"""A base model, trained from nothing on the warehouse's own text; its recipes lie in models_registry/base/."""

from typing import ClassVar, Literal

from pydantic import Field

from tapehouse.recipe_sections import Named, OptimiserSection, Section


class ArchitectureSection(Section):
    """A Llama-shaped decoder with tied embeddings."""

    hidden_size: int = Field(128, ge=8)
    intermediate_size: int = Field(512, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    positions: int = Field(512, ge=32)


class CorpusSection(Section):
    """Text that the base is pretrained on; see :mod:`tapehouse.training.corpus`."""

    copy_examples: int = Field(ge=1)
    text_examples: int = Field(ge=1)
    rescaled_share: float = Field(ge=0, le=1, description="Share of prompts whose prices are multiplied by a drawn factor.")
    at_price_share: float = Field(ge=0, le=1, description="Share of orders placed exactly at the price shown.")
    farthest_offset: float = Field(gt=0, lt=0.2, description="Farthest drawn offset of a limit, as a fraction of the price.")
    rule_share: float = Field(ge=0, le=1, description="Share of actions that follow the stated reason; others are drawn.")
    lowest_price: float = Field(2.0, gt=0)
    highest_price: float = Field(5000.0, gt=0, lt=9999)


class CurriculumSection(Section):
    """Two stages, in steps and rows a step: short 'price, order' lines first, whole prompts after."""

    copy_steps: int = Field(ge=0)
    copy_batch: int = Field(ge=1)
    text_steps: int = Field(ge=1)
    text_batch: int = Field(ge=1)
    warmup_steps: int = Field(10, ge=0)
    prompt_weight: float = Field(0.1, ge=0)
    answer_weight: float = Field(5.0, gt=0)


class Recipe(Named):
    """Pretraining in two stages."""

    kind: ClassVar[str] = "base"
    apart: ClassVar[bool] = True

    method: Literal["pretrain"]
    architecture: ArchitectureSection = ArchitectureSection()
    corpus: CorpusSection
    curriculum: CurriculumSection
    optimiser: OptimiserSection
