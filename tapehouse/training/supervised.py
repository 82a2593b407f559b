"""Supervised training without padding: examples end to end, each attending to itself alone, logits at learnt tokens alone.

The layers that work token by token run over all tokens of a batch in one row; only attention sees examples, laid side by side
and padded to the longest. So neither a mask of (tokens x tokens) nor a padded token is ever computed outside attention, and
whether examples share a row of the batch (`tapehouse.packing`) decides nothing but how evenly steps are filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AttentionInterface, Trainer

from tapehouse.training.attention import attend
from tapehouse.training.lean import gated_mlp
from tapehouse.training.shared_prompt import KNOWN

ATTENTION: Final = "per_example"
BLOCKS: Final = "block_lengths"  # as tapehouse.packing says, whose compiled kernels training does without

Row = tuple[np.ndarray, np.ndarray, np.ndarray]


class _Apart(torch.autograd.Function):
    """(tokens, width) to (places, width), zero where there is no token; its own inverse is its gradient."""

    @staticmethod
    def forward(context, states: torch.Tensor, places: torch.Tensor, size: int) -> torch.Tensor:
        context.places = places
        return states.new_zeros(size, *states.shape[1:]).index_copy_(0, places, states)

    @staticmethod
    def backward(context, gradient: torch.Tensor):
        return gradient.index_select(0, context.places), None, None


class _Together(torch.autograd.Function):
    """(places, width) to (tokens, width); see `_Apart`."""

    @staticmethod
    def forward(context, states: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        context.places, context.size = places, states.shape[0]
        return states.index_select(0, places)

    @staticmethod
    def backward(context, gradient: torch.Tensor):
        return gradient.new_zeros(context.size, *gradient.shape[1:]).index_copy_(0, context.places, gradient), None


def attend_per_example(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    *,
    places: torch.Tensor,
    examples: int,
    longest: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_ignored: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention of every example over itself, as transformers calls an attention.

    Args:
        query, key, value: (1, heads, tokens, width), the examples of a batch end to end.
        places: (tokens,) where each token lies in a table of `examples` rows by `longest` columns.

    Returns:
        (1, tokens, heads, width), and no weights.
    """

    def apart(states: torch.Tensor) -> torch.Tensor:
        table = _Apart.apply(states[0].transpose(0, 1), places, examples * longest)
        return table.view(examples, longest, *table.shape[1:]).transpose(1, 2)

    mixed = attend(
        apart(query), apart(key), apart(value), dropout_p=dropout, is_causal=True, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return _Together.apply(mixed.transpose(1, 2).flatten(0, 1), places)[None], None


AttentionInterface.register(ATTENTION, attend_per_example)


def batch_rows(rows: pl.DataFrame) -> list[Row]:
    """Rows of a batch as ids, what is learnt of them, and the lengths of their examples.

    Args:
        rows: input_ids and loss_mask; block_lengths where several examples share a row, as `tapehouse.packing` lays them.
    """
    if BLOCKS not in rows.columns:
        rows = rows.with_columns(pl.concat_list(pl.col("input_ids").list.len().cast(pl.Int32)).alias(BLOCKS))
    return [
        (np.asarray(ids, np.int64), np.asarray(learnt, bool), np.asarray(lengths, np.int64))
        for ids, learnt, lengths in rows.select("input_ids", "loss_mask", BLOCKS).iter_rows()
    ]


def collate(rows: Sequence[Row]) -> dict[str, Any]:
    """A batch: `input_ids` and `position_ids` (1, tokens), the arguments of the attention, `sources` and `labels` (learnt,).

    `sources` are the positions that predict a learnt token, `labels` those tokens. The first token of an example is never
    learnt: nothing of the example is before it.
    """
    ids, learnt, lengths = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    positions = np.arange(ids.size) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    longest = int(lengths.max())
    told = np.flatnonzero(learnt & (positions > 0))
    return {
        "input_ids": torch.from_numpy(ids)[None],
        "position_ids": torch.from_numpy(positions)[None],
        "places": torch.from_numpy(np.repeat(np.arange(lengths.size) * longest, lengths) + positions),
        "examples": lengths.size,
        "longest": longest,
        "sources": torch.from_numpy(told - 1),
        "labels": torch.from_numpy(ids[told]),
    }


class SupervisedTrainer(Trainer):
    """Minimises the mean cross-entropy of the learnt tokens of an optimiser step, over all of its parts and processes.

    Args:
        model: a decoder with a language-model head, with or without a peft adapter, of a kind whose attention transformers
            lets be chosen. rows, validation: of :func:`batch_rows`.
    """

    def __init__(self, model: nn.Module, rows: Sequence[Row], validation: Sequence[Row] = (), **options: Any) -> None:
        decoder = model.get_base_model() if hasattr(model, "get_base_model") else model
        decoder.set_attn_implementation(ATTENTION)
        if decoder.config.model_type in KNOWN and decoder.config.hidden_act == "silu":
            for layer in decoder.model.layers:
                layer.mlp.forward = partial(gated_mlp, layer.mlp)
        super().__init__(
            model, train_dataset=list(rows), eval_dataset=list(validation) or None, data_collator=collate, **options
        )
        self.model_accepts_loss_kwargs = True  # the number of learnt tokens of a whole step comes to compute_loss
        self._loss_shifts_labels = False  # labels are the predicted tokens themselves

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, dict[str, Any]]:
        """The summed loss of a part of a step's batch, divided by the step's learnt tokens."""
        inputs = dict(inputs)
        labels, sources = inputs.pop("labels"), inputs.pop("sources")
        logits = model(**inputs, logits_to_keep=sources, use_cache=False).logits[0]
        loss = F.cross_entropy(logits.float(), labels, reduction="sum")
        if num_items_in_batch is None:  # of a measurement
            loss = loss / labels.numel()
        else:
            loss = loss / num_items_in_batch * (self.args.world_size if self.args.average_tokens_across_devices else 1)
        return (loss, {}) if return_outputs else loss

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Add the tokens so far."""
        if "loss" in logs:
            logs["num_tokens"] = self.state.num_input_tokens_seen
        super().log(logs, *arguments, **options)
