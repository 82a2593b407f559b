"""Reading delimited text line by line, so that no line is lost: what does not fit the header comes back as a fault.

Every field stays text. Numbers, dates and prices are judged by `tapehouse.ingest`, which sees good and bad alike.
"""

import csv
import zlib
from pathlib import Path

import polars as pl

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31  # zlib's code for "a gzip header and a checksum"
CUT_OFF = "cut off: "
ADDED = ("symbol", "source", "origin", "record", "fault")


def read_delimited(path: Path, columns: dict[str, str], source: str, symbol: str | None = None) -> pl.DataFrame:
    """Records of a comma-separated file, plain or gzip, one row a line after the header (blank lines are no records).

    Args:
        path: the file. One whose compressed stream is damaged is read as far as it goes.
        columns: field name -> name in the header. A field whose column is absent is null in every row.
        source: written to each record.
        symbol: the instrument of a file without a symbol column.

    Returns:
        Text columns: `symbol`, the fields of `columns`, every further column of the file under its own name, `source`,
        `origin` ('file.csv.gz:12', counting the header as line 1), `record` (the line as received) and `fault`: null,
        or why the line cannot be taken apart (too short, too long, cut off). A stream that ends between two lines, and
        a file with nothing in it, add one record of their own, so that the loss is seen.
    """
    text, damage = _decompress(path.read_bytes())
    *lines, unended = text.decode("utf-8-sig", errors="replace").split("\n")
    cut = damage or ("the last line has no line end" if unended else None)
    if not lines:
        cut = cut or "the file is empty"
    named = {header_name: field for field, header_name in columns.items()}
    header = _names(_cells(lines[0].rstrip("\r")), named) if lines else []

    rows, faults, records, numbers = [], [], [], []
    for number, line in enumerate(lines[1:], start=2):
        line = line.rstrip("\r")
        if not line.strip():
            continue
        cells = _cells(line)
        fault = None
        if len(cells) < len(header):
            fault = f"short row: {len(cells)} of {len(header)} fields"
        elif len(cells) > len(header):
            fault = f"long row: {len(cells)} fields for {len(header)} columns"
        rows.append((cells + [None] * len(header))[: len(header)])
        faults.append(fault)
        records.append(line)
        numbers.append(number)
    if cut:  # its fields may be cut too, and what is lost is not of its date: it stays undated
        rows.append([None] * len(header))
        faults.append(CUT_OFF + cut)
        records.append(unended)
        numbers.append(len(lines) + 1)

    data = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    absent = {field: [None] * len(rows) for field in columns if field not in data}
    frame = pl.DataFrame(data | absent, schema_overrides=dict.fromkeys([*data, *absent], pl.String), strict=True)
    return frame.with_columns(
        *([pl.lit(symbol).alias("symbol")] if symbol is not None else []),
        source=pl.lit(source),
        origin=pl.Series([f"{path.name}:{number}" for number in numbers], dtype=pl.String),
        record=pl.Series(records, dtype=pl.String),
        fault=pl.Series(faults, dtype=pl.String),
    )


def _decompress(content: bytes) -> tuple[bytes, str | None]:
    """Plain bytes, and what is wrong with the compressed stream they came from, if anything is."""
    if not content.startswith(GZIP_MAGIC):
        return content, None
    parts: list[bytes] = []
    while content:
        stream = zlib.decompressobj(GZIP_WINDOW)
        try:
            # In steps: a damaged stream raises, and only what earlier calls returned is kept.
            for at in range(0, len(content), 4096):
                parts.append(stream.decompress(content[at : at + 4096]))
                if stream.eof:
                    break
        except zlib.error as error:
            return b"".join(parts), f"the gzip stream is damaged ({error})"
        if not stream.eof:
            return b"".join(parts), "the gzip stream ends too early"
        content = (stream.unused_data + content[at + 4096 :]).lstrip(b"\x00")  # further members, or padding
    return b"".join(parts), None


def _cells(line: str) -> list[str]:
    # One line is one record: a stray quote must not swallow the lines after it.
    return next(csv.reader([line]), []) if '"' in line else line.split(",")


def _names(header: list[str], named: dict[str, str]) -> list[str]:
    """Field names for mapped columns; any other keeps its own name, set apart where that is one of ours."""
    names: list[str] = []
    for at, raw in enumerate(header, start=1):
        own = raw.strip() or f"column {at}"
        name = named.get(own, own)
        taken = name in names or (own not in named and own in (*named.values(), *ADDED))
        names.append(f"{own} (column {at})" if taken else name)
    return names
