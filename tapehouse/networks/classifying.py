"""Fitting a classifier of windows: as a whole by its labels, or its encoder by contrast first and a linear head on it after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tapehouse.networks import onnx_file
from tapehouse.networks.encoder import CLASSES, Chances, WindowClassifier
from tapehouse.networks.fitting import Stages, base_rates, described, measured_places, save_weights, seeded, tensors_of
from tapehouse.networks.loop import Plan
from tapehouse.networks.losses import focal_loss, supervised_contrastive_loss
from tapehouse.networks.recipe import FocalSection, PolicyRecipe, StageSection
from tapehouse.networks.windows import Windows, fitted_scaler, sorted_rows, windows_of


@dataclass(frozen=True)
class Data:
    """Windows to fit on and to measure by, with the classes 0 to 2 of each."""

    rows: pl.DataFrame
    fitted: Windows
    classes: Tensor
    tail: Windows
    tail_classes: Tensor


def fit_classifier(
    recipe, price: pl.DataFrame, parts: tuple[pl.DataFrame, ...], folder: Path, report=None, checkpoints: Path | None = None
) -> dict[str, Any]:
    """Fit encoder and head together by the focal loss of the labels.

    Args:
        recipe: of the method sequence. price: `features.price` over the windows.
        parts: labelled decisions of the training window, and of its validation tail.
    """
    seeded(recipe.seed)
    network = WindowClassifier(recipe.encoder)
    data = _data(recipe, price, *parts, folder)
    weights = class_weights(data.classes, recipe.loss)

    def loss(places: np.ndarray, _) -> Tensor:
        return focal_loss(network(*tensors_of(data.fitted, places)), data.classes[places], recipe.loss.gamma, weights)

    places = measured_places(len(data.tail), recipe.evaluation.rows)

    def measure() -> float:
        logits = network(*tensors_of(data.tail, places))
        return float(focal_loss(logits, data.tail_classes[places], recipe.loss.gamma, weights))

    stages = Stages(recipe.training.steps, report, checkpoints)
    plan = _plan(
        "training", recipe, recipe.training, data.rows, loss, measure if len(places) else None, tuple(network.parameters())
    )
    told = stages.run(network, plan, recipe.encoder.window)
    return _leave(recipe, network, weights, data, {"training": told}, stages.rows, folder)


def fit_by_contrast(
    recipe, price: pl.DataFrame, parts: tuple[pl.DataFrame, ...], folder: Path, report=None, checkpoints: Path | None = None
) -> dict[str, Any]:
    """Pretrain the encoder by the supervised contrastive loss, then fit a linear probe on its states, which stay as they are.

    Args: as of `fit_classifier`; recipe of the method contrastive.
    """
    seeded(recipe.seed)
    network = WindowClassifier(recipe.encoder)
    width = recipe.encoder.width
    # Learnt beside the encoder and left behind: what is thrown away by it may be what a probe needs (Khosla, section 3).
    projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, recipe.projection))
    pretrained = nn.ModuleDict({"encoder": network.encoder, "projection": projection})
    data = _data(recipe, price, *parts, folder)
    places = measured_places(len(data.tail), recipe.evaluation.rows)

    def contrast(windows: Windows, classes: Tensor, places: np.ndarray) -> Tensor:
        states = projection(network.encoder(*tensors_of(windows, places)))
        return supervised_contrastive_loss(states, classes[places], recipe.temperature)

    stages = Stages(recipe.pretraining.steps + recipe.probe.steps, report, checkpoints)
    plan = _plan(
        "pretraining", recipe, recipe.pretraining, data.rows, lambda some, _: contrast(data.fitted, data.classes, some),
        (lambda: float(contrast(data.tail, data.tail_classes, places))) if len(places) else None,
        tuple(pretrained.parameters()),
    )  # fmt: skip
    told = {"pretraining": stages.run(pretrained, plan, recipe.encoder.window)}
    states, tail_states = (_states(network, windows) for windows in (data.fitted, data.tail))

    def probe(states: Tensor, classes: Tensor) -> Tensor:
        return cross_entropy(network.head(states), classes)

    plan = _plan(
        "probe", recipe, recipe.probe, data.rows, lambda some, _: probe(states[some], data.classes[some]),
        (lambda: float(probe(tail_states[places], data.tail_classes[places]))) if len(places) else None,
        tuple(network.head.parameters()),
    )  # fmt: skip
    told["probe"] = stages.run(network.head, plan)
    return _leave(recipe, network, None, data, told, stages.rows, folder)


def class_weights(classes: Tensor, section: FocalSection) -> Tensor | None:
    """(3,) weight of each class, of mean 1 over the rows; None where they are not balanced, or where a class has no row."""
    count = torch.bincount(classes, minlength=CLASSES)
    if not section.balanced or not bool((count > 0).all()):
        return None
    return len(classes) / (CLASSES * count)


def _data(recipe, price: pl.DataFrame, rows: pl.DataFrame, tail: pl.DataFrame, folder: Path) -> Data:
    price = sorted_rows(price)
    scaler = fitted_scaler(price, rows, recipe.encoder.features, recipe.clip)
    scaler.save(folder)
    classes = [torch.from_numpy(part["label"].to_numpy().astype(np.int64) + 1) for part in (rows, tail)]
    windows = [windows_of(price, part, scaler, recipe.encoder.window) for part in (rows, tail)]
    return Data(rows, windows[0], classes[0], windows[1], classes[1])


def _plan(
    name: str, recipe: PolicyRecipe, stage: StageSection, rows: pl.DataFrame, loss, measure: Callable[[], float] | None, trained
) -> Plan:
    return Plan(
        name, stage, recipe.optimiser, recipe.plateau, recipe.evaluation, recipe.seed, rows.height, loss, measure,
        described(rows, recipe.name), trained,
    )  # fmt: skip


@torch.no_grad()
def _states(network: WindowClassifier, windows: Windows) -> Tensor:
    """(n, width) states of all windows: rows of a number, where their windows would have been `length` times F."""
    network.eval()
    parts = [network.encoder(torch.from_numpy(rows), torch.from_numpy(there)) for rows, there in windows.slices()]
    return torch.cat(parts) if parts else torch.empty(0, network.head.in_features)


def _leave(
    recipe, network: WindowClassifier, weights: Tensor | None, data: Data, stages: dict[str, Any], seen: int, folder: Path
) -> dict[str, Any]:
    """Write the model's files; the manifest's part."""
    save_weights(network, folder)
    windows, there = tensors_of(data.fitted, measured_places(len(data.fitted), onnx_file.COMPARED))
    parity = onnx_file.export(Chances(network, weights), {"windows": windows, "there": there}, folder)
    last = next(reversed(stages.values()))
    return {
        "rows": data.rows.height,
        "rows_validation": len(data.tail),
        "features": list(recipe.encoder.features),
        "base_rates": base_rates(data.classes.numpy()),
        "stages": stages,
        "steps": sum(stage["steps"] for stage in stages.values()),
        "loss": last["loss"],
        "tokens": seen,
        "onnx_difference": parity,
    }
