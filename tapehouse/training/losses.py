"""Losses of preference pairs, one value a pair; means and weights are taken by whoever trains.

With log-probabilities of whole answers (the stop token included) under the policy and under the reference, and

    d = (log p_w - log r_w) - (log p_l - log r_l)          w chosen, l rejected

- `sigmoid`: -log sigmoid(beta d) (R. Rafailov and others, Direct Preference Optimization, 2023).
- `sigmoid_norm`: the same with each log-ratio over the length of its answer in tokens.
- `ipo`: (d' - 1 / (2 beta))^2, d' the difference of log-ratios over their lengths, as in TRL (M. Azar and others, 2023).
- `soft_clip`: the sigmoid loss bent at two levels; see :func:`soft_clip`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F

KINDS: Final = ("sigmoid", "sigmoid_norm", "ipo", "soft_clip")
UPPER, LOWER, SLOPE = 0.28, -0.20, 0.5


@dataclass(frozen=True, slots=True)
class PairScores:
    """Log-probabilities of the answers of a batch of pairs, (pairs,) each, and their lengths in tokens."""

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor


def pair_losses(policy: PairScores, reference: PairScores, kind: str, beta: float) -> torch.Tensor:
    """Loss of each pair, (pairs,), before weights and mean.

    Raises:
        ValueError: a kind that is none of `KINDS`.
    """
    chosen, rejected = policy.chosen - reference.chosen, policy.rejected - reference.rejected
    if kind == "sigmoid":
        return -F.logsigmoid(beta * (chosen - rejected))
    if kind == "soft_clip":
        return soft_clip(-F.logsigmoid(beta * (chosen - rejected)))
    by_token = chosen / policy.chosen_tokens - rejected / policy.rejected_tokens
    if kind == "sigmoid_norm":
        return -F.logsigmoid(beta * by_token)
    if kind == "ipo":
        return (by_token - 1.0 / (2.0 * beta)) ** 2
    raise ValueError(f"preference loss {kind!r}: the kinds are {KINDS}")


def soft_clip(losses: torch.Tensor) -> torch.Tensor:
    """Losses bent at two levels: above 0.28 it is 0.5 l + 0.14, below -0.20 it is 0.5 l - 0.10, between them l itself.

    Continuous with a kink at each level, where the slope goes from 1 to one half: what lies beyond pulls half as hard. A
    sigmoid loss is positive and never reaches the lower branch; at beta 0.1 every pair starts at ln 2 = 0.693, above the upper
    one, so training begins at half the sigmoid's gradient and a pair gets the full one only below 0.28.
    """
    bent = torch.where(losses > UPPER, SLOPE * losses + (1.0 - SLOPE) * UPPER, losses)
    return torch.where(losses < LOWER, SLOPE * losses + (1.0 - SLOPE) * LOWER, bent)


def weighted_mean(losses: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Mean of the losses, each times its weight; plain without weights.

    The weights have a mean of one over the data, not over the batch: the mean of a batch is then the same however it is
    divided among processes and steps of accumulation.
    """
    return losses.mean() if weights is None else (losses * weights).mean()
