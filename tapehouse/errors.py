"""The one exception for bad input: a message that says which file, table, row or key, what is wrong, and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class TapehouseError(Exception):
    """Bad input from the outside (a file, a setting, a table); the command line prints it without a traceback."""


def faults_of(path: Path, error: ValidationError) -> str:
    """What is wrong with a declaration, a line a key: the file, the key, the fault and, for an unknown key, the remedy."""
    said = {"extra_forbidden": "unknown key; remove it, or mend its name", "missing": "missing; add it"}
    lines = (f"{path}: {'.'.join(map(str, f['loc']))}: {said.get(f['type'], f['msg'])}" for f in error.errors())
    return "\n".join(lines)
