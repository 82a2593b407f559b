"""Expectations that plainly hold, found out on the frame itself: what does not is left to Great Expectations to judge.

Of the expectations that nearly every table has, and that nearly always hold, it is enough to see that every value is well
within what is asked. Anything else, a null, a NaN, an argument out of the ordinary, is no certainty.
"""

from collections.abc import Callable
from typing import Any

import polars as pl

# Doubles hold whole numbers exactly up to here: below it, pandas compares as polars does.
LARGEST_BOUND = 2**53


def plainly_holds(frame: pl.DataFrame, name: str, arguments: dict[str, Any]) -> bool:
    """Whether Great Expectations would certainly find that the expectation holds, with nothing more to say about it."""
    check = CERTAIN.get(name)
    mostly = arguments.get("mostly", 1)
    if check is None or type(mostly) not in (int, float) or not 0 <= mostly <= 1:
        return False
    known, holds = check
    named = {key: value for key, value in arguments.items() if key != "mostly"}
    if not set(named) <= known or not all(named.get(key) in frame.columns for key in known if key.startswith("column")):
        return False
    return bool(holds(frame, named))


def _not_null(frame: pl.DataFrame, arguments: dict) -> bool:
    return _complete(frame[arguments["column"]])


def _between(frame: pl.DataFrame, arguments: dict) -> bool:
    column = frame[arguments["column"]]
    return _number(column) and _complete(column) and _inside(column, arguments)


def _lengths(frame: pl.DataFrame, arguments: dict) -> bool:
    column = frame[arguments["column"]]
    return column.dtype == pl.String and column.null_count() == 0 and _inside(column.str.len_chars(), arguments)


def _in_set(frame: pl.DataFrame, arguments: dict) -> bool:
    column, values = frame[arguments["column"]], arguments.get("value_set")
    texts = isinstance(values, list | tuple) and len(values) > 0 and all(isinstance(value, str) for value in values)
    return column.dtype == pl.String and texts and column.null_count() == 0 and bool(column.is_in(list(values)).all())


def _greater(frame: pl.DataFrame, arguments: dict) -> bool:
    a, b = frame[arguments["column_A"]], frame[arguments["column_B"]]
    if not ((_number(a) and _number(b)) or (a.dtype == b.dtype and isinstance(a.dtype, pl.Datetime))):
        return False
    if not (_complete(a) and _complete(b)) or type(arguments.get("or_equal", False)) is not bool:
        return False
    return bool((a >= b if arguments.get("or_equal") else a > b).all())


def _inside(column: pl.Series, arguments: dict) -> bool:
    least, most = arguments.get("min_value"), arguments.get("max_value")
    strict = [arguments.get(key, False) for key in ("strict_min", "strict_max")]
    bounds = [bound for bound in (least, most) if bound is not None]
    if not bounds or not all(type(bound) in (int, float) and abs(bound) < LARGEST_BOUND for bound in bounds):
        return False
    if not all(type(flag) is bool for flag in strict) or (least is not None and most is not None and least >= most):
        return False
    if not column.len():
        return True
    low, high = column.min(), column.max()
    above = least is None or (low > least if strict[0] else low >= least)
    return above and (most is None or (high < most if strict[1] else high <= most))


def _number(column: pl.Series) -> bool:
    return column.dtype.is_integer() or column.dtype == pl.Float64


def _complete(column: pl.Series) -> bool:
    """No nulls, and no NaN, which pandas takes for one."""
    return column.null_count() == 0 and not (column.dtype.is_float() and column.is_nan().any())


_BOUNDS = {"min_value", "max_value", "strict_min", "strict_max"}
CERTAIN: dict[str, tuple[set[str], Callable[[pl.DataFrame, dict], bool]]] = {
    "expect_column_values_to_not_be_null": ({"column"}, _not_null),
    "expect_column_values_to_be_between": ({"column", *_BOUNDS}, _between),
    "expect_column_value_lengths_to_be_between": ({"column", "min_value", "max_value"}, _lengths),
    "expect_column_values_to_be_in_set": ({"column", "value_set"}, _in_set),
    "expect_column_pair_values_a_to_be_greater_than_b": ({"column_A", "column_B", "or_equal"}, _greater),
}
