"""Content hashes of frames: equal rows in equal order give equal hashes, on any machine and for any chunking."""

import hashlib

import numpy as np
import polars as pl


def frame_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over names, types, null masks and values, column by column, in the given row order.

    Values under a null are not hashed (their bits are undefined); floats are hashed by their bits, so that a change in the
    last place is a change. Supports numbers, booleans, strings, dates, times and lists of those.

    Returns:
        32 hexadecimal digits (the digest's first half).
    """
    digest = hashlib.sha256(str(frame.height).encode())
    for name in frame.columns:
        digest.update(f"\x00{name}\x01{frame.schema[name]}\x02".encode())
        _update(digest, frame[name])
    return digest.hexdigest()[:32]


def text_hash(*parts: str) -> str:
    """SHA-256 of the parts, each set apart from the next; 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:".encode() + part.encode())
    return digest.hexdigest()[:32]


def _update(digest, column: pl.Series) -> None:
    nulls = column.is_null()
    if nulls.any():
        digest.update(np.packbits(nulls.to_numpy()).tobytes())
    if isinstance(column.dtype, pl.List):
        digest.update(column.list.len().fill_null(0).cast(pl.UInt32).to_numpy().tobytes())
        _update(digest, column.drop_nulls().explode(empty_as_null=False) if column.len() else column.explode())
    elif column.dtype == pl.String:
        values = column.drop_nulls()
        digest.update(values.str.len_bytes().cast(pl.UInt32).to_numpy().tobytes())
        digest.update("".join(values.to_list()).encode())
    else:
        values = column.drop_nulls()
        digest.update(np.ascontiguousarray(values.to_physical().to_numpy()).tobytes())
