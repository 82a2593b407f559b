"""`python -m tapehouse.training JOBDIR [OUTDIR]`: run one training job, or go on with one that was killed.

Progress goes to standard output, one JSON object a line, and through Dagster Pipes where it was started by them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from tapehouse.codeversion import modules_version
from tapehouse.hashing import text_hash
from tapehouse.recipes import Recipe, method_module, parse_recipe
from tapehouse.training.job import Job
from tapehouse.training.manifest import PACKAGES, files_digest, host_facts, package_versions, weights_digest
from tapehouse.training.progress import Progress, sender

# What decides a job's weights, beside its recipe, its code and the packages it runs on.
DECIDES = ("seed", "threads", "dataset_digest", "validation_digest", "tokenizer_digest", "base_digest", "init_digest", "fold")


def main(arguments: list[str]) -> int:
    """Run the job in the first argument; write to the second, or to `out` in the job's folder."""
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m tapehouse.training JOBDIR [OUTDIR]", file=sys.stderr)
        return 2
    jobdir = Path(arguments[0])
    outdir = Path(arguments[1]) if len(arguments) == 2 else jobdir / "out"
    # Libraries print to standard output too; it is kept for the reports.
    with sender(sys.stdout) as send, contextlib.redirect_stdout(sys.stderr):
        manifest = train(jobdir, outdir, send)
        send({"done": True, "digest": manifest["digest"], "wall_s": manifest["wall_s"]})
    return 0


def train(jobdir: Path, outdir: Path, send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train what `jobdir` describes, write `outdir` aside and rename it into place, and return the manifest.

    Checkpoints lie in `OUTDIR.checkpoints/`, by the identity of the job, until it is done; a run that finds some goes on.
    """
    started = time.monotonic()
    job = json.loads((jobdir / "job.json").read_text())
    recipe = parse_recipe(json.loads((jobdir / "recipe.json").read_text()), str(jobdir / "recipe.json"))
    checkpoints = outdir.with_name(f"{outdir.name}.checkpoints")
    outdir.parent.mkdir(parents=True, exist_ok=True)
    with _alone(outdir.parent):
        aside = outdir.with_name(f"{outdir.name}.partial-{os.getpid()}")
        for left in outdir.parent.glob(f"{outdir.name}.partial-*"):  # of a process that was killed
            shutil.rmtree(left)
        aside.mkdir()
        try:
            report = Progress(aside / "metrics.jsonl", send)
            result = _fit(recipe, job, jobdir, aside, report, checkpoints / identity(recipe, job))
            manifest = {
                "name": recipe.name,
                "method": recipe.method,
                "recipe": json.loads(recipe.model_dump_json()),
                "recipe_hash": recipe.hash,
                **job["provenance"],
                **{key: value for key, value in job.items() if key not in ("provenance", "fold", "threads")},
                **host_facts(job["threads"]),
                **result,
                "digest": weights_digest(aside) if list(aside.glob("*.safetensors")) else files_digest(aside),
                "wall_s": round(time.monotonic() - started, 2),
            }
            (aside / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
            shutil.rmtree(outdir, ignore_errors=True)
            aside.rename(outdir)
            shutil.rmtree(checkpoints, ignore_errors=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return manifest


def identity(recipe: Recipe, job: dict[str, Any]) -> str:
    """What a job's checkpoints are known by: recipe, data, base, parent, seed, fold, code and packages."""
    where = "methods" if "inputs" in job else "training"
    return text_hash(
        recipe.hash,
        json.dumps({key: job.get(key) for key in DECIDES}, sort_keys=True),
        modules_version((f"tapehouse.{where}.{recipe.method}",)),
        json.dumps(package_versions(*PACKAGES), sort_keys=True),
    )[:16]


def _fit(
    recipe: Recipe, job: dict[str, Any], jobdir: Path, folder: Path, report: Progress, checkpoints: Path
) -> dict[str, Any]:
    import torch

    torch.set_num_threads(job["threads"])
    torch.use_deterministic_algorithms(True)
    if (jobdir / "inputs").is_dir():
        from tapehouse.training.jobs import job_fold

        inputs = {path.stem: pl.read_parquet(path) for path in sorted((jobdir / "inputs").glob("*.parquet"))}
        method = method_module(recipe.method)
        return method.fit(recipe, inputs, job_fold(job), folder, report, checkpoints=checkpoints)
    trainer = import_module(f"tapehouse.training.{recipe.method}")
    tables = (pl.read_parquet(jobdir / f"{name}.parquet") for name in ("tokens", "validation"))
    return trainer.train(Job(recipe, *tables, jobdir, folder, job["seed"], report, checkpoints))


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for a process that still trains here: one whose caller was killed ends at its next report."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
