"""A backfill that is killed at any point and started again ends with the tables of one that was left alone."""

import os
import random
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from tests.house import ROOT, House, copy_project

KILLS = 4
FOLDS = "{min_train_sessions: 60, test_sessions: 30, purge_sessions: 12, embargo_sessions: 2, count: 1}\n"
SHORT = (date(2005, 1, 1), date(2005, 8, 1))


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The real declarations from raw to labels over seven months."""
    home = copy_project(tmp_path_factory.mktemp("home"), *SHORT, folds=FOLDS)
    for folder in (
        *("assets/datasets", "assets/models", "assets/reports", "sql/reports"),
        *("models_registry/adapters", "models_registry/strategies"),
    ):
        for file in (home / folder).glob("*"):
            if file.is_file():
                file.unlink()
    return home


def contents(house: House) -> dict:
    return {key: (made.rows, made.out_hash) for key, made in house.state().items()}


def test_killed_and_started_again_it_ends_with_the_same_tables(home, tmp_path):
    untouched = House(home, tmp_path / "untouched")
    started = time.monotonic()
    untouched.refresh()
    took = time.monotonic() - started

    rng = random.Random(3)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests/e2e/refresher.py"), str(home), str(tmp_path / "killed")]
    seen: list[int] = []
    for _ in range(KILLS):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.05, 0.6) * took)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        house = House(home, tmp_path / "killed")
        seen.append(len(house.state()))
        for key, what in contents(house).items():  # whatever is there is whole
            assert what == contents(untouched)[key]
        house.warehouse.close()
    assert seen == sorted(seen), "a restart went on from what was there"
    left = House(home, tmp_path / "killed")
    left.refresh()
    assert contents(left) == contents(untouched)
    for name in ("raw.bars", "staging.bars", "features.price", "labels.triple_barrier"):
        frames = [house.frame(name).drop("ingested_at", strict=False) for house in (left, untouched)]
        assert frames[0].equals(frames[1]), name
