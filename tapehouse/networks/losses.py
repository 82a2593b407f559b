"""Losses of the policies. All take logits; logarithms are of `log_softmax` and `logsigmoid`, so that none is of 0."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid, normalize


def focal_loss(logits: Tensor, classes: Tensor, gamma: float, weights: Tensor | None = None) -> Tensor:
    """Mean of -w (1 - p)^gamma log p over rows, p the probability of the row's class, w the weight of that class.

    The mean is over rows, not over weights: with gamma 0 and no weights it is the cross-entropy. T.-Y. Lin and others, Focal
    Loss for Dense Object Detection (ICCV 2017).

    Args:
        logits: (n, classes). classes: (n,) class numbers. weights: (classes,), 1 where None.
    """
    logs = log_softmax(logits, dim=-1).gather(-1, classes[:, None])[:, 0]
    # Below gamma 1 the slope at p = 1 is infinite, times a logarithm of 0: away from 0 both loss and gradient are 0.
    missed = (-torch.expm1(logs)).clamp_min(torch.finfo(logs.dtype).tiny)
    losses = -(missed**gamma) * logs if gamma else -logs
    return (losses if weights is None else losses * weights[classes]).mean()


def supervised_contrastive_loss(states: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Mean over anchors of -1/|P| times the sum over P of log (exp(z·z_p / t) / sum over all others a of exp(z·z_a / t)).

    P are the other rows of the anchor's class; anchors without one are left out, and a batch without any has loss 0. z are
    the states at length one. P. Khosla and others, Supervised Contrastive Learning (NeurIPS 2020), eq. 2, the sum outside of
    the logarithm.

    Args:
        states: (n, width). classes: (n,).
    """
    unit = normalize(states, dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    alike = (unit @ unit.T / temperature).masked_fill(itself, float("-inf"))
    logs = log_softmax(alike, dim=-1).masked_fill(itself, 0.0)
    positive = (classes[:, None] == classes[None, :]) & ~itself
    count = positive.sum(dim=-1)
    anchors = count > 0
    of_anchor = (logs * positive).sum(dim=-1) / count.clamp_min(1)
    return -(of_anchor * anchors).sum() / anchors.sum().clamp_min(1)


def heads_log_probability(yes_or_no: Tensor, choice: Tensor, said: Tensor, chosen: Tensor, known: Tensor) -> Tensor:
    """(n,) log-probability of an answer: the sum over its yes-or-no heads that are known, and its one choice.

    What is not known is put to 0 before anything is summed, whatever its logit and its answer: it changes no bit, and has no
    gradient.

    Args:
        yes_or_no: (n, k) logits of Bernoulli heads. choice: (n, classes) logits of the categorical head.
        said: (n, k) 1 or 0; any number where not known. chosen: (n,). known: (n, k) bool.
    """
    signed = torch.where(said > 0, yes_or_no, -yes_or_no)
    told = torch.where(known, logsigmoid(torch.where(known, signed, 0.0)), 0.0)
    return told.sum(dim=-1) + log_softmax(choice, dim=-1).gather(-1, chosen[:, None])[:, 0]


def heads_entropy(yes_or_no: Tensor, choice: Tensor, known: Tensor) -> Tensor:
    """(n,) entropy of the same, in nats: of the known yes-or-no heads and of the choice, which are independent given a row."""
    logits = torch.where(known, yes_or_no, 0.0)
    chance = torch.sigmoid(logits)
    told = -(chance * logsigmoid(logits) + (1.0 - chance) * logsigmoid(-logits))
    logs = log_softmax(choice, dim=-1)
    return torch.where(known, told, 0.0).sum(dim=-1) - (logs.exp() * logs).sum(dim=-1)


def pairwise_reinforce(
    first: Tensor, second: Tensor, reward_first: Tensor, reward_second: Tensor, entropy: Tensor, entropy_weight: float
) -> Tensor:
    """-mean(A1 log p1 + A2 log p2) - c · mean entropy, with A1 = (R1 - R2) / 2 and A2 = -A1, detached.

    Two answers drawn for the same row are each other's baseline: R. J. Williams' estimator (1992) with the leave-one-out
    baseline of W. Kool and others (2019), halved, since either answer speaks for the row. Its expectation is the gradient of
    the expected reward.

    Args:
        first, second: (n,) log-probabilities. reward_first, reward_second: (n,). entropy: (n,). entropy_weight: c.
    """
    advantage = (0.5 * (reward_first - reward_second)).detach()
    return -(advantage * first - advantage * second).mean() - entropy_weight * entropy.mean()
