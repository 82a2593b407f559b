"""Log-probabilities of many answers to few prompts: answers that share a prompt become one row, with the prompt run once.

A row is that of `tapehouse.training.shared_prompt`: the prompt without its last token, and then each answer behind a copy of
that token, which predicts its first. So every position predicts at most one token, which is what a model's own forward pass
can be asked for, and each log-probability is that of the answer in a row of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from tapehouse.training.shared_prompt import collate

IGNORED: Final = -100


@dataclass(frozen=True, slots=True)
class Grouped:
    """Answers gathered by their prompts.

    Attributes:
        ids, positions: (prompts, tokens). mask: (prompts, 1, tokens, tokens), True where a query sees a key.
        targets: (prompts, tokens) what each token predicts, -100 where nothing is asked of it.
        rows, columns: (answers, most answer tokens) where each answer's tokens are predicted; 0, 0 for padding.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    targets: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor

    def of_answers(self, values: torch.Tensor) -> torch.Tensor:
        """(answers, most answer tokens) of what the model says of each token, (prompts, tokens)."""
        return values[self.rows, self.columns]


def grouped(
    prompts: torch.Tensor, prompt_mask: torch.Tensor, answers: torch.Tensor, answer_mask: torch.Tensor, pad: int
) -> Grouped:
    """Gather the answers of equal prompts.

    Args:
        prompts, prompt_mask: (answers, prompt tokens) padded on the left, the mask 0 there; two tokens at least.
        answers, answer_mask: (answers, most answer tokens) padded on the right.
    """
    starts, counts = (prompt_mask == 0).sum(1).tolist(), answer_mask.sum(1).tolist()
    texts = [row[:count] for row, count in zip(answers.tolist(), counts, strict=True)]
    members: dict[tuple[int, ...], list[int]] = {}
    for answer, (row, start) in enumerate(zip(prompts.tolist(), starts, strict=True)):
        members.setdefault(tuple(row[start:]), []).append(answer)
    laid = collate([(prompt[:-1], [[prompt[-1], *texts[answer]] for answer in own]) for prompt, own in members.items()], pad)
    targets = torch.full_like(laid["ids"], IGNORED)
    rows, columns = torch.zeros(answers.shape, dtype=torch.long), torch.zeros(answers.shape, dtype=torch.long)
    for row, own in enumerate(members.values()):
        told = 0
        for answer in own:
            told += 1  # what predicts the prompt's own last token
            places = laid["sources"][row, told : told + counts[answer]]
            targets[row, places] = torch.tensor(texts[answer])
            rows[answer], columns[answer, : counts[answer]] = row, places
            told += counts[answer]
    fields = (laid["ids"], laid["positions"], laid["mask"], targets, rows, columns)
    return Grouped(*(field.to(prompts.device) for field in fields))
