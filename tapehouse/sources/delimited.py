"""Reading delimited text so that no line is lost: what does not fit the header comes back as a fault.

Every field stays text. Numbers, dates and prices are judged by `tapehouse.ingest`, which sees good and bad alike.
"""

import csv
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import polars as pl

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31  # zlib's code for "a gzip header and a checksum"
BOM = b"\xef\xbb\xbf"
CUT_OFF = "cut off: "
ADDED = ("symbol", "source", "origin", "record", "fault")


def read_delimited(
    path: Path, columns: dict[str, str], source: str, symbol: str | None = None, name: str | None = None
) -> pl.DataFrame:
    """Records of a comma-separated file, plain or gzip, one row a line after the header (blank lines are no records).

    Args:
        path: the file. One whose compressed stream is damaged is read as far as it goes.
        columns: field name -> name in the header. A field whose column is absent is null in every row.
        source: written to each record.
        symbol: the instrument of a file without a symbol column.
        name: the file's name in `origin`; default: that of `path`.

    Returns:
        Text columns: `symbol`, the fields of `columns`, every further column of the file under its own name, `source`,
        `origin` ('file.csv.gz:12', counting the header as line 1), `record` (the line as received) and `fault`: null,
        or why the line cannot be taken apart (too short, too long, cut off). A stream that ends between two lines, and
        a file with nothing in it, add one record of their own, so that the loss is seen.
    """
    content, damage = _decompress(path.read_bytes())
    content = content.removeprefix(BOM)
    ends = _positions(content, b"\n")
    unended = content[int(ends[-1]) + 1 if ends.size else 0 :]
    cut = damage or ("the last line has no line end" if unended else None)
    if not ends.size:
        cut = cut or "the file is empty"
    named = {header_name: field for field, header_name in columns.items()}
    header = header_names(_cells(_text(content[: ends[0]]))[0], named) if ends.size else []

    plain = _plain_lines(content, ends, len(header))
    parts = [_read_plain(content, ends, plain, header), _read_one_by_one(content, ends, np.flatnonzero(~plain) + 1, header)]
    if cut:  # its fields may be cut too, and what is lost is not of its date: it stays undated
        parts.append(_frame([[None] * len(header)], [len(ends) + 1], [_decoded(unended)], [CUT_OFF + cut], header))
    full = [part for part in parts if part.height] or parts[:1]
    frame = full[0] if len(full) == 1 else pl.concat(full).sort("origin")
    origin = pl.format("{}:{}", pl.lit(name or path.name), "origin")
    return provided(frame.with_columns(origin=origin), columns, source, symbol)


def provided(records: pl.DataFrame, columns: dict[str, str], source: str, symbol: str | None) -> pl.DataFrame:
    """The records with every field of `columns`, null where the file has none, their source, and the symbol of all."""
    absent = [pl.lit(None, pl.String).alias(field) for field in columns if field not in records.columns]
    constant = [pl.lit(symbol).alias("symbol")] if symbol is not None else []
    return records.with_columns(*absent, *constant, source=pl.lit(source))


def header_names(header: list[str], named: dict[str, str]) -> list[str]:
    """Field names for mapped columns; any other keeps its own name, set apart where that is one of ours."""
    names: list[str] = []
    for at, raw in enumerate(header, start=1):
        own = raw.strip() or f"column {at}"
        name = named.get(own, own)
        taken = name in names or (own not in named and own in (*named.values(), *ADDED))
        names.append(f"{own} (column {at})" if taken else name)
    return names


def _plain_lines(content: bytes, ends: np.ndarray, width: int) -> np.ndarray:
    """Which lines after the header certainly are `width` fields between commas, with nothing that needs a closer look:
    quotes, carriage returns, bytes that are no text. A single field could be a blank line, which is no record."""
    if ends.size < 2 or width < 2:
        return np.zeros(max(ends.size - 1, 0), dtype=bool)
    commas = np.diff(np.searchsorted(_positions(content, b","), ends))
    plain = commas == width - 1
    special = [_positions(content, byte) for byte in (b'"', b"\r") if byte in content]
    if not _is_text(content):
        special.append(np.flatnonzero(np.frombuffer(content, np.uint8) >= 0x80))
    for found in special:
        plain &= np.diff(np.searchsorted(found, ends)) == 0
    return plain


