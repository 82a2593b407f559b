"""The sections of a recipe that several methods share, typed and frozen, and the two kinds of recipe that hold them.

A method adds its own sections in `tapehouse/methods/<method>.py`. Budgets are in optimiser steps, never in seconds: a slow
machine trains the same model.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tapehouse.hashing import text_hash

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
NOT_CONTENT = {"name", "description", "selected", "prior_trials", "search", "tuning", "gates"}


class Section(BaseModel):
    """A mapping of declared keys: an unknown one, or another type, is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelSection(Section):
    """Where training starts."""

    base: str = Field("nano", description="A recipe in models_registry/base/.")
    init_from: str | None = Field(None, description="Adapter of the same base, fold and snapshot to go on from.")
    device: Literal["cpu", "cuda"] = "cpu"


class AdapterSection(Section):
    """What is trained: low-rank factors W + alpha / rank · B A on each of the targets (Hu and others 2021), or all weights.

    `dora` splits magnitude from direction (Liu and others 2024), `rslora` scales by the root of the rank (Kalajdzievski 2023).
    `markers` trains the embeddings of the tokens that were added to the base's vocabulary, which are noise otherwise.
    """

    kind: Literal["lora", "full"] = "lora"
    rank: int = Field(16, ge=1, le=256)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: list[str] = Field(list(PROJECTIONS), min_length=1)
    dora: bool = False
    rslora: bool = False
    markers: bool = True


class QuantisationSection(Section):
    """How the frozen base is held: as it is, in 4 bits (NF4, Dettmers and others 2023) or in 8 (LLM.int8)."""

    kind: Literal["none", "nf4", "int8"] = "none"
    double: bool = Field(True, description="Quantise the constants of NF4, too.")
    compute: Literal["bf16", "fp32"] = "bf16"


class OptimiserSection(Section):
    """AdamW."""

    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(0.0, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)


class ScheduleSection(Section):
    """The learning rate: a linear warm-up, then the curve."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: int = Field(10, ge=0)


class PlateauSection(Section):
    """The learning rate falls by a factor when the validation metric has stopped to improve."""

    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(2, ge=0)
    floor: float = Field(1e-6, ge=0)


class BudgetSection(Section):
    """Work as optimiser steps and rows a step; a batch is `batch_size` rows, in `accumulation` parts."""

    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    accumulation: int = Field(1, ge=1)
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints; null keeps those of an `evaluation` alone."
    )
    precision: Literal["bf16", "fp32"] = Field("bf16", description="Of the autocast; weights stay in float32.")
    activation_checkpointing: bool = False

    @model_validator(mode="after")
    def _parts_are_whole(self) -> BudgetSection:
        if self.batch_size % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch_size {self.batch_size}")
        return self


class EvaluationSection(Section):
    """What is measured on the validation tail of the training window while training, and when that stops it.

    The three best checkpoints by the metric and the latest are kept, and the best is what training returns.
    """

    every: int = Field(ge=1, description="Steps between measurements.")
    rows: int = Field(256, ge=1, description="Most rows of the tail that are measured, the same ones every time.")
    patience: int | None = Field(3, ge=1, description="Measurements without improvement before training stops; null never.")
    threshold: float = Field(0.001, ge=0, description="The least that counts as an improvement of the loss.")


class PromptSection(Section):
    """What the adapter is asked at each decision point, and how it answers.

    `score` takes the likeliest of the allowed actions by the log-probability of its whole text, stop token included, in one
    forward pass; `generate` writes freely, and `constrained` writes what the answer's grammar allows.
    """

    objective: str | None = Field(None, description="What orders are asked for, one of objectives.yaml; of no other family.")
    template: str | None = Field(None, description="Another template than the one that prompts.yaml selects for the family.")
    limit_valid_sessions: int = Field(3, ge=1, description="Sessions for which an order rests before it is cancelled.")
    batch_size: int = Field(128, ge=1)
    answer: Literal["generate", "constrained", "score"] = "generate"
    temperature: float = Field(0.0, ge=0, description="0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=1)

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> PromptSection:
        if self.answer == "score" and (self.temperature, self.top_p, self.repetition_penalty) != (0.0, 1.0, 1.0):
            raise ValueError("answer 'score' draws no token: remove temperature, top_p and repetition_penalty, or generate")
        if self.temperature == 0.0 and self.top_p != 1.0:
            raise ValueError(f"top_p {self.top_p} does nothing where temperature 0 takes the likeliest token; raise that")
        return self


class Range(Section):
    """One number of a search space, drawn between two bounds, both included."""

    low: float | int
    high: float | int
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> Range:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("needs low < high, and low above 0 where log is true")
        return self


class TuningSection(Section):
    """How a search space is searched: by purged cross-validation inside the fold's training window."""

    trials: int = Field(20, ge=1)
    scheme: str = Field("tuning", description="One of cross_validation in models_registry/folds.yaml.")
    prune: bool = True


class Named(Section):
    """What every recipe says of itself.

    Class attributes:
        kind: `adapter`, `policy` (networks on features), `baseline` or `base`.
        apart: whether it is trained in a process of its own.
        predicts: whether it decides anything, so that it has predictions, an evaluation and a backtest.
    """

    kind: ClassVar[str]
    apart: ClassVar[bool] = False
    predicts: ClassVar[bool] = True

    name: str
    method: str
    description: str = Field(min_length=1)
    selected: bool = Field(True, description="Whether `make run` makes it; `make run-all` makes every recipe.")
    prior_trials: int = Field(0, ge=0, description="Settings tried before trials were logged, for the deflated Sharpe ratio.")
    seed: int = 0

    @property
    def hash(self) -> str:
        """Identity of what the recipe says that decides its weights or answers; not of its name, or whether it is selected."""
        return text_hash(self.model_dump_json(exclude=NOT_CONTENT))

    def idle(self) -> dict[str, str]:
        """Keys that have no effect as the rest of the recipe stands, each with the reason; a file may not give them."""
        return {}


