from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.hashing import frame_hash, frame_hashes, text_hash

NOON = datetime(2005, 2, 28, 12, tzinfo=UTC)
VALUES = {
    pl.Int64: st.integers(-(2**63), 2**63 - 1),
    pl.Int32: st.integers(-(2**31), 2**31 - 1),
    pl.UInt32: st.integers(0, 2**32 - 1),
    pl.Float64: st.floats(),
    pl.Boolean: st.booleans(),
    pl.Decimal(38, 2): st.decimals(-(10**30), 10**30, places=2),
    pl.String: st.text(st.characters(codec="utf-8"), max_size=5),
    pl.Date: st.dates(),
    pl.Datetime("us", "UTC"): st.datetimes(timezones=st.just(UTC)),
    pl.Duration("us"): st.timedeltas(timedelta(-9), timedelta(9)),
    pl.Time: st.times(),
    pl.List(pl.Int32): st.lists(st.integers(-9, 9) | st.none(), max_size=3),
    pl.List(pl.String): st.lists(st.text("ab", max_size=2), max_size=3),
}
columns = st.sampled_from(list(VALUES)).flatmap(
    lambda kind: st.lists(VALUES[kind] | st.none(), max_size=20).map(lambda values: pl.Series("x", values, kind))
)


def one(values: list, kind=None) -> str:
    return frame_hash(pl.DataFrame({"x": pl.Series(values, dtype=kind)}))


def test_by_hand():
    # The bytes that are hashed: height, name, type, number of nulls, mask (second of three), then 1 and 2 as 64-bit integers.
    import hashlib

    expected = hashlib.sha256(
        b"3" + b"\x00a\x01Int64\x02" + b"1\x03" + bytes([0b01000000]) + (1).to_bytes(8, "little") + (2).to_bytes(8, "little")
    )
    assert frame_hash(pl.DataFrame({"a": [1, None, 2]})) == expected.hexdigest()[:32]


@settings(max_examples=60, deadline=None)
@given(columns, st.integers(0, 20))
def test_chunks_do_not_count(column, cut):
    chunked = pl.concat([column[:cut], column[cut:]], rechunk=False)
    sliced = pl.concat([column, column])[column.len() :]
    assert frame_hash(column.to_frame()) == frame_hash(chunked.to_frame()) == frame_hash(sliced.to_frame())


@settings(max_examples=60, deadline=None)
@given(columns, st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4))
def test_pieces_hash_as_frames_of_their_own(column, pieces):
    frame = column.to_frame().with_columns(number=pl.int_range(pl.len()))
    pieces = [(min(first, frame.height), min(last, frame.height)) for first, last in pieces]
    assert frame_hashes(frame, pieces) == [frame_hash(frame[first : max(first, last)]) for first, last in pieces]


@settings(max_examples=100, deadline=None)
@given(columns, columns)
def test_equal_hashes_are_equal_frames(left, right):
    same = left.dtype == right.dtype and left.len() == right.len() and bits(left) == bits(right)
    assert (frame_hash(left.to_frame()) == frame_hash(right.to_frame())) == same


def bits(column: pl.Series) -> list:
    """Values that tell -0.0 from 0.0 and one NaN from another."""
    if column.dtype == pl.Float64:
        return [None if v is None else np.float64(v).tobytes() for v in column.to_list()]
    return column.to_list()


@pytest.mark.parametrize("count", [8, 64, 128])
def test_a_mask_is_no_value(count):
    # The null mask of the left column has the bytes of the first value of the right one.
    mask = int.from_bytes(np.packbits([True] + [False] * (count - 1)).tobytes()[:8].ljust(8, b"\0"), "little")
    assert one([None, *range(count - 1)], pl.Int64) != one([mask, *range(count - 1)], pl.Int64)


def test_values_under_a_null_do_not_count():
    mask = pl.Series([True, False])
    hidden = [pl.DataFrame({"x": [1.0, v]}).select(pl.when(mask).then("x").alias("x")) for v in (2.0, 3.0)]
    assert frame_hash(hidden[0]) == frame_hash(hidden[1]) == one([1.0, None])
    arrow = [pl.DataFrame({"x": v}).with_columns(pl.when(mask).then("x").alias("x")) for v in (["a", "b"], ["a", "longer"])]
    assert frame_hash(arrow[0]) == frame_hash(arrow[1])


def test_bits_of_floats_count():
    nan = np.array([0x7FF8000000000000, 0x7FF8000000000001], dtype=np.uint64).view(np.float64)
    found = {one([v], pl.Float64) for v in (0.0, -0.0, float("inf"), 0.1 + 0.2, 0.3)}
    assert len(found) == 5
    assert len({frame_hash(pl.DataFrame({"x": nan[i : i + 1]})) for i in (0, 1)}) == 2


def test_names_types_order_and_places_count():
    base = pl.DataFrame({"a": [1, 2], "b": [3, 4]})
    others = [
        base.rename({"a": "c"}),
        base.select("b", "a"),
        base.reverse(),
        base.cast({"a": pl.Int32}),
        base.with_columns(a=pl.Series([1, 3]), b=pl.Series([2, 4])),
        base.head(1),
        base.select("a"),
        base.clear(),
    ]
    assert len({frame_hash(frame) for frame in [base, *others]}) == len(others) + 1


def test_where_texts_and_lists_are_cut_counts():
    assert one(["ab", "c"]) != one(["a", "bc"])
    assert one([[1, 2], [3]]) != one([[1], [2, 3]])
    assert len({one(v, pl.List(pl.Int64)) for v in ([[]], [None], [[None]], [])}) == 4
    assert one([["a", None], None, []]) != one([["a"], None, [None]])
    assert one([""]) != one([None], pl.String)


def test_kinds_of_time():
    days = one([date(2005, 2, 28)])
    assert len({days, one([NOON]), one([NOON.replace(tzinfo=None)]), one([time(12)]), one([timedelta(hours=12)])}) == 5
    assert one([date(2005, 2, 28), None]) != one([None, date(2005, 2, 28)])


def test_what_cannot_be_hashed_is_refused():
    with pytest.raises(TypeError, match=r"column 'x'.*Struct"):
        one([{"a": 1}])
    with pytest.raises(TypeError, match=r"column 'x'.*Categorical"):
        one(["a"], pl.Categorical)


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_texts_are_set_apart(left, right):
    assert (text_hash(*left) == text_hash(*right)) == (left == right)
