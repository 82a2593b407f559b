"""Preference losses against closed forms, and the one-pass log-probabilities against rows of their own."""

import math

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tapehouse.training.losses import PairScores, pair_losses, soft_clip, weighted_mean
from tapehouse.training.shared_prompt import AnswerBatch, answer_scores, collate

ROWS = [
    (list(range(5, 25)), [[3, 4, 5, 1], [9, 8, 1], [7, 1]]),
    (list(range(30, 42)), [[7, 1], [2, 3, 4, 5, 6, 1]]),
    ([50], [[1], [2]]),
]


def scores(chosen: float, rejected: float, lengths: tuple[int, int] = (1, 1)) -> PairScores:
    values = (torch.tensor([v], dtype=torch.float64) for v in (chosen, rejected))
    return PairScores(*values, *(torch.tensor([n]) for n in lengths))


def test_losses_on_paper():
    policy, reference = scores(-2.0, -6.0, (2, 4)), scores(-3.0, -5.0, (2, 4))
    # Log-ratios 1 and -1; by token 1/2 and -1/4.
    assert pair_losses(policy, reference, "sigmoid", 0.1).item() == pytest.approx(math.log(1 + math.exp(-0.2)))
    assert pair_losses(policy, reference, "sigmoid_norm", 0.4).item() == pytest.approx(math.log(1 + math.exp(-0.3)))
    assert pair_losses(policy, reference, "ipo", 0.5).item() == pytest.approx((0.75 - 1.0) ** 2)
    assert pair_losses(policy, reference, "soft_clip", 0.1).item() == pytest.approx(0.5 * math.log(1 + math.exp(-0.2)) + 0.14)
    with pytest.raises(ValueError, match="sigmoid_norm"):
        pair_losses(policy, reference, "hinge", 0.1)


@pytest.mark.parametrize(
    ("loss", "value", "slope"),
    [(0.2800001, 0.28000005, 0.5), (0.2799999, 0.2799999, 1.0), (0.7, 0.49, 0.5), (0.0, 0.0, 1.0),
     (-0.1999999, -0.1999999, 1.0), (-0.2000001, -0.20000005, 0.5), (-1.0, -0.6, 0.5)],
)  # fmt: skip
def test_soft_clip_is_continuous_with_a_kink_at_both_levels(loss, value, slope):
    at = torch.tensor([loss], dtype=torch.float64, requires_grad=True)
    bent = soft_clip(at)
    bent.sum().backward()
    assert bent.item() == pytest.approx(value, abs=1e-12)
    assert at.grad.item() == slope


def test_gradient_of_the_clipped_loss_is_the_closed_form_on_both_sides_of_the_upper_level():
    for margin in (0.0, 60.0):  # ln 2, above the level, and 0.0025, below it
        policy = torch.tensor([margin], dtype=torch.float64, requires_grad=True)
        zero = torch.zeros(1, dtype=torch.float64)
        one = torch.ones(1)
        loss = pair_losses(PairScores(policy, zero, one, one), PairScores(zero, zero, one, one), "soft_clip", 0.1)
        loss.sum().backward()
        slope = 0.5 if margin == 0.0 else 1.0
        assert policy.grad.item() == pytest.approx(-slope * 0.1 / (1 + math.exp(0.1 * margin)), rel=1e-12)


def test_every_pair_starts_above_the_upper_level():
    at_the_start = pair_losses(scores(-5.0, -7.0), scores(-5.0, -7.0), "sigmoid", 0.1)
    assert at_the_start.item() == pytest.approx(math.log(2))
    assert soft_clip(at_the_start).item() == pytest.approx(0.5 * math.log(2) + 0.14)


def test_weights_are_of_the_data_so_that_parts_of_a_batch_add_up():
    losses, weights = torch.tensor([1.0, 3.0, 2.0, 4.0]), torch.tensor([1.5, 0.5, 0.0, 2.0])
    whole = weighted_mean(losses, weights)
    assert whole.item() == (1.5 + 1.5 + 8.0) / 4
    assert whole == (weighted_mean(losses[:2], weights[:2]) + weighted_mean(losses[2:], weights[2:])) / 2
    assert weighted_mean(losses, None).item() == 2.5


@pytest.mark.parametrize(
    ("config", "kind"),
    [(LlamaConfig, LlamaForCausalLM), (Qwen3Config, Qwen3ForCausalLM), (MistralConfig, MistralForCausalLM)],
)
def test_one_pass_gives_each_answer_what_a_row_of_its_own_gives(config, kind):
    """Mistral is not among the pruned ones: its last layer runs in full."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "head_dim": 8}
    model = kind(config(**sizes, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256)).double()
    found = answer_scores(model, AnswerBatch(**collate(ROWS, 0)))
    apart = torch.zeros(3, 3, dtype=torch.float64)
    for row, (prompt, answers) in enumerate(ROWS):
        for number, answer in enumerate(answers):
            chances = model(input_ids=torch.tensor([prompt + answer])).logits.log_softmax(-1)[0]
            apart[row, number] = sum(chances[len(prompt) - 1 + i, token] for i, token in enumerate(answer))
    # Logits are made into log-probabilities in float32.
    assert torch.allclose(found.double(), apart, atol=5e-6)
    assert (found == 0).nonzero().tolist() == [[1, 2], [2, 2]]
    pull = torch.tensor([1.0, -0.7, 0.3], dtype=torch.float64)
    (found * pull).sum().backward()
    ours = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    (apart * pull).sum().backward()
    for mine, theirs in zip(ours, (p.grad for p in model.parameters()), strict=True):
        assert torch.allclose(mine, theirs, atol=2e-5)


def test_a_row_is_the_same_alone_and_in_a_batch():
    torch.manual_seed(2)
    sizes = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**sizes)).double()
    together = answer_scores(model, AnswerBatch(**collate(ROWS, 0)))
    for place, row in enumerate(ROWS):
        alone = answer_scores(model, AnswerBatch(**collate([row], 0)))[0]
        assert torch.allclose(alone, together[place, : len(alone)], atol=5e-6)


def test_an_answer_without_tokens_is_refused():
    with pytest.raises(ValueError, match="row 1"):
        collate([ROWS[0], ([1], [[], [2]])], 0)
