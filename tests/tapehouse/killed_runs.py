"""Runs of training jobs in processes of their own that are killed for real: by themselves at a given sync, or from outside.

The processes are forked from a server that has imported what training needs, so that one costs a second and not ten.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

from tapehouse.training.__main__ import train

FOREIGN = ("dagster", "duckdb", "mlflow", "sqlglot")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload([__name__, "tapehouse.training.sft", "tapehouse.training.dpo", "accelerate", "trl"])


def _run(jobdir: Path, outdir: Path, at_sync: int) -> None:
    for name in FOREIGN:
        assert name not in sys.modules, f"training imports {name}"
        sys.modules[name] = None  # importing it raises from here on
    real, calls = os.fsync, 0

    def sync(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at_sync:
            os.kill(os.getpid(), signal.SIGKILL)
        real(descriptor)

    os.fsync = sync
    with (jobdir / "errors.txt").open("w") as errors:
        os.dup2(errors.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        train(jobdir, outdir, lambda facts: None)


def run(jobdir: Path, outdir: Path, at_sync: int = 0, at_report: int = 0) -> bool:
    """Run a job to its end, or until it is killed; whether it ended by itself.

    `at_sync` kills it as it has the system write that file or folder of its checkpoints to the disk, counted from 1;
    `at_report` kills it from outside, as soon as it has filed so many reports.
    """
    process = SERVER.Process(target=_run, args=(jobdir, outdir, at_sync))
    process.start()
    if at_report:
        while process.is_alive() and reports(outdir) < at_report:
            time.sleep(0.002)
        process.kill()
    process.join()
    if process.exitcode not in (0, -signal.SIGKILL):
        raise AssertionError((jobdir / "errors.txt").read_text()[-2000:])
    return process.exitcode == 0


def reports(outdir: Path) -> int:
    """How many reports the run at work has filed."""
    return sum(len(file.read_text().splitlines()) for file in outdir.parent.glob(f"{outdir.name}.partial-*/metrics.jsonl"))


def metrics(outdir: Path) -> list[dict]:
    """Reports of a finished run, without what depends on the clock."""
    lines = (json.loads(line) for line in (outdir / "metrics.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key not in ("tokens_per_s", "eta_s")} for line in lines]
