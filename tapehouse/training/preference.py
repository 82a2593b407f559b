"""Training on preference pairs: transformers' Trainer over log-probabilities in one pass (`tapehouse.training.shared_prompt`).

Training starts from the reference (a new adapter changes nothing, a parent's adapter is the reference), so the reference's
log-probabilities are those of the model before its first step. They are computed once and kept: see `references`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer

from tapehouse.training import references
from tapehouse.training.losses import PairScores, pair_losses, weighted_mean
from tapehouse.training.references import Pair
from tapehouse.training.shared_prompt import AnswerBatch, answer_scores, collate


class PairModel(nn.Module):
    """A model whose forward pass is a batch of pairs, so that wrappers for several processes see one call."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **fields: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Log-probabilities of the chosen and of the rejected answers, and their lengths, (pairs,) each."""
        batch = AnswerBatch(**fields)
        return (*answer_scores(self.model, batch).unbind(1), *batch.answers.unbind(1))

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """As the model's, which transformers' Trainer calls."""
        self.model.activation_checkpointing_enable(**options)


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
        weights: of each pair and then of each of `validation`, with a mean of one over the pairs; None for equal ones.
        validation: pairs to measure on, none of them trained on.
        reference: file of log-probabilities that are known already, where those computed here are added; None keeps none.
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
        validation: Sequence[Pair] = (),
        reference: Path | None = None,
        **options: Any,
    ) -> None:
        self.kinds, self.kind_weights, self.beta, self.reference = tuple(kinds), tuple(kind_weights), beta, reference
        rows = [*pairs, *validation]
        known = {"tokens": torch.tensor([sum(map(len, pair)) for pair in rows])}
        super().__init__(
            PairModel(model),
            train_dataset=range(len(pairs)),
            eval_dataset=range(len(pairs), len(rows)) if validation else None,
            data_collator=PairCollator(rows, pad, known if weights is None else known | {"weight": weights}),
            **options,
        )
        self.model_accepts_loss_kwargs = False  # the mean is over pairs, whatever their tokens
        self.can_return_loss, self.label_names = True, []  # a measurement is of the loss alone
        self.tokens, self.seen, self.better = 0, 0, 0.0

    def train(self, *arguments: Any, **options: Any) -> Any:
        """Compute what of the reference is not known yet, then train."""
        if "reference_chosen" not in self.data_collator.known:
            self.data_collator.known |= self._reference()
        return super().train(*arguments, **options)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, Any]]:
        """The weighted mean loss of a batch."""
        inputs = dict(inputs)
        known = {name: inputs.pop(name) for name in self.data_collator.known}
        policy = PairScores(*model(**inputs))
        reference = PairScores(
            known["reference_chosen"], known["reference_rejected"], policy.chosen_tokens, policy.rejected_tokens
        )
        losses = sum(
            share * pair_losses(policy, reference, kind, self.beta)
            for kind, share in zip(self.kinds, self.kind_weights, strict=True)
        )
        if model.training:
            with torch.no_grad():
                gained = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
                self.better += float((gained > 0).sum())
                self.seen += len(gained)
                self.tokens += int(known["tokens"].sum()) * self.args.world_size
        loss = weighted_mean(losses, known.get("weight"))
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Add the share of pairs that the policy tells apart as wished, and the tokens so far."""
        if "loss" in logs:
            logs |= {"num_tokens": self.tokens}
            if self.seen:
                logs |= {"accuracy": self.better / self.seen}
            self.seen, self.better = 0, 0.0
        super().log(logs, *arguments, **options)

    def _reference(self) -> dict[str, torch.Tensor]:
        """Log-probabilities of all answers under the model as it is, in the precision of training."""
        digests = references.row_digests(self.data_collator.pairs)
        found = references.read(self.reference)
        missing = [row for row, digest in enumerate(digests) if digest not in found]
        if missing:
            found |= self._computed(missing, digests)
            if self.reference is not None and self.args.should_save:
                references.write(self.reference, found)
        chosen, rejected = torch.tensor([found[digest] for digest in digests]).unbind(1)
        return {"reference_chosen": chosen, "reference_rejected": rejected}

    def _computed(self, rows: list[int], digests: Sequence[str]) -> dict[str, tuple[float, float]]:
        mine = rows[self.args.process_index :: self.args.world_size]
        collator, found = self.data_collator, {}
        size = self.args.per_device_train_batch_size
        batches = alike(mine, collator.pairs, size) if self.args.device.type == "cpu" else batched(mine, size)
        self.model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            for picked in batches:
                fields = self._prepare_inputs(collator(picked))
                scores = self.model(**{name: field for name, field in fields.items() if name not in collator.known})
                pairs = zip(scores[0].float().tolist(), scores[1].float().tolist(), strict=True)
                found |= dict(zip((digests[row] for row in picked), pairs, strict=True))
        if self.args.world_size == 1:
            return found
        shares = [None] * self.args.world_size
        torch.distributed.all_gather_object(shares, found)
        return {digest: values for share in shares for digest, values in share.items()}


def alike(rows: Sequence[int], pairs: Sequence[Pair], size: int) -> Iterator[tuple[int, ...]]:
    """Batches of at most `size` rows whose parts are of the same lengths.

    Without padding a CPU gives a row the same bits in every such company, and alone.
    """
    by_lengths: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        by_lengths.setdefault(tuple(map(len, pairs[row])), []).append(row)
    return chain.from_iterable(batched(equals, size) for equals in by_lengths.values())


def batched(rows: Sequence[int], size: int) -> Iterator[tuple[int, ...]]:
    """`rows` in order, `size` at a time."""
    return (tuple(rows[start : start + size]) for start in range(0, len(rows), size))
