"""Recipes: one YAML declares one model. Typed, frozen, and strict: a bad key is an error with file, key and remedy.

The file's stem is the recipe's name. `method` selects the sections that the recipe may have. Adapters (`sft`,
`dpo`) and baselines lie in `models_registry/adapters/`, their base in `models_registry/base/`.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.prompts import templates

# The token table that a method learns from.
TOKENS = {"sft": "datasets.sft_tokens", "dpo": "datasets.preference_tokens"}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class LoraSection(_Section):
    """Low-rank adapter (Hu et al. 2021): W + alpha / rank · B A on each of the target projections."""

    rank: int = Field(16, ge=1, le=256)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] = Field(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], min_length=1)


class OptimiserSection(_Section):
    """AdamW with a linear warm-up and a cosine down to zero."""

    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(10, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)


class BudgetSection(_Section):
    """Work as numbers of optimiser steps and rows a step, never as seconds: a slow machine trains the same model."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)


class DpoLossSection(_Section):
    """Preference loss of TRL's DPOTrainer; several types are summed with their weights (Rafailov et al. 2023)."""

    types: list[str] = Field(["sigmoid"], min_length=1)
    weights: list[float] | None = None
    beta: float = Field(0.1, gt=0)


class PromptSection(_Section):
    """What the adapter is asked over the test window."""

    objective: str = Field(description="The objective that prompts ask for, one of those of datasets.preference_pairs.")
    template: str | None = Field(None, description="Another template than the one that prompts.yaml selects for orders.")
    limit_valid_sessions: int = Field(3, ge=1, description="Sessions for which an order rests before it is cancelled.")
    batch_size: int = Field(128, ge=1)


