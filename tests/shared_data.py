"""Real data beside the project, for tests that need it: they skip where the folder is absent."""

import os
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def shared(name: str) -> Path:
    """A file or folder of the shared data (`SHARED_DATA`, or ../shared/data beside the project); skips the test without it."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"no {path}")
    return path
