"""Packing: several short examples in one training row, none of them cut, each blind to the others.

Best fit decreasing (Johnson 1974, Near-optimal bin packing algorithms; for training rows Ding et al. 2024, Fewer
Truncations Improve Language Modeling): the longest example first, into the row with the least room that still holds it. A
segment tree over the amounts of room finds that row in the logarithm of the capacity. Examples of equal length keep their
order and rows with equal room are filled in the order in which they came to it, so a packing is a function of the lengths.

It happens when a fold's examples are exported for training, never in a stored table: which examples share a row depends on
all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError
from tapehouse.ragged import Ragged

POSITIONS, BLOCKS = "position_ids", "block_lengths"


@dataclass(frozen=True)
class Packing:
    """Which examples share a row.

    Attributes:
        order: (examples,) numbers of the examples, row by row.
        starts: (rows + 1,) where each row begins in `order`.
    """

    order: np.ndarray
    starts: np.ndarray

    @property
    def rows(self) -> int:
        """Number of packed rows."""
        return self.starts.size - 1


def pack_lengths(lengths: np.ndarray, capacity: int) -> Packing:
    """The packing of examples with `lengths` tokens (each 1 to `capacity`) into rows of at most `capacity` tokens.

    Raises:
        TapehouseError: names the first example that is empty or longer than a row; nothing is ever cut.
    """
    lengths = np.ascontiguousarray(lengths, dtype=np.int64)
    unfit = np.flatnonzero((lengths < 1) | (lengths > capacity))
    if unfit.size:
        raise TapehouseError(
            f"packing: example {unfit[0]} has {lengths[unfit[0]]} tokens, a row holds 1 to {capacity} and no example is cut; "
            f"the longest has {lengths.max()}: raise the capacity or leave such examples out"
        )
    return Packing(*_best_fit_decreasing(lengths, capacity)) if lengths.size else Packing(lengths, np.zeros(1, np.int64))


def pack_examples(examples: pl.DataFrame, capacity: int) -> pl.DataFrame:
    """Packed rows of examples: each list column laid end to end, `position_ids` and `block_lengths`.

    Args:
        examples: list columns with one element a token, equally long within a row (`input_ids`, `loss_mask` and the like).
        capacity: most tokens of a packed row.

    Returns:
        The same columns; `position_ids`, which begin at 0 with each example; and `block_lengths`, the tokens of each
        example of a row, from which :func:`block_mask` tells who may see whom.

    Raises:
        TapehouseError: an example is empty or longer than `capacity`, or its columns differ in length.
    """
    columns = {name: Ragged.of_series(examples[name]) for name in examples.columns}
    lengths = next(iter(columns.values())).lengths
    for name, column in columns.items():
        if (unlike := np.flatnonzero(column.lengths != lengths)).size:
            raise TapehouseError(f"packing: in example {unlike[0]}, {name} has another length than {examples.columns[0]}")
    packing = pack_lengths(lengths, capacity)
    taken = {name: column.take(packing.order) for name, column in columns.items()}
    ends = next(iter(taken.values())).offsets
    rows = ends[packing.starts]
    packed = [Ragged(column.values, rows).series(name, examples.schema[name]) for name, column in taken.items()]
    positions = Ragged(_positions(ends), rows).series(POSITIONS, pl.List(pl.Int32))
    blocks = Ragged(np.diff(ends).astype(np.int32), packing.starts).series(BLOCKS, pl.List(pl.Int32))
    return pl.DataFrame([*packed, positions, blocks])


def block_mask(lengths: Sequence[int]) -> np.ndarray:
    """Who sees whom in a packed row: (tokens, tokens), true where the token of the row may attend to that of the column.

    A token sees itself and the earlier ones of its own example, and nothing of another.
    """
    block = np.repeat(np.arange(len(lengths)), lengths)
    return (block[:, None] == block[None, :]) & np.tri(block.size, dtype=bool)


@njit(cache=True)
def _positions(ends):
    out = np.empty(ends[-1], np.int32)
    for place in range(ends.size - 1):
        for k in range(ends[place + 1] - ends[place]):
            out[ends[place] + k] = k
    return out


@njit(cache=True)
def _best_fit_decreasing(lengths, capacity):
    """`order` and `starts` of a packing; see the module.

    Rows with equal room wait in a queue, a linked list from `head[room]` by `behind` to `tail[room]`. The tree holds at leaf
    `room` whether its queue has anyone, and at each node the largest such room below it.
    """
    by_length = np.argsort(-lengths, kind="mergesort")
    head, tail = np.full(capacity + 1, -1), np.full(capacity + 1, -1)
    behind = np.full(lengths.size, -1)
    leaves = 1
    while leaves <= capacity:
        leaves *= 2
    tree = np.full(2 * leaves, -1)
    row_of = np.empty(lengths.size, np.int64)
    rows = 0
    for example in by_length:
        length = lengths[example]
        if tree[1] < length:
            row, room = rows, capacity
            rows += 1
        else:
            node = 1
            while node < leaves:
                node *= 2
                if tree[node] < length:
                    node += 1
            room = node - leaves
            row = head[room]
            head[room] = behind[row]
            behind[row] = -1
            if head[room] < 0:
                tail[room] = -1
                _set_leaf(tree, node, -1)
        row_of[example] = row
        room -= length
        if room > 0:
            if tail[room] < 0:
                head[room] = row
                _set_leaf(tree, leaves + room, room)
            else:
                behind[tail[room]] = row
            tail[room] = row
    starts = np.zeros(rows + 1, np.int64)
    for row in row_of:
        starts[row + 1] += 1
    starts = np.cumsum(starts)
    order = np.empty(lengths.size, np.int64)
    at = starts[:-1].copy()
    for example in by_length:
        row = row_of[example]
        order[at[row]] = example
        at[row] += 1
    return order, starts


@njit(cache=True)
def _set_leaf(tree, node, value):
    tree[node] = value
    node //= 2
    while node >= 1:
        value = max(tree[2 * node], tree[2 * node + 1])
        if tree[node] == value:
            break
        tree[node] = value
        node //= 2
