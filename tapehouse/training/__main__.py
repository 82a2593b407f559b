"""`python -m tapehouse.training JOBDIR [OUTDIR]`: run one training job.

Progress goes to standard output, one JSON object a line, and through Dagster Pipes where it was started by them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import polars as pl

from tapehouse.recipes import Recipe, method_module, parse_recipe
from tapehouse.training.job import Job
from tapehouse.training.manifest import files_digest, host_facts, weights_digest


def main(arguments: list[str]) -> int:
    """Run the job in the first argument; write to the second, or to `out` in the job's folder."""
    if not 1 <= len(arguments) <= 2:
        print("usage: python -m tapehouse.training JOBDIR [OUTDIR]", file=sys.stderr)
        return 2
    jobdir = Path(arguments[0])
    outdir = Path(arguments[1]) if len(arguments) == 2 else jobdir / "out"
    # Libraries print to standard output too; it is kept for the reports.
    with _pipes(sys.stdout) as send, contextlib.redirect_stdout(sys.stderr):
        manifest = train(jobdir, outdir, send)
        send({"done": True, "digest": manifest["digest"], "wall_s": manifest["wall_s"]})
    return 0


def train(jobdir: Path, outdir: Path, send: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Train what `jobdir` describes, write `outdir` aside and rename it into place, and return the manifest."""
    started = time.monotonic()
    job = json.loads((jobdir / "job.json").read_text())
    recipe = parse_recipe(json.loads((jobdir / "recipe.json").read_text()), str(jobdir / "recipe.json"))
    aside = outdir.with_name(f"{outdir.name}.partial-{os.getpid()}")
    for left in outdir.parent.glob(f"{outdir.name}.partial-*"):  # of a process that was killed
        shutil.rmtree(left)
    aside.mkdir(parents=True)
    try:
        with (aside / "metrics.jsonl").open("w") as metrics:
            result = _fit(recipe, job, jobdir, aside, _reporter(metrics, send))
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
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return manifest


def _fit(recipe: Recipe, job: dict[str, Any], jobdir: Path, folder: Path, report) -> dict[str, Any]:
    import torch

    torch.set_num_threads(job["threads"])
    torch.use_deterministic_algorithms(True)
    if (jobdir / "inputs").is_dir():
        from tapehouse.training.jobs import job_fold

        inputs = {path.stem: pl.read_parquet(path) for path in sorted((jobdir / "inputs").glob("*.parquet"))}
        return method_module(recipe.method).fit(recipe, inputs, job_fold(job), folder, report)
    trainer = import_module(f"tapehouse.training.{recipe.method}")
    tables = (pl.read_parquet(jobdir / f"{name}.parquet") for name in ("tokens", "validation"))
    return trainer.train(Job(recipe, *tables, jobdir, folder, job["seed"], report))


def _reporter(metrics, send: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Adds speed and remaining time to a report, and files and sends it; the clock starts with the first report."""
    first: dict[str, float] = {}

    def report(facts: dict[str, Any]) -> None:
        now = time.monotonic()
        if not first:
            first.update(at=now, step=facts["step"], tokens=facts["tokens"])
        done = facts["step"] - first["step"]
        if done > 0:
            seconds = now - first["at"]
            facts["tokens_per_s"] = round((facts["tokens"] - first["tokens"]) / seconds)
            facts["eta_s"] = round(seconds / done * (facts["steps"] - facts["step"]), 1)
        metrics.write(json.dumps(facts) + "\n")
        metrics.flush()
        send(facts)

    return report


@contextlib.contextmanager
def _pipes(stdout: TextIO) -> Iterator[Callable[[dict[str, Any]], None]]:
    def to_stdout(facts: dict[str, Any]) -> None:
        print(json.dumps(facts), file=stdout, flush=True)

    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield to_stdout
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:

        def to_both(facts: dict[str, Any]) -> None:
            to_stdout(facts)
            pipes.log.info(json.dumps(facts))

        yield to_both


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
