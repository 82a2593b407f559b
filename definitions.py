"""Tapehouse's Dagster definitions: see `loaders/` for how the folders become assets."""

import sys
from pathlib import Path

HOME = Path(__file__).resolve().parent
if str(HOME) not in sys.path:
    sys.path.insert(0, str(HOME))

from loaders.definitions import build_definitions  # noqa: E402

defs = build_definitions(HOME)
