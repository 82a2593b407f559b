"""Log-probabilities of several answers to one prompt in one pass: the prompt is run once, logits are made at answers alone.

A row is the prompt and its answers, one after the other. A token sees the prompt and its own answer (a block mask), positions
of every answer go on from the prompt's end, and the first token of each is predicted at the last token of the prompt. So an
answer has exactly the log-probability that it would have in a row of its own. Of the last layer only the positions that
predict an answer's token are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tapehouse.training.attention import attend
from tapehouse.training.lean import gated_mlp, made_again, projected

# Decoders whose layer is known to be: norm, attention with rotary positions, norm, gated MLP, each added to its input.
KNOWN: Final = ("llama", "qwen2", "qwen3")
IGNORED: Final = -100

Row = tuple[Sequence[int], Sequence[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class AnswerBatch:
    """Token ids of prompts with their answers, padded on the right to the longest.

    Attributes:
        ids, positions: (rows, tokens). mask: (rows, 1, tokens, tokens), True where a query sees a key.
        sources: (rows, answer tokens) positions that predict the answers' tokens. targets: (rows, answer tokens) those
            tokens, -100 for padding. answer: (rows, answer tokens) number of the answer that a token is of, 0 for padding.
        answers: (rows, most answers) tokens of each answer, 0 where a row has fewer.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    sources: torch.Tensor
    targets: torch.Tensor
    answer: torch.Tensor
    answers: torch.Tensor


def collate(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """The fields of an `AnswerBatch`. Raises ValueError for a row whose prompt or an answer of whose has no tokens."""
    sizes = [[len(prompt), *map(len, answers)] for prompt, answers in rows]
    for place, row in enumerate(sizes):
        if len(row) < 2 or 0 in row:
            raise ValueError(f"row {place}: a prompt or an answer without tokens")
    width = max(map(sum, sizes))
    most_tokens = max(sum(row[1:]) for row in sizes)
    shape, shape_of_answers = (len(rows), width), (len(rows), most_tokens)
    ids, positions, part = np.full(shape, pad), np.tile(np.arange(width), (len(rows), 1)), np.full(shape, -1)
    sources, answer = np.zeros(shape_of_answers, np.int64), np.zeros(shape_of_answers, np.int64)
    targets, answers = np.full(shape_of_answers, IGNORED), np.zeros((len(rows), max(map(len, sizes)) - 1), np.int64)
    for place, ((prompt, texts), (length, *counts)) in enumerate(zip(rows, sizes, strict=True)):
        ids[place, :length], part[place, :length] = prompt, 0
        answers[place, : len(counts)] = counts
        start, told = length, 0
        for number, (text, count) in enumerate(zip(texts, counts, strict=True)):
            ids[place, start : start + count], part[place, start : start + count] = text, number + 1
            positions[place, start : start + count] = np.arange(length, length + count)
            sources[place, told : told + count] = np.arange(start - 1, start + count - 1)
            sources[place, told] = length - 1
            targets[place, told : told + count], answer[place, told : told + count] = text, number
            start, told = start + count, told + count
    found = {"ids": ids, "positions": positions, "sources": sources, "targets": targets, "answer": answer, "answers": answers}
    return {name: torch.from_numpy(array) for name, array in found.items()} | {"mask": _block_mask(torch.from_numpy(part))}


def answer_scores(model: nn.Module, batch: AnswerBatch) -> torch.Tensor:
    """Log-probability of every answer, (rows, most answers), 0 where a row has fewer.

    Args:
        model: a decoder with a language-model head, with or without a peft adapter.
    """
    told = token_scores(model, batch)
    scores = torch.zeros(batch.answers.shape, dtype=told.dtype, device=told.device)
    return scores.scatter_add(1, batch.answer, told)


def token_scores(model: nn.Module, batch: AnswerBatch) -> torch.Tensor:
    """Log-probability of every token of the answers, (rows, answer tokens), 0 for padding."""
    decoder = model.get_base_model() if hasattr(model, "get_base_model") else model
    trunk = decoder.model
    hidden = trunk.embed_tokens(batch.ids)
    rotary = trunk.rotary_emb(hidden, position_ids=batch.positions)
    known = decoder.config.model_type in KNOWN and decoder.config.hidden_act == "silu"
    *first, last = trunk.layers
    passed = {"attention_mask": batch.mask, "position_ids": batch.positions, "position_embeddings": rotary, "use_cache": False}
    seen = _added(batch.mask, hidden) if known else None
    for layer in first:
        # Activation checkpointing is the library's, around its own layer.
        own = known and not layer.gradient_checkpointing
        hidden = _layer(layer, hidden, seen, rotary) if own else layer(hidden, **passed)
    hidden = _layer(last, hidden, seen, rotary, batch.sources) if known else _at(last(hidden, **passed), batch.sources)
    logits = decoder.lm_head(trunk.norm(hidden))
    lost = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="none")
    return -lost.view_as(batch.targets)


