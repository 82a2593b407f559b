"""Layers that keep less for the backward pass: values and gradients of the library's own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from tapehouse.training.lean import GatedProduct, gated_mlp, made_again, projected


def adapted(**lora) -> nn.Module:
    torch.manual_seed(4)
    sizes = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    targets = ["gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(
        LlamaForCausalLM(LlamaConfig(**sizes)), LoraConfig(r=3, lora_alpha=5, target_modules=targets, **lora)
    )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(std=0.3) if "lora_" in name else None
    return model


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.floats(-8, 8), st.integers(0, 99))
def test_the_gated_product_has_the_gradients_of_its_parts(rows, width, shift, seed):
    torch.manual_seed(seed)
    gate, up = (torch.randn(rows, width, dtype=torch.float64).add(shift).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(GatedProduct.apply, (gate, up))
    assert torch.equal(GatedProduct.apply(gate, up), nn.functional.silu(gate) * up)


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}])
def test_an_mlp_is_the_library_s_with_any_adapter(lora):
    model = adapted(**lora)
    mlp = model.get_base_model().model.layers[0].mlp
    hidden = torch.randn(2, 7, 16, requires_grad=True)
    pull = torch.randn(2, 7, 16)
    found = []
    for run in (mlp, lambda states: gated_mlp(mlp, states)):
        hidden.grad = None
        model.zero_grad()
        out = run(hidden)
        (out * pull).sum().backward()
        found.append([out.detach(), hidden.grad, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == len(found[1]) >= 8
    for theirs, ours in zip(*found, strict=True):
        assert torch.allclose(theirs, ours, atol=1e-5)


def test_a_product_that_is_made_again_is_not_kept():
    """Of gate, up, act(gate) and the product two are left: a weight as wide as they keeps nothing but its input."""
    weight = torch.randn(64, 64, requires_grad=True)
    gate, up = torch.randn(100, 64, requires_grad=True), torch.randn(100, 64, requires_grad=True)
    inside: list[bool] = []

    def product(a, b):
        inside.append(True)
        return nn.functional.silu(a) * b

    made = GatedProduct.apply(gate, up)
    with made_again(made, product, gate, up):
        out = made @ weight
    assert not inside
    out.sum().backward()
    assert inside == [True]
    assert torch.allclose(weight.grad, product(gate, up).detach().t() @ torch.ones(100, 64), atol=1e-4)


def test_a_norm_s_output_may_be_made_again_in_parts_of_a_graph():
    norm, inner = nn.RMSNorm(8), nn.Linear(8, 8)
    hidden = torch.randn(5, 8, requires_grad=True)
    normed = norm(hidden)
    with made_again(normed, norm, hidden):
        out = inner(normed) * normed
    out.sum().backward()
    first, hidden.grad = hidden.grad.clone(), None
    again = norm(hidden)
    (inner(again) * again).sum().backward()
    assert torch.allclose(first, hidden.grad, atol=1e-6)


def test_a_mixed_precision_pass_runs_and_without_gradients_nothing_is_kept():
    model = adapted()
    mlp = model.get_base_model().model.layers[0].mlp
    hidden = torch.randn(2, 7, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = gated_mlp(mlp, hidden.requires_grad_())
        assert out.dtype == torch.bfloat16
        assert torch.allclose(out, mlp(hidden), atol=0.1)
    out.float().sum().backward()
    assert hidden.grad is not None
    with torch.no_grad():
        assert not gated_mlp(mlp, hidden).requires_grad


def test_a_disabled_adapter_is_left_out():
    model = adapted()
    mlp = model.get_base_model().model.layers[0].mlp
    hidden = torch.randn(3, 16)
    with torch.no_grad(), model.disable_adapter():
        plain = projected(mlp.gate_proj, hidden)
    assert torch.equal(plain, nn.functional.linear(hidden, mlp.gate_proj.base_layer.weight))
