"""Writing answers: batches of prompts of about equal length, a key-value cache, and rows that leave the batch as they stop.

Batches are cut from the prompts sorted by length and content, so that neither their order nor anything else decides in which
company a prompt is answered. A batch of unequal lengths is padded on the left and masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tapehouse.inference.effort import Effort
from tapehouse.inference.grammar import Grammars
from tapehouse.inference.sampling import GREEDY, Sampling, choose, text_keys
from tapehouse.tokens import encode_prompts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tapehouse.tokens import Vocabulary


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, by prompt: the tokens, with the stop token where it came, and the watched logits of the first place."""

    ids: list[list[int]]
    firsts: list[list[float]]


def generate(
    model: PreTrainedModel,
    vocabulary: Vocabulary,
    prompts: Sequence[str],
    most: int,
    batch: int = 128,
    sampling: Sampling = GREEDY,
    grammars: Sequence[str] | None = None,
    watched: Sequence[int] = (),
    effort: Effort | None = None,
) -> Written:
    """One answer a prompt, in their order; one that has not stopped after `most` tokens ends there.

    Args:
        grammars: of each answer, as `tapehouse.inference.grammar` writes them; None lets anything follow.
        watched: tokens whose logits at the first place of the answer are wanted, as the model gave them.
        effort: is told what each batch took.
    """
    encoded, keys = encode_prompts(vocabulary, prompts), text_keys(prompts)
    rules = None if grammars is None else Grammars(vocabulary)
    ids: list[list[int]] = [[] for _ in encoded]
    firsts: list[list[float]] = [[] for _ in encoded]
    for rows in by_length(encoded, batch):
        if rules is not None and grammars is not None:
            rules.begin([grammars[row] for row in rows])
        asked, started = [encoded[row] for row in rows], perf_counter()
        told, seen = _answers(model, vocabulary.stop, asked, most, keys[rows], sampling, rules, watched)
        if effort is not None:
            effort.add(len(rows), sum(map(len, asked)), sum(map(len, told)), perf_counter() - started)
        for row, answer, logits in zip(rows, told, seen, strict=True):
            ids[row], firsts[row] = answer, logits
    return Written(ids, firsts)


def by_length(encoded: Sequence[Sequence[int]], batch: int) -> Iterator[list[int]]:
    """Row numbers of batches: rows sorted by length, those of one length by content."""
    ordered = sorted(range(len(encoded)), key=lambda row: (len(encoded[row]), encoded[row]))
    for start in range(0, len(ordered), batch):
        yield ordered[start : start + batch]


def _answers(
    model: PreTrainedModel,
    stop: int,
    prompts: list[list[int]],
    most: int,
    keys: np.ndarray,
    sampling: Sampling,
    rules: Grammars | None,
    watched: Sequence[int],
) -> tuple[list[list[int]], list[list[float]]]:
    """Answers of one batch, and the watched logits of their first place."""
    import torch

    told: list[list[int]] = [[] for _ in prompts]
    rows = np.arange(len(prompts))  # which of the prompts each row of the tensors belongs to
    going = np.ones(len(prompts), bool)  # rows that have not stopped
    with torch.inference_mode():
        asked, mask = _padded(prompts, model.device)
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        out = model(**asked, use_cache=True, logits_to_keep=1)
        logits = out.logits[:, -1].float()
        firsts = logits[:, list(watched)].tolist()
        seen = torch.zeros_like(logits, dtype=torch.bool)
        for place in range(most):
            allowed = logits if rules is None else rules.masked(logits, rows, going)
            token = choose(allowed, seen, keys[rows], place, sampling)
            seen.scatter_(1, token[:, None], True)
            for at in np.flatnonzero(going):
                told[rows[at]].append(int(token[at]))
            going &= (token != stop).cpu().numpy()
            if rules is not None:
                rules.advance(rows[going], token[torch.from_numpy(going)].tolist())
            if not going.any() or place + 1 == most:
                break
            if 2 * going.sum() <= going.size:  # a copy of the cache is paid for once it halves the rows
                kept = torch.from_numpy(np.flatnonzero(going)).to(model.device)
                out.past_key_values.batch_select_indices(kept)
                token, lengths, seen = token[kept], lengths[kept], seen[kept]
                mask = None if mask is None else mask[kept]
                rows, going = rows[going], going[going]
            step: dict[str, Any] = {"input_ids": token[:, None], "position_ids": (lengths + place)[:, None]}
            if mask is not None:
                mask = torch.cat((mask, mask.new_ones(len(mask), 1)), dim=1)
                step["attention_mask"] = mask
            out = model(**step, past_key_values=out.past_key_values, use_cache=True)
            logits = out.logits[:, -1].float()
    return told, firsts


def _padded(prompts: list[list[int]], device) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
    """What a model is asked with, and its mask (rows, longest); none, and nothing padded, where all are of one length."""
    import torch

    longest = max(map(len, prompts))
    if all(len(prompt) == longest for prompt in prompts):
        return {"input_ids": torch.tensor(prompts, device=device)}, None
    ids, mask = np.zeros((len(prompts), longest), np.int64), np.zeros((len(prompts), longest), np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :], mask[row, longest - len(prompt) :] = prompt, 1
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    arrays = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    asked = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return asked, asked["attention_mask"]
