"""The three-head policy: rewards by hand, exact expectations, unknown claims, and what pairs of answers teach."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.methods.ranking import ReinforceSection, RewardSection
from tapehouse.networks.losses import heads_log_probability
from tapehouse.networks.teaching import Signals, draw, expected_reward, reinforce_loss, rewards_of, signals_of, supervised_loss
from tapehouse.networks.thesis import SIGNS, Directions, ThesisPolicy
from tapehouse.prompts.thesis import ACTIONS, CLAIMS, SECTIONS

HEADS = len(SECTIONS) + len(CLAIMS)
WEIGHTS = RewardSection(sections=1.0, claims=1.0, decision=1.0)
STAGE = ReinforceSection(steps=1, batch_size=2, entropy=0.01, reward=WEIGHTS)


def policy(seed: int = 0, features: int = 4) -> ThesisPolicy:
    torch.manual_seed(seed)
    return ThesisPolicy(features, 16)


def signals(n: int, seed: int = 0) -> Signals:
    """Sections are always told, each claim in half of the rows."""
    rng = np.random.default_rng(seed)
    told = rng.integers(0, 2, (n, HEADS))
    told[:, len(SECTIONS) :][rng.random((n, len(CLAIMS))) < 0.5] = -1
    rows = torch.from_numpy(rng.normal(size=(n, 4)).astype(np.float32))
    return Signals(rows, torch.from_numpy(told), torch.from_numpy(rng.integers(0, 5, n)))


def test_heads_are_those_of_a_thesis():
    told, decision = policy()(torch.zeros(3, 4))
    assert told.shape == (3, 14) and decision.shape == (3, 5) and SIGNS == (-1, -1, 0, 1, 1) and len(ACTIONS) == 5
    chances = Directions(policy())(torch.ones(2, 4))
    five = policy()(torch.ones(2, 4))[1].softmax(dim=-1)
    by_hand = torch.stack([five[:, 0] + five[:, 1], five[:, 2], five[:, 3] + five[:, 4]], dim=-1)
    assert torch.allclose(chances, by_hand) and torch.allclose(chances.sum(dim=-1), torch.ones(2))


def test_signals_of_the_teacher_by_hand():
    columns = {f"section_{name}": [True, False] for name in SECTIONS} | {f"claim_{name}": [None, True] for name in CLAIMS}
    frame = pl.DataFrame(columns | {"action": ["strong_sell", "buy"]}, schema_overrides=dict.fromkeys(columns, pl.Boolean))
    made = signals_of(frame, np.zeros((2, 4), np.float32))
    assert made.told.tolist() == [[1] * 6 + [-1] * 8, [0] * 6 + [1] * 8]
    assert made.decision.tolist() == [0, 3] and made.known[0].tolist() == [True] * 6 + [False] * 8


def test_rewards_by_hand():
    """Five of six sections right; of two known claims one; strong_buy where strong_sell followed: 5/6 + 1/2 - 2."""
    told = torch.tensor([[1, 1, 1, 0, 0, 0, 1, 0, -1, -1, -1, -1, -1, -1]])
    said = torch.tensor([[1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1]])
    row = Signals(torch.zeros(1, 4), told, torch.tensor([0]))
    assert rewards_of(said, torch.tensor([4]), row, WEIGHTS).item() == pytest.approx(5 / 6 + 1 / 2 - 2.0)
    heavy = RewardSection(sections=0.0, claims=2.0, decision=0.5)
    assert rewards_of(said, torch.tensor([0]), row, heavy).item() == pytest.approx(2 / 2 + 0.5)


def test_expected_reward_is_exact():
    """Against all 2^14 x 5 answers to one row, weighted by their probabilities."""
    of, row = policy(3), signals(1, seed=8)
    with torch.no_grad():
        told, decision = of(row.rows)
        said = torch.tensor(list(itertools.product((0, 1), repeat=HEADS)))
        everything = torch.ones(len(said), HEADS, dtype=torch.bool)
        total = chance = 0.0
        for chosen in range(5):
            picks = torch.full((len(said),), chosen)
            logs = heads_log_probability(told.expand(len(said), -1), decision.expand(len(said), -1), said, picks, everything)
            many = Signals(row.rows, row.told.expand(len(said), -1), row.decision.expand(len(said)))
            total += float((logs.double().exp() * rewards_of(said, picks, many, WEIGHTS)).sum())
            chance += float(logs.double().exp().sum())
        assert chance == pytest.approx(1.0, abs=1e-5)
        assert expected_reward(of, row, WEIGHTS) == pytest.approx(total, abs=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0, 1, 7, -3]))
def test_an_unknown_claim_changes_no_bit(seed, other):
    """Whatever an answer says of it: the same reward and log-probability; and its head gets no gradient of either loss."""
    batch, of = signals(5, seed), policy(seed)
    told, decision = of(batch.rows)
    said, chosen = draw(told, decision, torch.Generator().manual_seed(seed))
    changed = torch.where(batch.known, said, other)
    assert rewards_of(said, chosen, batch, WEIGHTS).equal(rewards_of(changed, chosen, batch, WEIGHTS))
    logs = [heads_log_probability(told, decision, x, chosen, batch.known) for x in (said, changed)]
    assert logs[0].equal(logs[1])
    for loss in (supervised_loss(of, batch), reinforce_loss(of, batch, STAGE, torch.Generator().manual_seed(seed))):
        of.zero_grad()
        loss.backward()
        claims = of.claims.weight.grad
        never = ~batch.known[:, len(SECTIONS) :].any(dim=0)
        assert (claims[never] == 0.0).all() and (of.claims.bias.grad[never] == 0.0).all()


def test_a_batch_of_a_claim_that_nobody_knows_is_that_batch_without_its_head():
    """Other weights of the head of an unknown claim: the same bits of loss and of every other gradient."""
    batch = signals(6, 4)
    told = batch.told.clone()
    told[:, len(SECTIONS)] = -1
    batch = Signals(batch.rows, told, batch.decision)
    results = []
    for shift in (0.0, 3.0):
        of = policy(1)
        with torch.no_grad():
            of.claims.bias[0] += shift
            of.claims.weight[0] += shift
        loss = supervised_loss(of, batch)
        loss.backward()
        results.append((loss.item(), of.encoder[0].weight.grad.numpy().tobytes(), of.decision.weight.grad.numpy().tobytes()))
    assert results[0] == results[1]


def test_what_is_drawn_has_the_policys_chances():
    told, decision = (
        torch.tensor([[2.0, -1.0]]).expand(20_000, -1),
        torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]]).expand(20_000, -1),
    )
    said, chosen = draw(told, decision, torch.Generator().manual_seed(0))
    assert said.double().mean(dim=0).tolist() == pytest.approx(torch.sigmoid(told[0]).tolist(), abs=0.01)
    shares = torch.bincount(chosen, minlength=5) / len(chosen)
    assert shares.tolist() == pytest.approx(decision[0].softmax(dim=-1).tolist(), abs=0.015)


def test_pairs_of_answers_teach_what_pays():
    """Where the first feature tells the decision, 300 steps of drawn pairs alone raise the expected reward."""
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(size=(64, 4)).astype(np.float32))
    decision = (rows[:, 0] > 0).long() * 4
    batch = Signals(rows, torch.ones(64, HEADS, dtype=torch.int64), decision)
    of, stage = policy(2), STAGE.model_copy(update={"entropy": 0.0})
    before = expected_reward(of, batch, WEIGHTS)
    optimiser = torch.optim.Adam(of.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for _ in range(300):
        optimiser.zero_grad()
        reinforce_loss(of, batch, stage, generator).backward()
        optimiser.step()
    after = expected_reward(of, batch, WEIGHTS)
    assert before < 1.0 and after > 2.0  # 3 is the most: all sections, all claims, and the matrix' diagonal
