"""Rows of a block to be measured: arrays of equal length, the session of each row and the group that it counts to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numba import njit

SEED = 20_240_301


@dataclass(frozen=True)
class Rows:
    """What was said and what came of it, one row a decision, sorted by session.

    Attributes:
        columns: (rows,) arrays by name. outcomes: names of those that came of a decision, as opposed to what was said of it;
            a permutation moves them together.
        dates: (rows,) number of the session of each row, from 0. sessions: how many there are, those without a row included.
        groups: (rows,) number of the group that a row counts to, from 0. group_count: how many there are.
    """

    columns: Mapping[str, np.ndarray]
    dates: np.ndarray
    sessions: int
    outcomes: frozenset[str] = frozenset()
    groups: np.ndarray = field(default=None)  # type: ignore[assignment]
    group_count: int = 1

    def __post_init__(self) -> None:
        if self.groups is None:
            object.__setattr__(self, "groups", np.zeros(len(self.dates), np.int64))
        wrong = {name: len(values) for name, values in self.columns.items() if len(values) != len(self.dates)}
        if wrong or len(self.groups) != len(self.dates):
            raise ValueError(f"rows to be measured need one value of each column a row; {len(self.dates)} rows, but {wrong}")

    def __len__(self) -> int:
        return len(self.dates)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    def divided(self, divisions: Sequence[tuple[np.ndarray, int]]) -> Rows:
        """The rows once for each division, by its levels: group `group * all levels + level`, levels counted on.

        Args:
            divisions: (codes, levels) of each: the level of every row, below 0 where it is left out, and how many there are.
        """
        total = sum(levels for _, levels in divisions)
        kept = [np.flatnonzero(codes >= 0) for codes, _ in divisions]
        first = np.cumsum([levels for _, levels in divisions]) - [levels for _, levels in divisions]
        places = np.concatenate(kept)
        levels = np.concatenate([codes[at] + start for (codes, _), at, start in zip(divisions, kept, first, strict=True)])
        columns = {name: values[places] for name, values in self.columns.items()}
        groups = self.groups[places] * total + levels
        return replace(self, columns=columns, dates=self.dates[places], groups=groups, group_count=self.group_count * total)

    def permuted(self, times: int, seed: int = SEED) -> Rows:
        """The rows as often as asked, one group a time, each with its outcomes permuted among all rows."""
        rng = np.random.Generator(np.random.PCG64(seed))
        places = np.concatenate([rng.permutation(len(self)) for _ in range(times)])
        columns = {
            name: values[places] if name in self.outcomes else np.tile(values, times) for name, values in self.columns.items()
        }
        groups = np.repeat(np.arange(times), len(self)) * self.group_count + np.tile(self.groups, times)
        dates = np.tile(self.dates, times)
        return replace(self, columns=columns, dates=dates, groups=groups, group_count=times * self.group_count)

    def ranks(self, values: np.ndarray, by_date: bool = False) -> np.ndarray:
        """Ranks (rows,) of the values within their group, or their group and session, less the mean rank; NaN has none.

        Equal values share their mean rank. All are multiples of one half.
        """
        keys = self.groups * self.sessions + self.dates if by_date else self.groups
        known = np.flatnonzero(~np.isnan(values))
        order = known[np.lexsort((values[known], keys[known]))]
        found = np.full(len(values), np.nan)
        _centred_ranks(values, keys, order, found)
        return found


@njit(cache=True)
def _centred_ranks(values, keys, order, found):
    """Into `found`: mean ranks of equal values less the mean rank of their key; `order` sorts by key and then by value."""
    first = 0
    while first < order.size:
        end = first
        while end < order.size and keys[order[end]] == keys[order[first]]:
            end += 1
        middle = (first + end - 1) / 2.0
        i = first
        while i < end:
            j = i
            while j + 1 < end and values[order[j + 1]] == values[order[i]]:
                j += 1
            for k in range(i, j + 1):
                found[order[k]] = (i + j) / 2.0 - middle
            i = j + 1
        first = end
