"""Reading declared inputs: a build sees its inputs inside their declared windows, and nothing else."""

from collections.abc import Iterator
from datetime import datetime
from uuid import uuid4

import duckdb
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.partitions import FOLDED
from tapehouse.project import Asset, Project
from tapehouse.sqlfile import SqlFile
from tapehouse.tables import Read
from tapehouse.warehouse import LAKE


def read_table(cursor: duckdb.DuckDBPyConnection, project: Project, read: Read, asset: Asset, parts: list[str]) -> pl.DataFrame:
    """Rows of one declared input for the partitions `parts` of `asset`, sorted by the input's grain."""
    return cursor.execute(_ordered(project, read, asset, parts)).pl()


def of_fold(rows: pl.DataFrame, project: Project, read: Read, asset: Asset, fold: str) -> pl.DataFrame:
    """The rows of `read_table` for one fold, out of those that were read for several at once."""
    table = project.tables[read.table]
    if table.time:
        return rows.filter(pl.col(table.time).is_between(*project.window(read, asset, fold), closed="left"))
    if table.doc.partition:
        return rows.filter(pl.col(table.doc.partition).cast(pl.String) == fold)
    return rows


def stream_table(
    cursor: duckdb.DuckDBPyConnection, project: Project, read: Read, asset: Asset, parts: list[str], rows: int
) -> Iterator[pl.DataFrame]:
    """The rows of `read_table`, in frames of about `rows` rows."""
    for batch in cursor.execute(_ordered(project, read, asset, parts)).fetch_record_batch(rows):
        yield pl.DataFrame(pl.from_arrow(batch))


def _ordered(project: Project, read: Read, asset: Asset, parts: list[str]) -> str:
    order = ", ".join(f'"{c}"' for c in project.tables[read.table].doc.grain)
    return f"{_selection(project, read, asset, parts)} order by {order}"


def query(
    cursor: duckdb.DuckDBPyConnection,
    project: Project,
    file: SqlFile,
    asset: Asset,
    parts: list[str],
    start: datetime,
    end: datetime,
) -> pl.DataFrame:
    """The rows of a SQL file over views that show each input's declared window alone.

    So a query cannot read beyond what it declares, and staleness, which follows from the declaration, cannot miss an input.
    """
    scratch = f"scratch_{uuid4().hex}"
    cursor.execute(f"attach ':memory:' as {scratch}")
    for read in asset.reads:
        schema, name = read.table.split(".")
        cursor.execute(f"create schema if not exists {scratch}.{schema}")
        cursor.execute(f"create view {scratch}.{schema}.{name} as {_selection(project, read, asset, parts)}")
    cursor.execute(f"use {scratch}")
    for macro in filter(None, (project.tables[read.table].as_known for read in asset.reads)):
        cursor.execute(macro)
    bound = {k: v for k, v in (("start", start), ("end", end)) if k in file.parameters}
    try:
        rows = (cursor.execute(file.text, bound) if bound else cursor.execute(file.text)).pl()
    except duckdb.Error as error:
        raise TapehouseError(f"{file.path}: {error}") from error
    cursor.execute(f"use {LAKE}")
    return rows


def _selection(project: Project, read: Read, asset: Asset, parts: list[str]) -> str:
    table = project.tables[read.table]
    columns = ", ".join(f'"{c}"' for c in table.types) or "*"
    terms = _declared_rows(project, read)
    if table.time:
        start, end = project.window_of(read, asset, parts[0], parts[-1])
        stamp = f'"{table.time}"'
        terms += [f"{stamp} >= timestamptz '{start.isoformat()}'", f"{stamp} < timestamptz '{end.isoformat()}'"]
    elif table.doc.partition and asset.by in FOLDED:
        terms.append(f"\"{table.doc.partition}\" in ({', '.join(repr(part) for part in parts)})")
    where = f" where {' and '.join(terms)}" if terms else ""
    return f"select {columns} from {LAKE}.{table.name}{where}"


def _declared_rows(project: Project, read: Read) -> list[str]:
    """Conditions that leave out rows of recipes and folds which are no longer declared."""
    keys: dict[str, set[str]] = {}
    for writer in project.writers_of(read):
        for column, value in project.output_of(read, writer).key:
            keys.setdefault(column, set()).add(value)
    fold = project.tables[read.table].doc.partition
    if fold and project.assets[project.writers_of(read)[0]].by in FOLDED:
        keys[fold] = set(project.partitions(project.assets[project.writers_of(read)[0]]))
    return [f'"{c}" in ({", ".join(repr(v) for v in sorted(values))})' for c, values in keys.items()]
