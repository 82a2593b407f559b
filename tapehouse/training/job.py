"""What a training process is given: a recipe, rows, and folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:
    from tapehouse.recipes import Recipe


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
