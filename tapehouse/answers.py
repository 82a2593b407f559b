"""Answers of vendors, kept in files: one a request, written whole or not at all, and checked when read."""

import hashlib
import json
import zlib
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import orjson

from tapehouse.errors import TapehouseError
from tapehouse.files import replace_file


@dataclass(frozen=True)
class Answer:
    """What a vendor said, and when. `stale` says why a newer answer could not be had, where one was due."""

    request: str
    path: Path
    fetched_at: datetime
    digest: str
    stale: str | None = None

    @property
    def body(self) -> bytes:
        """Read from the cache each time: thousands of answers are held, and few looked into."""
        body = zlib.decompress(self.path.read_bytes().partition(b"\n")[2])
        if hashlib.sha256(body).hexdigest() != self.digest:
            raise TapehouseError(f"{self.path}: another process fetched {self.request} anew meanwhile; run again")
        return body

    @property
    def json(self):
        """The body as JSON (it was parsed once before it was kept)."""
        return orjson.loads(self.body)


def keep(path: Path, request: str, version: str, fetched_at: datetime, body: bytes) -> Answer:
    """Write an answer: a line of JSON that says what it is, then the packed body."""
    digest = hashlib.sha256(body).hexdigest()
    about = {"request": request, "version": version, "fetched_at": fetched_at.isoformat(), "sha256": digest}
    replace_file(path, json.dumps(about).encode() + b"\n" + zlib.compress(body))
    return Answer(request, path, fetched_at, digest)


def kept(path: Path) -> Answer | None:
    """The answer in a file; None where there is none, or where it is damaged, so that it is fetched again."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return _read(path, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=1 << 16)
def _read(path: Path, *stat: int) -> Answer | None:
    """A kept answer; None where the file is damaged, so that it is fetched again."""
    try:
        head, _, packed = path.read_bytes().partition(b"\n")
        about = json.loads(head)
        if hashlib.sha256(zlib.decompress(packed)).hexdigest() != about["sha256"]:
            return None
        return Answer(about["request"], path, datetime.fromisoformat(about["fetched_at"]), about["sha256"])
    except (ValueError, KeyError, zlib.error):
        return None
