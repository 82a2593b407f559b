"""Stored prompts and what an answer to each of them earns, by the ids that were drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl
from datasets import Dataset
from torch.utils.data import Sampler

from tapehouse.rewards import Reward, reward_of
from tapehouse.tokens import Vocabulary, decode_answer
from tapehouse.training.trainer import Rows

NO_VARIANCE: Final = 1e-6  # of rewards that differ by their rounding alone


@dataclass(frozen=True)
class Rewarded:
    """Prompts and what an answer to each of them earns.

    Attributes:
        rows: of `tapehouse.methods.grpo.training_rows`, by their place. prompts: ids of each row's prompt.
        stage: the part of the reward that is trained.
    """

    rows: list[dict[str, Any]]
    prompts: list[list[int]]
    vocabulary: Vocabulary
    stage: str

    @classmethod
    def of(cls, rows: pl.DataFrame, vocabulary: Vocabulary, stage: str) -> Rewarded:
        """Rows with their prompt as the model sees it, without the lines that it has lost."""
        prompts = rows["prompt_ids"].to_list()
        shown = pl.Series("prompt", [vocabulary.decode(ids) for ids in prompts], dtype=pl.String)
        return cls(rows.drop("prompt_ids").with_columns(shown).rows(named=True), prompts, vocabulary, stage)

    def rewards(self, row: int, answers: Sequence[Sequence[int]]) -> list[Reward]:
        """What each answer to a row's prompt earns, from its ids; one that was cut is no text."""
        return [reward_of(self.rows[row], decode_answer(self.vocabulary, answer)) for answer in answers]

    def varies(self, rewards: Sequence[Reward]) -> bool:
        """Whether a group's answers earn differently in the stage: one that does not has no advantage to learn from."""
        values = [reward.of_stage(self.stage) for reward in rewards]
        return max(values) - min(values) > NO_VARIANCE

    def dataset(self) -> Dataset:
        """Text and number of each row, which is all that passes through a data loader."""
        return Dataset.from_dict({"prompt": [row["prompt"] for row in self.rows], "row": list(range(len(self.rows)))})


@dataclass
class Drawn:
    """Groups of a rollout, by place: the row that was asked, its answers' ids and what they earn."""

    rows: list[int]
    answers: list[list[list[int]]]
    rewards: list[list[Reward]]


class RolloutRows(Sampler[int]):
    """Row numbers of a whole run, as TRL asks for them: each prompt `group` times, and a rollout again for each of its uses.

    Which prompts a rollout has depends on the seed alone, so that a run that goes on from a checkpoint meets the same ones.
    """

    def __init__(self, rows: int, rollouts: int, prompts: int, group: int, uses: int, seed: int) -> None:
        self.order, self.prompts, self.group, self.uses = Rows(rows, rollouts * prompts, seed).order, prompts, group, uses

    def __iter__(self) -> Iterator[int]:
        for start in range(0, len(self.order), self.prompts):
            for _ in range(self.uses):
                for row in self.order[start : start + self.prompts]:
                    yield from [row] * self.group

    def __len__(self) -> int:
        return len(self.order) * self.group * self.uses