def _read_plain(content: bytes, ends: np.ndarray, plain: np.ndarray, header: list[str]) -> pl.DataFrame:
    numbers = np.flatnonzero(plain) + 1
    if not numbers.size:
        return _frame([], [], [], [], header)
    edges = np.flatnonzero(np.diff(plain, prepend=False, append=False))  # a run of plain lines is from one to the next
    body = b"".join(content[ends[first] + 1 : ends[last] + 1] for first, last in zip(edges[::2], edges[1::2], strict=True))
    # A first line that is dropped, so that no mark at the beginning is taken for a byte order.
    frame = pl.read_csv(
        b"," * (len(header) - 1) + b"\n" + body,
        has_header=False,
        new_columns=header,
        infer_schema=False,
        quote_char=None,
        empty_string_is_null=False,
    ).slice(1)
    return frame.with_columns(
        origin=pl.Series(numbers + 1, dtype=pl.Int64),
        record=pl.concat_str(pl.all(), separator=","),
        fault=pl.lit(None, pl.String),
    )


def _read_one_by_one(content: bytes, ends: np.ndarray, numbers: np.ndarray, header: list[str]) -> pl.DataFrame:
    """The lines `numbers` (the header is 0), each with its fault; `origin` is still the number that `read_delimited` names."""
    rows, faults, records, places = [], [], [], []
    for at in numbers.tolist():
        line = _text(content[ends[at - 1] + 1 : ends[at]])
        if not line.strip():
            continue
        cells, fault = _cells(line)
        if len(cells) < len(header):
            fault = fault or f"short row: {len(cells)} of {len(header)} fields"
        elif len(cells) > len(header):
            fault = f"long row: {len(cells)} fields for {len(header)} columns"
        rows.append((cells + [None] * len(header))[: len(header)])
        faults.append(fault)
        records.append(line)
        places.append(at + 1)
    return _frame(rows, places, records, faults, header)


def _frame(rows: list, numbers: list[int], records: list[str], faults: list[str | None], header: list[str]) -> pl.DataFrame:
    texts = {name: [row[at] for row in rows] for at, name in enumerate(header)}
    schema = dict.fromkeys(header, pl.String) | {"origin": pl.Int64, "record": pl.String, "fault": pl.String}
    return pl.DataFrame(texts | {"origin": numbers, "record": records, "fault": faults}, schema=schema)


def _decompress(content: bytes) -> tuple[bytes, str | None]:
    """Plain bytes, and what is wrong with the compressed stream they came from, if anything is."""
    if not content.startswith(GZIP_MAGIC):
        return content, None
    parts: list[bytes] = []
    while content:
        stream = zlib.decompressobj(GZIP_WINDOW)
        try:
            parts.append(stream.decompress(content))
        except zlib.error as error:
            return b"".join([*parts, *_undamaged(content)]), f"the gzip stream is damaged ({error})"
        if not stream.eof:
            return b"".join(parts), "the gzip stream ends too early"
        content = stream.unused_data.lstrip(b"\x00")  # further members, or padding
    return (parts[0] if len(parts) == 1 else b"".join(parts)), None


def _undamaged(content: bytes) -> Iterator[bytes]:
    """What a damaged stream holds before the damage. In steps: one that raises gives nothing, and what came before is kept."""
    stream = zlib.decompressobj(GZIP_WINDOW)
    with suppress(zlib.error):
        for at in range(0, len(content), 4096):
            yield stream.decompress(content[at : at + 4096])


def _positions(content: bytes, byte: bytes) -> np.ndarray:
    return np.flatnonzero(np.frombuffer(content, np.uint8) == byte[0])


def _is_text(content: bytes) -> bool:
    if content.isascii():
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decoded(content: bytes) -> str:
    return content.decode(errors="replace")


def _text(line: bytes) -> str:
    return _decoded(line).rstrip("\r")


def _cells(line: str) -> tuple[list[str], str | None]:
    """The fields of a line, and why they cannot be told apart, if so."""
    if '"' not in line:
        return line.split(","), None
    try:
        # One line is one record: a stray quote must not swallow the lines after it.
        return next(csv.reader([line]), []), None
    except csv.Error as error:
        return [], f"broken quotes ({error})"
