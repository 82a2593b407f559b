"""What a training process is given: a recipe, rows, and folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from tapehouse.codeversion import modules_version
from tapehouse.hashing import text_hash
from tapehouse.training.manifest import PACKAGES, package_versions

if TYPE_CHECKING:
    from tapehouse.recipes import Recipe

# What decides a job's weights, beside its recipe, its code and the packages it runs on.
DECIDES: Final = (
    "seed",
    "threads",
    "dataset_digest",
    "validation_digest",
    "tokenizer_digest",
    "base_digest",
    "init_digest",
    "fold",
)

@dataclass(frozen=True)
class Job:
    """One training job, in the process that runs it.

    Attributes:
        recipe: of the method whose module in `tapehouse.training` runs it.
        rows: examples to train on. validation: those of the purged tail, to measure and to stop by; perhaps none.
        folder: the job's folder, with `tokenizer/`, `base/` and, of one that goes on from another adapter, `parent/`.
        out: where the weights and what belongs to them are left.
        report: called with step, steps, loss and tokens as training goes on.
        checkpoints: folder of this very job's checkpoints, which outlives the process until the job is done.
    """

    recipe: Recipe
    rows: pl.DataFrame
    validation: pl.DataFrame
    folder: Path
    out: Path
    seed: int
    report: Callable[[dict[str, Any]], None]
    checkpoints: Path


def job_identity(jobdir: Path, ranks: int = 1) -> str:
    """What a job's checkpoints are known by: recipe, data, base, parent, seed, fold, code, packages and processes."""
    job, recipe = (json.loads((jobdir / f"{name}.json").read_text()) for name in ("job", "recipe"))
    where = "methods" if (jobdir / "inputs").is_dir() else "training"
    return text_hash(
        json.dumps({**recipe, "name": None, "description": None}, sort_keys=True),
        json.dumps({key: job.get(key) for key in DECIDES}, sort_keys=True),
        modules_version((f"tapehouse.{where}.{recipe['method']}",)),
        json.dumps(package_versions(*PACKAGES), sort_keys=True),
        str(ranks),
    )[:16]
