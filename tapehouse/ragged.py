"""Rows of unequal length as two flat arrays, the layout that Arrow has too: no Python list is made of a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numba import njit


@dataclass(frozen=True)
class Ragged:
    """Rows laid end to end.

    Attributes:
        values: (elements,) all elements, row after row.
        offsets: (rows + 1,) where each row begins in `values`; the last is where the last row ends.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> Ragged:
        """Rows of the given lengths."""
        return cls(values, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)]))

    @classmethod
    def of_series(cls, column: pl.Series) -> Ragged:
        """The rows of a list column without nulls."""
        inner = column.dtype.inner  # type: ignore[attr-defined]
        flat = column.list.explode(empty_as_null=False).cast(inner) if column.len() else pl.Series([], dtype=inner)
        return cls.of_lengths(np.ascontiguousarray(flat.to_numpy()), column.list.len().cast(pl.Int64).to_numpy())

    @property
    def lengths(self) -> np.ndarray:
        """(rows,) elements of each row."""
        return np.diff(self.offsets)

    def series(self, name: str, kind: pl.DataType) -> pl.Series:
        """The rows as a list column of type `kind`."""
        import pyarrow as pa

        return pl.Series(name, pa.LargeListArray.from_arrays(pa.array(self.offsets), pa.array(self.values)), dtype=kind)

    def lists(self) -> list[list[int]]:
        """The rows as Python lists."""
        flat, ends = self.values.tolist(), self.offsets.tolist()
        return [flat[start:end] for start, end in pairwise(ends)]

    def take(self, rows: np.ndarray) -> Ragged:
        """The rows with these numbers, in their order."""
        taken = Ragged.of_lengths(self.values, self.lengths[rows])
        return Ragged(_gathered(self.values, self.offsets, np.asarray(rows, np.int64), taken.offsets), taken.offsets)


def beside(left: Ragged, right: Ragged) -> Ragged:
    """Each row of `left` with that of `right` after it; both have the same number of rows and the type of `left`."""
    joined = Ragged.of_lengths(left.values, left.lengths + right.lengths)
    out = np.empty(joined.offsets[-1], left.values.dtype)
    _placed(out, joined.offsets[:-1], left.values, left.offsets)
    _placed(out, joined.offsets[:-1] + left.lengths, right.values, right.offsets)
    return Ragged(out, joined.offsets)


def stacked(parts: Sequence[Ragged]) -> Ragged:
    """The rows of all parts, one part after the other; there is at least one part."""
    values = np.concatenate([part.values for part in parts])
    return Ragged.of_lengths(values, np.concatenate([part.lengths for part in parts]))


@njit(cache=True)
def _placed(out, starts, values, offsets):
    for row in range(starts.size):
        source, target = offsets[row], starts[row]
        for k in range(offsets[row + 1] - source):
            out[target + k] = values[source + k]


@njit(cache=True)
def _gathered(values, offsets, rows, ends):
    out = np.empty(ends[-1], values.dtype)
    for place in range(rows.size):
        source, target = offsets[rows[place]], ends[place]
        for k in range(ends[place + 1] - target):
            out[target + k] = values[source + k]
    return out
