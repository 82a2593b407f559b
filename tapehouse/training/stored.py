"""TRL's preference trainers on token ids as they are stored.

They tokenise texts of their own: here rows are token ids already, and every batch is compared with what is stored, stop token
and all, so that nothing is encoded twice, cut or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import polars as pl
import torch
from datasets import Dataset, disable_progress_bars

from tapehouse.errors import TapehouseError
from tapehouse.training.job import Job
from tapehouse.training.trainer import Durable, measured_rows

disable_progress_bars()  # for a copy of rows in memory

Row = dict[str, Any]
# Of a row of the batch: the keys of its ids and of their mask, and the ids that are stored.
Part = tuple[str, str, Callable[[Row], Sequence[int]]]


class Verified:
    """A collator of TRL's whose batches are held against the stored rows.

    Args:
        collator: makes the batch. parts: what the batch must hold, one part's rows after the other's under equal keys.
        before: changes the rows of a batch as the collator is to see them.
    """

    def __init__(self, collator: Callable, parts: Sequence[Part], before: Callable[[list[Row]], list[Row]] = list) -> None:
        self.collator, self.parts, self.before = collator, parts, before

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        seen = self.before([dict(row) for row in rows])
        batch = self.collator(seen)
        stored_ids: dict[str, list[Sequence[int]]] = {}
        for ids, _, stored in self.parts:
            stored_ids.setdefault(ids, []).extend(stored(row) for row in seen)
        for ids, mask, _ in self.parts:
            check(ids, batch[ids], batch[mask], stored_ids[ids])
        return batch


def check(name: str, ids: torch.Tensor, mask: torch.Tensor, stored: Sequence[Sequence[int]]) -> None:
    """Raise TapehouseError where a row's ids under its mask are not the stored ones, or a row is left out or added."""
    if len(ids) != len(stored):
        raise TapehouseError(
            f"{name}: {len(ids)} rows in a batch that is made of {len(stored)}; hold the pinned version of trl"
        )
    for row, wanted in enumerate(stored):
        got = ids[row][mask[row] == 1].tolist()
        if got != list(wanted):
            place = next((at for at, (a, b) in enumerate(zip(got, wanted, strict=False)) if a != b), min(len(got), len(wanted)))
            raise TapehouseError(
                f"{name}: row {row} of a batch has {len(got)} tokens where {len(wanted)} are stored, and differs from token "
                f"{place} on; the trainer changed what it was given: hold the pinned version of trl"
            )


class OfStored(Durable):
    """Mixed in before a trainer of TRL's: counts tokens where the trainer does not."""

    kept: ClassVar[tuple[str, ...]] = (*Durable.kept, "tokens")
    tokens: int = 0

    def compute_loss(self, model, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """As the trainer's."""
        if model.training:
            masks = (mask for name, mask in inputs.items() if name.endswith("attention_mask") and "KL" not in name)
            self.tokens += sum(int(mask.sum()) for mask in masks) * self.args.world_size
        return super().compute_loss(model, inputs, *arguments, **options)

    def log(self, logs: dict[str, float], *arguments: Any, **options: Any) -> None:
        """Add the tokens so far."""
        if "loss" in logs:
            logs["num_tokens"] = self.tokens
        super().log(logs, *arguments, **options)


def row_sets(job: Job, rows_of: Callable[[pl.DataFrame], list[Row]]) -> tuple[Dataset, Dataset | None]:
    """The rows to train on and those to measure by, None where there are none, as `rows_of` makes them of the job's tables."""
    tail = measured_rows(job)
    return Dataset.from_list(rows_of(job.rows)), None if tail is None else Dataset.from_list(rows_of(tail))
