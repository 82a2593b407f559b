"""Reading Parquet as the same text records as delimited files give, so that both are judged by the same rules."""

import json
from datetime import time
from pathlib import Path
from typing import Any

import polars as pl

from tapehouse.sources.delimited import CUT_OFF, header_names, provided

MIDNIGHT = time(0)
ISO_UTC = "%Y-%m-%dT%H:%M:%S%.f+00:00"
ISO_NAIVE = "%Y-%m-%d %H:%M:%S%.f"


def read_parquet(
    path: Path, columns: dict[str, str], source: str, symbol: str | None = None, name: str | None = None
) -> pl.DataFrame:
    """Records of a Parquet file, one row a record; arguments and columns as those of `read_delimited`.

    Numbers become the shortest decimals that read back to the same bits; dates 'YYYY-MM-DD', and so do timestamps without
    a zone where all of a column are midnights; timestamps with a zone ISO text in UTC. `origin` counts rows from 1, and
    `record` is the row as JSON. A row group that cannot be read is one record with a fault, and so is a file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    name, content = name or path.name, path.read_bytes()
    # What a damaged file raises depends on the byte that is damaged; all of it becomes the fault of a record.
    try:
        file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
        rows = [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)]
        header = header_names(file.schema_arrow.names, {own: field for field, own in columns.items()})
    except Exception as error:
        return _named(_lost([(1, f"the Parquet file cannot be read ({_said(error)})")], name), name, columns, source, symbol)
    tables, lost, first = [], [], 1
    for at, count in enumerate(rows):
        try:
            table = file.read_row_group(at).rename_columns(header)
            table.validate(full=True)
            if table.num_rows != count:
                raise ValueError(f"it holds {table.num_rows} rows")
            _texts(pl.DataFrame(table))
        except (Exception, pl.exceptions.PanicException) as error:  # a date beyond all calendars is a panic
            lost.append((first, f"rows {first} to {first + count - 1} cannot be read ({_said(error)})"))
        else:
            tables.append((first, table))
        first += count
    parts = [_lost(lost, name)] if lost else []
    if tables:
        whole = _texts(pl.DataFrame(pa.concat_tables([table for _, table in tables])))
        numbers = [number for first, table in tables for number in range(first, first + table.num_rows)]
        parts.append(
            whole.with_columns(
                origin=pl.Series(numbers, dtype=pl.Int64),
                record=pl.struct(pl.all()).struct.json_encode() if header else pl.lit("{}"),
                fault=pl.lit(None, pl.String),
            )
        )
    if not parts:  # a whole file without rows, like a text with a header alone
        texts = [*header, "record", "fault"]
        parts.append(pl.DataFrame(schema=dict.fromkeys(texts, pl.String) | {"origin": pl.Int64}))
    return _named(pl.concat(parts, how="diagonal").sort("origin"), name, columns, source, symbol)


def _named(records: pl.DataFrame, name: str, columns: dict[str, str], source: str, symbol: str | None) -> pl.DataFrame:
    return provided(records.with_columns(origin=pl.format("{}:{}", pl.lit(name), "origin")), columns, source, symbol)


def _lost(lost: list[tuple[int, str]], name: str) -> pl.DataFrame:
    schema = {"origin": pl.Int64, "record": pl.String, "fault": pl.String}
    return pl.DataFrame([(number, name, CUT_OFF + why) for number, why in lost], schema=schema, orient="row")


def _said(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _texts(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(_text(column) for column in frame)


def _text(column: pl.Series) -> pl.Series:
    kind = column.dtype
    if kind == pl.String:
        return column
    if isinstance(kind, pl.Datetime):
        if kind.time_zone:
            return column.dt.convert_time_zone("UTC").dt.strftime(ISO_UTC)
        midnights = (column.dt.time() == MIDNIGHT).all()
        return column.dt.date().cast(pl.String) if midnights else column.dt.strftime(ISO_NAIVE)
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        texts = [None if value is None else json.dumps(_plain(value), default=str) for value in column.to_list()]
        return pl.Series(column.name, texts, dtype=pl.String)
    return column.cast(pl.String)


def _plain(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
