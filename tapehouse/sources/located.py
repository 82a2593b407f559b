"""Where declared files lie: one file, a folder, or a pattern, beside `sources.yaml` or inside an installed package."""

import hashlib
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from tapehouse.errors import TapehouseError

PACKAGE = "package:"
PARQUET = (".parquet", ".pq")
ENDINGS = (".csv", ".csv.gz", *PARQUET)
PATTERN = frozenset("*?[")


def locate(file: str, folder: Path) -> Path:
    """Path of a declared file or folder: relative to `folder`, or inside an installed package for 'package:NAME/path'.

    The package is found without being imported: `arch` would bring statsmodels with it.

    Raises:
        TapehouseError: no such package, file or folder.
    """
    path = _path(file, folder)
    if not path.exists():
        raise TapehouseError(f"sources.yaml: no file {path} for {file!r}")
    return path


def locate_all(file: str, folder: Path) -> list[tuple[str, Path]]:
    """Every file that a declaration means, with its name inside the folder, in order of names.

    A folder stands for what ends in .csv, .csv.gz, .parquet or .pq directly inside it; a pattern (`*`, `?`, `[…]`, and
    `**` for any depth) for what matches it.

    Raises:
        TapehouseError: no such package, file or folder, or none in it.
    """
    path = _path(file, folder)
    if PATTERN & set(file):
        parts = path.parts
        first = next(at for at, part in enumerate(parts) if PATTERN & set(part))
        root = Path(*parts[:first])
        found = [p for p in root.glob(str(Path(*parts[first:]))) if p.is_file()]
    elif path.is_dir():
        root, found = path, [Path(entry.path) for entry in os.scandir(path) if entry.name.endswith(ENDINGS) and entry.is_file()]
    else:
        return [(path.name, locate(file, folder))]
    if not found:
        raise TapehouseError(f"sources.yaml: no file of {', '.join(ENDINGS)} in {path} for {file!r}")
    return sorted((str(p.relative_to(root)), p) for p in found)


def digest(path: Path) -> str:
    """SHA-256 of a file's content, read anew only when size or times of the file have changed."""
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)


def forget() -> None:
    """Let go of every digest: the next one reads its file."""
    _digest.cache_clear()


@lru_cache(maxsize=4096)
def _digest(path: Path, *stat: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=256)
def _path(file: str, folder: Path) -> Path:
    if not file.startswith(PACKAGE):
        return folder / file
    name, _, inside = file.removeprefix(PACKAGE).partition("/")
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise TapehouseError(f"sources.yaml: package {name!r} of file {file!r} is not installed; run make install")
    return Path(spec.submodule_search_locations[0]) / inside
