"""Content hashes of frames: equal rows in equal order give equal hashes, on any machine and for any chunking."""

import hashlib

import numpy as np
import polars as pl


def frame_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types, null masks and values, column by column, in the given row order.

    Values under a null are not hashed (their bits are undefined); floats are hashed by their bits, so that a change in the
    last place is a change. Supports numbers, decimals, booleans, strings, dates, times and lists of those.

    Returns:
        32 hexadecimal digits (the digest's first half).

    Raises:
        TypeError: names the column whose type is not supported.
    """
    digest = hashlib.sha256(str(frame.height).encode())
    for name, kind in frame.schema.items():
        if not _supported(kind):
            raise TypeError(f"column {name!r}: the content of {kind} cannot be hashed")
        digest.update(f"\x00{name}\x01{kind}\x02".encode())
        _update(digest, frame[name])
    return digest.hexdigest()[:32]


def text_hash(*parts: str) -> str:
    """SHA-256 of the parts, each set apart from the next; 32 hexadecimal digits."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:32]


def _supported(kind: pl.DataType) -> bool:
    if isinstance(kind, pl.List):
        return _supported(kind.inner)
    return kind.is_numeric() or kind.is_temporal() or kind in (pl.Boolean, pl.String, pl.Null)


def _update(digest, column: pl.Series) -> None:
    nulls = column.null_count()
    digest.update(f"{nulls}\x03".encode())  # how many values follow, so that no mask can pass for a value
    if nulls:
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
        column = column.drop_nulls()
    if column.dtype.is_decimal():
        column = column.cast(pl.String)  # exact; as numbers numpy would make floats of them
    if isinstance(column.dtype, pl.List):
        digest.update(column.list.len().cast(pl.UInt32).to_numpy().tobytes())
        _update(digest, column.explode(empty_as_null=False) if column.len() else column.explode())
    elif column.dtype == pl.String:
        digest.update(column.str.len_bytes().cast(pl.UInt32).to_numpy().tobytes())
        digest.update("".join(column.to_list()).encode())
    elif column.dtype != pl.Null:
        numbers = column.to_physical() if column.dtype.is_temporal() else column
        digest.update(np.ascontiguousarray(numbers.to_numpy()).tobytes())
