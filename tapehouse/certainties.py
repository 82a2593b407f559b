"""Expectations that plainly hold, found out on the frame itself: what does not is left to Great Expectations to judge.

Of the expectations that nearly every table has, and that nearly always hold, it is enough to see that every value (or, for
numbers between bounds, clearly as many as asked) is within what is asked. Anything else, a null, a NaN, an argument out of the
ordinary, is no certainty.
"""

from collections.abc import Callable
from typing import Any

import polars as pl

# Doubles hold whole numbers exactly up to here: below it, pandas compares as polars does.
LARGEST_BOUND = 2**53


def plainly_holds(frame: pl.DataFrame, name: str, arguments: dict[str, Any]) -> tuple[int, ...] | None:
    """The rows outside of what is asked, where Great Expectations would certainly find that the expectation holds all the same
    (none, unless it is asked of `mostly` all); None where that is not certain."""
    check = CERTAIN.get(name)
    mostly = arguments.get("mostly", 1)
    if check is None or type(mostly) not in (int, float) or not 0 <= mostly <= 1:
        return None
    known, holds = check
    named = {key: value for key, value in arguments.items() if key != "mostly"}
    if not set(named) <= known or not all(named.get(key) in frame.columns for key in known if key.startswith("column")):
        return None
    if holds(frame, named):
        return ()
    return _few_outside(frame, named, mostly) if name == "expect_column_values_to_be_between" and mostly < 1 else None


def _few_outside(frame: pl.DataFrame, arguments: dict, mostly: float) -> tuple[int, ...] | None:
    column = frame[arguments["column"]]
    if not (_number(column) and _complete(column) and _bounds(arguments)):
        return None
    least, most = arguments.get("min_value"), arguments.get("max_value")
    outside = pl.repeat(False, column.len(), dtype=pl.Boolean, eager=True)
    if least is not None:
        outside |= column <= least if arguments.get("strict_min") else column < least
    if most is not None:
        outside |= column >= most if arguments.get("strict_max") else column > most
    clearly = outside.sum() < (1 - mostly) * column.len() - 1
    return tuple(outside.arg_true().to_list()) if clearly else None


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
    if not _bounds(arguments):
        return False
    least, most = arguments.get("min_value"), arguments.get("max_value")
    if not column.len():
        return True
    low, high = column.min(), column.max()
    above = least is None or (low > least if arguments.get("strict_min") else low >= least)
    return above and (most is None or (high < most if arguments.get("strict_max") else high <= most))


def _bounds(arguments: dict) -> bool:
    """Whether the bounds are numbers, in order, that every engine compares alike."""
    least, most = arguments.get("min_value"), arguments.get("max_value")
    bounds = [bound for bound in (least, most) if bound is not None]
    strict = [arguments.get(key, False) for key in ("strict_min", "strict_max")]
    if not bounds or not all(type(bound) in (int, float) and abs(bound) < LARGEST_BOUND for bound in bounds):
        return False
    return all(type(flag) is bool for flag in strict) and (least is None or most is None or least < most)


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
