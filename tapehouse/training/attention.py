"""Attention in the precision that costs least: on a CPU float32, also under autocast.

The fused kernel's backward pass in bfloat16 takes two to three times as long as in float32 over a hundred tokens, and as long
over a thousand; it was a third of every step of a small model. A GPU computes in the precision of autocast.
"""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface

CAUSAL: Final = "causal"


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None, **options: Any
) -> torch.Tensor:
    """`scaled_dot_product_attention` of (rows, heads, tokens, width); the result has the type of `value`.

    Args:
        mask: a term of the scores, broadcast to (rows, heads, queries, keys). options: its further arguments.
    """
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, **options)
    with torch.autocast("cpu", enabled=False):
        wide = (states.float() for states in (query, key, value))
        mixed = F.scaled_dot_product_attention(*wide, attn_mask=None if mask is None else mask.float(), **options)
    return mixed.to(value.dtype)


def attend_causally(
    module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: None, **options: Any
) -> tuple[torch.Tensor, None]:
    """As transformers calls an attention, of rows padded on the right alone: (rows, tokens, heads, width), and no weights."""
    mixed = attend(query, key, value, is_causal=True, scale=options["scaling"], enable_gqa=query.shape[1] != key.shape[1])
    return mixed.transpose(1, 2), None


AttentionInterface.register(CAUSAL, attend_causally)
