"""Fitting a thesis policy: the teacher's signals first, then pairs of its own answers, by what they earn."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from torch import Tensor

from tapehouse.feature_matrix import matrix
from tapehouse.networks import onnx_file
from tapehouse.networks.fitting import Stages, base_rates, described, measured_places, save_weights, seeded
from tapehouse.networks.loop import Plan
from tapehouse.networks.losses import heads_entropy, heads_log_probability, pairwise_reinforce
from tapehouse.networks.scaler import Scaler
from tapehouse.networks.thesis import SIGNS, Directions, ThesisPolicy
from tapehouse.prompts.thesis import ACTIONS, CLAIMS, SECTIONS
from tapehouse.rewards import decision_rewards, share_right

UNKNOWN: Final = -1


@dataclass(frozen=True)
class Signals:
    """What the teacher says of n decisions.

    Attributes:
        rows: (n, F) float32. told: (n, 14) of sections and claims, 1, 0 or -1 for unknown. decision: (n,) 0 strong_sell to 4.
    """

    rows: Tensor
    told: Tensor
    decision: Tensor

    @property
    def known(self) -> Tensor:
        """(n, 14) which of the heads have an answer."""
        return self.told != UNKNOWN

    def __getitem__(self, places: np.ndarray) -> Signals:
        return Signals(self.rows[places], self.told[places], self.decision[places])

    def __len__(self) -> int:
        return len(self.decision)


def signals_of(taught: pl.DataFrame, rows: np.ndarray) -> Signals:
    """The signals of labelled decisions with `section_*`, `claim_*` and `action`, and their scaled features."""
    names = [f"section_{name}" for name in SECTIONS] + [f"claim_{name}" for name in CLAIMS]
    told = taught.select(pl.col(name).cast(pl.Int64).fill_null(UNKNOWN) for name in names).to_numpy()
    decision = [ACTIONS.index(action) for action in taught["action"]]
    return Signals(torch.from_numpy(rows), torch.tensor(told), torch.tensor(decision, dtype=torch.int64))


def rewards_of(said: Tensor, chosen: Tensor, signals: Signals, weights) -> Tensor:
    """(n,) what answers earn: shares right of sections and of claims, and the matrix of decisions, by the recipe's weights.

    What the teacher does not know is left out of the shares.

    Args:
        said: (n, 14) 1 or 0. chosen: (n,) 0 strong_sell to 4. weights: the section `reward` of a recipe's `reinforce`.
    """
    said, told = said.numpy(), signals.told.numpy()
    cut = len(SECTIONS)
    earned = (
        weights.sections * share_right(said[:, :cut], told[:, :cut])
        + weights.claims * share_right(said[:, cut:], told[:, cut:])
        + weights.decision * decision_rewards(signals.decision.numpy(), chosen.numpy())
    )
    return torch.from_numpy(earned)


def draw(yes_or_no: Tensor, choice: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """An answer for each row: (n, 14) of 1 and 0, and (n,) decisions. Without gradient."""
    with torch.no_grad():
        said = torch.bernoulli(torch.sigmoid(yes_or_no), generator=generator).long()
        return said, torch.multinomial(choice.softmax(dim=-1), 1, generator=generator)[:, 0]


def supervised_loss(policy: ThesisPolicy, signals: Signals) -> Tensor:
    """Mean negative log-probability of what the teacher says, over rows; what he does not know is left out."""
    told, decision = policy(signals.rows)
    return -heads_log_probability(told, decision, signals.told, signals.decision, signals.known).mean()


def reinforce_loss(policy: ThesisPolicy, signals: Signals, stage, generator: torch.Generator) -> Tensor:
    """`pairwise_reinforce` of two answers a row, drawn by the policy as it is; `stage` is a recipe's section `reinforce`."""
    told, decision = policy(signals.rows)
    known, logs, earned = signals.known, [], []
    for _ in range(2):
        said, chosen = draw(told, decision, generator)
        logs.append(heads_log_probability(told, decision, said, chosen, known))
        earned.append(rewards_of(said, chosen, signals, stage.reward).to(logs[-1].dtype))
    return pairwise_reinforce(*logs, *earned, heads_entropy(told, decision, known), stage.entropy)


@torch.no_grad()
def expected_reward(policy: ThesisPolicy, signals: Signals, weights) -> float:
    """Mean over rows of what the policy's answers earn on average: exact, since each part is linear in one head's chances."""
    told, decision = policy(signals.rows)
    chances, cut = torch.sigmoid(told), len(SECTIONS)
    right = torch.where(signals.told > 0, chances, 1.0 - chances) * signals.known
    total = torch.zeros(len(signals))
    for part, weight in ((slice(0, cut), weights.sections), (slice(cut, None), weights.claims)):
        count = signals.known[:, part].sum(dim=-1)
        total += weight * torch.where(count > 0, right[:, part].sum(dim=-1) / count.clamp_min(1), 1.0)
    matrix = decision_rewards(signals.decision.numpy()[:, None], np.arange(len(ACTIONS))[None, :])
    total += weights.decision * (decision.softmax(dim=-1) * torch.from_numpy(matrix)).sum(dim=-1)
    return float(total.mean())


def fit_policy(
    recipe, fitted: pl.DataFrame, tail: pl.DataFrame, scaler: Scaler, folder: Path, report=None, checkpoints: Path | None = None
) -> dict[str, Any]:
    """Fit the policy and leave its files; the manifest's part.

    Args:
        recipe: of the method ranking. fitted, tail: decisions with what the teacher says, of the training window and its tail.
    """
    signals, judged = (signals_of(part, scaler.with_known(matrix(part, scaler.names))) for part in (fitted, tail))
    judged = judged[measured_places(len(judged), recipe.evaluation.rows)]
    seeded(recipe.seed)
    policy = ThesisPolicy(signals.rows.shape[1], recipe.width)
    stages = Stages(recipe.supervised.steps + (recipe.reinforce.steps if recipe.reinforce else 0), report, checkpoints)

    def run(name: str, stage, loss, measure) -> dict[str, Any]:
        plan = Plan(
            name, stage, recipe.optimiser, recipe.plateau, recipe.evaluation, recipe.seed, len(signals), loss,
            measure if len(judged) else None, described(fitted, recipe.name), tuple(policy.parameters()),
        )  # fmt: skip
        return stages.run(policy, plan)

    told = {
        "supervised": run(
            "supervised",
            recipe.supervised,
            lambda places, _: supervised_loss(policy, signals[places]),
            lambda: float(supervised_loss(policy, judged)),
        )
    }
    if recipe.reinforce is not None:
        told["reinforce"] = run(
            "reinforce",
            recipe.reinforce,
            lambda places, generator: reinforce_loss(policy, signals[places], recipe.reinforce, generator),
            lambda: -expected_reward(policy, judged, recipe.reinforce.reward),
        )
    save_weights(policy, folder)
    places = measured_places(len(signals), onnx_file.COMPARED)
    directions = Directions(policy)
    parity = onnx_file.export(directions, {"rows": signals.rows[places]}, folder)
    signs = np.array(SIGNS)[signals.decision.numpy()] + 1
    return {
        "rows": len(signals),
        "rows_validation": tail.height,
        "features": list(scaler.names),
        "base_rates": base_rates(signs),
        "unknown": {name: float((~signals.known[:, i]).float().mean()) for i, name in enumerate((*SECTIONS, *CLAIMS))},
        "stages": told,
        "steps": sum(stage["steps"] for stage in told.values()),
        "loss": next(reversed(told.values()))["loss"],
        "tokens": stages.rows,
        "onnx_difference": parity,
    }
