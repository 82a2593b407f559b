from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.errors import TapehouseError
from tapehouse.pit import as_of_join

STAMP = pl.Datetime("us", "UTC")
START = datetime(2020, 1, 1, tzinfo=UTC)


def rows(pairs) -> pl.DataFrame:
    frame = pl.DataFrame(pairs, schema={"symbol": pl.String, "at": pl.Int64}, orient="row")
    return frame.select("symbol", decision_at=pl.lit(START, STAMP) + pl.duration(seconds="at"))


def records(triples) -> pl.DataFrame:
    frame = pl.DataFrame(triples, schema={"symbol": pl.String, "at": pl.Int64, "value": pl.Float64}, orient="row")
    return frame.select("symbol", "value", known_at=pl.lit(START, STAMP) + pl.duration(seconds="at"))


def test_the_latest_record_known_by_then_by_hand():
    known = records([("B", 5, 50.0), ("A", 20, 2.0), ("A", 10, 1.0), ("A", 30, 3.0)])
    asked = rows([("A", 30), ("A", 9), ("B", 100), ("A", 29), ("C", 50), ("A", 10), (None, 50)])
    joined = as_of_join(asked, known, by=["symbol"])
    assert joined["value"].to_list() == [3.0, None, 50.0, 2.0, None, 1.0, None]
    assert joined.select(asked.columns).equals(asked)


def test_a_record_that_is_too_old_meets_nothing():
    known, asked = records([("A", 0, 1.0), ("A", 100, 2.0)]), rows([("A", 10), ("A", 11), ("A", 100)])
    joined = as_of_join(asked, known, by=["symbol"], at_most=timedelta(seconds=10))
    assert joined["value"].to_list() == [1.0, None, 2.0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    keys=st.sampled_from([1, 3, 40]),
    size=st.sampled_from([0, 1, 30, 400]),
    spread=st.sampled_from([3, 1_000, 2**40, 2**52]),
)
def test_the_same_as_looking_at_every_record(seed, keys, size, spread):
    rng = np.random.default_rng(seed)
    names = np.array([f"S{i}" for i in range(keys)])
    asked = pl.DataFrame({"symbol": names[rng.integers(0, keys, 200)], "decision_at": rng.integers(-spread, spread, 200)})
    known = pl.DataFrame({"symbol": names[rng.integers(0, keys, size)], "known_at": rng.integers(-spread, spread, size)})
    known = known.unique(maintain_order=True).with_row_index("number").with_columns(pl.col("known_at").cast(STAMP))
    asked = asked.with_columns(pl.col("decision_at").cast(STAMP))
    expected = [
        known.filter((pl.col("symbol") == symbol) & (pl.col("known_at") <= at)).sort("known_at").tail(1)["number"].to_list()
        for symbol, at in asked.rows()
    ]
    joined = as_of_join(asked, known, by=["symbol"])
    assert joined["number"].to_list() == [number[0] if number else None for number in expected]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_input_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    known = records([(f"S{i % 7}", int(at), float(i)) for i, at in enumerate(rng.permutation(3000))])
    asked = rows([(f"S{rng.integers(8)}", int(rng.integers(3000))) for _ in range(500)]).with_row_index("row")
    joined = as_of_join(asked, known, by=["symbol"])
    again = as_of_join(
        asked.sample(fraction=1, shuffle=True, seed=seed), known.sample(fraction=1, shuffle=True, seed=seed), by=["symbol"]
    )
    assert_frame_equal(again.sort("row"), joined)


def test_large_groups_as_polars_joins_them():
    rng = np.random.default_rng(2)
    known = records([("AB"[i % 2], int(at), float(i)) for i, at in enumerate(rng.permutation(40_000))])
    asked = rows([("AB"[rng.integers(2)], int(rng.integers(40_000))) for _ in range(20_000)])
    peer = asked.with_row_index().sort("decision_at").join_asof(
        known.sort("known_at"), left_on="decision_at", right_on="known_at", by="symbol", check_sortedness=False
    )  # fmt: skip
    assert as_of_join(asked, known, by=["symbol"])["value"].equals(peer.sort("index")["value"])


def test_several_columns_may_be_the_key():
    known = records([("A", 1, 1.0), ("A", 2, 2.0)]).with_columns(interval=pl.Series(["1d", "1h"]))
    asked = rows([("A", 5), ("A", 5)]).with_columns(interval=pl.Series(["1h", "1d"]))
    assert as_of_join(asked, known, by=["symbol", "interval"])["value"].to_list() == [2.0, 1.0]


def test_ties_are_refused_or_broken_as_declared():
    known = records([("A", 1, 7.0), ("A", 1, 3.0), ("A", 0, 9.0)]).with_columns(version=pl.Series([2, 1, 5]))
    asked = rows([("A", 5), ("A", 0)])
    with pytest.raises(TapehouseError, match=r"two records have \{'symbol': 'A'.*tie_break"):
        as_of_join(asked, known, by=["symbol"], columns=["value"])
    for order in (known, known.reverse()):
        joined = as_of_join(asked, order, by=["symbol"], columns=["value"], tie_break=["version"])
        assert joined["value"].to_list() == [7.0, 9.0]
    with pytest.raises(TapehouseError, match="tie_break does not order them"):
        as_of_join(asked, known.with_columns(version=pl.lit(1)), by=["symbol"], columns=["value"], tie_break=["version"])


def test_what_cannot_be_joined_is_refused_by_name():
    known, asked = records([("A", 1, 7.0)]), rows([("A", 5)])
    with pytest.raises(TapehouseError, match="the records have no column 'price'"):
        as_of_join(asked, known, by=["symbol"], columns=["price"])
    with pytest.raises(TapehouseError, match="both sides have a column 'value'"):
        as_of_join(asked.with_columns(value=pl.lit(1.0)), known, by=["symbol"])
    with pytest.raises(TapehouseError, match="cast one to the other"):
        as_of_join(asked.with_columns(pl.col("decision_at").dt.date()), known, by=["symbol"])
    with pytest.raises(TapehouseError, match=r"1 of the records have no known_at; .* number 0"):
        as_of_join(asked, known.with_columns(known_at=pl.lit(None, STAMP)), by=["symbol"])
