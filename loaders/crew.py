"""Runs beside the shell's own: training takes minutes, and whatever does not wait for it goes on meanwhile.

Each long run is a process of its own (`python -m loaders.crew`), as any worker of Dagster's would be: it drives the same
definitions on the same instance, and its progress goes to the same terminal.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tapehouse.errors import TapehouseError
from tapehouse.planning import Wave
from tapehouse.project import Project

PAUSE = 0.2  # seconds between looks at the processes


@dataclass
class _Hand:
    wave: Wave
    process: subprocess.Popen
    errors: IO[str]


class Crew:
    """At most `size` runs in processes of their own. Use it as a context: what still runs at the end of it is stopped."""

    def __init__(self, project: Project, home: Path, size: int):
        self.project, self.home, self.size = project, home, size
        self.hands: list[_Hand] = []

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: Any) -> None:
        for hand in self.hands:
            hand.process.terminate()
        for hand in self.hands:
            hand.process.wait()
            hand.errors.close()

    @property
    def busy(self) -> set[tuple[str, str]]:
        """(asset, partition) pairs in the making."""
        return {(name, p) for hand in self.hands for name in hand.wave.assets for p in hand.wave.partitions(self.project)}

    @property
    def room(self) -> bool:
        """Whether another run may begin."""
        return len(self.hands) < self.size

    def start(self, wave: Wave) -> None:
        """Begin a run."""
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed when the process has ended)
        command = [sys.executable, "-m", "loaders.crew", json.dumps(asdict(wave))]
        self.hands.append(_Hand(wave, subprocess.Popen(command, cwd=self.home, stderr=errors), errors))

    def wait(self) -> None:
        """Wait until a run has ended.

        Raises:
            TapehouseError: it failed; names the steps and their causes.
        """
        while True:
            for hand in self.hands:
                if hand.process.poll() is not None:
                    self.hands.remove(hand)
                    hand.errors.seek(0)
                    said = hand.errors.read().strip()
                    hand.errors.close()
                    if hand.process.returncode != 0:
                        raise TapehouseError(said.removeprefix("error: ") or f"a run of {hand.wave.assets} was killed")
                    return
            time.sleep(PAUSE)


def main(arguments: list[str]) -> int:
    """Execute one wave, given as JSON; what went wrong goes to standard error."""
    from rich.console import Console

    from loaders.drive import Driver
    from tapehouse.cli import log_to
    from tapehouse.settings import find_home, load_settings

    fields = json.loads(arguments[0])
    log_to(Console(width=160))
    try:
        Driver(load_settings(find_home())).execute(Wave(**fields | {"assets": tuple(fields["assets"])}))
    except TapehouseError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
