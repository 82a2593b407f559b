"""Runs beside the shell's own: training takes minutes, and whatever does not wait for it goes on meanwhile.

Each long run is a process of its own (`python -m loaders.crew`), as any worker of Dagster's would be: it drives the same
definitions on the same instance, and its progress goes to the same terminal. Before the first of them, while nothing else
uses a second core, another process compiles what the shell's own will call (`tapehouse.compiling`).
"""

import json
import logging
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tapehouse import compiling
from tapehouse.errors import TapehouseError
from tapehouse.planning import Wave
from tapehouse.project import Project

log = logging.getLogger("tapehouse")
PAUSE = 0.2  # seconds between looks at the processes


@dataclass
class _Hand:
    wave: Wave | None
    process: subprocess.Popen
    errors: IO[str]

    def said(self) -> str:
        """What went wrong, of a process that has ended with an error; a killed one may have said other things before."""
        self.errors.seek(0)
        said, code = self.errors.read().strip().removeprefix("error: "), self.process.returncode
        if said and code > 0:
            return said
        what = f"a run of {self.wave.assets}" if self.wave else "the compilation of kernels"
        ended = f"{what} " + (f"was killed by signal {-code}" if code < 0 else f"ended with code {code}")
        return f"{said}\n{ended}" if said else ended


class Crew:
    """At most `size` runs in processes of their own. Use it as a context: what still runs at the end of it is stopped.

    Meanwhile SIGTERM is raised as an interrupt is, so that whoever stops the shell by it stops these processes too.
    """

    def __init__(self, project: Project, home: Path, size: int):
        self.project, self.home, self.size = project, home, size
        self.hands: list[_Hand] = []
        self.compiler: _Hand | None = None
        self.in_main = threading.current_thread() is threading.main_thread()  # no other one may set a handler

    def __enter__(self) -> "Crew":
        if self.in_main:
            self.before = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        try:
            beside = self.hands + [self.compiler] * (self.compiler is not None)
            ended = [hand for hand in beside if hand.process.poll() is not None]
            for hand in beside:
                hand.process.terminate()
            interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
            for hand in ended:  # only one error is raised: what failed beside it is told here
                if hand.process.returncode and not (interrupted and hand.process.returncode == -signal.SIGINT):
                    log.log(logging.ERROR if hand.wave else logging.WARNING, hand.said())
            for hand in beside:
                hand.process.wait()
                hand.errors.close()
        finally:
            if self.in_main:
                signal.signal(signal.SIGTERM, self.before or signal.SIG_DFL)

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
        self.hands.append(self._hand(wave, "loaders.crew", json.dumps(asdict(wave))))

    def compile_ahead(self) -> None:
        """Begin to compile the project's kernels, unless they are stored. A failure is told at the end: no run needs it."""
        try:
            if self.compiler is None and not compiling.stored(self.home):
                self.compiler = self._hand(None, "tapehouse.compiling")
        except OSError as error:
            log.warning("kernels are not compiled ahead: %s", error)

    def _hand(self, wave: Wave | None, *module: str) -> _Hand:
        errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed when the process has ended)
        process = subprocess.Popen([sys.executable, "-m", *module], cwd=self.home, stderr=errors)
        return _Hand(wave, process, errors)

    def wait(self) -> None:
        """Wait until a run has ended.

        Raises:
            TapehouseError: it failed; names the steps and their causes.
        """
        while True:
            for hand in self.hands:
                if hand.process.poll() is not None:
                    self.hands.remove(hand)
                    with hand.errors:
                        if hand.process.returncode != 0:
                            raise TapehouseError(hand.said())
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
