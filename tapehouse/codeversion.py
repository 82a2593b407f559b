"""Code versions: a hash of a source file and of every module of ours that it can reach, so that old results read as stale."""

import ast
from functools import lru_cache
from pathlib import Path

from tapehouse.hashing import text_hash

PACKAGE = Path(__file__).resolve().parent
# How rows are stored, scheduled or shown changes no row, so it is no part of any table's code version.
PLUMBING = {
    "tapehouse.cli",
    "tapehouse.codeversion",
    "tapehouse.engine",
    "tapehouse.errors",
    "tapehouse.expectations",
    "tapehouse.frames",
    "tapehouse.judging",
    "tapehouse.lineage",
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
}


def code_version(path: Path, *extra: str) -> str:
    """Hash of the file at `path`, the `tapehouse` modules it imports (also inside functions, transitively), and `extra`.

    Comments, docstrings and layout do not count.
    """
    seen: dict[str, str] = {}
    _collect(path.resolve(), seen)
    return text_hash(_shape(path.resolve()), *(f"{name}={seen[name]}" for name in sorted(seen)), *extra)


def modules_version(modules: tuple[str, ...], *extra: str) -> str:
    """The same for a set of modules of the package, named in full."""
    seen: dict[str, str] = {}
    for module in modules:
        source = _module_file(module)
        assert source is not None, f"no module {module}"
        seen[module] = _shape(source)
        _collect(source, seen)
    return text_hash(*(f"{name}={seen[name]}" for name in sorted(seen)), *extra)


def _collect(path: Path, seen: dict[str, str]) -> None:
    for module in _imports(path):
        source = _module_file(module)
        if module in PLUMBING or module in seen or source is None:
            continue
        seen[module] = _shape(source)
        _collect(source, seen)


def _module_file(module: str) -> Path | None:
    base = PACKAGE.parent.joinpath(*module.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@lru_cache(maxsize=512)
def _read(path: Path, mtime_ns: int) -> tuple[str, frozenset[str]]:
    """Hash of a file's code without docstrings, and the modules of the package that it imports."""
    tree = ast.parse(path.read_text(), filename=str(path))
    found: set[str] = set()
    for node in ast.walk(tree):
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
    return text_hash(ast.dump(tree)), frozenset(name for name in found if name.startswith("tapehouse."))


def _shape(path: Path) -> str:
    return _read(path, path.stat().st_mtime_ns)[0]


def _imports(path: Path) -> frozenset[str]:
    return _read(path, path.stat().st_mtime_ns)[1]