def _added(mask: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """The mask as a term of the scores, made once: from a boolean one attention makes and keeps one in every layer."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) and kind != "cpu" else hidden.dtype
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, -torch.inf)


def _block_mask(part: torch.Tensor) -> torch.Tensor:
    """What sees what, (rows, 1, tokens, tokens), from the part of each token: 0 the prompt, an answer's number, -1 padding."""
    width = part.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    query, key = part[:, :, None], part[:, None, :]
    # A row of padding sees itself, or its softmax would be over nothing.
    return ((causal & ((key == 0) | (query == key)) & (key >= 0)) | torch.eye(width, dtype=torch.bool))[:, None]


def _layer(
    layer: nn.Module, hidden: torch.Tensor, mask: torch.Tensor, rotary: tuple, sources: torch.Tensor | None = None
) -> torch.Tensor:
    """A layer's output, (rows, tokens, width); of the positions `sources` alone where given, (rows, answer tokens, width).

    Keys and values are those of all tokens, queries and the MLP those of the positions that are asked for.
    """
    attention = layer.self_attn
    normed = layer.input_layernorm(hidden)
    cos, sin = rotary

    def split(states: torch.Tensor, norm: str) -> torch.Tensor:
        states = states.view(*states.shape[:2], -1, attention.head_dim)
        return (getattr(attention, norm)(states) if hasattr(attention, norm) else states).transpose(1, 2)

    with made_again(normed, layer.input_layernorm, hidden):
        key = _turned(split(projected(attention.k_proj, normed), "k_norm"), cos, sin)
        value = split(projected(attention.v_proj, normed), "no norm on values")
        if sources is not None:
            hidden, normed, cos, sin = (_at(states, sources) for states in (hidden, normed, cos, sin))
            mask = mask.gather(2, sources[:, None, :, None].expand(-1, 1, -1, mask.shape[3]))
        query = _turned(split(projected(attention.q_proj, normed), "q_norm"), cos, sin)
    mixed = attend(query, key, value, mask, scale=attention.scaling, enable_gqa=query.shape[1] != key.shape[1])
    hidden = hidden + projected(attention.o_proj, mixed.transpose(1, 2).flatten(2))
    normed = layer.post_attention_layernorm(hidden)
    with made_again(normed, layer.post_attention_layernorm, hidden):
        return hidden + gated_mlp(layer.mlp, normed)


def _at(states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """States (rows or 1, tokens, width) at places (rows, answer tokens)."""
    states = states.expand(len(places), -1, -1)
    return states.gather(1, places[:, :, None].expand(-1, -1, states.shape[2]))


def _turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (J. Su and others, RoFormer, 2021) on states (rows, heads, tokens, width)."""
    low, high = states.chunk(2, dim=-1)
    return states * cos[:, None] + torch.cat((-high, low), dim=-1) * sin[:, None]
