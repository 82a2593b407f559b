"""What becomes of the processes beside the shell's own: each failure is told, and none outlives the shell."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from loaders.crew import Crew, _Hand
from tapehouse.errors import TapehouseError
from tapehouse.planning import Wave

ROOT = Path(__file__).parents[2]
WAVE = Wave("folds", ("models.dearest",), "2005-04-01", "2005-04-01")
KILLED = """
import subprocess, sys, time

work = "import os, threading, time; from loaders.crew import _end_with; "
work += "threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start(); print(1, flush=True); time.sleep(60)"
child = subprocess.Popen([sys.executable, "-c", work], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""
SHELL = """
import subprocess, sys, tempfile, time
from pathlib import Path
from loaders.crew import Crew, _Hand

with Crew(None, Path("."), 1) as crew:
    crew.hands.append(_Hand(None, subprocess.Popen(["sleep", "60"]), tempfile.TemporaryFile("w+")))
    print(crew.hands[0].process.pid, flush=True)
    time.sleep(60)
"""


def joined(crew: Crew, script: str, ends: bool = True) -> _Hand:
    errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (the crew closes it)
    hand = _Hand(WAVE, subprocess.Popen(["sh", "-c", script], stderr=errors), errors)
    if ends:
        os.waitid(os.P_PID, hand.process.pid, os.WEXITED | os.WNOWAIT)
    crew.hands.append(hand)
    return hand


@pytest.fixture
def crew():
    return Crew(None, ROOT, 2)


def test_a_terminated_shell_leaves_no_process_behind():
    shell = subprocess.Popen([sys.executable, "-c", SHELL], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert shell.stdout is not None
    child = int(shell.stdout.readline())
    shell.terminate()
    assert shell.wait(timeout=30) != 0
    shell.stdout.close()
    try:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise


def test_sigterm_is_what_it_was_when_the_crew_is_done(crew):
    before = signal.getsignal(signal.SIGTERM)
    with crew:
        assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is before
    failures = []

    def elsewhere() -> None:
        try:
            with Crew(None, ROOT, 2):
                pass
        except ValueError as error:  # what signal.signal raises outside the main thread
            failures.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert failures == []


def test_each_of_two_failures_is_told(crew, caplog):
    with caplog.at_level(logging.ERROR, "tapehouse"), pytest.raises(TapehouseError, match=r"^the first$"), crew:
        for script in ("echo error: the first >&2; exit 2", "echo error: the second >&2; exit 2", "exit 0"):
            joined(crew, script)
        running = joined(crew, "exec sleep 60", ends=False)
        crew.wait()
    assert [record.getMessage() for record in caplog.records] == ["the second"]
    assert running.process.returncode == -signal.SIGTERM  # stopped by the crew: no failure of its own


def test_a_failure_beside_that_of_the_shell_is_told(crew, caplog):
    with caplog.at_level(logging.ERROR, "tapehouse"), pytest.raises(TapehouseError, match="the shell's"), crew:
        joined(crew, "echo error: a training >&2; exit 2")
        raise TapehouseError("the shell's own wave")
    assert [record.getMessage() for record in caplog.records] == ["a training"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo a warning >&2; kill -9 $$", "a warning\na run of ('models.dearest',) was killed by signal 9"),
        ("kill -9 $$", "a run of ('models.dearest',) was killed by signal 9"),
        ("exit 3", "a run of ('models.dearest',) ended with code 3"),
    ],
)
def test_a_killed_process_is_told_as_killed(crew, script, said):
    with pytest.raises(TapehouseError) as caught, crew:
        joined(crew, script)
        crew.wait()
    assert str(caught.value) == said


WORKER = """
import json, os, sys
print("of this process", os.getpid(), file=sys.stderr, flush=True)
for line in sys.stdin:
    first = json.loads(line)["first"]
    if first == "broken":
        sys.exit("error: a broken run")
    print("a warning of", first, file=sys.stderr, flush=True)
    os.write(int(sys.argv[1]), b".")
"""


@pytest.fixture
def working(monkeypatch):
    """A crew whose processes make runs in no time."""

    def hand(self, module, told, **options):
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (the crew closes it)
        return _Hand(None, subprocess.Popen([sys.executable, "-c", WORKER, told], stderr=errors, **options), errors)

    monkeypatch.setattr(Crew, "_hand", hand)
    return Crew(None, ROOT, 2)


def wave(first: str) -> Wave:
    return Wave("once", ("models.dearest",), first, first)


def test_a_process_makes_one_run_after_the_other(working):
    with working as crew:
        crew.prepare()
        crew.prepare()
        (ready,) = crew.hands
        for first in ("a", "b", "c"):
            assert crew.room and not crew.busy
            crew.start(wave(first))
            assert crew.busy == {("models.dearest", first)}
            crew.wait()
        assert crew.hands == [ready]
    assert ready.process.returncode == -signal.SIGTERM


def test_two_runs_have_a_process_each_and_a_third_has_no_room(working):
    with working as crew:
        crew.start(wave("a"))
        crew.start(wave("b"))
        assert not crew.room and len(crew.hands) == 2
        crew.wait()
        assert crew.room
        crew.start(wave("c"))
        assert not crew.room and len(crew.hands) == 2
        crew.wait()
        crew.wait()
        assert crew.room and not crew.busy


def test_a_run_that_has_ended_is_seen_without_waiting_for_it(working):
    with working as crew:
        assert not crew.look()
        crew.start(wave("a"))
        deadline = time.monotonic() + 60
        while not crew.look():
            assert time.monotonic() < deadline and crew.busy
            time.sleep(0.05)
        assert not crew.busy and not crew.look()


def test_a_process_that_ends_without_a_word_has_made_nothing(crew):
    with pytest.raises(TapehouseError, match="ended with code 0"), crew:
        joined(crew, "exit 0")
        crew.wait()


def test_a_run_whose_shell_was_killed_is_stopped():
    shell = subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert shell.stdout is not None
    child = int(shell.stdout.readline())
    shell.kill()
    shell.wait()
    shell.stdout.close()
    for _ in range(200):
        if not Path(f"/proc/{child}").exists() or "(zombie)" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the process outlived its shell")


def test_a_run_that_fails_is_told_without_what_runs_before_it_said(working):
    with pytest.raises(TapehouseError, match=r"^a broken run$"), working as crew:
        crew.start(wave("a"))
        crew.wait()
        crew.start(wave("broken"))
        crew.wait()
    assert crew.hands == []


def test_a_process_that_was_killed_while_it_waited_is_replaced(working):
    with working as crew:
        crew.prepare()
        (ready,) = crew.hands
        ready.process.kill()
        os.waitid(os.P_PID, ready.process.pid, os.WEXITED | os.WNOWAIT)
        crew.start(wave("a"))
        crew.wait()
        assert ready not in crew.hands and len(crew.hands) == 1


@pytest.fixture
def listing(tmp_path, monkeypatch):
    """A project with kernels to compile, none of which is stored."""

    def home(line: str) -> Path:
        (tmp_path / "workspace.yaml").touch()
        (tmp_path / "kernels.txt").write_text(line)
        return tmp_path

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return home


def test_a_compilation_that_failed_is_told_and_fails_nothing(listing, caplog):
    with caplog.at_level(logging.WARNING, "tapehouse"), Crew(None, listing("tapehouse.hashing.gone(int64,)"), 2) as crew:
        crew.compile_ahead()
        first = crew.compiler
        crew.compile_ahead()
        assert crew.compiler is first and crew.room and not crew.busy
        first.process.wait()
    (told,) = caplog.records
    assert told.levelname == "WARNING" and "tapehouse.hashing.gone does not compile" in told.getMessage()


def test_a_compilation_that_is_not_done_is_stopped(listing, caplog):
    with caplog.at_level(logging.WARNING, "tapehouse"), Crew(None, listing("tapehouse.hashing.gone(int64,)"), 2) as crew:
        crew.compile_ahead()
    assert crew.compiler.process.returncode == -signal.SIGTERM
    assert caplog.records == []


def test_what_cannot_begin_to_compile_is_told(listing, caplog):
    home = listing("")
    (home / "compiled_ahead").mkdir()  # where a file is expected
    with caplog.at_level(logging.WARNING, "tapehouse"), Crew(None, home, 2) as crew:
        crew.compile_ahead()
        assert crew.compiler is None
    assert "kernels are not compiled ahead" in caplog.text
