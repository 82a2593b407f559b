"""Runs beside the shell's own: training takes minutes, and whatever does not wait for it goes on meanwhile.

Each long run is in a process of its own (`python -m loaders.crew`), as any worker of Dagster's would be: it drives the same
definitions on the same instance, and its progress goes to the same terminal. A process makes one run after the other: to load
the project takes longer than many a run. Before the first of them, while nothing else uses a second core, another process
compiles what the shell's own will call (`tapehouse.compiling`).
"""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
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
    """A process and the run that it makes, None between two. It writes a byte to `done`, a pipe, where a run succeeded."""

    wave: Wave | None
    process: subprocess.Popen
    errors: IO[str]
    done: int | None = None

    def begin(self, wave: Wave) -> None:
        """Hand over a run."""
        assert self.process.stdin is not None
        self.wave = wave
        with suppress(BrokenPipeError):  # it has just ended, which is told where its end is awaited
            self.process.stdin.write(json.dumps(asdict(wave)) + "\n")
            self.process.stdin.flush()

    def succeeded(self) -> bool:
        """Whether the run is done and the process waits for another; what it has said so far is of no interest then."""
        try:
            done = self.done is not None and os.read(self.done, 1) != b""
        except BlockingIOError:
            return False
        if done:
            self.errors.seek(0)
            self.errors.truncate()
        return done

    def close(self) -> None:
        """Wait for the end of the process, and let go of what it was told and said by."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()
        self.process.wait()
        self.errors.close()
        if self.done is not None:
            os.close(self.done)

    def said(self) -> str:
        """What went wrong, of a process that has ended with an error; a killed one may have said other things before."""
        self.errors.seek(0)
        said, code = self.errors.read().strip().removeprefix("error: "), self.process.returncode
        if said and code > 0:
            return said
        what = f"a run of {self.wave.assets}" if self.wave else "a process beside the shell's"
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
                    log.log(logging.WARNING if hand is self.compiler else logging.ERROR, hand.said())
            for hand in beside:
                hand.close()
        finally:
            if self.in_main:
                signal.signal(signal.SIGTERM, self.before or signal.SIG_DFL)

    @property
    def busy(self) -> set[tuple[str, str]]:
        """(asset, partition) pairs in the making."""
        waves = [hand.wave for hand in self.hands if hand.wave]
        return {(name, p) for wave in waves for name in wave.assets for p in wave.partitions(self.project)}

    @property
    def room(self) -> bool:
        """Whether another run may begin."""
        return sum(hand.wave is not None for hand in self.hands) < self.size

    def start(self, wave: Wave) -> None:
        """Begin a run, in a process that waits for one or in a new one."""
        for hand in [hand for hand in self.hands if hand.wave is None and hand.process.poll() is not None]:
            self.hands.remove(hand)  # while it waited, or loaded the project
            log.warning(hand.said())
            hand.close()
        idle = [hand for hand in self.hands if hand.wave is None]
        (idle[0] if idle else self._worker()).begin(wave)

    def prepare(self) -> None:
        """Start a process that will wait for a run, where there is none yet."""
        if not self.hands:
            self._worker()

    def _worker(self) -> _Hand:
        done, told = os.pipe()
        os.set_blocking(done, False)
        try:
            hand = self._hand("loaders.crew", str(told), stdin=subprocess.PIPE, text=True, pass_fds=(told,))
        except OSError as error:
            os.close(done)
            raise TapehouseError(f"no process can be started beside the shell: {error}; set TAPEHOUSE_JOBS=1") from error
        finally:
            os.close(told)  # the process has it
        hand.done = done
        self.hands.append(hand)
        return hand

    def compile_ahead(self) -> None:
        """Begin to compile the project's kernels, unless they are stored. A failure is told at the end: no run needs it."""
        try:
            if self.compiler is None and not compiling.stored(self.home):
                self.compiler = self._hand("tapehouse.compiling")
        except OSError as error:
            log.warning("kernels are not compiled ahead: %s", error)

    def _hand(self, *module: str, **options: Any) -> _Hand:
        errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed when the process has ended)
        process = subprocess.Popen([sys.executable, "-m", *module], cwd=self.home, stderr=errors, **options)
        return _Hand(None, process, errors)

    def look(self) -> bool:
        """Whether a run has ended since the last look.

        Raises:
            TapehouseError: it failed; names the steps and their causes.
        """
        for hand in [hand for hand in self.hands if hand.wave]:
            ended = hand.process.poll() is not None
            if hand.succeeded():
                hand.wave = None
                return True
            if ended:
                self.hands.remove(hand)
                try:
                    raise TapehouseError(hand.said())
                finally:
                    hand.close()
        return False

    def wait(self) -> None:
        """Wait until a run has ended. Raises as :meth:`look`."""
        while not self.look():
            time.sleep(PAUSE)


def _end_with(shell: int) -> None:
    """Stop this process as the shell would, once that is gone: a run that it left would be made a second time beside it."""
    while os.getppid() == shell:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def main(arguments: list[str]) -> int:
    """Execute waves, a JSON line of standard input each, and write a byte to the pipe that is the argument after each.

    Ends with the input, or with a wave that failed; what went wrong goes to standard error.
    """
    from rich.console import Console

    from loaders.drive import Driver
    from tapehouse.cli import log_to
    from tapehouse.settings import find_home, load_settings

    log_to(Console(width=160))
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    try:
        driver = Driver(load_settings(find_home()))
        driver.repository.get_definition()  # while there is nothing to do yet
        for line in sys.stdin:
            fields = json.loads(line)
            driver.execute(Wave(**fields | {"assets": tuple(fields["assets"])}))
            os.write(int(arguments[0]), b".")
    except TapehouseError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
