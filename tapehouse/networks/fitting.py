"""What the fits of policies share: where a stage keeps its checkpoints, what it reports, and the files that a model leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from torch import nn

from tapehouse.networks.loop import Plan, Progress, train
from tapehouse.networks.windows import Windows
from tapehouse.predictions import ACTIONS, KEYS

WEIGHTS: Final = "model.safetensors"


@dataclass
class Stages:
    """The stages of one fit, one after the other, with one count of steps for the reports.

    Attributes:
        steps: of all stages together, if none stops early. rows: of features seen so far.
    """

    steps: int
    report: Callable[[dict[str, Any]], None] | None
    checkpoints: Path | None
    before: int = 0
    rows: int = 0

    def run(self, network: nn.Module, plan: Plan, width: int = 1) -> dict[str, Any]:
        """Run a stage; what its manifest says. `width` is the number of rows of features that one row of a batch holds."""
        batch = min(plan.stage.batch_size, plan.rows) * width

        def told(progress: Progress, loss: float) -> None:
            if self.report is not None:
                facts = {"step": self.before + progress.step, "steps": self.steps, "stage": plan.name, "loss": loss}
                measured = {"validation": progress.measured[-1]} if progress.measured else {}
                self.report({**facts, **measured, "tokens": self.rows + progress.step * batch})

        folder = None if self.checkpoints is None else self.checkpoints / plan.name
        progress = train(network, plan, told, folder)
        self.before += plan.stage.steps
        self.rows += progress.step * batch
        return {
            "steps": progress.step,
            "best_step": progress.best_step if progress.measured else progress.step,
            "loss": progress.losses[-1],
            "validation": min(progress.measured, default=None),
            "losses": progress.losses,
            "validations": progress.measured,
        }


def seeded(seed: int) -> None:
    """Before a network is made: its first weights follow from the seed."""
    torch.manual_seed(seed)


def measured_places(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` places, evenly spread: the same ones at every measurement."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)) if count else np.empty(0, np.int64)


def tensors_of(windows: Windows, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The windows of some decisions, and whether their rows are there."""
    rows, there = windows.batch(places)
    return torch.from_numpy(rows), torch.from_numpy(there)


def described(rows: pl.DataFrame, name: str) -> Callable[[int], str]:
    """Names the row of a training set at a place."""
    return lambda place: f"{name} {' '.join(map(str, rows.select(KEYS).row(place)))}"


def save_weights(network: nn.Module, folder: Path) -> None:
    """Write `model.safetensors`."""
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)


def base_rates(classes: np.ndarray) -> dict[str, float]:
    """Share of each action in class numbers 0 to 2."""
    shares = np.bincount(classes, minlength=len(ACTIONS)) / max(len(classes), 1)
    return dict(zip(ACTIONS, shares.tolist(), strict=True))
