"""Code versions: a hash of a source file and of every module of ours that it can reach, so that old results read as stale."""

import ast
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from tapehouse.hashing import text_hash

P, T = ParamSpec("P"), TypeVar("T")
PACKAGE = Path(__file__).resolve().parent
# How rows are stored, scheduled or shown changes no row, so it is no part of any table's code version.
PLUMBING = {
    "tapehouse.building",
    "tapehouse.cli",
    "tapehouse.codeversion",
    "tapehouse.declarations",
    "tapehouse.engine",
    "tapehouse.errors",
    "tapehouse.expectations",
    "tapehouse.frames",
    "tapehouse.judging",
    "tapehouse.lineage",
    "tapehouse.partitions",
    "tapehouse.planning",
    "tapehouse.extensions",
    "tapehouse.project",
    "tapehouse.reading",
    "tapehouse.scratch",
    "tapehouse.settings",
    "tapehouse.show",
    "tapehouse.tables",
    "tapehouse.tracking",
    "tapehouse.warehouse",
    "tapehouse.writerlock",
    "tapehouse.yaml_files",
}


_looked: dict[tuple, Any] | None = None  # what was seen of the files within `looked_at_once`


@contextmanager
def looked_at_once() -> Iterator[None]:
    """Within it every file is looked at once: a project asks for the same ones thousands of times."""
    global _looked
    _looked = {}
    try:
        yield
    finally:
        _looked = None


def _once(look: Callable[P, T]) -> Callable[P, T]:
    @wraps(look)
    def looking(*arguments: P.args, **options: P.kwargs) -> T:
        kept = _looked  # another thread may end its look meanwhile
        if kept is None:
            return look(*arguments, **options)
        key = (look, *arguments, *options.items())
        if key not in kept:
            kept[key] = look(*arguments, **options)
        return kept[key]

    return looking


def code_version(path: Path, *extra: str) -> str:
    """Hash of the file at `path`, the `tapehouse` modules it imports (also inside functions, transitively), and `extra`.

    Comments, docstrings and layout do not count.
    """
    seen: dict[str, str] = {}
    _collect(path.resolve(), seen)
    return text_hash(_shape(path.resolve()), *(f"{name}={seen[name]}" for name in sorted(seen)), *extra)


def modules_version(modules: tuple[str, ...], *extra: str) -> str:
    """The same for a set of modules of the package, named in full."""
    return text_hash(*_reached(modules, _package_stamp()), *extra)


@lru_cache(maxsize=512)  # recipes and strategies share their modules: a project asks for the same ones over and over
def _reached(modules: tuple[str, ...], _stamp: tuple[int, ...]) -> tuple[str, ...]:
    seen: dict[str, str] = {}
    for module in modules:
        source = _module_file(module)
        assert source is not None, f"no module {module}"
        seen[module] = _shape(source)
        _collect(source, seen)
    return tuple(f"{name}={seen[name]}" for name in sorted(seen))


@_once
def _package_stamp() -> tuple[int, ...]:
    """Changes when any file of the package does, or comes or goes."""
    found = []
    for folder, below, names in os.walk(PACKAGE):
        below[:] = sorted(name for name in below if name != "__pycache__")
        found += [Path(folder, name).stat().st_mtime_ns for name in sorted(names)]
    return tuple(found)


def _collect(path: Path, seen: dict[str, str]) -> None:
    for module in _parts(path)[1]:
        source = _module_file(module)
        if module in PLUMBING or module in seen or source is None:
            continue
        seen[module] = _shape(source)
        _collect(source, seen)


@_once
def _module_file(module: str) -> Path | None:
    base = PACKAGE.parent.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@lru_cache(maxsize=512)
def _read(path: Path, stamp: tuple[int, ...]) -> tuple[str, frozenset[str]]:
    """Hash of a file's code without docstrings and of the data files it names, and the modules of the package it imports."""
    tree = ast.parse(path.read_text(), filename=str(path))
    found: set[str] = set()
    data: set[Path] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and path.is_relative_to(PACKAGE):
            data |= _data_files(path.parent, node.value)
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.ImportFrom) and node.level > 0:
            raise ValueError(f"{path}: relative imports are not followed; import from 'tapehouse…'")
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:] or [ast.Pass()]
    texts = (f"{file.name}={file.read_text()}" for file in sorted(data))
    return text_hash(ast.dump(tree), *texts), frozenset(name for name in found if name.startswith("tapehouse."))


def _data_files(folder: Path, name: str) -> set[Path]:
    """Files of the package that a string in a module beside them names: a template, or a folder of templates."""
    if not name or len(name) > 80 or name != Path(name).name:
        return set()
    found = folder / name
    if found.is_dir() and not list(found.glob("*.py")):
        return {file for file in found.iterdir() if file.is_file()}
    return {found} if found.is_file() and found.suffix != ".py" else set()


def _shape(path: Path) -> str:
    return _parts(path)[0]


def _parts(path: Path) -> tuple[str, frozenset[str]]:
    return _read(path, _stamp(path))


@_once
def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when the file, or a data file beside it, does."""
    return (path.stat().st_mtime_ns, *_data_stamp(path.parent))


@_once
def _data_stamp(folder: Path) -> tuple[int, ...]:
    files: list[Path] = []
    for inside, below, names in os.walk(folder):
        # Compiled code is hundreds of files, and none of them is read.
        below[:] = sorted(name for name in below if name != "__pycache__")
        files += [Path(inside, name) for name in sorted(names) if name.endswith((".txt", ".html", ".json", ".yaml"))]
    return tuple(file.stat().st_mtime_ns for file in files)


# What decides a table's values besides our code: another version of these may give other bits.
DATA_PACKAGES = ("duckdb", "exchange-calendars", "numba", "numpy", "polars")
MODEL_PACKAGES = (
    "accelerate",
    "bitsandbytes",
    "hmmlearn",
    "llguidance",
    "onnxruntime",
    "peft",
    "scikit-learn",
    "scipy",
    "statsmodels",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
    "xgboost-cpu",
)


@lru_cache(maxsize=2)
def environment_version(models: bool) -> str:
    """Versions of the packages that decide the bits of data tables, or of models too."""
    names = DATA_PACKAGES + (MODEL_PACKAGES if models else ())
    return " ".join(f"{name}={_package_version(name)}" for name in names)


def _package_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "none"
