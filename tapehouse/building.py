"""Building: what a build function is given, its declared inputs inside their declared windows, and what it must return."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold
from tapehouse.frames import POLARS_TYPES, duckdb_type, normalise
from tapehouse.partitions import DATED, FOLDED
from tapehouse.project import Asset, Project
from tapehouse.reading import of_fold, query, read_table, stream_table
from tapehouse.settings import Settings
from tapehouse.sqlfile import SqlFile
from tapehouse.tables import Read
from tapehouse.warehouse import LAKE, is_empty

log = logging.getLogger("tapehouse")


@dataclass
class Build:
    """What a build function is given: its range or fold, its declared inputs, and places for what it makes beside rows.

    Attributes:
        start, end: the range being made, [start, end) in UTC; the whole span for what is not made by date.
        fold: the fold being made, for tables made by fold.
        snapshot: the warehouse snapshot that every read sees.
        ingested_at: the time at which new raw rows arrive.
    """

    project: Project
    asset: Asset
    partitions: list[str]
    cursor: duckdb.DuckDBPyConnection
    snapshot: int
    start: datetime
    end: datetime
    fold: Fold | None = None
    run_id: str = ""
    ingested_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    progress: Callable[[str], None] = log.info
    launch: Callable[..., Any] | None = None  # runs a training process; None: a plain subprocess
    comparing: bool = False  # made again beside what is stored, to be compared with it
    notes: dict[str, Any] = field(default_factory=dict)
    filled: set[str] | None = None  # tables that have rows; None: not known
    shared: dict[str, pl.DataFrame] | None = None  # what was read for all folds of a run that makes several
    folds_made: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        return self.project.settings

    @property
    def folds(self) -> list[Fold]:
        """All folds, in order."""
        return list(self.project.folds.values())

    @property
    def workdir(self) -> Path:
        """A folder for files that belong to the asset and its fold (a tokenizer, an adapter)."""
        name = self.asset.name.removeprefix("models.")
        root = self.settings.root / "reproduced" if self.comparing else self.settings.models_dir
        folder = root / name / (self.fold.id if self.fold else "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def read(self, name: str, writer: str | None = None) -> pl.DataFrame:
        """Rows of a declared input inside its declared window, sorted by its grain.

        Args:
            writer: of several inputs that are rows of one table, that of this asset.

        Raises:
            TapehouseError: the table is not among the inputs that the file declares.
        """
        read = self._declared(name, writer)
        key = f"{name} {read.writer or ''}"
        if self.shared is None:
            return read_table(self.cursor, self.project, read, self.asset, self.partitions)
        if key not in self.shared:  # once for all folds: their windows overlap
            self.shared[key] = read_table(self.cursor, self.project, read, self.asset, self.folds_made)
        return of_fold(self.shared[key], self.project, read, self.asset, self.partitions[0])

    def _declared(self, name: str, writer: str | None = None) -> Read:
        found = [r for r in self.asset.reads if r.table == name and writer in (None, r.writer)]
        if not found:
            declared = [r.table for r in self.asset.reads]
            raise TapehouseError(f"{self.asset.source or self.asset.name}: reads {name}, but declares only {declared}")
        return found[0]

    def stream(self, name: str, rows: int = 100_000) -> Iterator[pl.DataFrame]:
        """The same rows as `read`, in frames of about `rows` rows: for inputs that are larger than the memory.

        Finish with one stream before the next read: they share a cursor.
        """
        yield from stream_table(self.cursor, self.project, self._declared(name), self.asset, self.partitions, rows)

    def sql(self, file: SqlFile) -> pl.DataFrame:
        """The result of a SQL file; it sees its declared inputs inside their declared windows, and nothing else."""
        return query(self.cursor, self.project, file, self.asset, self.partitions, self.start, self.end)

    def existing(self, name: str | None = None) -> pl.DataFrame:
        """Rows of its own that the table (or another one that it writes) holds in [start, end); empty before the first time."""
        output = next(o for o in self.asset.outputs if o.table == (name or self.asset.outputs[0].table))
        table = self.project.tables[output.table]
        terms = [f"\"{column}\" = '{value}'" for column, value in output.key]
        where = " and ".join([*terms, range_sql(table.time, self.start, self.end)] if table.time else [*terms, "true"])
        empty = is_empty(self.cursor, f"{LAKE}.{table.name}") if self.filled is None else table.name not in self.filled
        if table.types and empty:
            return pl.DataFrame(schema={column: POLARS_TYPES.get(kind, pl.Null) for column, kind in table.types.items()})
        stored = self.cursor.execute(f"describe {LAKE}.{table.name}").fetchall()
        have = {row[0] for row in stored}
        # A column declared since is null in the rows that are there.
        columns = ", ".join(f'"{c}"' if c in have else f'null::{t} as "{c}"' for c, t in table.types.items()) or "*"
        return self.cursor.execute(f"select {columns} from {LAKE}.{table.name} where {where} order by all").pl()

    def note(self, **numbers: Any) -> None:
        """Numbers, texts or paths to show with the materialisation."""
        self.notes.update(numbers)


def make_build(
    project: Project, asset: Asset, partitions: list[str], cursor: duckdb.DuckDBPyConnection, snapshot: int = 0, **options
) -> Build:
    """The argument of a build function for the given partitions."""
    universe = project.settings.universe
    fold = project.folds[partitions[0]] if asset.by in FOLDED else None
    start, end = universe.start, universe.end
    if asset.by in DATED:
        start, end = project.span(partitions[0], partitions[-1], asset.by)
    return Build(project, asset, partitions, cursor, snapshot, start, end, fold, **options)


def run_build(*builds: Build) -> dict[str, pl.DataFrame]:
    """Table name to the rows that the build function returns, in the table's columns, types and order; of several builds of an
    asset, folds each, all their rows.

    Raises:
        TapehouseError: other tables, columns or types than declared.
    """
    parts = [_produced(build) for build in builds]
    asset, project = builds[0].asset, builds[0].project
    frames = parts[0]
    if len(parts) > 1:
        frames = {name: pl.concat((part[name] for part in parts), how="vertical_relaxed") for name in parts[0]}
    for name, frame in frames.items():
        table = project.tables[name]
        if not table.types:
            table.types = {c: duckdb_type(t) for c, t in frame.schema.items()}
    return {name: normalise(project.tables[name], frame, str(asset.source or asset.name)) for name, frame in frames.items()}


def _produced(build: Build) -> dict[str, pl.DataFrame]:
    asset, tables = build.asset, [o.table for o in build.asset.outputs]
    produced = asset.build(build)
    frames = produced if isinstance(produced, dict) else {tables[0]: produced}
    where = str(asset.source or asset.name)
    if set(frames) != set(tables) or not all(isinstance(f, pl.DataFrame) for f in frames.values()):
        said = {name: type(frame).__name__ for name, frame in frames.items()}
        raise TapehouseError(f"{where}: a build returns a polars frame for each of {tables}, got {said}")
    return frames


def range_sql(column: str | None, start: datetime, end: datetime) -> str:
    """Condition that a time lies in [start, end)."""
    return f"(\"{column}\" >= timestamptz '{start.isoformat()}' and \"{column}\" < timestamptz '{end.isoformat()}')"
