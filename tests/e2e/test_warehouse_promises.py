"""Promises 4 and 7 on the warehouse itself: killed writers, many writers, pinned snapshots, on either catalog."""

import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pytest

from tapehouse.extensions import load_statement
from tapehouse.warehouse import Warehouse
from tests.e2e.warehouse_writer import changes, open_lake

WRITER = Path(__file__).with_name("warehouse_writer.py")
ROOT = Path(__file__).parents[2]
ROWS = 4_000
KILLS = 20
UNPRIVILEGED = "nobody"  # PostgreSQL refuses to run as root


def spawn(folder: Path, catalog: str, name: str, commits: int, data: Path | None = None) -> subprocess.Popen:
    """A writer, ready to begin."""
    command = [sys.executable, str(WRITER), str(folder), catalog, str(data or folder / "data"), name, str(commits), str(ROWS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, text=True, cwd=ROOT, env=environment, **pipes)


def begin(writer: subprocess.Popen, first: int) -> None:
    """Let it write the commits `first`, `first` + 1 and so on."""
    line = writer.stdout.readline()
    assert line == "ready\n", writer.stderr.read()
    writer.stdin.write(f"{first}\n")
    writer.stdin.flush()


def state(lake: Warehouse) -> dict[str, int]:
    """Writer to the number of its last commit; both tables must be whole and agree."""
    with lake.reading() as (cursor, _):
        found = {
            table: cursor.execute(
                "select writer, min(number), max(number), count(*), count(distinct row) "
                f"from {table} group by writer order by writer"
            ).fetchall()
            for table in ("t.a", "t.b")
        }
    assert found["t.a"] == found["t.b"], "the two tables of one commit differ"
    for writer, lowest, highest, rows, distinct in found["t.a"]:
        assert lowest == highest and rows == distinct == ROWS, f"{writer}: a torn partition"
    return {row[0]: row[1] for row in found["t.a"]}


@pytest.fixture(scope="session")
def postgres():
    """Connection string of a throwaway PostgreSQL server on loopback."""
    found = shutil.which("postgres") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), None)
    if found is None:
        pytest.skip("no PostgreSQL server is installed here")
    programs = Path(found).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="tapehouse-pg-"))
    user = UNPRIVILEGED if os.getuid() == 0 else getpass.getuser()
    if os.getuid() == 0:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    as_user = {"user": user} if os.getuid() == 0 else {}

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, **as_user)

    run(str(programs / "initdb"), "-D", "data", "-U", "tapehouse", "-A", "trust", "--no-sync")
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    run(str(programs / "pg_ctl"), "-D", "data", "-w", "-o", options, "-l", "server.log", "start")
    try:
        yield f"host=127.0.0.1 port={port} user=tapehouse"
    finally:
        run(str(programs / "pg_ctl"), "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgres"])
def catalog(request) -> str:
    """The setting `catalog`; for PostgreSQL a database of its own."""
    if request.param == "sqlite":
        return "sqlite"
    connection = request.getfixturevalue("postgres")
    name = f"lake_{random.randrange(10**9)}"
    with duckdb.connect() as con:
        con.execute(load_statement("postgres_scanner"))
        con.execute(f"attach '{connection} dbname=postgres' as server (type postgres)")
        con.execute(f"call postgres_execute('server', 'create database {name}', use_transaction=false)")
    return f"postgres:{connection} dbname={name}"


def test_killed_writers_leave_the_last_good_state(tmp_path, catalog):
    lake = open_lake(tmp_path, catalog, tmp_path / "data")
    rng = random.Random(20)
    kills = KILLS if catalog == "sqlite" else 5
    lake.overwrite(changes("w", 0, ROWS))
    acknowledged = 0
    writer = spawn(tmp_path, catalog, "w", 1_000)
    for kill in range(kills):
        begin(writer, acknowledged + 1)
        following = spawn(tmp_path, catalog, "w", 1_000) if kill + 1 < kills else None  # starts up meanwhile
        # After at least one commit, at a moment that falls anywhere in one of the next.
        for _ in range(rng.randrange(1, 3)):
            acknowledged = int(writer.stdout.readline())
        try:
            writer.wait(timeout=rng.uniform(0, 0.15))
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        rest, errors = writer.communicate()
        assert writer.returncode == -signal.SIGKILL, errors
        acknowledged = max([acknowledged, *map(int, rest.split())])
        found = state(lake)
        assert found["w"] == found["shared"]
        assert acknowledged <= found["w"] <= acknowledged + 1, f"kill {kill}: a commit that was acknowledged is lost"
        acknowledged = found["w"]
        writer = following
    # The lock died with its owner; the files of unfinished commits go with the next clean-up.
    lake.overwrite(changes("w", acknowledged + 1, ROWS))
    lake.expire(keep_last=1)
    assert state(lake)["w"] == acknowledged + 1
    lake.close()


def test_four_writers_and_a_reader_see_neither_an_error_nor_a_torn_partition(tmp_path, catalog):
    lake = open_lake(tmp_path, catalog, tmp_path / "data")
    for name in "abcd":
        lake.overwrite(changes(name, 0, ROWS))
    before, commits = lake.snapshot(), 6
    # With a catalog on a server, as on four machines: a warehouse folder each, so that no lock file is shared.
    folders = {name: tmp_path if catalog == "sqlite" else tmp_path / name for name in "abcd"}
    writers = {name: spawn(folders[name], catalog, name, commits, tmp_path / "data") for name in "abcd"}
    for writer in writers.values():
        begin(writer, 1)
    polls, seen = 0, dict.fromkeys("abcd", 0)
    while any(writer.poll() is None for writer in writers.values()):
        found = state(lake)
        assert all(found[name] >= seen[name] for name in seen), "a reader went back in time"
        seen = {name: found[name] for name in seen}
        polls += 1
    for name, writer in writers.items():
        output, errors = writer.communicate()
        assert (writer.returncode, errors) == (0, ""), f"{name}: {errors}"
        assert [int(line) for line in output.split()] == list(range(1, commits + 1))
    assert polls > 3
    assert state(lake) == dict.fromkeys(["a", "b", "c", "d", "shared"], commits)
    assert lake.snapshot() == before + 4 * commits  # one commit, one snapshot
    lake.close()


def test_a_pinned_snapshot_still_reads_the_old_rows(tmp_path, catalog):
    lake = open_lake(tmp_path, catalog, tmp_path / "data")
    lake.overwrite(changes("w", 1, ROWS))
    old = lake.snapshot()
    with lake.writing("test", "pin") as cursor:
        cursor.execute("insert into meta.pins values (?, 'models.m', 'f', 'r', now())", [old])
    for number in (2, 3):
        lake.overwrite(changes("w", number, ROWS))
    lake.ensure("t.a", {"writer": "varchar", "number": "bigint", "added": "double"})
    lake.compact()
    assert old not in lake.expire(keep_last=1)
    lake.close()
    with lake.reading(old) as (cursor, snapshot):
        assert snapshot == old
        for table in ("t.a", "t.b"):
            assert cursor.execute(f"select distinct number, count(row) over () from {table}").fetchall() == [(1, 2 * ROWS)]
    with lake.reading() as (cursor, _):
        assert cursor.execute("select distinct number from t.a").fetchall() == [(3,)]
    lake.close()
