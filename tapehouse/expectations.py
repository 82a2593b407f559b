"""Great Expectations on frames: entries of a check file in, results with the offending rows out."""

import logging
import os
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import polars as pl

from tapehouse.certainties import plainly_holds
from tapehouse.errors import TapehouseError

Entry = dict[str, dict[str, Any]]
SHOWN = 5


@dataclass(frozen=True)
class Result:
    """One expectation's verdict.

    Attributes:
        rows: positions of the rows that break it, where the expectation is about single rows.
        detail: what was seen, in words.
    """

    expectation: str
    success: bool
    rows: tuple[int, ...] = field(default=(), repr=False)
    detail: str = ""


def evaluate(frame: pl.DataFrame, entries: tuple[Entry, ...], where: str) -> list[Result]:
    """Evaluate the entries (`{expectation_in_snake_case: {arguments}}`) on a frame.

    Raises:
        TapehouseError: an unknown expectation, bad arguments, or one that failed to compute; `where` names the check file.
    """
    # To judge what plainly holds would take Great Expectations longer than all else that is done with the rows.
    certain = [_certain(frame, entry) for entry in entries]
    doubtful = [entry for entry, verdict in zip(entries, certain, strict=True) if verdict is None]
    expectations = [_expectation(entry, where) for entry in doubtful]
    seen = frame.select(_columns(frame, doubtful))
    outcomes = _batch(seen).validate(_suite(expectations), result_format="COMPLETE").results if doubtful else []
    # Great Expectations answers in its own order, so each answer is matched by its configuration.
    return [verdict or _result(entry, outcomes, where) for entry, verdict in zip(entries, certain, strict=True)]


def _certain(frame: pl.DataFrame, entry: Entry) -> Result | None:
    (name, arguments), *_ = entry.items()
    rows = plainly_holds(frame, name, arguments or {})
    return None if rows is None else Result(describe(entry), True, rows)


def _columns(frame: pl.DataFrame, entries: list[Entry]) -> list[str]:
    """The columns that the entries speak of; all of them where one speaks of more than its columns."""
    named: set[str] = set()
    for entry in entries:
        (_, arguments), *_ = entry.items()
        columns = {value for key, value in (arguments or {}).items() if key in ("column", "column_A", "column_B")}
        if not columns or "row_condition" in (arguments or {}) or not columns <= set(frame.columns):
            return frame.columns
        named |= columns
    return [column for column in frame.columns if column in named]


def _result(entry: Entry, outcomes, where: str) -> Result:
    label = describe(entry)
    outcome = next(o for o in outcomes if (o.expectation_config.meta or {}).get("entry") == label)
    raised = outcome.exception_info or {}
    faults = [v for v in (raised, *raised.values()) if isinstance(v, dict) and v.get("raised_exception")]
    if faults:
        raise TapehouseError(f"{where}: {label} could not be computed: {faults[0].get('exception_message')}")
    result = outcome.result or {}
    rows = tuple(sorted(result.get("unexpected_index_list") or ()))
    if outcome.success:
        detail = f"observed {result['observed_value']}" if "observed_value" in result else ""
    elif rows or "partial_unexpected_list" in result:
        shown = (result.get("partial_unexpected_list") or [])[:SHOWN]
        detail = f"{result.get('unexpected_count', len(rows))} rows, such as {shown}"
    else:
        detail = f"observed {result.get('observed_value')}"
    return Result(label, bool(outcome.success), rows, detail)


def describe(entry: Entry) -> str:
    """`{expect_x: {column: a, min_value: 0}}` as one line: `expect_x(column=a, min_value=0)`."""
    (name, arguments), *_ = entry.items()
    return f"{name}({', '.join(f'{k}={v}' for k, v in (arguments or {}).items())})"


def _expectation(entry: Entry, where: str):
    import great_expectations.expectations as gxe

    (name, arguments), *_ = entry.items()
    kind = getattr(gxe, "".join(part.capitalize() for part in name.split("_")), None)
    if kind is None:
        raise TapehouseError(f"{where}: unknown expectation {name!r}; the names are Great Expectations', in snake case")
    try:
        return kind(**(arguments or {}), meta={"entry": describe(entry)})
    except Exception as error:  # pydantic v1 and v2 errors both occur here; the message is what helps
        raise TapehouseError(f"{where}: {describe(entry)}: {error}") from error


def _suite(expectations):
    import great_expectations as gx

    suite = gx.ExpectationSuite(name="suite")
    suite.expectations = expectations
    return suite


def _batch(frame: pl.DataFrame):
    return _batch_definition().get_batch({"dataframe": frame.to_pandas()})


@lru_cache(maxsize=1)
def _batch_definition():
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    source = context.data_sources.add_pandas("frames")
    return source.add_dataframe_asset("frame").add_batch_definition_whole_dataframe("whole")
