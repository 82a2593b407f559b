"""Frames as rows of a declared table: its columns, in its order and types, sorted by its grain."""

from typing import Any

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.project import Table
from tapehouse.warehouse import short_type

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
    "boolean[]": pl.List(pl.Boolean),
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


def duckdb_type(dtype: pl.DataType) -> str:
    """The DuckDB name of a polars type, as written in `checks/`."""
    for name, known in POLARS_TYPES.items():
        if dtype == known:
            return name
    if isinstance(dtype, pl.List):
        return f"{duckdb_type(dtype.inner)}[]"
    if isinstance(dtype, pl.Decimal):
        return f"decimal({dtype.precision},{dtype.scale})"
    names = {pl.UInt32: "uinteger", pl.UInt64: "ubigint", pl.Float32: "float", pl.Int16: "smallint", pl.Int8: "tinyint"}
    return names.get(dtype.base_type(), short_type(str(dtype)))
