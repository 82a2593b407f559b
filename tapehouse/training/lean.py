"""A decoder layer that keeps less for the backward pass than the library's, with the same values and gradients.

A gated MLP of transformers keeps four tensors of its widest size: gate, up, act(gate), and the product that goes into
`down_proj`. Two are enough: the others are made again from gate and up when the backward pass asks for them, elementwise and
without a matrix product (as in P.-L. Hsu and others, Liger Kernel, 2024; here without a kernel). So are outputs of norms. It
runs what the modules are, adapters and quantised weights included. This is no activation checkpointing: no layer is run twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear as LoraLinear
from torch import nn
from torch.autograd.graph import saved_tensors_hooks


class GatedProduct(torch.autograd.Function):
    """silu(gate) * up, for which the backward pass keeps gate and up alone."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        """The product, of the shape of both."""
        ctx.save_for_backward(gate, up)
        return _product(gate, up)

    @staticmethod
    def backward(ctx: Any, pull: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of gate and up: silu' = s (1 + gate (1 - s)), s = sigmoid(gate)."""
        gate, up = ctx.saved_tensors
        share = torch.sigmoid(gate)
        silu = gate * share
        to_up = pull * silu
        # silu - silu s + s, in place: these are the widest tensors of the model.
        slope = silu.addcmul_(silu, share, value=-1).add_(share)
        return slope.mul_(up).mul_(pull), to_up


def gated_mlp(mlp: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """`down_proj(silu(gate_proj(hidden)) * up_proj(hidden))` for a module of these three projections."""
    gate, up = projected(mlp.gate_proj, hidden), projected(mlp.up_proj, hidden)
    product = GatedProduct.apply(gate, up)
    with made_again(product, _product, gate, up):
        return projected(mlp.down_proj, product)


@contextmanager
def made_again(tensor: torch.Tensor, make: Callable[..., torch.Tensor], *sources: torch.Tensor) -> Iterator[None]:
    """Where an operation inside would keep `tensor` for its gradient, have the backward pass call `make(*sources)` instead.

    Worth it where making is cheap and the sources are kept anyhow.
    """
    if not tensor.requires_grad:
        yield
        return
    place, size, kind = tensor.data_ptr(), tensor.numel(), tensor.dtype
    detached = [source.detach() for source in sources]

    def pack(saved: torch.Tensor) -> torch.Tensor | torch.Size:
        whole = saved.data_ptr() == place and saved.numel() == size and saved.dtype == kind and saved.is_contiguous()
        return saved.shape if whole else saved

    def unpack(kept: torch.Tensor | torch.Size) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        with torch.no_grad():
            return make(*detached).view(kept)

    with saved_tensors_hooks(pack, unpack):
        yield


def _product(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return F.silu(gate).mul_(up)


def projected(module: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """`module(hidden)`; of a plain linear layer with one plain low-rank adapter, W x + s B (A x) is added up in place.

    The adapter's library makes B (A x), its multiple and the sum as three tensors of the output's size.
    """
    adapter = _plain_adapter(module)
    if adapter is None:
        return module(hidden)
    whole = F.linear(hidden, module.base_layer.weight, module.base_layer.bias)
    within = F.linear(hidden, module.lora_A[adapter].weight)
    out = module.lora_B[adapter].weight.to(whole.dtype).t()
    rows = whole.view(-1, whole.shape[-1]).addmm_(within.flatten(0, -2), out, alpha=module.scaling[adapter])
    return rows.view(whole.shape)


def _plain_adapter(module: nn.Module) -> str | None:
    """The one adapter of a float32 linear layer that acts as B (A x) alone: no dropout, no DoRA, not merged, not disabled."""
    if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear:
        return None
    active = [name for name in module.active_adapters if name in module.lora_A]
    if module.merged or module.disable_adapters or module.fan_in_fan_out or len(active) != 1 or module.lora_variant:
        return None
    (name,) = active
    dropped = module.training and not isinstance(module.lora_dropout[name], nn.Identity)
    return None if dropped or module.lora_B[name].bias is not None else name
