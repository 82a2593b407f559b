import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.expectations import describe, evaluate

PRICES = pl.DataFrame({"symbol": ["A", "B", "C", "D"], "low": [1.0, 5.0, None, 3.0], "high": [2.0, 4.0, 1.0, 3.0]})
BETWEEN = {"expect_column_values_to_be_between": {"column": "low", "min_value": 2}}
ORDERED = {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "high", "column_B": "low", "or_equal": True}}
NOT_NULL = {"expect_column_values_to_not_be_null": {"column": "low"}}
MEAN = {"expect_column_mean_to_be_between": {"column": "high", "min_value": 2, "max_value": 3}}


def test_by_hand():
    found = evaluate(PRICES, (BETWEEN, ORDERED, NOT_NULL, MEAN), "checks/x.yaml")
    assert [(r.success, r.rows) for r in found] == [
        (False, (0,)),
        (False, (1, 2)),  # a pair with one value missing is not in order
        (False, (2,)),
        (True, ()),
    ]
    assert found[0].expectation == "expect_column_values_to_be_between(column=low, min_value=2)"
    assert found[0].detail == "1 rows, such as [1.0]"
    assert found[3].detail == "observed 2.5"


def test_answers_come_in_the_order_asked():
    entries = (MEAN, NOT_NULL, ORDERED, BETWEEN)
    assert [r.expectation for r in evaluate(PRICES, entries, "x")] == [describe(e) for e in entries]


def test_nothing_asked_is_nothing_answered():
    assert evaluate(PRICES, (), "x") == []


def test_a_failed_statistic_says_what_was_observed():
    (found,) = evaluate(PRICES, ({"expect_column_mean_to_be_between": {"column": "high", "max_value": 1}},), "x")
    assert (found.success, found.rows, found.detail) == (False, (), "observed 2.5")


def test_one_expectation_twice_with_other_arguments():
    entries = tuple({"expect_column_values_to_be_between": {"column": "high", "min_value": v}} for v in (1, 2, 3, 4))
    assert [r.rows for r in evaluate(PRICES, entries, "x")] == [(), (2,), (0, 2), (0, 2, 3)]


def test_times_and_texts():
    frame = PRICES.with_columns(
        at=pl.datetime(2005, 2, pl.int_range(1, 5), time_zone="UTC"), later=pl.datetime(2005, 2, 3, time_zone="UTC")
    )
    entries = (
        {"expect_column_values_to_be_in_set": {"column": "symbol", "value_set": ["A", "B", "C"]}},
        {"expect_column_values_to_match_regex": {"column": "symbol", "regex": "^[AD]$"}},
        {"expect_column_pair_values_a_to_be_greater_than_b": {"column_A": "later", "column_B": "at"}},
    )
    assert [r.rows for r in evaluate(frame, entries, "x")] == [(3,), (1, 2), (2, 3)]


def test_no_rows_break_no_row_rule():
    assert all(r.success for r in evaluate(PRICES.clear(), (BETWEEN, ORDERED, NOT_NULL), "x"))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"expect_column_values_to_be_betwen": {"column": "low"}}, "unknown expectation 'expect_column_values_to_be_betwen'"),
        ({"expect_column_values_to_be_between": {"colum": "low"}}, r"expect_column_values_to_be_between\(colum=low\)"),
        (
            {"expect_column_values_to_not_be_null": {"column": "volume"}},
            r"expect_column_values_to_not_be_null\(column=volume\) could not be computed: .*volume",
        ),
    ],
)
def test_what_cannot_be_asked_names_the_file(entry, said):
    with pytest.raises(TapehouseError, match=f"^checks/x.yaml: {said}"):
        evaluate(PRICES, (entry,), "checks/x.yaml")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-9, 9) | st.none(), min_size=1, max_size=12), st.floats(-9, 9))
def test_rows_named_are_those_that_break_the_rule(values, bound):
    entry = {"expect_column_values_to_be_between": {"column": "x", "min_value": bound}}
    (found,) = evaluate(pl.DataFrame({"x": pl.Series(values, dtype=pl.Float64)}), (entry,), "x")
    assert found.rows == tuple(i for i, v in enumerate(values) if v is not None and v < bound)
    assert found.success == (not found.rows)
