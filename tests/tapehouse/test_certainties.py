from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse import expectations
from tapehouse.certainties import plainly_holds

NUMBERS = st.sampled_from([0.0, 1.0, 2.5, -1.0, float("inf"), float("nan"), None])
WHOLE = st.sampled_from([0, 1, 2, -1, 2**53 + 1, None])
TEXTS = st.sampled_from(["a", "b", "", "ab", None])
TIMES = st.sampled_from([datetime(2005, 1, day, tzinfo=UTC) for day in (1, 2)] + [None])
BOUND = st.sampled_from([None, 0, 1, 2.5, -1, 3])
FLAG = st.sampled_from([{}, {"strict_min": True}, {"strict_max": True, "mostly": 0.5}])
FRAMES = st.integers(0, 3).flatmap(
    lambda height: st.fixed_dictionaries(
        {
            "x": st.lists(NUMBERS, min_size=height, max_size=height).map(lambda v: pl.Series(v, dtype=pl.Float64)),
            "n": st.lists(WHOLE, min_size=height, max_size=height).map(lambda v: pl.Series(v, dtype=pl.Int64)),
            "s": st.lists(TEXTS, min_size=height, max_size=height).map(lambda v: pl.Series(v, dtype=pl.String)),
            "t": st.lists(TIMES, min_size=height, max_size=height).map(lambda v: pl.Series(v, dtype=pl.Datetime("us", "UTC"))),
        }
    ).map(pl.DataFrame)
)
PAIR = "expect_column_pair_values_a_to_be_greater_than_b"
ENTRIES = st.one_of(
    st.sampled_from("xnst").map(lambda c: {"expect_column_values_to_not_be_null": {"column": c}}),
    st.builds(
        lambda c, low, high, more: {
            "expect_column_values_to_be_between": {"column": c, "min_value": low, "max_value": high, **more}
        },
        st.sampled_from("xn"),
        BOUND,
        BOUND,
        FLAG,
    ).filter(lambda e: possible(*e["expect_column_values_to_be_between"].values())),
    st.sampled_from([["a"], ["a", "b"], ["a", "b", "", "ab"]]).map(
        lambda values: {"expect_column_values_to_be_in_set": {"column": "s", "value_set": values}}
    ),
    st.sampled_from([1, 2]).map(
        lambda least: {"expect_column_value_lengths_to_be_between": {"column": "s", "min_value": least}}
    ),
    st.sampled_from([("x", "n"), ("n", "x"), ("n", "n"), ("t", "t"), ("x", "x")]).flatmap(
        lambda pair: st.sampled_from([{}, {"or_equal": True}]).map(
            lambda more: {PAIR: {"column_A": pair[0], "column_B": pair[1], **more}}
        )
    ),
)


def possible(_column, low, high, *_):
    """Bounds that Great Expectations takes: at least one, in order."""
    return (low is not None or high is not None) and (low is None or high is None or low < high)


def alone(frame: pl.DataFrame, entry: dict) -> expectations.Result:
    """The verdict of Great Expectations, whether or not it is certain."""
    batch = expectations._batch(frame)
    made = [expectations._expectation(entry, "x")]
    return expectations._result(entry, batch.validate(expectations._suite(made), result_format="COMPLETE").results, "x")


@settings(max_examples=60, deadline=None)
@given(FRAMES, ENTRIES)
def test_a_certainty_is_what_great_expectations_finds(frame, entry):
    (name, arguments), *_ = entry.items()
    found = alone(frame, entry)
    rows = plainly_holds(frame, name, arguments)
    if rows is not None:
        assert found == expectations.Result(expectations.describe(entry), True, rows)
    assert expectations.evaluate(frame, (entry,), "x") == [found]


FRAME = pl.DataFrame({"low": [1.0, 2.0], "high": [2.0, 2.0], "name": ["a", "b"], "n": [1, 2]})


@pytest.mark.parametrize(
    ("name", "arguments", "certain"),
    [
        ("expect_column_values_to_not_be_null", {"column": "low"}, True),
        ("expect_column_values_to_be_between", {"column": "low", "min_value": 1}, True),
        ("expect_column_values_to_be_between", {"column": "low", "min_value": 1, "strict_min": True}, False),
        ("expect_column_values_to_be_between", {"column": "name", "min_value": "a"}, False),
        ("expect_column_values_to_be_between", {"column": "n", "min_value": 1, "max_value": 2**60}, False),
        ("expect_column_values_to_be_in_set", {"column": "name", "value_set": ["a", "b", "c"]}, True),
        ("expect_column_values_to_be_in_set", {"column": "n", "value_set": [1, 2]}, False),
        (PAIR, {"column_A": "high", "column_B": "low", "or_equal": True}, True),
        (PAIR, {"column_A": "high", "column_B": "low"}, False),
        (PAIR, {"column_A": "high", "column_B": "absent"}, False),
        ("expect_column_values_to_not_be_null", {"column": "low", "row_condition": "n > 1"}, False),
        ("expect_column_values_to_not_be_null", {"column": "low", "mostly": 2}, False),
        ("expect_column_mean_to_be_between", {"column": "low", "min_value": 0}, False),
    ],
)
def test_what_is_certain(name, arguments, certain):
    assert (plainly_holds(FRAME, name, arguments) == ()) is certain


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 5.0]), min_size=1, max_size=40), st.sampled_from([0.5, 0.75, 0.9]), FLAG)
def test_most_is_what_great_expectations_counts(values, mostly, more):
    frame = pl.DataFrame({"x": values})
    arguments = {"column": "x", "min_value": 1, "max_value": 4, **more, "mostly": mostly}
    rows = plainly_holds(frame, "expect_column_values_to_be_between", arguments)
    found = alone(frame, {"expect_column_values_to_be_between": arguments})
    assert rows is None or (found.success, found.rows, found.detail) == (True, rows, "")
    outside = sum(not 1 <= value <= 4 for value in values)
    assert outside >= (1 - mostly) * len(values) - 1 or more or rows is not None
