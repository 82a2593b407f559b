"""Attention by hand, and its precision under autocast."""

import pytest
import torch

from tapehouse.training.attention import CAUSAL, attend


def drawn(seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 5, 4, generator=draw, requires_grad=True) for _ in range(3)]


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    scores = query.double() @ key.double().transpose(2, 3) * scale
    later = torch.ones(5, 5, dtype=torch.bool).triu(1)
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ value.double()


@pytest.mark.parametrize("autocast", [False, True])
def test_scores_are_made_in_float32_also_under_autocast(autocast):
    query, key, value = drawn()
    mask = torch.zeros(1, 1, 5, 5, dtype=torch.bfloat16).masked_fill_(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        causal = attend(query, key, value, is_causal=True, scale=0.3)
        masked = attend(query, key, value, mask, scale=0.3)
    expected = by_hand(query, key, value, 0.3)
    for mixed in (causal, masked):  # bfloat16 has three digits
        assert mixed.dtype == torch.float32
        torch.testing.assert_close(mixed.double(), expected, rtol=1e-5, atol=1e-6)


def test_what_comes_in_bfloat16_goes_out_so_and_carries_a_gradient():
    query, key, value = (states.detach().bfloat16().requires_grad_() for states in drawn())
    mixed = attend(query, key, value, is_causal=True, scale=0.3)
    mixed.float().sum().backward()
    expected = by_hand(query, key, value, 0.3).to(torch.bfloat16)
    torch.testing.assert_close(mixed, expected, rtol=2**-7, atol=2**-9)  # rounded once, at the end
    assert all(states.grad is not None and states.grad.dtype == torch.bfloat16 for states in (query, key, value))


def test_a_model_of_transformers_attends_to_what_was_before():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 11, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=1, attn_implementation="eager"))
    ids = torch.randint(0, 11, (2, 7))
    written_out = model(input_ids=ids).logits
    model.set_attn_implementation(CAUSAL)
    torch.testing.assert_close(model(input_ids=ids).logits, written_out, rtol=1e-4, atol=1e-5)
