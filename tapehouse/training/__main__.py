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
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.recipes import Recipe, method_module, parse_recipe
from tapehouse.training.guard import peak, refuse_what_cannot_fit
from tapehouse.training.job import Job, job_identity
from tapehouse.training.manifest import files_digest, host_facts, weights_digest
from tapehouse.training.progress import Progress, sender


def main(arguments: list[str]) -> int:
    """Run the job in the first argument; write to the second, or to `out` in the job's folder.

    The third is the number of processes that were started to share it.
    """
    if not 1 <= len(arguments) <= 3:
        print("usage: python -m tapehouse.training JOBDIR [OUTDIR [PROCESSES]]", file=sys.stderr)
        return 2
    jobdir = Path(arguments[0])
    outdir = Path(arguments[1]) if len(arguments) > 1 else jobdir / "out"
    ranks = int(arguments[2]) if len(arguments) > 2 else 1
    # Libraries print to standard output too; it is kept for the reports.
    with sender(sys.stdout) as send, contextlib.redirect_stdout(sys.stderr):
        if int(os.environ.get("RANK", "0")) > 0:
            help_train(jobdir, outdir, ranks)
            return 0
        manifest = train(jobdir, outdir, send, ranks)
        send({"done": True, "digest": manifest["digest"], "wall_s": manifest["wall_s"]})
    return 0


def train(jobdir: Path, outdir: Path, send: Callable[[dict[str, Any]], None], ranks: int = 1) -> dict[str, Any]:
    """Train what `jobdir` describes, write `outdir` aside and rename it into place, and return the manifest.

    Checkpoints lie in `OUTDIR.checkpoints/`, by the identity of the job, until it is done; a run that finds some goes on.
    """
    started = time.monotonic()
    job, recipe = _read(jobdir)
    outdir.parent.mkdir(parents=True, exist_ok=True)
    with _alone(outdir.parent):
        aside = outdir.with_name(f"{outdir.name}.partial-{os.getpid()}")
        for left in outdir.parent.glob(f"{outdir.name}.partial-*"):  # of a process that was killed
            shutil.rmtree(left)
        aside.mkdir()
        try:
            report = Progress(aside / "metrics.jsonl", send)
            result = _fit(recipe, job, jobdir, aside, report, _checkpoints(jobdir, outdir, ranks), ranks)
            manifest = {
                "name": recipe.name,
                "method": recipe.method,
                "recipe": json.loads(recipe.model_dump_json()),
                "recipe_hash": recipe.hash,
                **job["provenance"],
                **{key: value for key, value in job.items() if key not in ("provenance", "fold", "threads")},
                **host_facts(job["threads"], ranks),
                **result,
                "digest": weights_digest(aside) if list(aside.glob("*.safetensors")) else files_digest(aside),
                "wall_s": round(time.monotonic() - started, 2),
            }
            (aside / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
            shutil.rmtree(outdir, ignore_errors=True)
            aside.rename(outdir)
            shutil.rmtree(_checkpoints(jobdir, outdir, ranks).parent, ignore_errors=True)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return manifest


def help_train(jobdir: Path, outdir: Path, ranks: int) -> None:
    """Take part in a job as one of several processes; the first of them reports, saves and writes the manifest."""
    job, recipe = _read(jobdir)
    with tempfile.TemporaryDirectory() as scratch:
        report = Progress(None, lambda facts: None)
        _fit(recipe, job, jobdir, Path(scratch), report, _checkpoints(jobdir, outdir, ranks), ranks)


def _read(jobdir: Path) -> tuple[dict[str, Any], Recipe]:
    recipe = parse_recipe(json.loads((jobdir / "recipe.json").read_text()), str(jobdir / "recipe.json"))
    return json.loads((jobdir / "job.json").read_text()), recipe


def _checkpoints(jobdir: Path, outdir: Path, ranks: int) -> Path:
    return outdir.with_name(f"{outdir.name}.checkpoints") / job_identity(jobdir, ranks)


def _fit(
    recipe: Recipe, job: dict[str, Any], jobdir: Path, folder: Path, report: Progress, checkpoints: Path, ranks: int
) -> dict[str, Any]:
    import torch

    torch.set_num_threads(job["threads"])
    torch.use_deterministic_algorithms(True)
    if (jobdir / "inputs").is_dir():
        from tapehouse.training.jobs import job_fold

        _expect_ranks(1, ranks, recipe)
        inputs = {path.stem: pl.read_parquet(path) for path in sorted((jobdir / "inputs").glob("*.parquet"))}
        method = method_module(recipe.method)
        return method.fit(recipe, inputs, job_fold(job), folder, report, checkpoints=checkpoints)
    _expect_ranks(_join(recipe) if "RANK" in os.environ else 1, ranks, recipe)
    trainer = import_module(f"tapehouse.training.{recipe.method}")
    tables = (pl.read_parquet(jobdir / f"{name}.parquet") for name in ("tokens", "validation"))
    given = Job(recipe, *tables, jobdir, folder, job["seed"], report, checkpoints)
    facts = {}
    if isinstance(recipe, LanguageRecipe):
        facts["memory_estimate_mb"] = round(refuse_what_cannot_fit(given) / 1e6)
    facts |= trainer.train(given) | peak()
    if ranks > 1:
        torch.distributed.barrier()  # the first process removes the checkpoints that the others may still read
        torch.distributed.destroy_process_group()
    return facts


def _join(recipe: Recipe) -> int:
    """Meet the other processes; how many they are."""
    from accelerate import PartialState

    on_cpu = getattr(recipe, "model", None) is None or recipe.model.device == "cpu"
    return PartialState(cpu=on_cpu, backend="gloo" if on_cpu else None).num_processes


def _expect_ranks(there: int, wanted: int, recipe: Recipe) -> None:
    """Some ways of starting several processes start one, and say nothing."""
    if there != wanted:
        raise TapehouseError(
            f"recipe {recipe.name}: {wanted} processes were to share the job and {there} do; start them by TAPEHOUSE_LAUNCHER="
            f"local:{wanted}, and a method on features by local"
        )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait for a process that still trains here: one whose caller was killed ends at its next report."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{folder}: another process trains here; waiting for its end", file=sys.stderr, flush=True)
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
