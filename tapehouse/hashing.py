"""Content hashes of frames: equal rows in equal order give equal hashes, on any machine and for any chunking."""

import hashlib
from functools import lru_cache

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
    if not frame.height:
        return _empty_hash(tuple(frame.schema.items()))
    return _hash(frame)


@lru_cache(maxsize=256)
def _empty_hash(schema: tuple[tuple[str, pl.DataType], ...]) -> str:
    return _hash(pl.DataFrame(schema=dict(schema)))


def _hash(frame: pl.DataFrame) -> str:
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
        lengths, content = _text_bytes(column)
        digest.update(lengths)
        digest.update(content)
    elif column.dtype != pl.Null:
        numbers = column.cast(pl.Int32 if column.dtype == pl.Date else pl.Int64) if column.dtype.is_temporal() else column
        digest.update(np.ascontiguousarray(numbers.to_numpy()).tobytes())


def _text_bytes(column: pl.Series) -> tuple[bytes, memoryview | bytes]:
    """The lengths in bytes (unsigned, 32 bits) of texts without nulls, and all texts one after the other."""
    # Arrow's own layout, so that no text becomes a Python object.
    texts = column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    if not len(texts):
        return b"", b""
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(ends).astype(np.uint32).tobytes()
    return lengths, memoryview(content)[ends[0] : ends[-1]] if content is not None else b""
