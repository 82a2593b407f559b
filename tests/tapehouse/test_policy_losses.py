"""Losses of the policies against formulas on paper, closed-form gradients, and exact expectations."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.networks.losses import (
    focal_loss,
    heads_entropy,
    heads_log_probability,
    pairwise_reinforce,
    supervised_contrastive_loss,
)
from tapehouse.networks.recipe import FocalSection


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_focal_loss_on_paper():
    # Probabilities 1/2, 1/4, 1/4 of the first row and 1/10, 1/10, 8/10 of the second.
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]], dtype=torch.float64))
    classes = torch.tensor([1, 2])
    by_hand = (0.75**2 * math.log(4) + 0.2**2 * math.log(1.25)) / 2
    assert focal_loss(logits, classes, 2.0).item() == pytest.approx(by_hand, rel=1e-12)
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    weighted = (2.0 * 0.75 * math.log(4) + 0.5 * 0.2 * math.log(1.25)) / 2
    assert focal_loss(logits, classes, 1.0, weights).item() == pytest.approx(weighted, rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(-8, 8), min_size=3, max_size=3), min_size=1, max_size=6), st.floats(0, 4))
def test_focal_loss_is_cross_entropy_that_forgets_what_is_easy(rows, gamma):
    logits = torch.tensor(rows, dtype=torch.float64)
    classes = torch.arange(len(rows)) % 3
    plain = torch.nn.functional.cross_entropy(logits, classes)
    assert focal_loss(logits, classes, 0.0).item() == pytest.approx(plain.item(), rel=1e-12)
    assert 0.0 <= focal_loss(logits, classes, gamma).item() <= plain.item() + 1e-12


def test_focal_gradient_in_closed_form():
    """d/dz_k of -(1 - p)^g log p is (g p (1-p)^(g-1) log p - (1-p)^g) (1[k = class] - p_k), p that of the class."""
    logits = torch.tensor([[0.3, -1.2, 0.8]], dtype=torch.float64, requires_grad=True)
    focal_loss(logits, torch.tensor([1]), 1.5).backward()
    shares = np.exp(logits.detach().numpy()[0]) / np.exp(logits.detach().numpy()[0]).sum()
    p = shares[1]
    by_hand = (1.5 * p * (1 - p) ** 0.5 * math.log(p) - (1 - p) ** 1.5) * (np.array([0.0, 1.0, 0.0]) - shares)
    assert np.allclose(logits.grad.numpy()[0], by_hand, rtol=1e-12)
    sure = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)  # p is 1 in float32: neither loss nor gradient is NaN
    focal_loss(sure, torch.tensor([0]), 0.5).backward()
    assert torch.isfinite(sure.grad).all()


def test_supervised_contrastive_loss_on_paper():
    # Unit vectors: a and b at right angles, c equal to a; classes 0, 0, 1, so that c has no partner and is left out.
    states = torch.tensor([[3.0, 0.0], [0.0, 2.0], [5.0, 0.0]], dtype=torch.float64)
    classes = torch.tensor([0, 0, 1])
    t = 0.5
    # Anchor a: partner b (cosine 0) among b (0) and c (1). Anchor b: partner a (0) among a (0) and c (0).
    of_a = -math.log(math.exp(0 / t) / (math.exp(0 / t) + math.exp(1 / t)))
    of_b = -math.log(1 / 2)
    assert supervised_contrastive_loss(states, classes, t).item() == pytest.approx((of_a + of_b) / 2, rel=1e-12)
    # A fourth row of class 0 at -a: each anchor takes the mean over its two partners.
    four = torch.cat([states, torch.tensor([[-1.0, 0.0]], dtype=torch.float64)])
    cosines = np.array([[1, 0, 1, -1], [0, 1, 0, 0], [1, 0, 1, -1], [-1, 0, -1, 1]], dtype=float)
    by_hand = []
    for anchor, partners in ((0, (1, 3)), (1, (0, 3)), (3, (0, 1))):
        others = [a for a in range(4) if a != anchor]
        total = sum(math.exp(cosines[anchor, a] / t) for a in others)
        by_hand.append(-sum(math.log(math.exp(cosines[anchor, p] / t) / total) for p in partners) / len(partners))
    loss = supervised_contrastive_loss(four, torch.tensor([0, 0, 1, 0]), t)
    assert loss.item() == pytest.approx(sum(by_hand) / 3, rel=1e-12)


def test_contrast_without_partners_is_nothing_and_order_does_not_matter():
    states = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    alone = supervised_contrastive_loss(states, torch.arange(6), 0.1)
    alone.backward()
    assert alone.item() == 0.0 and states.grad.abs().max() == 0.0
    classes, order = torch.tensor([0, 1, 0, 2, 1, 1]), torch.tensor([3, 5, 0, 1, 4, 2])
    first = supervised_contrastive_loss(states, classes, 0.1)
    assert supervised_contrastive_loss(states[order], classes[order], 0.1).item() == pytest.approx(first.item(), rel=1e-12)


def answers(n: int, seed: int, k: int = 5):
    """Logits, two answers, rewards and what is known of n rows, in double precision."""
    rng = np.random.default_rng(seed)
    told, choice = rng.normal(size=(n, k)), rng.normal(size=(n, 5))
    said, chosen = rng.integers(0, 2, (2, n, k)), rng.integers(0, 5, (2, n))
    return told, choice, said, chosen, rng.normal(size=(2, n)), rng.random((n, k)) < 0.6


def test_gradient_of_pairwise_reinforce_in_closed_form():
    """Of the logits: -(A1 (y1 - y2)) / n for each known head, 0 for others, less c times that of the entropy.

    The gradient of log p(y) is y - p (for the choice: the unit vector less p), and p cancels, since A2 = -A1.
    """
    n, c = 4, 0.07
    told, choice, said, chosen, rewards, known = answers(n, 3)
    z, u = (torch.tensor(x, requires_grad=True) for x in (told, choice))
    mask = torch.tensor(known)
    logs = [heads_log_probability(z, u, torch.tensor(said[i]), torch.tensor(chosen[i]), mask) for i in range(2)]
    loss = pairwise_reinforce(*logs, *map(torch.tensor, rewards), heads_entropy(z, u, mask), c)
    loss.backward()
    advantage = 0.5 * (rewards[0] - rewards[1])
    p = sigmoid(told)
    of_heads = -advantage[:, None] * (said[0] - said[1]) + c * told * p * (1 - p)  # dH/dz = -z p (1 - p)
    q = np.exp(choice) / np.exp(choice).sum(axis=1, keepdims=True)
    entropy = -(q * np.log(q)).sum(axis=1, keepdims=True)
    unit = np.eye(5)
    of_choice = -advantage[:, None] * (unit[chosen[0]] - unit[chosen[1]]) + c * q * (np.log(q) + entropy)
    assert np.allclose(z.grad.numpy(), np.where(known, of_heads, 0.0) / n, rtol=1e-10, atol=1e-14)
    assert np.allclose(u.grad.numpy(), of_choice / n, rtol=1e-10, atol=1e-14)
    assert (z.grad.numpy()[~known] == 0.0).all()
    heads = np.where(said == 1, np.log(p), np.log(1 - p))
    by_hand = [np.where(known, heads[i], 0.0).sum(axis=1) + np.log(q)[np.arange(n), chosen[i]] for i in range(2)]
    told_entropy = np.where(known, -(p * np.log(p) + (1 - p) * np.log(1 - p)), 0.0).sum(axis=1) + entropy[:, 0]
    value = -(advantage * by_hand[0] - advantage * by_hand[1]).mean() - c * told_entropy.mean()
    assert loss.item() == pytest.approx(value, rel=1e-12)


def test_expected_gradient_of_pairs_is_that_of_the_expected_reward():
    """Over all pairs of answers of two yes-or-no heads and a choice of five, weighted by their chances: no sampling error."""
    rng = np.random.default_rng(5)
    z, u = (torch.tensor(rng.normal(size=(1, k)), requires_grad=True) for k in (2, 5))
    known = torch.tensor([[True, True]])
    space = list(itertools.product((0, 1), (0, 1), range(5)))
    earned = torch.tensor(rng.normal(size=len(space)))
    logs = torch.cat([heads_log_probability(z, u, torch.tensor([[a, b]]), torch.tensor([d]), known) for a, b, d in space])
    assert logs.exp().sum().item() == pytest.approx(1.0, rel=1e-12)
    assert -(logs.exp() * logs).sum().item() == pytest.approx(heads_entropy(z, u, known).item(), rel=1e-12)
    wanted = torch.autograd.grad((logs.exp() * earned).sum(), (z, u), retain_graph=True)
    chance = (logs.exp()[:, None] * logs.exp()[None, :]).detach()
    losses = -0.5 * (earned[:, None] - earned[None, :]) * (logs[:, None] - logs[None, :])
    got = torch.autograd.grad((chance * losses).sum(), (z, u))
    for mine, exact in zip(got, wanted, strict=True):
        assert torch.allclose(-mine, exact, rtol=1e-10)


def test_equal_rewards_teach_nothing():
    told, choice, said, chosen, rewards, known = answers(3, 9)
    z, u = (torch.tensor(x, requires_grad=True) for x in (told, choice))
    logs = [heads_log_probability(z, u, torch.tensor(said[i]), torch.tensor(chosen[i]), torch.tensor(known)) for i in range(2)]
    loss = pairwise_reinforce(*logs, *[torch.tensor(rewards[0])] * 2, heads_entropy(z, u, torch.tensor(known)), 0.0)
    loss.backward()
    assert loss.item() == 0.0 and z.grad.abs().max() == 0.0 and u.grad.abs().max() == 0.0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), st.integers(-5, 5))
def test_what_is_unknown_changes_no_bit(seed, logit, answer):
    """Whatever the network and the answer say of an unknown claim: the same bits of log-probability, entropy and gradient."""
    told, choice, said, chosen, _, known = answers(3, seed % 1000)
    results = []
    for z_there, y_there in ((0.0, 1), (logit, answer)):
        z = torch.tensor(np.where(known, told, z_there), requires_grad=True)
        y = torch.tensor(np.where(known, said[0], y_there))
        u, mask = torch.tensor(choice, requires_grad=True), torch.tensor(known)
        logs = heads_log_probability(z, u, y, torch.tensor(chosen[0]), mask)
        entropy = heads_entropy(z, u, mask)
        (logs.sum() + entropy.sum()).backward()
        results.append([x.detach().numpy().tobytes() for x in (logs, entropy, z.grad, u.grad)])
    assert results[0] == results[1]


def test_a_recipe_says_no_negative_gamma():
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        FocalSection(gamma=-1.0)
