"""The text of a recorded file, gzip or plain, piece by piece; of one that is cut off or damaged, what it still holds."""

import zlib
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 19  # compressed bytes read at once
MAGIC = b"\x1f\x8b"
DAMAGED = "the gzip stream is damaged: the rest of the file is lost"
CUT_OFF = "the gzip stream is cut off: the rest of the file is lost"


def inflate(path: Path, size: int) -> Iterator[bytes | str]:
    """The text of a file, gzip or plain, in pieces of at most about `size` bytes; where it is damaged, last of all why.

    What a damaged block still holds is given too.
    """
    with path.open("rb") as file:
        head = file.read(2)
        file.seek(0)
        if head != MAGIC:
            while piece := file.read(size):
                yield piece
            return
        unzip, block = zlib.decompressobj(wbits=31), b""
        while block := block or file.read(BLOCK):
            if unzip.eof:  # a file may be several streams, one behind the other, and padding
                block = block.lstrip(b"\0")
                unzip = zlib.decompressobj(wbits=31) if block else unzip
                if not block:
                    continue
            before = unzip.copy()
            try:
                piece = unzip.decompress(block, size)
            except zlib.error:
                yield _salvaged(before, block)
                yield DAMAGED
                return
            block = unzip.unused_data if unzip.eof else unzip.unconsumed_tail
            yield piece
        if not unzip.eof:
            yield unzip.flush()
        if not unzip.eof:
            yield CUT_OFF


def _salvaged(unzip, block: bytes) -> bytes:
    """What comes out of a damaged block before the damage, byte by byte."""
    pieces = []
    for i in range(len(block)):
        try:
            pieces.append(unzip.decompress(block[i : i + 1]))
        except zlib.error:
            break
    return b"".join(pieces)