class LanguageRecipe(Named):
    """An adapter of a base language model, trained in a process of its own on a token table.

    Class attributes:
        tokens: the token table that the method learns from. known_at: its column by which an example was known, that the
        training window is purged by. needs: the columns that training reads.
    """

    kind: ClassVar[str] = "adapter"
    apart: ClassVar[bool] = True
    tokens: ClassVar[str]
    known_at: ClassVar[str] = "label_known_at"
    needs: ClassVar[tuple[str, ...]]
    # Trainers that set the dropout of adapters to 0 whatever the recipe says: a value there would be ignored.
    ignores_dropout: ClassVar[bool] = False

    model: ModelSection = ModelSection()
    adapter: AdapterSection = AdapterSection()
    quantisation: QuantisationSection = QuantisationSection()
    optimiser: OptimiserSection
    schedule: ScheduleSection = ScheduleSection()
    budget: BudgetSection
    evaluation: EvaluationSection | None = None
    prompt: PromptSection

    @property
    def family(self) -> str:
        """The family of prompts that it learns to answer: order, thesis or agent; a method's section `data` may say another."""
        return getattr(getattr(self, "data", None), "family", "order")

    @model_validator(mode="after")
    def _can_be(self) -> LanguageRecipe:
        if self.predicts and self.family == "order" and self.prompt.objective is None:
            raise ValueError("prompt.objective: missing; an order is asked for one of those of objectives.yaml: add it")
        if self.predicts and self.family != "order" and self.prompt.objective is not None:
            raise ValueError(f"prompt.objective: no prompt of the family {self.family!r} has one; remove it")
        if self.quantisation.kind != "none" and self.adapter.kind == "full":
            raise ValueError(
                f"quantisation.kind: {self.quantisation.kind} weights are frozen, so that adapter.kind 'full' has nothing to "
                "train; take 'lora', or quantisation.kind 'none'"
            )
        if self.quantisation.kind == "int8" and self.adapter.dora:
            raise ValueError("adapter.dora: needs the norms of the weights, which int8 layers do not give; take nf4 or no DoRA")
        if self.adapter.kind == "full" and (self.adapter.dora or self.adapter.rslora or self.adapter.dropout):
            raise ValueError("adapter: dora, rslora and dropout are of low-rank factors; remove them, or take kind 'lora'")
        if self.ignores_dropout and self.adapter.dropout:
            raise ValueError(f"adapter.dropout: training by {self.method} runs without dropout, and would ignore it; set 0.0")
        if self.evaluation and self.budget.checkpoint_every and self.evaluation.every % self.budget.checkpoint_every:
            raise ValueError(
                f"evaluation.every {self.evaluation.every} is no multiple of budget.checkpoint_every "
                f"{self.budget.checkpoint_every}: the best measured state has to be a checkpoint; make it one"
            )
        return self

    def idle(self) -> dict[str, str]:
        """Of adapters and quantisation what is of another kind, and of the prompt and measurements what nothing asks for."""
        found = {}
        if self.adapter.kind == "full":
            factors = ("rank", "alpha", "targets", "markers")
            found |= {f"adapter.{key}": "adapter.kind 'full' trains every weight, without low-rank factors" for key in factors}
        if self.quantisation.kind != "nf4":
            only = f"it is of NF4 alone, and quantisation.kind is {self.quantisation.kind!r}"
            found |= {"quantisation.double": only, "quantisation.compute": only}
        if self.evaluation is not None and self.evaluation.patience is None:
            found["evaluation.threshold"] = "evaluation.patience null never stops training"
        if self.predicts and self.family != "order":
            found["prompt.limit_valid_sessions"] = f"no answer of the family {self.family!r} has a limit"
        if self.predicts and self.prompt.answer == "score":
            found["prompt.batch_size"] = "prompt.answer 'score' fills its batches by tokens"
        return found


class PairRecipe(LanguageRecipe):
    """An adapter that learns from preference pairs; TRL's trainers of those, and ours, run without dropout."""

    tokens: ClassVar[str] = "datasets.preference_tokens"
    known_at: ClassVar[str] = "reward_known_at"
    needs: ClassVar[tuple[str, ...]] = ("prompt_ids", "chosen_ids", "rejected_ids")
    ignores_dropout: ClassVar[bool] = True


class ClassicalRecipe(Named):
    """A predictor without a language model: it reads tables of the warehouse, as its method's module declares.

    `search` gives ranges by the key that they stand for, as in `params.max_depth`; `tapehouse tune NAME` searches them.
    """

    kind: ClassVar[str] = "baseline"

    search: dict[str, Range] = Field({})
    tuning: TuningSection = TuningSection()

    @model_validator(mode="after")
    def _search_names_keys(self) -> ClassicalRecipe:
        for key, bounds in self.search.items():
            if key.split(".")[0] in NOT_CONTENT:
                raise ValueError(f"search.{key}: changes nothing that is fitted; remove it")
            found: Any = self
            for part in key.split("."):
                found = getattr(found, part, None)
            if isinstance(found, bool) or not isinstance(found, int | float):
                raise ValueError(f"search.{key}: names no number of this recipe; write it as in 'params.max_depth'")
            if isinstance(found, int) and not (isinstance(bounds.low, int) and isinstance(bounds.high, int)):
                raise ValueError(f"search.{key}: is a whole number; give low and high as whole numbers")
        return self
