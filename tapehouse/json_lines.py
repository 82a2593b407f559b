"""Files of JSON lines that processes append to, and that a killed one may leave with half a line."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger("tapehouse")


def append_line(file: Path, fields: Mapping[str, Any]) -> None:
    """Append `fields` as a line of its own, in one write, also behind half a line; folders are made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab+") as lines:
        torn = lines.seek(0, 2) > 0 and (lines.seek(-1, 2), lines.read(1))[1] != b"\n"
        lines.write((b"\n" if torn else b"") + json.dumps(dict(fields), sort_keys=True).encode() + b"\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a file, in order, without those that a killed process left half-written: they are told of."""
    found = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            found.append(json.loads(line))
        except ValueError:  # of JSON, or of a character cut in two
            log.warning("%s:%d: half a line, left by a process that was killed; it is passed over", file, number)
    return found
