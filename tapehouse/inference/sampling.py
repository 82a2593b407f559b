"""Choosing the next token: the likeliest, or one drawn by a number that the prompt, the seed and the place decide alone.

So a sampled answer depends neither on the other prompts of its batch nor on their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tapehouse.keyed import blake, mixed_uniform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy.

    `top_p` keeps the likeliest tokens whose shares sum to it (the nucleus of A. Holtzman and others, 2020).
    `repetition_penalty` divides the logit of a token that the answer already has, or multiplies it where it is negative
    (N. Keskar and others, CTRL, 2019). The prompt's tokens are not penalised: its figures are there to be copied.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0


GREEDY: Final = Sampling()


def text_keys(texts: Sequence[str]) -> np.ndarray:
    """What the draws for each prompt are mixed from, (prompts,) uint64; equal prompts draw equally."""
    return np.array([blake(text) for text in texts], np.uint64)


def choose(logits: torch.Tensor, seen: torch.Tensor, keys: np.ndarray, place: int, sampling: Sampling) -> torch.Tensor:
    """The next token of each row, (rows,).

    Args:
        logits: (rows, vocabulary), minus infinity for what may not follow; one at least may. Not changed.
        seen: (rows, vocabulary), True for the tokens that the answer already has.
        keys: `text_keys` of the rows' prompts.
        place: how many tokens the answers have.
    """
    if sampling.repetition_penalty != 1.0:
        penalised = logits.where(logits < 0, logits / sampling.repetition_penalty)
        penalised = penalised.where(logits >= 0, logits * sampling.repetition_penalty)
        logits = logits.where(~seen, penalised)
    if sampling.temperature == 0.0:
        return logits.argmax(dim=-1)
    import torch

    shares = nucleus((logits.double() / sampling.temperature).softmax(dim=-1), sampling.top_p)
    draws = mixed_uniform(keys, f"answer|{sampling.seed}|{place}")
    sums = shares.cumsum(dim=-1)
    wanted = torch.from_numpy(draws).to(sums.device)[:, None] * sums[:, -1:]
    # The first token whose sum exceeds the draw; one of share 0 never does before its neighbour.
    return torch.searchsorted(sums, wanted, right=True)[:, 0].clamp(max=sums.shape[1] - 1)


def nucleus(shares: torch.Tensor, top_p: float) -> torch.Tensor:
    """`shares` (rows, vocabulary) with 0 for all but the fewest likeliest tokens that together reach `top_p`."""
    if top_p == 1.0:
        return shares
    ordered, places = shares.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    return shares.masked_fill((before >= top_p).gather(1, places.argsort(dim=-1)), 0.0)
