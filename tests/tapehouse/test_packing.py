import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.packing import BLOCKS, POSITIONS, block_mask, pack_examples, pack_lengths

CAPACITY = 32


def examples(lengths: list[int]) -> pl.DataFrame:
    """Examples whose ids say which example and which token they are; the loss is on every other token."""
    return pl.DataFrame(
        {
            "input_ids": [[1000 * row + token for token in range(length)] for row, length in enumerate(lengths)],
            "loss_mask": [[token % 2 for token in range(length)] for length in lengths],
        },
        schema={"input_ids": pl.List(pl.Int32), "loss_mask": pl.List(pl.Int8)},
    )


def best_fit_decreasing(lengths: list[int], capacity: int) -> int:
    """Rows of the textbook's algorithm, by looking at every row each time."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row, room in enumerate(rooms) if room >= length]
        if fitting:
            rooms[min(fitting, key=lambda row: rooms[row])] -= length
        else:
            rooms.append(capacity - length)
    return len(rooms)


def test_a_packing_by_hand():
    # 6 opens a row of 10 and 5 another; 4 goes beside the 6, where it leaves no room, and 3 beside the 5.
    packing = pack_lengths(np.array([4, 6, 3, 5]), 10)
    assert packing.rows == 2
    assert packing.order.tolist() == [1, 0, 3, 2]
    assert packing.starts.tolist() == [0, 2, 4]


def test_packed_rows_by_hand():
    packed = pack_examples(examples([4, 6, 3, 5]), 10)
    assert packed["input_ids"][0].to_list() == [1000, 1001, 1002, 1003, 1004, 1005, 0, 1, 2, 3]
    assert packed["loss_mask"][1].to_list() == [0, 1, 0, 1, 0, 0, 1, 0]
    assert packed[POSITIONS].to_list() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 3], [0, 1, 2, 3, 4, 0, 1, 2]]
    assert packed[BLOCKS].to_list() == [[6, 4], [5, 3]]


def test_a_block_mask_by_hand():
    assert block_mask([2, 1]).tolist() == [[True, False, False], [True, True, False], [False, False, True]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, CAPACITY), max_size=80))
def test_every_example_is_packed_once_and_whole_and_sees_itself_alone(lengths):
    given_rows = examples(lengths)
    packed = pack_examples(given_rows, CAPACITY)
    assert packed.height == best_fit_decreasing(lengths, CAPACITY)
    found = {}
    for row in packed.iter_rows(named=True):
        assert sum(row[BLOCKS]) == len(row["input_ids"]) == len(row[POSITIONS]) <= CAPACITY
        ends = np.cumsum(row[BLOCKS])
        for end, length in zip(ends, row[BLOCKS], strict=True):
            ids = row["input_ids"][end - length : end]
            found[ids[0] // 1000] = (ids, row["loss_mask"][end - length : end])
            assert row[POSITIONS][end - length : end] == list(range(length))
        mask = block_mask(row[BLOCKS])
        owner = np.array(row["input_ids"]) // 1000
        seen = (owner[:, None] == owner[None, :]) & (np.arange(owner.size)[:, None] >= np.arange(owner.size)[None, :])
        assert np.array_equal(mask, seen)
    assert [found[row] for row in range(len(lengths))] == list(given_rows.iter_rows())
    assert pack_examples(given_rows, CAPACITY).equals(packed)


def test_no_examples_are_no_rows():
    packed = pack_examples(examples([]), CAPACITY)
    assert packed.height == 0 and packed.schema == pack_examples(examples([3]), CAPACITY).schema


def test_an_example_that_cannot_fit_is_never_cut():
    with pytest.raises(TapehouseError, match="example 1 has 33 tokens, a row holds 1 to 32"):
        pack_lengths(np.array([3, 33]), CAPACITY)
    with pytest.raises(TapehouseError, match="example 0 has 0 tokens"):
        pack_lengths(np.array([0]), CAPACITY)


def test_columns_of_one_example_are_equally_long():
    odd = examples([3, 4]).with_columns(loss_mask=pl.Series([[1, 1, 1], [1]], dtype=pl.List(pl.Int8)))
    with pytest.raises(TapehouseError, match="in example 1, loss_mask has another length than input_ids"):
        pack_examples(odd, CAPACITY)
