"""Log-probabilities of fixed answers, stop token included, each prompt run once for all of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np

from tapehouse.inference.effort import Effort

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Tokens at a time. On a CPU more of them are no faster, and memory grows with them; a GPU wants to be filled.
TOKENS: Final = {"cpu": 1024, "cuda": 16_384}


def score(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[Sequence[int]]],
    pad: int,
    effort: Effort | None = None,
) -> np.ndarray:
    """Natural log-probability of every answer, (prompts, most answers), float64; NaN where a prompt has fewer.

    Equal to what the answers would have in rows of their own (`tapehouse.training.shared_prompt`).

    Args:
        prompts, answers: token ids; of each prompt its answers, with their stop token.
        effort: is told what each batch took.
    """
    import torch

    from tapehouse.inference.generation import by_length
    from tapehouse.training.shared_prompt import AnswerBatch, collate, token_scores

    most = max((len(texts) for texts in answers), default=0)
    found = np.full((len(prompts), most), np.nan)
    rows_of = [[*prompt, *(token for text in texts for token in text)] for prompt, texts in zip(prompts, answers, strict=True)]
    with torch.inference_mode():
        longest = max(map(len, rows_of), default=1)
        for rows in by_length(rows_of, max(TOKENS[model.device.type] // longest, 1)):
            started = perf_counter()
            fields = collate([(prompts[row], answers[row]) for row in rows], pad)
            asked = AnswerBatch(**{name: field.to(model.device) for name, field in fields.items()})
            told = token_scores(model, asked).double()  # summed in double: an answer may have hundreds of tokens
            sums = told.new_zeros(asked.answers.shape).scatter_add(1, asked.answer, told).cpu().numpy()
            for row, scores in zip(rows, sums, strict=True):
                found[row, : len(answers[row])] = scores[: len(answers[row])]
            if effort is not None:
                heads = sum(len(prompts[row]) for row in rows)
                effort.add(len(rows), heads, sum(len(rows_of[row]) for row in rows) - heads, perf_counter() - started)
    return found


def shares(scores: np.ndarray) -> np.ndarray:
    """Scores (rows, answers) as shares of each row, NaN counting as nothing; a row of NaN alone stays so."""
    some = ~np.isnan(scores).all(axis=1)
    found = np.full_like(scores, np.nan)
    known = np.where(np.isnan(scores[some]), -np.inf, scores[some])
    weights = np.exp(known - known.max(axis=1, keepdims=True))
    found[some] = weights / weights.sum(axis=1, keepdims=True)
    return found
