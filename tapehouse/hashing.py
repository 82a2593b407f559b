"""Content hashes of frames: equal rows in equal order give equal hashes, on any machine and for any chunking."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
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
    return frame_hashes(frame, [(0, frame.height)])[0]


def frame_hashes(frame: pl.DataFrame, pieces: Iterable[tuple[int, int]]) -> list[str]:
    """`frame_hash` of the rows from `first` to before `last`, for each (first, last) of `pieces`.

    The columns are laid out once for all pieces: of a long history each month costs its own bytes.
    """
    parts: list[_Part] | None = None
    found = []
    for first, last in pieces:
        if first >= last:
            found.append(_empty_hash(tuple(frame.schema.items())))
            continue
        if parts is None:
            parts = [_part(name, frame[name]) for name in frame.columns]
        digest = hashlib.sha256(str(last - first).encode())
        for part in parts:
            part.update(digest, first, last)
        found.append(digest.hexdigest()[:32])
    return found


@lru_cache(maxsize=256)
def _empty_hash(schema: tuple[tuple[str, pl.DataType], ...]) -> str:
    digest = hashlib.sha256(b"0")
    for name, kind in schema:
        _part(name, pl.Series(name, [], kind)).update(digest, 0, 0)
    return digest.hexdigest()[:32]


def text_hash(*parts: str) -> str:
    """SHA-256 of the parts, each set apart from the next; 32 hexadecimal digits."""
    return hashlib.sha256("".join(f"{len(part)}:{part}" for part in parts).encode()).hexdigest()[:32]


def _supported(kind: pl.DataType) -> bool:
    if isinstance(kind, pl.List):
        return _supported(kind.inner)
    return kind.is_numeric() or kind.is_temporal() or kind in (pl.Boolean, pl.String, pl.Null)


def _part(name: str, column: pl.Series) -> "_Part":
    if not _supported(column.dtype):
        raise TypeError(f"column {name!r}: the content of {column.dtype} cannot be hashed")
    return _Part(f"\x00{name}\x01{column.dtype}\x02".encode(), _Content(column))


@dataclass(frozen=True)
class _Part:
    """A column's share in the hash of its frame: name and type, then the content of the rows."""

    head: bytes
    content: "_Content"

    def update(self, digest, first: int, last: int) -> None:
        digest.update(self.head)
        self.content.update(digest, first, last)


class _Content:
    """The bytes of a column, of which any run of rows can be hashed."""

    def __init__(self, column: pl.Series):
        self.mask: np.ndarray | None = None
        if column.null_count():
            self.mask = column.is_null().to_numpy()
            self.places = np.concatenate(([0], np.cumsum(~self.mask)))  # row -> its place among the values that are there
            column = column.drop_nulls()
        if column.dtype.is_decimal():
            column = column.cast(pl.String)  # exact; as numbers numpy would make floats of them
        self.values: memoryview | None = None
        self.texts: tuple[np.ndarray, memoryview] | None = None
        self.lists: tuple[np.ndarray, _Content] | None = None
        if isinstance(column.dtype, pl.List):
            ends = np.concatenate(([0], np.cumsum(column.list.len().to_numpy(), dtype=np.int64)))
            self.lists = ends, _Content(column.explode(empty_as_null=False) if column.len() else column.explode())
        elif column.dtype == pl.String:
            self.texts = _text_bytes(column)
        elif column.dtype != pl.Null:
            numbers = column.cast(pl.Int32 if column.dtype == pl.Date else pl.Int64) if column.dtype.is_temporal() else column
            values = np.ascontiguousarray(numbers.to_numpy())
            self.width = values.itemsize
            self.values = memoryview(values.view(np.uint8)) if values.size else memoryview(b"")

    def update(self, digest, first: int, last: int) -> None:
        """Hash the rows from `first` to before `last`."""
        nulls = 0
        if self.mask is not None:
            mask, first, last = self.mask[first:last], int(self.places[first]), int(self.places[last])
            nulls = len(mask) - (last - first)
        digest.update(f"{nulls}\x03".encode())  # how many values follow, so that no mask can pass for a value
        if nulls:
            digest.update(np.packbits(mask))
        if self.values is not None:
            digest.update(self.values[first * self.width : last * self.width])
        elif self.texts is not None:
            ends, content = self.texts
            digest.update(np.diff(ends[first : last + 1]).astype(np.uint32))
            digest.update(content[ends[first] : ends[last]])
        elif self.lists is not None:
            ends, items = self.lists
            digest.update(np.diff(ends[first : last + 1]).astype(np.uint32))
            items.update(digest, int(ends[first]), int(ends[last]))


def _text_bytes(column: pl.Series) -> tuple[np.ndarray, memoryview]:
    """Where each of the texts without nulls begins, and the last one ends; and their bytes, one text after the other."""
    # Arrow's own layout, so that no text becomes a Python object.
    texts = column.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    if not len(texts):
        return np.zeros(1, np.int64), memoryview(b"")
    _, offsets, content = texts.buffers()
    ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return ends, memoryview(content if content is not None else b"")
