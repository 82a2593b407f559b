"""DuckDB's extensions: from their PyPI packages, which work offline, else from DuckDB's own repository."""

import importlib.util
from pathlib import Path


def load_statement(name: str) -> str:
    """The SQL that loads an extension into a connection."""
    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    if spec is None or spec.origin is None:
        return f"install {name}; load {name}"
    files = sorted((Path(spec.origin).parent / "extensions").glob(f"v*/{name}.duckdb_extension"))
    return f"load '{files[-1]}'"
