"""How a table is declared: what a Python file reads, and what `checks/<schema>/<table>.yaml` says of its rows."""

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tapehouse.errors import TapehouseError
from tapehouse.yaml_files import parse_yaml

Cadence = Literal["days", "months", "folds", "adapter_folds", "once"]
Window = Literal["range", "all", "train", "test", "judged", "fold", "before_folds"]
GRAIN = re.compile(r"One row per \(([^)]*)\)", re.IGNORECASE)
TIME_COLUMNS = ("decision_at", "event_at")


@dataclass(frozen=True)
class Read:
    """One input of a table. Months and days are added to the window on either side; see `reads`."""

    table: str
    lookback_months: int = 0
    lookahead_months: int = 0
    window: Window = "range"
    writer: str | None = None  # the one asset whose rows are read, of a table that many assets write
    lookback_days: int = 0
    lookahead_days: int = 0


@dataclass(frozen=True)
class Declaration:
    """What the decorator `table` remembers about a build function."""

    reads: tuple[Read, ...]
    fingerprint: Callable[..., str] | None = None
    files: tuple[str, ...] = ()
    cadence: Cadence | None = None
    rejects: bool = False
    most_rows: int | None = None
    trains: bool = False
    key: tuple[tuple[str, str], ...] = ()


def reads(
    table: str,
    lookback_months: int = 0,
    lookahead_months: int = 0,
    window: Window = "range",
    lookback_days: int = 0,
    lookahead_days: int = 0,
) -> Read:
    """Declare an input: the one place from which the range that is read, the lineage and staleness follow.

    Args:
        table: `schema.table`.
        lookback_months, lookahead_months, lookback_days, lookahead_days: what is read before and after the window.
        window: `range`, the partitions being made (all rows, for a table that is made once); for tables made by fold
            `train`, `test`, `judged` (from the start of the validation tail to the end of the test block), `fold` (from the
            start of training to the end of the test block) or `all`; `before_folds`, what was decided before the first fold
            of the adapters is fitted.
    """
    return Read(table, lookback_months, lookahead_months, window, None, lookback_days, lookahead_days)


def table(
    *inputs: Read,
    fingerprint: Callable[..., str] | None = None,
    files: tuple[str, ...] = (),
    cadence: Literal["days", "months"] | None = None,
    rejects: bool = False,
    most_rows: int | None = None,
    trains: bool = False,
    key: dict[str, str] | None = None,
):
    """Mark the build function of the table that the file is named after.

    The function takes one argument, a `tapehouse.building.Build`, and returns a polars frame with the table's columns and
    the rows of its range alone.

    Args:
        inputs: from `reads`.
        fingerprint: for what is read from outside the warehouse: `fingerprint(settings, start, end)` returns a text that
            changes when the content of that range changes.
        files: declarations that the table follows, as paths from the project folder; their content is part of its version.
        cadence: by `days` for what is made from books and trades; a table with a time column is made by `months`.
        rejects: the function returns two frames, `{"raw.<table>": rows, "raw.quarantine": records that cannot be used}`,
            which change in one commit.
        most_rows: a range of partitions is made in slices that read at most so many rows, so that memory does not grow with it;
            what the function notes are then counts, which add up.
        trains: the function starts a training process; `tapehouse run` makes other tables beside it.
        key: column to value of the rows that are its own, of a table that others write, too.
    """

    def mark(build: Callable) -> Callable:
        own = tuple((key or {}).items())
        build.declaration = Declaration(inputs, fingerprint, tuple(files), cadence, rejects, most_rows, trains, own)
        return build

    return mark


class Column(BaseModel):
    """A column's DuckDB type (left out for SQL tables, where the query says it) and its meaning, with unit."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    doc: str
    type: str | None = None


class TableDoc(BaseModel):
    """The content of `checks/<schema>/<table>.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    grain: tuple[str, ...] = ()
    time: str | None = None
    partition: str | None = None  # the column of the fold, for a table made by fold
    folds: Literal["all", "adapters"] = "all"  # adapters: only the folds for which adapters are trained
    cutoff: str | None = None  # by when all that a row says must have been known; default: its time column
    owner: str = "team:data"
    columns: dict[str, Column] = Field(default_factory=dict)
    contract: tuple[dict[str, dict[str, Any]], ...] = ()
    quality: tuple[dict[str, dict[str, Any]], ...] = ()

    @field_validator("contract", "quality")
    @classmethod
    def _one_expectation_each(cls, entries):
        for entry in entries:
            if len(entry) != 1:
                raise ValueError(f"each entry is one 'expectation: {{arguments}}', got the keys {sorted(entry)}")
        return entries

    @property
    def types(self) -> dict[str, str]:
        """Column to DuckDB type, where every column says one; else empty."""
        return {c: d.type for c, d in self.columns.items()} if all(d.type for d in self.columns.values()) else {}


def load_doc(path: Path) -> TableDoc:
    """Read a check file.

    Raises:
        TapehouseError: names the file and the key that is unknown or ill-typed.
    """
    try:
        content = parse_yaml(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise TapehouseError(f"{path}: not YAML: {error}") from None
    try:
        return TableDoc.model_validate(content)
    except ValidationError as error:
        raise TapehouseError(f"{path}: " + "; ".join(_explain(e) for e in error.errors())) from None


def header_grain(text: str) -> tuple[str, ...]:
    """The columns in the first 'One row per (a, b, c)' of a description, or nothing."""
    match = GRAIN.search(text)
    return tuple(part.strip() for part in match.group(1).split(",")) if match else ()


def _explain(error: dict) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), [*TableDoc.model_fields, *Column.model_fields], n=1)
        return f"unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else "; remove it")
    return f"{key}: {error['msg']}"
