"""Kernels that a run calls are compiled ahead of it, and what is stored is what was compiled."""

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest
from numba.core import types
from numba.core.caching import IndexDataCacheFile

from tapehouse import compiling
from tapehouse.errors import TapehouseError

HOME = Path(__file__).parents[2]
MODULE = """
from numba import njit
@njit(cache=True)
def half(x):
    return x / 2
@njit(cache=True)
def quarter(x):
    return half(half(x))
"""
HITS = "import ahead_rule as a; a.quarter({value}); print(sum(a.quarter.stats.cache_hits.values()), a.half.signatures)"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project that lists a kernel of two, with a cache of its own."""
    (tmp_path / "workspace.yaml").touch()
    (tmp_path / "ahead_rule.py").write_text(MODULE)
    (tmp_path / compiling.LIST).write_text("ahead_rule.quarter(float64,)\n")
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(HOME))
    return tmp_path


def python(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=home, capture_output=True, text=True)


def test_each_kernel_of_the_list_compiles():
    failures = compiling.compile_listed((HOME / compiling.LIST).read_text().splitlines())
    assert not failures, f"mend its line by hand, or write the list again ({compiling.__file__}): {failures}"


def test_what_was_compiled_ahead_is_found_by_the_run(home):
    assert not compiling.stored(home)
    assert python(home, "-m", "tapehouse.compiling").returncode == 0
    assert compiling.stored(home)
    assert python(home, "-c", HITS.format(value=8.0)).stdout == "1 []\n"  # found, so that what it calls was not even asked for
    assert python(home, "-c", HITS.format(value=8)).stdout.startswith("0 ")  # an integer is another type
    (home / compiling.LIST).write_text("ahead_rule.half(float64,)\n")
    assert not compiling.stored(home)


def test_a_line_that_does_not_compile_is_told_and_the_others_are_compiled(home):
    lines = "ahead_rule.half(unicode_type,)\nahead_rule.third(float64,)\nahead_rule.quarter(float64,)\n"
    (home / compiling.LIST).write_text(lines)
    done = python(home, "-m", "tapehouse.compiling")
    assert done.returncode == 2
    assert "ahead_rule.half does not compile for its line of kernels.txt" in done.stderr
    assert "has no attribute 'third'" in done.stderr
    assert python(home, "-c", HITS.format(value=8.0)).stdout == "1 []\n"
    assert not compiling.stored(home)  # the next run says so again


def test_nothing_is_compiled_where_nothing_is_listed(home):
    (home / compiling.LIST).unlink()
    assert compiling.stored(home)


@pytest.mark.parametrize(("save", "right"), [(compiling._save_apart, True), (IndexDataCacheFile.save, False)])
def test_two_processes_that_store_the_same_function_at_once(tmp_path, save, right):
    """What numba alone does stands beside it: were that not so, `_save_apart` would not be needed."""
    ahead, run = (IndexDataCacheFile(str(tmp_path), "rule-1.py311", "as it is") for _ in range(2))
    run._load_index = dict  # it has looked when nothing was stored yet
    written = ahead._save_data

    def meanwhile(name: str, data: str) -> None:
        run.save("integers", "code for integers")
        written(name, data)

    ahead._save_data = meanwhile
    save(ahead, "floats", "code for floats")
    reader = IndexDataCacheFile(str(tmp_path), "rule-1.py311", "as it is")
    assert (reader.load("integers") == "code for integers") is right
    assert reader.load("floats") in ("code for floats", None)


def test_what_the_index_names_is_complete(tmp_path):
    file = IndexDataCacheFile(str(tmp_path), "rule-1.py311", "as it is")
    index, named = file._save_index, []

    def seen(overloads: dict[str, str]) -> None:
        index(overloads)
        named.append({key: file.load(key) for key in overloads})

    file._save_index = seen
    for key in ("floats", "integers", "floats"):
        compiling._save_apart(file, key, f"code for {key}")
    both = {"floats": "code for floats", "integers": "code for integers"}
    assert named == [{"floats": "code for floats"}, both, both]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((types.float64[:, ::1],), "(float64[:, ::1],)"),
        ((types.float64[::1, :], types.boolean[:]), "(float64[::1, :], boolean[:])"),
        ((types.Array(types.int8, 1, "C", readonly=True), types.boolean), "(Array(int8, 1, 'C', readonly=True), boolean)"),
        ((types.UniTuple(types.int64[::1], 2),), "(UniTuple(int64[::1], 2),)"),
        ((types.Tuple((types.int64, types.float64[:])),), "(Tuple((int64, float64[:],)),)"),
    ],
)
def test_types_as_text(arguments, text):
    """That the text gives the types again is checked where it is made."""
    assert compiling._as_text(arguments) == text


def test_a_type_without_notation_is_refused():
    with pytest.raises(TapehouseError, match="no notation"):
        compiling._as_text((types.Array(types.float64, 1, "C", aligned=False),))


def test_one_process_at_a_time_compiles_ahead(home):
    with (home / "cache" / "compiled_ahead").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert python(home, "-m", "tapehouse.compiling").returncode == 0
        assert not list((home / "cache").rglob("*.nbi"))
    assert not compiling.stored(home)


def test_a_killed_shell_leaves_no_compilation_behind(home):
    """The process that compiles looks, before each line, whether the one that started it is there."""
    (home / "ahead_rule.py").write_text(f"open('began', 'w').close(); import time; time.sleep(1)\n{MODULE}")
    (home / compiling.LIST).write_text("ahead_rule.half(float64,)\nahead_rule.quarter(float64,)\n")
    shell = "import os, subprocess, sys, time; subprocess.Popen([sys.executable, '-m', 'tapehouse.compiling'])\n"
    shell += "while not os.path.exists('began'): time.sleep(0.05)\n"
    assert python(home, "-c", shell).returncode == 0  # returns when the process that it started has closed its output, too
    assert len(list((home / "cache").rglob("*.nbi"))) == 1
    assert not compiling.stored(home)
