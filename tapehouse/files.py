"""Files that a reader may have open while they are written anew."""

import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write `content` aside and rename it into place: a reader sees the old file or the new one, never half of either.

    The folder is made where it is missing. An error leaves the old file as it was, and nothing beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as aside:
        new = Path(aside) / path.name
        new.write_bytes(content)
        new.replace(path)
