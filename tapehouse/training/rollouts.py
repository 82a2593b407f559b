"""Groups of answers to a prompt, drawn from a model: the prompt is run once, and all members of its group see its one cache.

A row is the prompt, then one token of every member for each step, in the order in which they are drawn. A token sees the prompt
and its own member's tokens (a block mask), and its position goes on from the prompt's end, so that each member is drawn as it
would be in a row of its own, while the cache holds the prompt once (as in Hydragen, Juravsky and others 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import DynamicCache


def draw_groups(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    group: int,
    most_tokens: int,
    stop: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> list[list[list[int]]]:
    """Token ids of `group` answers to each prompt, each with its stop token, or cut at `most_tokens`.

    Args:
        model: a decoder with a language-model head, with or without a peft adapter.
        prompts: ids of each prompt, of any lengths, none empty.
        stop: the token that ends an answer; -1 for answers that are all `most_tokens` long.
        temperature: what logits are divided by; 0 takes the likeliest token.
        generator: of the model's device; what is drawn follows from its state.
    """
    decoder = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = decoder.get_input_embeddings().weight.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    count, width = len(prompts), int(lengths.max())
    ids = torch.zeros((count, width), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.as_tensor(prompt)
    place = torch.arange(width, device=device)
    real = place < lengths[:, None]
    causal = place[:, None] >= place
    # Padding sees itself, or its softmax would be over nothing.
    seen = causal & real[:, None, :] | torch.eye(width, dtype=torch.bool, device=device)
    cache = DynamicCache(config=decoder.config)

    def hidden(tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        passed = {"attention_mask": mask[:, None], "position_ids": positions, "past_key_values": cache, "use_cache": True}
        return decoder.model(input_ids=tokens, **passed).last_hidden_state

    with torch.no_grad():
        first = hidden(ids.to(device), place.expand(count, -1), seen)
        last = first[torch.arange(count, device=device), lengths - 1]
        logits = decoder.lm_head(last)[:, None].expand(-1, group, -1)
        own = torch.eye(group, dtype=torch.bool, device=device).expand(count, -1, -1)
        mask = real[:, None, :].expand(-1, group, -1)
        drawn, stopped = [], torch.zeros((count, group), dtype=torch.bool, device=device)
        for step in range(most_tokens):
            tokens = _pick(logits, temperature, generator)
            drawn.append(tokens)
            stopped |= tokens == stop
            if step + 1 == most_tokens or stopped.all():
                break
            mask = torch.cat((mask, own), dim=2)
            logits = decoder.lm_head(hidden(tokens, (lengths + step)[:, None].expand(-1, group), mask))
    return [[_until(answer, stop) for answer in answers] for answers in torch.stack(drawn, dim=2).tolist()]


def _pick(logits: torch.Tensor, temperature: float, generator: torch.Generator | None) -> torch.Tensor:
    """One token for each member, (prompts, group), from logits (prompts, group, vocabulary)."""
    if temperature == 0:
        return logits.argmax(dim=-1)
    shares = (logits.float() / temperature).softmax(dim=-1)
    return torch.multinomial(shares.flatten(0, 1), 1, generator=generator).view(logits.shape[:2])


def _until(answer: list[int], stop: int) -> list[int]:
    return answer[: answer.index(stop) + 1] if stop in answer else answer
