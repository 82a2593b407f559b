"""Training on preference pairs: transformers' Trainer over log-probabilities in one pass (`tapehouse.training.shared_prompt`).

Training starts from the reference (a new adapter changes nothing, a parent's adapter is the reference), so the reference's
log-probabilities are those of the model before its first step. They are computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from tapehouse.training.losses import PairScores, pair_losses, weighted_mean
from tapehouse.training.shared_prompt import AnswerBatch, answer_scores, collate

Pair = tuple[Sequence[int], Sequence[int], Sequence[int]]


class PairModel(nn.Module):
    """A model whose forward pass is a batch of pairs, so that wrappers for several processes see one call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **fields: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Log-probabilities of the chosen and of the rejected answers, and their lengths, (pairs,) each."""
        batch = AnswerBatch(**fields)
        return (*answer_scores(self.model, batch).unbind(1), *batch.answers.unbind(1))


class PairCollator:
    """Batches of row numbers as the fields of an `AnswerBatch`, with what is known of each row before training."""

    def __init__(self, pairs: Sequence[Pair], pad: int, known: dict[str, torch.Tensor]) -> None:
        self.pairs, self.pad, self.known = pairs, pad, known

    def __call__(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        picked = torch.tensor(list(rows))
        batch = collate([(prompt, answers) for prompt, *answers in (self.pairs[row] for row in rows)], self.pad)
        return batch | {name: values[picked] for name, values in self.known.items()}


class PreferenceTrainer(Trainer):
    """Minimises a loss of `tapehouse.training.losses` over pairs; see the module for the reference.

    Args:
        model: a decoder with a language-model head, usually with a peft adapter.
        pairs: (prompt, chosen, rejected) token ids of each pair, answers with their stop token.
        pad: id for padding. kinds, kind_weights: losses and their weights in the sum. beta: as in the losses.
        weights: of each pair, (pairs,), for a loss by reward margin; None for equal ones.
    """

    def __init__(
        self,
        model: nn.Module,
        pairs: Sequence[Pair],
        pad: int,
        kinds: Sequence[str],
        kind_weights: Sequence[float],
        beta: float,
        weights: torch.Tensor | None = None,
        **options: Any,
    ) -> None:
        self.kinds, self.kind_weights, self.beta = tuple(kinds), tuple(kind_weights), beta
        known = {"tokens": torch.tensor([sum(map(len, pair)) for pair in pairs])}
        collator = PairCollator(pairs, pad, known if weights is None else known | {"weight": weights})
        super().__init__(PairModel(model), train_dataset=range(len(pairs)), data_collator=collator, **options)
        self.model_accepts_loss_kwargs = False  # the mean is over pairs, whatever their tokens
        self.tokens, self.seen, self.better = 0, 0, 0.0

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Compute the reference where it is not there yet, then train."""
        if "reference_chosen" not in self.data_collator.known:
            self.data_collator.known |= self._reference()
        return super().train(*arguments, **options)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The weighted mean loss of a batch."""
        known = {name: inputs.pop(name) for name in self.data_collator.known}
        policy = PairScores(*model(**inputs))
        reference = PairScores(
            known["reference_chosen"], known["reference_rejected"], policy.chosen_tokens, policy.rejected_tokens
        )
        losses = sum(
            share * pair_losses(policy, reference, kind, self.beta)
            for kind, share in zip(self.kinds, self.kind_weights, strict=True)
        )
        with torch.no_grad():
            gained = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
            self.better += float((gained > 0).sum())
            self.seen += len(gained)
            self.tokens += int(known["tokens"].sum())
        return weighted_mean(losses, known.get("weight"))

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Add the share of pairs that the policy tells apart as wished, and the tokens so far."""
        if "loss" in logs and self.seen:
            logs |= {"accuracy": self.better / self.seen, "num_tokens": self.tokens}
            self.seen, self.better = 0, 0.0
        super().log(logs, *arguments, **options)

    def _reference(self) -> dict[str, torch.Tensor]:
        """Log-probabilities of all answers under the model as it is, in the precision of training."""
        self.model.eval()
        chosen, rejected = [], []
        size = self.args.per_device_train_batch_size
        with torch.no_grad(), self.accelerator.autocast():
            for start in range(0, len(self.train_dataset), size):
                fields = self._prepare_inputs(self.data_collator(self.train_dataset[start : start + size]))
                scores = self.model(**{name: field for name, field in fields.items() if name not in self.data_collator.known})
                chosen.append(scores[0].float().cpu())
                rejected.append(scores[1].float().cpu())
        return {"reference_chosen": torch.cat(chosen), "reference_rejected": torch.cat(rejected)}
