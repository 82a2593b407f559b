"""Two processes, of different hash seeds and numbers of threads, trade and judge the same market to the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import polars as pl
from tapehouse.backtest.config import BacktestConfig
from tapehouse.hashing import frame_hash
from tapehouse.subject_differences import difference_rows
from tapehouse.subject_statistics import statistics_rows
from tapehouse.verdicts import curves
from tests.tapehouse.test_backtest import random_market, run

days, closed = [], []
for subject, config in (("a", BacktestConfig()), ("b", BacktestConfig(commission_bps=1.0, impact=0.0))):
    for fold, seed in (("f", 1), ("g", 2)):
        bars, rows, acts = random_market(seed, sessions=60)
        result = run(bars, rows, acts, config)
        key = {"subject": pl.lit(subject), "fold": pl.lit(fold)}
        moved = pl.col(pl.Date).dt.offset_by("0d" if fold == "f" else "100d")
        print(frame_hash(result.ledger), frame_hash(result.trades))
        days.append(result.equity.with_columns(moved).with_columns(**key))
        closed.append(result.trades.with_columns(moved).with_columns(**key))
days, closed = pl.concat(days), pl.concat(closed)
counts = dict(closed.group_by("subject").len().iter_rows())
print(frame_hash(statistics_rows(days, closed)), frame_hash(difference_rows(curves(days, counts))))
"""


def said(**environment: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
    )
    assert found.returncode == 0, found.stderr.decode()
    return found.stdout.decode()


def test_two_processes_say_the_same():
    one = said(PYTHONHASHSEED="1", POLARS_MAX_THREADS="1", OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    two = said(PYTHONHASHSEED="2", POLARS_MAX_THREADS="4", OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2")
    assert one == two and len(set(one.split())) == 10
