"""Memory, before a run starts: what training will take, what there is, and a refusal where it cannot fit.

The estimate is of the largest batch: every row of it as long as the longest. Its constants were set against measured peaks
(docs/models.md); it is meant to refuse what is hopeless before hours are spent, not to fill a machine to the last megabyte.
"""

from __future__ import annotations

import math
import re
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import LanguageRecipe

if TYPE_CHECKING:
    from tapehouse.training.job import Job

PROCESS: Final = 700e6  # Python, torch and transformers, before a model is loaded
ADAM: Final = 8  # bytes a trained weight: two moments in float32
HELD: Final = {"none": 4.0, "nf4": 0.56, "int8": 1.02}  # bytes a weight of a projection, constants of the quantisation included
# States kept for the backward pass by layer and token, of the residual's width and of the inner one.
WIDTHS: Final = 14
INNER: Final = 8
LOGITS: Final = 3  # logits, their log-softmax and its gradient, in float32


@dataclass(frozen=True)
class Memory:
    """Bytes that training takes, by what takes them."""

    process: float
    weights: float
    optimiser: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """The sum of all of them."""
        return sum(asdict(self).values())


def refuse_what_cannot_fit(job: Job) -> float:
    """The bytes that a job of a language model is expected to take.

    Raises TapehouseError where that is more than there is.
    """
    from tapehouse.training.trainer import world_size

    needed = estimate(job.recipe, job.folder / "base", job.rows, world_size())
    device = job.recipe.model.device
    free = available_gpu() if device == "cuda" else available() / world_size()
    if needed.total > free:
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in asdict(needed).items())
        raise TapehouseError(
            f"recipe {job.recipe.name}: training takes about {needed.total / 1e9:.2f} GB ({parts}) and {free / 1e9:.2f} GB are "
            f"free on the {device}; raise budget.accumulation, set budget.activation_checkpointing, or quantise the base"
        )
    return needed.total


def estimate(recipe: LanguageRecipe, base: Path, rows: pl.DataFrame, processes: int = 1) -> Memory:
    """Memory of one process that trains a recipe on a base's folder and these rows."""
    shapes = weight_shapes(base)
    everything = sum(map(math.prod, shapes.values()))
    layer_of = {name: int(found[1]) for name in shapes if (found := re.search(r"\.(\d+)\.", name))}
    projections = {name: shape for name, shape in shapes.items() if name in layer_of and len(shape) == 2}
    projected = sum(map(math.prod, projections.values()))
    layers, inner = 1 + max(layer_of.values()), max(map(max, projections.values()))
    vocabulary, hidden = max((shape for shape in shapes.values() if len(shape) == 2), key=max)
    weights = HELD[recipe.quantisation.kind] * projected + 4 * (everything - projected)
    adapter = recipe.adapter
    if adapter.kind == "full":
        trained = everything
    else:
        targets = [shape for name, shape in projections.items() if name.split(".")[-2] in adapter.targets]
        trained = adapter.rank * sum(sum(shape) for shape in targets)
        weights += 4 * trained
    half = recipe.budget.precision == "bf16"
    if half:
        weights += 2 * projected  # autocast's copies, which the backward pass needs
    tokens = _batch_tokens(rows, recipe.budget.batch_size // recipe.budget.accumulation // processes, recipe)
    states = WIDTHS * hidden + INNER * inner
    kept = layers * hidden + states if recipe.budget.activation_checkpointing else layers * states
    return Memory(
        process=PROCESS,
        weights=weights,
        optimiser=(4 + ADAM) * trained,
        activations=tokens * kept * (3 if half else 4),
        logits=tokens * vocabulary * 4 * LOGITS,
    )


def weight_shapes(base: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a base's weights by name, from the headers of its files."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, framework="numpy") as opened:
            shapes |= {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    return shapes


def available(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Bytes that this process may still take: the system's, or what is left of the limit of its control group."""
    import psutil

    free = [float(psutil.virtual_memory().available)]
    for line in own.read_text().splitlines() if own.is_file() else []:
        folder = groups / line.split(":", 2)[2].lstrip("/")
        while folder != groups.parent:  # a limit holds for all groups inside
            limit, used = folder / "memory.max", folder / "memory.current"
            if limit.is_file() and (most := limit.read_text().strip()) != "max":
                free.append(float(most) - float(used.read_text()))
            folder = folder.parent
    return min(free)


def available_gpu() -> float:
    """Bytes that are free on the GPU of this process. Raises TapehouseError where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise TapehouseError("model.device cuda: this machine shows no GPU; set cpu, or choose a machine by TAPEHOUSE_LAUNCHER")
    return float(torch.cuda.mem_get_info()[0])


def peak() -> dict[str, Any]:
    """The most memory that this process has taken so far: of the system, and of the GPU where there is one."""
    import torch

    told = {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}
    if torch.cuda.is_available():
        told["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6)
    return told


def _batch_tokens(rows: pl.DataFrame, count: int, recipe: LanguageRecipe) -> int:
    """Tokens of the largest batch of `count` rows: each as long as the longest.

    Of a rollout they are answers: of most tokens, each behind a copy of a token of its prompt, which they share with others.
    """
    lists = [name for name, kind in rows.schema.items() if kind == pl.List and name.endswith("_ids")]
    longest = int(rows.select(pl.sum_horizontal(pl.col(name).list.len() for name in lists).max()).item() or 0)
    rollout = getattr(recipe, "rollout", None)
    if rollout is None:
        return count * longest
    prompts = count * rollout.updates * recipe.budget.accumulation // rollout.group  # of one process; its answers are shuffled
    return min(count, prompts) * longest + count * (rollout.most_tokens + 1)
