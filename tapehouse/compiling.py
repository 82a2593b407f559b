"""Compiling the kernels of a run ahead of it, in a process of its own: `python -m tapehouse.compiling`.

In a fresh clone Numba has stored nothing yet, and a first run would stop at each kernel for as long as its compilation takes.
`kernels.txt` in the project's home names those that the run calls from Python, a line each in the order in which it wants them,
with the types of their arguments in Numba's notation. `python -m tapehouse.compiling record > kernels.txt` makes that list of
what is stored, after a first run of a fresh clone; without the file during that run, what is no longer called is left out, too.
The line of one kernel may as well be written by hand.
"""

from __future__ import annotations

import fcntl
import os
import pkgutil
import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.settings import find_home

if TYPE_CHECKING:
    from numba.core.caching import IndexDataCacheFile
    from numba.core.types import Type

LIST = "kernels.txt"
PACKAGE = Path(__file__).parent
APART = 1000  # of one function: Numba's own numbers of stored files begin at 1


def stored(home: Path) -> bool:
    """Whether the kernels that `home` lists were all compiled since a source last changed; also if it lists none."""
    if not (home / LIST).exists():
        return True
    mark = _mark()
    return mark.exists() and mark.read_text() == _sources(home)


def _mark() -> Path:
    return Path(os.environ.get("NUMBA_CACHE_DIR") or PACKAGE / "__pycache__") / "compiled_ahead"


def _sources(home: Path) -> str:
    files = ((path, path.stat()) for path in sorted(PACKAGE.rglob("*.py")) if path.is_file())
    looks = (f"{path} {seen.st_mtime_ns} {seen.st_size}" for path, seen in files)
    return text_hash(version("numba"), sys.version, (home / LIST).read_text(), *looks)


def compile_listed(lines: Iterable[str], parent: int | None = None) -> list[str]:
    """Compile `module.kernel(types)`, line by line, or find it compiled; only while the process `parent` lives.

    Returns:
        What went wrong, a text for each line that did not compile: the others are compiled all the same.
    """
    from numba.core.sigutils import normalize_signature

    failures = []
    for line in lines:
        if parent is not None and os.getppid() != parent:
            sys.exit("the shell was killed")
        name, bracket, text = line.partition("(")
        module, _, kernel = name.rpartition(".")
        try:
            types, _ = normalize_signature(bracket + text)  # the run would not find what is stored under the text itself
            getattr(import_module(module), kernel).compile(types)
        except Exception as error:  # whatever it is, the next line may do without it; it is told
            failures.append(f"{name} does not compile for its line of {LIST}: {error}")
    return failures


def record() -> list[str]:
    """Lines of `LIST` for what Numba has stored of the sources as they are, in the order in which it was stored.

    A kernel that others call is compiled with them: of all lines these are the fewest that compile everything.
    """
    from numba.core.caching import NullCache
    from numba.core.dispatcher import Dispatcher

    found = []
    for module in pkgutil.walk_packages([str(PACKAGE)], "tapehouse."):
        for kernel in vars(import_module(module.name)).values():
            if isinstance(kernel, Dispatcher) and kernel.py_func.__module__ == module.name:
                files = kernel._cache._cache_file
                for (types, _, _), data in files._load_index().items():
                    found.append((Path(files._data_path(data)).stat().st_mtime_ns, kernel, types))
                kernel._cache = NullCache()  # so that it compiles what it calls
    lines = []
    for _, kernel, types in sorted(found, key=lambda each: each[0], reverse=True):
        if types not in kernel.overloads:
            kernel.compile(types)
            lines.append(f"{kernel.py_func.__module__}.{kernel.py_func.__name__}{_as_text(types)}")
    return lines[::-1]


def _as_text(types: tuple[Type, ...]) -> str:
    from numba.core.sigutils import normalize_signature

    text = f"({', '.join(map(_notation, types))}{',' if len(types) == 1 else ''})"
    if normalize_signature(text)[0] != types:
        raise TapehouseError(f"{LIST} has no notation for the arguments {types}: give them types that it has, or write one")
    return text


def _notation(kind: Type) -> str:
    from numba.core import types

    if isinstance(kind, types.Array) and kind.mutable:
        steps = [":"] * kind.ndim
        if kind.layout in "CF":
            steps[-1 if kind.layout == "C" else 0] = "::1"
        return f"{_notation(kind.dtype)}[{', '.join(steps)}]"
    if isinstance(kind, types.Array):
        return f"Array({_notation(kind.dtype)}, {kind.ndim}, {kind.layout!r}, readonly=True)"
    if isinstance(kind, types.UniTuple):
        return f"UniTuple({_notation(kind.dtype)}, {kind.count})"
    if isinstance(kind, types.Tuple):
        return f"Tuple(({', '.join(map(_notation, kind.types))},))"
    return "boolean" if kind == types.boolean else str(kind)


def _save_apart(file: IndexDataCacheFile, key: Any, data: Any) -> None:
    """Store one compiled kernel so that a run that stores another of the same function at the same time is not misled.

    Both may begin with the same index. Numba would give both files the same number, and write the index before the file: of
    the types that the index names, one would find the other's code. Here numbers are others than those of the run, and what
    the index names is complete; what one of two indices that are written at once does not name is compiled again.
    """
    named = file._load_index()
    taken = set(named.values())
    name = named.get(key) or next(n for i in range(APART, 2 * APART) if (n := file._data_name(i)) not in taken)
    file._save_data(name, data)
    file._save_index(file._load_index() | {key: name})


def main(arguments: list[str]) -> int:
    """Compile what the project's home lists, or print such a list; what went wrong goes to standard error."""
    parent = os.getppid()  # before what takes a second to load
    from numba import config
    from numba.core.caching import IndexDataCacheFile

    home = find_home()
    if arguments == ["record"]:
        print("\n".join(record()))
        return 0
    if config.DISABLE_JIT:
        return 0
    IndexDataCacheFile.save = _save_apart
    sources = _sources(home)
    try:
        _mark().parent.mkdir(parents=True, exist_ok=True)
        marked = _mark().open("a")
    except OSError as error:  # Numba stores elsewhere then, by itself
        print(f"kernels are not compiled ahead: {error}", file=sys.stderr)
        return 2
    with marked as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another shell's is at it; two would give the same numbers
            return 0
        failures = compile_listed((home / LIST).read_text().splitlines(), parent)
        if failures:
            print("\n".join(failures), file=sys.stderr)
            return 2
        _mark().write_text(sources)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
