"""Log-probabilities of both answers of a pair in one pass: the long prompt is run once, logits are made at answers alone.

A row is prompt, chosen, rejected. A token sees the prompt and its own answer (a block mask), positions of both answers go on
from the prompt's end, and the first token of either answer is predicted at the last token of the prompt. So each answer has
exactly the log-probability that it would have in a row of its own. Of the last layer only the positions that predict an
answer's token are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from tapehouse.training.losses import PairScores

# Decoders whose last layer is known to be: norm, attention with rotary positions, norm, MLP, each added to its input.
PRUNABLE: Final = ("llama", "qwen2", "qwen3")
IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Token ids of pairs, padded on the right to the longest.

    Attributes:
        ids, positions: (pairs, tokens). mask: (pairs, 1, tokens, tokens), True where a query sees a key.
        sources: (pairs, answers) positions that predict the answers' tokens. targets: (pairs, answers) those tokens, -100
            for padding. chosen: (pairs, answers) whether a token is of the chosen answer.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    chosen: torch.Tensor


def collate(rows: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]], pad: int) -> dict[str, torch.Tensor]:
    """The fields of a `PairBatch` of (prompt, chosen, rejected) ids, none of which may be empty."""
    sizes = torch.tensor([[len(part) for part in row] for row in rows])
    if (sizes == 0).any():
        raise ValueError(f"pair {int((sizes == 0).any(dim=1).nonzero()[0])}: a prompt or an answer without tokens")
    prompt, chosen, rejected = sizes.T[:, :, None]
    width = int(sizes.sum(dim=1).max())
    ids = torch.full((len(rows), width), pad)
    for place, row in enumerate(rows):
        ids[place, : int(sizes[place].sum())] = torch.tensor([token for part in row for token in part])
    at = torch.arange(width)[None, :]
    second, end = prompt + chosen, prompt + chosen + rejected
    # 0 the prompt, 1 the chosen, 2 the rejected answer, 3 padding.
    part = (at >= prompt).int() + (at >= second).int() + (at >= end).int()
    positions = torch.where(part == 2, at - chosen, at)
    causal = at[:, :, None] >= at[:, None, :]
    same = part[:, :, None] == part[:, None, :]
    seen = causal & ((part[:, None, :] == 0) | same) & (part[:, None, :] < 3)
    # A row of padding sees itself, or its softmax would be over nothing.
    mask = seen | torch.eye(width, dtype=torch.bool)[None]
    answers = int((chosen + rejected).max())
    nth = torch.arange(answers)[None, :]
    own = nth < chosen + rejected
    target = torch.where(own, prompt + nth, 0)
    first = (nth == 0) | (nth == chosen)
    sources = torch.where(first, prompt - 1, target - 1).clamp(min=0)
    return {
        "ids": ids,
        "positions": positions,
        "mask": mask[:, None],
        "sources": torch.where(own, sources, 0),
        "targets": torch.where(own, ids.gather(1, target), IGNORED),
        "chosen": own & (nth < chosen),
    }


def pair_scores(model: nn.Module, batch: PairBatch) -> PairScores:
    """Log-probabilities of the answers under a decoder with a language-model head, with or without a peft adapter."""
    decoder = model.get_base_model() if hasattr(model, "get_base_model") else model
    trunk = decoder.model
    hidden = trunk.embed_tokens(batch.ids)
    rotary = trunk.rotary_emb(hidden, position_ids=batch.positions)
    *first, last = trunk.layers
    passed = {"attention_mask": batch.mask, "position_ids": batch.positions, "position_embeddings": rotary, "use_cache": False}
    for layer in first:
        hidden = layer(hidden, **passed)
    if decoder.config.model_type in PRUNABLE:
        hidden = _pruned(last, hidden, batch, rotary)
    else:
        hidden = _at(last(hidden, **passed), batch.sources)
    logits = decoder.lm_head(trunk.norm(hidden))
    lost = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="none")
    tokens = -lost.view_as(batch.targets)
    real = batch.targets != IGNORED
    rejected = real & ~batch.chosen
    return PairScores(
        (tokens * batch.chosen).sum(dim=1), (tokens * rejected).sum(dim=1), batch.chosen.sum(dim=1), rejected.sum(dim=1)
    )


def _pruned(layer: nn.Module, hidden: torch.Tensor, batch: PairBatch, rotary: tuple) -> torch.Tensor:
    """The last layer's output at the sources, (pairs, answers, width): keys and values of all tokens, queries of these."""
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    pairs, answers = batch.sources.shape
    heads = (pairs, -1, attention.head_dim)

    def split(states: torch.Tensor, norm: str) -> torch.Tensor:
        states = states.view(pairs, states.shape[1], *heads[1:])
        return (getattr(attention, norm)(states) if hasattr(attention, norm) else states).transpose(1, 2)

    query = split(attention.q_proj(_at(normed, batch.sources)), "q_norm")
    key = split(attention.k_proj(normed), "k_norm")
    value = attention.v_proj(normed).view(pairs, normed.shape[1], *heads[1:]).transpose(1, 2)
    cos, sin = rotary
    query = _turned(query, _at(cos, batch.sources), _at(sin, batch.sources))
    key = _turned(key, cos, sin)
    rows = batch.mask.gather(2, batch.sources[:, None, :, None].expand(-1, 1, -1, batch.mask.shape[3]))
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=rows, scale=attention.scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    mixed = attention.o_proj(mixed.transpose(1, 2).reshape(pairs, answers, -1))
    hidden = _at(hidden, batch.sources) + mixed
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def _at(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """States (pairs or 1, tokens, width) at places (pairs, answers)."""
    states = states.expand(len(places), -1, -1)
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))


def _turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (J. Su and others, RoFormer, 2021) on states (pairs, heads, tokens, width)."""
    low, high = states.chunk(2, dim=-1)
    return states * cos[:, None] + torch.cat((-high, low), dim=-1) * sin[:, None]