class NanoArchitecture(_Section):
    """A Llama-shaped decoder with tied embeddings."""

    hidden_size: int = Field(128, ge=8)
    intermediate_size: int = Field(512, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    positions: int = Field(512, ge=32)


class CorpusSection(_Section):
    """Text that the base is pretrained on; see :mod:`tapehouse.training.corpus`."""

    copy_examples: int = Field(ge=1)
    text_examples: int = Field(ge=1)
    rescaled_share: float = Field(ge=0, le=1, description="Share of prompts whose prices are multiplied by a drawn factor.")
    at_price_share: float = Field(ge=0, le=1, description="Share of orders placed exactly at the price shown.")
    farthest_offset: float = Field(gt=0, lt=0.2, description="Farthest drawn offset of a limit, as a fraction of the price.")
    rule_share: float = Field(ge=0, le=1, description="Share of actions that follow the stated reason; others are drawn.")
    lowest_price: float = Field(2.0, gt=0)
    highest_price: float = Field(5000.0, gt=0, lt=9999)


class CurriculumSection(_Section):
    """Two stages, in steps and rows a step: short 'price, order' lines first, whole prompts after."""

    copy_steps: int = Field(ge=0)
    copy_batch: int = Field(ge=1)
    text_steps: int = Field(ge=1)
    text_batch: int = Field(ge=1)
    prompt_weight: float = Field(0.1, ge=0)
    answer_weight: float = Field(5.0, gt=0)


class _Named(_Section):
    name: str
    description: str = Field(min_length=1)

    @property
    def hash(self) -> str:
        """Identity of what the recipe says; its name and description are not part of it."""
        return text_hash(self.model_dump_json(exclude={"name", "description"}))


class _Adapter(_Named):
    kind: Literal["adapter"] = "adapter"
    base: str = Field("nano", description="A recipe in models_registry/base/.")
    init_from: str | None = Field(None, description="Adapter to go on from, of the same base; none starts a new one.")
    adapter: LoraSection = LoraSection()
    optimiser: OptimiserSection
    budget: BudgetSection
    prompt: PromptSection
    seed: int = 0


class SftRecipe(_Adapter):
    """Supervised fine-tuning on datasets.sft_tokens; the loss is on the answer and its stop token."""

    method: Literal["sft"]


class DpoRecipe(_Adapter):
    """Preference tuning on datasets.preference_tokens; the reference is what it starts from, `init_from` or the base."""

    method: Literal["dpo"]
    loss: DpoLossSection = DpoLossSection()


class PretrainRecipe(_Named):
    """A base model, trained from nothing on the warehouse's own text."""

    method: Literal["pretrain"]
    kind: Literal["base"] = "base"
    architecture: NanoArchitecture = NanoArchitecture()
    corpus: CorpusSection
    curriculum: CurriculumSection
    optimiser: OptimiserSection
    seed: int = 0


class _Baseline(_Named):
    kind: Literal["baseline"] = "baseline"
    seed: int = 0


class AlwaysHoldRecipe(_Baseline):
    """Never trades."""

    method: Literal["always_hold"]


class BuyAndHoldRecipe(_Baseline):
    """Buys each tradable symbol at the first decision and keeps it."""

    method: Literal["buy_and_hold"]


class MomentumSection(_Section):
    """The sign of one column decides."""

    column: str = "momentum_30d"
    threshold: float = Field(0.0, ge=0)


class MomentumRecipe(_Baseline):
    """Buys what has risen and sells what has fallen (Jegadeesh and Titman 1993)."""

    method: Literal["momentum"]
    params: MomentumSection = MomentumSection()


class GbmSection(_Section):
    """Gradient-boosted trees on the columns of features.decision_points; empty `features` means all of them."""

    n_estimators: int = Field(200, ge=1)
    max_depth: int = Field(3, ge=1)
    learning_rate: float = Field(0.05, gt=0)
    subsample: float = Field(0.8, gt=0, le=1)
    features: list[str] = []


class GbmRecipe(_Baseline):
    """Gradient-boosted trees on the same features as the prompts (Chen and Guestrin 2016)."""

    method: Literal["gbm"]
    params: GbmSection = GbmSection()


Recipe = Annotated[
    SftRecipe | DpoRecipe | PretrainRecipe | AlwaysHoldRecipe | BuyAndHoldRecipe | MomentumRecipe | GbmRecipe,
    Field(discriminator="method"),
]
_RECIPE: TypeAdapter[Any] = TypeAdapter(Recipe)
_BY_METHOD: dict[str, type[_Named]] = {
    get_args(kind.model_fields["method"].annotation)[0]: kind for kind in get_args(get_args(Recipe)[0])
}


def load_recipes(folder: Path) -> dict[str, Recipe]:
    """All recipes in `folder`, by name, in the order of their names. Raises TapehouseError: file, key and remedy."""
    recipes = {path.stem: load_recipe(path) for path in sorted(folder.glob("*.yaml"))}
    for name, recipe in recipes.items():
        if isinstance(recipe, _Adapter) and recipe.init_from is not None:
            _check_parents(folder / f"{name}.yaml", recipe, recipes)
    return recipes


def load_recipe(path: Path) -> Recipe:
    """The recipe in `path`, named after the file. Raises TapehouseError: file, key and remedy."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise TapehouseError(f"{path}: not YAML: {error}; mend the line it names") from error
    if not isinstance(fields, dict):
        raise TapehouseError(f"{path}: a recipe is a mapping of keys; start with 'method:' and 'description:'")
    if "name" in fields or "kind" in fields:
        raise TapehouseError(f"{path}: name and kind follow from the file's stem and the method; remove the key")
    recipe = parse_recipe({**fields, "name": path.stem}, str(path))
    if isinstance(recipe, _Adapter):
        try:
            templates.load(recipe.prompt.template) if recipe.prompt.template else None
        except TapehouseError as error:
            raise TapehouseError(f"{path}: prompt.template: {error}") from error
    return recipe


def _check_parents(path: Path, recipe: _Adapter, recipes: dict[str, Recipe]) -> None:
    """Each parent is an adapter of the same base and shape, and no recipe is its own ancestor."""
    line = [recipe.name]
    child: _Adapter = recipe
    while child.init_from is not None:
        parent = recipes.get(child.init_from)
        if not isinstance(parent, _Adapter):
            adapters = [name for name, known in recipes.items() if isinstance(known, _Adapter)]
            raise TapehouseError(f"{path}: init_from: {child.init_from!r} is no adapter; the adapters are {adapters}")
        if parent.name in line:
            raise TapehouseError(f"{path}: init_from: {' <- '.join([*line, parent.name])} is a circle; break it")
        if (parent.base, parent.adapter) != (child.base, child.adapter):
            raise TapehouseError(f"{path}: init_from: base and adapter must be those of {parent.name}, which it goes on from")
        line.append(parent.name)
        child = parent


def parse_recipe(fields: dict[str, Any], source: str) -> Recipe:
    """The recipe that `fields` describe; `source` names where they come from in an error."""
    try:
        return _RECIPE.validate_python(fields)
    except ValidationError as error:
        faults = "\n".join(f"  {_fault(fault, fields)}" for fault in error.errors())
        raise TapehouseError(f"{source}: not a recipe:\n{faults}") from None


def _fault(fault: dict[str, Any], fields: dict[str, Any]) -> str:
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"method: {fields.get('method')!r} is none of {sorted(_BY_METHOD)}"
    # The first part of a location is the method, which the discriminated union puts there.
    method, *path = (str(part) for part in fault["loc"])
    key = ".".join(path)
    if fault["type"] == "missing":
        return f"{key}: missing; add it"
    if fault["type"] == "extra_forbidden":
        known = [name for name in _fields_at(_BY_METHOD[method], path[:-1]) if name not in ("name", "kind")]
        near = difflib.get_close_matches(path[-1], known, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"remove it; the keys here are {known}"
        return f"{key}: unknown key; {remedy}"
    return f"{key}: {fault['msg']} (got {fault['input']!r}); correct the value"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        kind: Any = model.model_fields[part].annotation
        if get_origin(kind) in (Union, UnionType):
            kind = next(option for option in get_args(kind) if option is not type(None))
        model = kind
    return list(model.model_fields)
