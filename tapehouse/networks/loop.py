"""One training loop for all networks on features: resumable to the bit, stopped and annealed by the validation tail.

Every random number of a step (its rows, dropout, drawn answers) follows from the seed and the step's number alone, so that a
run which goes on from a checkpoint draws what an uninterrupted one would have drawn, and there is no generator to restore.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tapehouse.errors import TapehouseError
from tapehouse.networks.recipe import StageSection
from tapehouse.recipe_sections import EvaluationSection, OptimiserSection, PlateauSection
from tapehouse.training.checkpoints import Checkpoint, newest, save

Loss = Callable[[np.ndarray, torch.Generator], Tensor]


@dataclass(frozen=True)
class Plan:
    """What a stage does.

    Attributes:
        name: of the stage, in reports and errors. rows: number of rows to draw batches from.
        loss: of the rows at some places, with the step's generator for what else it draws.
        measure: a number on the validation tail that falls as the network gets better; None where there is no tail.
        describe: names the row at a place, for an error.
        trained: the parameters that the stage trains.
    """

    name: str
    stage: StageSection
    optimiser: OptimiserSection
    plateau: PlateauSection | None
    evaluation: EvaluationSection
    seed: int
    rows: int
    loss: Loss
    measure: Callable[[], float] | None
    describe: Callable[[int], str]
    trained: tuple[nn.Parameter, ...]


@dataclass
class Progress:
    """How far a stage has come: all that a checkpoint has to hold beside tensors."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    waited: int = 0  # measurements without improvement
    stopped: bool = False
    losses: list[float] = field(default_factory=list)  # mean of the steps since the measurement before
    measured: list[float] = field(default_factory=list)
    since: list[float] = field(default_factory=list)  # losses of the steps since the last measurement


def places_of_step(seed: int, rows: int, batch: int, step: int) -> np.ndarray:
    """Places of the rows of a step, 0 the first: epochs, each in an order of its own, one after the other."""
    batch = min(batch, rows)
    start = step * batch
    order: list[np.ndarray] = []
    for epoch in range(start // rows, (start + batch - 1) // rows + 1):
        order.append(np.random.default_rng([seed, epoch]).permutation(rows))
    return np.concatenate(order)[start % rows : start % rows + batch]


def train(
    network: nn.Module,
    plan: Plan,
    report: Callable[[Progress, float], None],
    checkpoints: Path | None = None,
) -> Progress:
    """Run a stage; leaves in `network` the weights of the best measurement, or of the last step where there is no tail.

    Args:
        report: called with the progress and the latest loss at each measurement, and at the end.
        checkpoints: folder of the stage's own, where each measurement leaves one; the newest that is there is gone on from.

    Raises:
        TapehouseError: the loss is not finite. It is seen before the optimiser steps, and names the rows of the batch.
    """
    first = plan.optimiser
    optimiser = torch.optim.AdamW(
        plan.trained, lr=first.learning_rate, betas=(first.beta1, first.beta2), weight_decay=first.weight_decay
    )
    plateau = None
    if plan.plateau:
        anneal = plan.plateau
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=anneal.factor, patience=anneal.patience, min_lr=anneal.floor,
            threshold=plan.evaluation.threshold, threshold_mode="abs",
        )  # fmt: skip
    progress, best = Progress(), deepcopy(network.state_dict())
    found = newest(checkpoints) if checkpoints is not None and checkpoints.is_dir() else None
    if found is not None:
        progress, best = _restore(found, network, optimiser, plateau)
    elif plan.measure is not None:  # a stage that makes nothing better leaves the network as it was
        progress.best = _measure(network, plan.measure)
        progress.measured.append(progress.best)
    while progress.step < plan.stage.steps and not progress.stopped:
        loss = _step(network, optimiser, plan, progress.step)
        progress.step += 1
        progress.since.append(loss)
        if progress.step % plan.evaluation.every == 0 or progress.step == plan.stage.steps:
            if _measured(network, plan, progress, plateau):
                best = deepcopy(network.state_dict())
            report(progress, loss)
            if checkpoints is not None:
                state = {
                    "progress": asdict(progress),
                    "best": best,
                    "optimiser": optimiser.state_dict(),
                    "plateau": None if plateau is None else plateau.state_dict(),
                }
                measured = progress.measured[-1] if progress.measured else None
                save(checkpoints, progress.step, network.state_dict(), state, measured)
    if plan.measure is not None:
        network.load_state_dict(best)
    network.eval()
    return progress


def _step(network: nn.Module, optimiser: torch.optim.Optimizer, plan: Plan, step: int) -> float:
    places = places_of_step(plan.seed, plan.rows, plan.stage.batch_size, step)
    entropy = np.random.SeedSequence([plan.seed, step]).generate_state(2)
    torch.manual_seed(int(entropy[0]))  # dropout has no generator of its own
    network.train()
    loss = plan.loss(places, torch.Generator().manual_seed(int(entropy[1])))
    if not torch.isfinite(loss):
        named = ", ".join(plan.describe(int(place)) for place in places[:3])
        raise TapehouseError(
            f"{plan.name}: the loss of step {step + 1} is {loss.item()}; its batch has {len(places)} rows: {named}, …; lower "
            "optimiser.learning_rate, or mend what those rows hold"
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(plan.trained, plan.optimiser.max_grad_norm)
    optimiser.step()
    return loss.item()


def _measured(network: nn.Module, plan: Plan, progress: Progress, plateau) -> bool:
    """Measure on the tail; whether this is the best so far."""
    progress.losses.append(float(np.mean(progress.since)))
    progress.since.clear()
    if plan.measure is None:
        return False
    value = _measure(network, plan.measure)
    progress.measured.append(value)
    if plateau is not None:
        plateau.step(value)
    better = value < progress.best
    improved = value < progress.best - plan.evaluation.threshold
    progress.waited = 0 if improved else progress.waited + 1
    if better:
        progress.best, progress.best_step = value, progress.step
    patience = plan.evaluation.patience
    progress.stopped = patience is not None and progress.waited >= patience
    return better


def _measure(network: nn.Module, measure: Callable[[], float]) -> float:
    network.eval()
    with torch.no_grad():
        return measure()


def _restore(found: Checkpoint, network, optimiser, plateau) -> tuple[Progress, dict[str, Tensor]]:
    """The progress and the best weights of a checkpoint; its own go to the network, the rest to where it came from."""
    state = found.state()
    network.load_state_dict(found.tensors())
    optimiser.load_state_dict(state["optimiser"])
    if plateau is not None:
        plateau.load_state_dict(state["plateau"])
    return Progress(**state["progress"]), state["best"]
