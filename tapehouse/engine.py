"""Materialising: read at one snapshot, build, judge the new rows, swap them in one transaction, keep the books."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.expectations import Result, evaluate
from tapehouse.folds import Fold
from tapehouse.hashing import frame_hash
from tapehouse.lineage import Made, State, in_hash, read_state, require_upstream
from tapehouse.project import ONCE, Asset, Output, Project, Table
from tapehouse.reading import query, read_table
from tapehouse.settings import Settings
from tapehouse.sqlfile import SqlFile
from tapehouse.warehouse import LAKE, Change, Warehouse, apply_change, short_type

log = logging.getLogger("tapehouse")
# When a row arrived, and provenance that differs between repetitions of the same result, are no content.
UNHASHED = {"ingested_at", "snapshot", "git_commit", "manifest"}
BIG_TABLE_YEARS = {"event_at", "decision_at"}


@dataclass
class Build:
    """What a build function is given: its range or fold, its declared inputs, and places for what it makes beside rows.

    Attributes:
        start, end: the range being made, [start, end) in UTC; the whole span for what is not made by month.
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
    notes: dict[str, Any] = field(default_factory=dict)

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
        folder = self.settings.models_dir / name / (self.fold.id if self.fold else "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def read(self, name: str) -> pl.DataFrame:
        """Rows of a declared input inside its declared window, sorted by its grain.

        Raises:
            TapehouseError: the table is not among the inputs that the file declares.
        """
        found = [r for r in self.asset.reads if r.table == name]
        if not found:
            declared = [r.table for r in self.asset.reads]
            raise TapehouseError(f"{self.asset.source or self.asset.name}: reads {name}, but declares only {declared}")
        return read_table(self.cursor, self.project, found[0], self.asset, self.partitions)

    def sql(self, file: SqlFile) -> pl.DataFrame:
        """The result of a SQL file; it sees its declared inputs inside their declared windows, and nothing else."""
        return query(self.cursor, self.project, file, self.asset, self.partitions, self.start, self.end)

    def existing(self) -> pl.DataFrame:
        """Rows that the table already holds in [start, end); empty before the first time."""
        table = self.project.tables[self.asset.outputs[0].table]
        where = _range_sql(table.time, self.start, self.end) if table.time else "true"
        columns = ", ".join(f'"{c}"' for c in table.types)
        return self.cursor.execute(f"select {columns} from {LAKE}.{table.name} where {where} order by all").pl()

    def note(self, **numbers: Any) -> None:
        """Numbers, texts or paths to show with the materialisation."""
        self.notes.update(numbers)


@dataclass(frozen=True)
class PartitionOutcome:
    """One partition of one output: rows and content hash, and whether the rows differ from those before."""

    partition: str
    rows: int
    out_hash: str
    changed: bool


@dataclass
class OutputOutcome:
    """What became of one table in a materialisation."""

    output: Output
    made: list[PartitionOutcome]
    contract: list[Result]
    quality: list[Result]
    failed: dict[str, list[str]]  # partition -> reasons; these kept their last good rows


@dataclass
class Outcome:
    """What became of a materialisation."""

    outputs: list[OutputOutcome]
    snapshot: int
    notes: dict[str, Any]

    @property
    def failed(self) -> dict[str, dict[str, list[str]]]:
        """Table to partition to reasons."""
        return {o.output.table: o.failed for o in self.outputs if o.failed}


def materialise(
    project: Project,
    warehouse: Warehouse,
    name: str,
    partitions: list[str] | None = None,
    run_id: str = "",
    **build_options: Any,
) -> Outcome:
    """Make the partitions of one asset (contiguous, for months): read, build, judge, swap, in one commit.

    New rows are judged before they are visible. Partitions that break the contract keep their last good rows; the others are
    committed. Rows that come out as they were are not written again.

    Args:
        partitions: month keys or one fold; default: all months, or the single partition.
        run_id: recorded with each partition.
        build_options: passed to `Build` (`ingested_at`, `launch`, `progress`).

    Raises:
        TapehouseError: an upstream partition is missing, or the build returned other columns, types or rows than declared.
    """
    asset = project.assets[name]
    partitions = partitions or (project.partitions(asset) if asset.by != "folds" else [])
    _check_partitions(project, asset, partitions)
    ensure_tables(project, warehouse, asset)
    with warehouse.reading() as (cursor, snapshot):
        state = read_state(cursor)
        require_upstream(project, asset, partitions, state)
        hashes = {p: in_hash(project, asset, p, state) for p in partitions}
        build = make_build(project, asset, partitions, cursor, snapshot, run_id=run_id, **build_options)
        started = time.monotonic()
        produced = asset.build(build)
    frames = produced if isinstance(produced, dict) else {asset.outputs[0].table: produced}
    outcomes = [_judge(project, asset, output, frames[output.table], partitions, state) for output in asset.outputs]
    if any(o.table not in project.tables or not project.tables[o.table].types for o in asset.outputs):
        raise TapehouseError(f"{asset.name}: no columns are declared for its table; write its check file")
    _swap(warehouse, asset, outcomes, frames, project, state, hashes, snapshot, run_id)
    rows = sum(m.rows for o in outcomes for m in o.made)
    where = _said(partitions)
    log.info("%s %s: %s rows in %.1f s", name.replace(".", "/"), where, f"{rows:,}", time.monotonic() - started)
    return Outcome(outcomes, snapshot, build.notes)


def make_build(
    project: Project, asset: Asset, partitions: list[str], cursor: duckdb.DuckDBPyConnection, snapshot: int = 0, **options
) -> Build:
    """The argument of a build function for the given partitions."""
    universe = project.settings.universe
    fold = project.folds[partitions[0]] if asset.by == "folds" else None
    start, end = universe.start, universe.end
    if asset.by == "months":
        start, end = project.span(partitions[0], partitions[-1])
    return Build(project, asset, partitions, cursor, snapshot, start, end, fold, **options)


def ensure_tables(project: Project, warehouse: Warehouse, asset: Asset) -> None:
    """Create or adapt the tables that the asset writes and those that it reads."""
    warehouse.initialise() if not warehouse.exists() else None
    known = warehouse.tables()
    for name in [*(r.table for r in asset.reads), *(o.table for o in asset.outputs)]:
        table = project.tables[name]
        if table.types and known.get(name) != table.types:
            by_year = f'year("{table.time}")' if table.time in BIG_TABLE_YEARS else None
            warehouse.ensure(name, table.types, by_year)


def normalise(table: Table, frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """The frame with the declared columns in the declared order and types, sorted by grain.

    Raises:
        TapehouseError: columns are missing or unknown, or a column's type differs from the declared one.
    """
    missing = [c for c in table.types if c not in frame.columns]
    unknown = [c for c in frame.columns if c not in table.types]
    if missing or unknown:
        raise TapehouseError(f"{where}: the rows do not have the declared columns: missing {missing}, unknown {unknown}")
    frame = frame.select(list(table.types))
    wrong = []
    for column, kind in table.types.items():
        have = duckdb_type(frame.schema[column])
        if have == kind:
            continue
        if frame.schema[column] == pl.Null or (have, kind) in SAFE_CASTS:
            frame = frame.with_columns(pl.col(column).cast(POLARS_TYPES[kind], strict=True))
        else:
            wrong.append(f"{column} is {have}, declared {kind}")
    if wrong:
        raise TapehouseError(f"{where}: {'; '.join(wrong)}")
    grain = list(table.doc.grain)
    return frame.sort(grain, nulls_last=True) if grain else frame


POLARS_TYPES: dict[str, Any] = {
    "varchar": pl.String,
    "double": pl.Float64,
    "bigint": pl.Int64,
    "integer": pl.Int32,
    "boolean": pl.Boolean,
    "date": pl.Date,
    "timestamptz": pl.Datetime("us", "UTC"),
    "integer[]": pl.List(pl.Int32),
    "bigint[]": pl.List(pl.Int64),
    "double[]": pl.List(pl.Float64),
    "varchar[]": pl.List(pl.String),
}
# Widening, or narrowing that polars checks value by value; a float never becomes an integer.
SAFE_CASTS = {
    ("integer", "bigint"),
    ("bigint", "integer"),
    ("smallint", "integer"),
    ("tinyint", "integer"),
    ("uinteger", "bigint"),
    ("uinteger", "integer"),
    ("ubigint", "bigint"),
    ("float", "double"),
    ("bigint[]", "integer[]"),
    ("uinteger[]", "integer[]"),
}


def duckdb_type(dtype: pl.DataType) -> str:
    """The DuckDB name of a polars type, as written in `checks/`."""
    for name, known in POLARS_TYPES.items():
        if dtype == known:
            return name
    if isinstance(dtype, pl.List):
        return f"{duckdb_type(dtype.inner)}[]"
    names = {pl.UInt32: "uinteger", pl.UInt64: "ubigint", pl.Float32: "float", pl.Int16: "smallint", pl.Int8: "tinyint"}
    return names.get(dtype.base_type(), short_type(str(dtype)))


def partition_of(table: Table, asset: Asset, partitions: list[str]) -> pl.Expr:
    """The partition key of each row."""
    if asset.by == "months":
        return pl.col(table.time).dt.truncate("1mo").dt.date().cast(pl.String)
    return pl.lit(partitions[0])


def _judge(
    project: Project, asset: Asset, output: Output, frame: pl.DataFrame, partitions: list[str], state: State
) -> OutputOutcome:
    table = project.tables[output.table]
    where = str(asset.source or asset.name)
    frame = normalise(table, frame, where)
    check_file = str(project.settings.home / "checks" / Path(*table.name.split(".")).with_suffix(".yaml"))
    placed = frame.with_columns(partition_of(table, asset, partitions).alias("__partition"))
    strays = placed.filter(~pl.col("__partition").is_in(partitions) | pl.col("__partition").is_null())
    if strays.height:
        raise TapehouseError(f"{where}: {strays.height} rows lie outside the range that was asked for, such as {strays.row(0)}")
    for column, value in output.key:
        if not (frame[column] == value).all():
            raise TapehouseError(f"{where}: writes rows of {table.name} whose {column} is not {value!r}")
    contract = [_grain_result(table, frame), *evaluate(frame, table.doc.contract, check_file)]
    quality = evaluate(frame, table.doc.quality, check_file) if frame.height else []
    failed: dict[str, list[str]] = {}
    keys = placed["__partition"]
    for result in contract:
        if not result.success:
            for partition in sorted(set(keys.gather(list(result.rows)).to_list())) if result.rows else partitions:
                failed.setdefault(partition, []).append(f"{result.expectation}: {result.detail}")
    parts = {p: f.drop("__partition") for (p,), f in placed.partition_by("__partition", as_dict=True).items()}
    empty = frame.clear()
    made = []
    for partition in partitions:
        rows = parts.get(partition, empty)
        digest = frame_hash(rows.drop([c for c in rows.columns if c in UNHASHED]))
        before = state.get((output.asset, partition))
        changed = before is None or before.out_hash != digest
        made.append(PartitionOutcome(partition, rows.height, digest, changed))
    return OutputOutcome(output, made, contract, quality, failed)


def _grain_result(table: Table, frame: pl.DataFrame) -> Result:
    grain = list(table.doc.grain)
    doubled = frame.select(pl.struct(grain).is_duplicated().alias("d"))["d"].arg_true() if frame.height else pl.Series([])
    nulls = frame.select(pl.any_horizontal(pl.col(grain).is_null()).alias("n"))["n"].arg_true() if frame.height else pl.Series([])
    rows = tuple(sorted({*doubled.to_list(), *nulls.to_list()}))
    detail = f"{len(rows)} rows share or lack a key, such as {frame.select(grain).row(rows[0])}" if rows else ""
    return Result(f"grain({', '.join(grain)})", not rows, rows, detail)


def _swap(
    warehouse: Warehouse,
    asset: Asset,
    outcomes: list[OutputOutcome],
    frames: dict[str, pl.DataFrame],
    project: Project,
    state: State,
    hashes: dict[str, str],
    snapshot: int,
    run_id: str,
) -> None:
    now = datetime.now(UTC)
    failed = {p for o in outcomes for p in o.failed}  # an asset's tables are one unit: a partition changes in all or in none
    changes: list[Change] = []
    books: list[dict] = []
    good: set[str] = set()
    for outcome in outcomes:
        table, output = project.tables[outcome.output.table], outcome.output
        frame = normalise(table, frames[output.table], str(asset.source))
        fresh = [m for m in outcome.made if m.partition not in failed]
        good |= {m.partition for m in fresh}
        dirty = [m.partition for m in fresh if m.changed or (output.asset, m.partition) not in state]
        if dirty:
            rows = frame.filter(partition_of(table, asset, dirty).is_in(dirty)) if asset.by == "months" else frame
            changes.append(Change(table.name, rows, _selection(project, asset, table, output, dirty)))
        for m in fresh:
            made = Made(m.rows, m.out_hash, hashes[m.partition], asset.code_version, snapshot)
            books.append({"asset": output.asset, "partition": m.partition, **made.__dict__, "run_id": run_id, "made_at": now})
    if not books:
        return
    names = ", ".join(f"'{o.output.asset}'" for o in outcomes)
    keys = ", ".join(f"'{p}'" for p in sorted(good))
    which = f'asset in ({names}) and "partition" in ({keys})'
    changes.append(Change("meta.partitions", pl.DataFrame(books), which))
    if asset.pinned:
        pins = [{"snapshot": snapshot, "asset": asset.name, "partition": p, "run_id": run_id, "made_at": now} for p in sorted(good)]
        changes.append(Change("meta.pins", pl.DataFrame(pins), which))
    message = f"{asset.name} {_said(sorted(good))}".strip()
    extra = {"run_id": run_id, "asset": asset.name, "partitions": sorted(good)}
    with warehouse.writing("tapehouse", message, extra) as cursor:
        for change in changes:
            apply_change(cursor, change)


def _selection(project: Project, asset: Asset, table: Table, output: Output, partitions: list[str]) -> str:
    terms = [f"\"{column}\" = '{value}'" for column, value in output.key]
    if asset.by == "months":
        from tapehouse.lineage import month_ranges

        spans = [project.span(first, last) for first, last in month_ranges(partitions)]
        terms.append("(" + " or ".join(_range_sql(table.time, *span) for span in spans) + ")")
    elif asset.by == "folds":
        terms.append(f"\"{table.doc.partition or 'fold'}\" = '{partitions[0]}'")
    return " and ".join(terms) or "true"


def _range_sql(column: str | None, start: datetime, end: datetime) -> str:
    return f"(\"{column}\" >= timestamptz '{start.isoformat()}' and \"{column}\" < timestamptz '{end.isoformat()}')"


def _check_partitions(project: Project, asset: Asset, partitions: list[str]) -> None:
    known = project.partitions(asset)
    unknown = [p for p in partitions if p not in known]
    if unknown or not partitions:
        raise TapehouseError(f"{asset.name}: no partition {unknown}; there are {known[0]} to {known[-1]}, made by {asset.by}")
    if asset.by == "folds" and len(partitions) > 1:
        raise TapehouseError(f"{asset.name}: one run makes one fold, got {partitions}")
    first = known.index(partitions[0])
    if known[first : first + len(partitions)] != partitions:
        raise TapehouseError(f"{asset.name}: the months of one run must be contiguous, got {partitions}")


def _said(partitions: list[str]) -> str:
    if partitions == [ONCE]:
        return ""
    return partitions[0] if len(partitions) == 1 else f"{partitions[0]} … {partitions[-1]}"
