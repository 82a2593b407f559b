"""Job folders: written beside the warehouse, run by a process that needs neither the warehouse nor Dagster.

::

    JOBDIR/ recipe.json  job.json  tokens.parquet  tokenizer/  base/  parent/
    OUTDIR/ manifest.json  metrics.jsonl  *.safetensors and their configuration
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl

from tapehouse.bases import lay_model
from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold
from tapehouse.hashing import frame_hash, text_hash
from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.recipes import Recipe, method_module
from tapehouse.tokens import FILES as TOKENIZER_FILES
from tapehouse.tokens import tokenizer_digest
from tapehouse.training.launchers import command
from tapehouse.training.manifest import weights_digest

ERROR_LINES: Final = 15
FOLD_TIMES: Final = ("train_start", "train_end", "test_start", "test_end", "embargo_end", "validation_start")
PROVENANCE: Final = ("snapshot", "fold", "train_end", "git_commit", "git_dirty")


def export_job(
    jobdir: Path,
    recipe: Recipe,
    tokens: pl.DataFrame,
    base_dir: Path | None,
    tokenizer_dir: Path,
    seed: int,
    provenance: dict[str, Any],
    threads: int = 2,
    init_dir: Path | None = None,
    base_code: bool = False,
) -> None:
    """Write a job folder, replacing one that exists.

    `tokens` are rows of datasets.sft_tokens or datasets.preference_tokens, or the frame of
    :func:`tapehouse.training.corpus.pretraining_tokens`. Rows whose `label_known_at` (`reward_known_at`) is not before
    `provenance['train_end']` are left out: a label not yet known then cannot have trained the fold's model. Those decided from
    `provenance['validation_start']` on are written apart, to stop and to measure by.
    `init_dir` is the folder of the adapter that the recipe's `init_from` names, of the same fold. `base_code` says that Python
    files of the base's folder may run.
    `provenance` needs snapshot, fold, train_end, git_commit and git_dirty; what else it holds is kept in the manifest.

    Raises TapehouseError where a column or a key of the provenance is missing, or where no row is left.
    """
    missing = [key for key in PROVENANCE if key not in provenance]
    if missing:
        raise TapehouseError(f"job of recipe {recipe.name}: the provenance lacks {missing}; pass them")
    language = isinstance(recipe, LanguageRecipe)
    absent = [name for name in recipe.needs if name not in tokens.columns] if language else []
    if absent:
        raise TapehouseError(f"job of recipe {recipe.name}: the tokens lack the columns {absent}; pass its dataset's table")
    rows, tail = tokens, tokens.clear()
    if language:  # the text of a base was cut where it was read; its examples carry no time
        rows, tail = _parts(tokens, recipe, provenance)
    if rows.is_empty():
        raise TapehouseError(f"job of recipe {recipe.name}: no example was known before {provenance['train_end']}; "
                             "materialise the dataset over the training window")  # fmt: skip
    laid_out = getattr(method_module(recipe.method), "laid_out", lambda recipe, rows: rows)
    learnt, measured = (laid_out(recipe, part.select(recipe.needs if language else pl.all())) for part in (rows, tail))
    shutil.rmtree(jobdir, ignore_errors=True)
    (jobdir / "tokenizer").mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_dir / name, jobdir / "tokenizer" / name)
    job = {
        "seed": seed,
        "threads": threads,
        "dataset_digest": frame_hash(learnt),  # as they are written: packed otherwise, they are other rows
        "validation_digest": frame_hash(measured),
        "rows": rows.height,
        "rows_validation": tail.height,
        "rows_purged": tokens.height - rows.height - tail.height,
        "tokenizer_digest": tokenizer_digest(tokenizer_dir),
        "base_digest": None,
        "init_digest": None,
        "provenance": {key: _plain(value) for key, value in provenance.items()},
    }
    if language:
        if base_dir is None:
            raise TapehouseError(f"job of recipe {recipe.name}: an adapter needs the folder of its base {recipe.model.base!r}")
        lay_model(base_dir, jobdir / "base", base_code)
        job["base_digest"] = weights_digest(base_dir)
        if recipe.model.init_from is not None:
            if init_dir is None:
                raise TapehouseError(f"job of recipe {recipe.name}: init_from needs the folder of {recipe.model.init_from!r}")
            lay_model(init_dir, jobdir / "parent")
            job["init_digest"] = weights_digest(init_dir)
    learnt.write_parquet(jobdir / "tokens.parquet")
    measured.write_parquet(jobdir / "validation.parquet")
    (jobdir / "recipe.json").write_text(recipe.model_dump_json(indent=1))
    (jobdir / "job.json").write_text(json.dumps(job, indent=1, sort_keys=True))


def environment(threads: int) -> dict[str, str]:
    """Variables of a training process: threads, the allocator, and nothing that phones home."""
    return {
        "OMP_NUM_THREADS": str(threads),
        # Threads that spin while they wait take the core from the one they wait for as soon as anything else runs:
        # 900 tokens/s against 8,000 on two busy cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        # glibc gives big blocks back to the system and takes them again at every step: 2 to 20 times the time.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": "17179869184",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONHASHSEED": "0",
    }


def run_job(
    jobdir: Path,
    outdir: Path,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    launch: Callable[..., Any] | None = None,
    launcher: str = "local",
) -> dict[str, Any]:
    """Run a job in a process of its own and return its manifest; `outdir` appears whole or not at all.

    `on_progress` receives one dict a report: step, steps, loss, tokens, tokens_per_s, eta_s. `launch(command, env)` runs
    the process in place of a plain subprocess, as Dagster Pipes do, which carry progress on their own. `launcher` says where
    it runs (:mod:`tapehouse.training.launchers`).
    Raises TapehouseError with the end of the process's error output where it fails.
    """
    threads = json.loads((jobdir / "job.json").read_text())["threads"]
    run = launch or partial(run_process, on_progress=on_progress)
    run(command(jobdir, outdir, launcher), environment(threads))
    return json.loads((outdir / "manifest.json").read_text())


def run_process(
    command: list[str], env: dict[str, str], on_progress: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Run a command with `env` beside this process's variables; its JSON lines on standard output go to `on_progress`.

    Raises TapehouseError with the end of the process's error output where it fails.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,  # this process may read its own work there
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **env},
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                if on_progress and line.startswith("{"):
                    on_progress(json.loads(line))
            code = process.wait()
        finally:
            # A run that is cancelled must not leave its training behind.
            if process.poll() is None:
                process.kill()
                process.wait()
        if code != 0:
            errors.seek(0)
            tail = "\n".join(errors.read().splitlines()[-ERROR_LINES:])
            raise TapehouseError(f"{' '.join(command)} ended with code {code}; the end of its errors:\n{tail}")


def store_by_digest(outdir: Path) -> Path:
    """Move a job's output to a folder named by the digest of its weights: a stored model is never replaced by another."""
    return move_files(outdir, outdir.with_name(weights_digest(outdir)))


def move_files(source: Path, target: Path) -> Path:
    """Move every file below a folder into `target`, one by one, so that a reader of equal files there never misses one."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.is_dir():
            move_files(file, target / file.name)
        else:
            file.replace(target / file.name)
    source.rmdir()
    return target


def progress_line(facts: dict[str, Any]) -> str:
    """One progress report in words."""
    if "step" not in facts:
        return f"trained in {facts['wall_s']} s, weights {facts['digest']}"
    kind = "loss" if "loss" in facts else "validation_loss"
    words = f"step {facts['step']} of {facts['steps']}, {kind.replace('_', ' ')} {facts[kind]:.3f}"
    return words + (f", {facts['tokens_per_s']} tokens/s, {facts['eta_s']} s left" if "eta_s" in facts else "")


def _parts(tokens: pl.DataFrame, recipe: LanguageRecipe, provenance: dict[str, Any]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows that are trained on, known before the validation tail begins, and those decided in the tail."""
    known = recipe.known_at
    if known not in tokens.columns:
        raise TapehouseError(f"tokens for method {recipe.method!r} lack {known!r}, which the training window is purged by")
    tokens = tokens.filter(pl.col(known) < provenance["train_end"])
    tail_start = provenance.get("validation_start")
    if tail_start is None:
        return tokens, tokens.clear()
    return tokens.filter(pl.col(known) < tail_start), tokens.filter(pl.col("decision_at") >= tail_start)


def fit_apart(b, recipe: Recipe, inputs: dict[str, pl.DataFrame], outdir: Path) -> dict[str, Any]:
    """Fit a method that is not of language in a process of its own, from a folder of Parquet; its manifest.

    `inputs` are the frames by table name that the method declares. `b` is the build of the asset.
    """
    from tapehouse.report.curves import loss_curve_png
    from tapehouse.tracking import read_metrics
    from tapehouse.training.manifest import git_state

    jobdir = b.workdir / "job"
    shutil.rmtree(jobdir, ignore_errors=True)
    (jobdir / "inputs").mkdir(parents=True)
    for name, frame in inputs.items():
        frame.write_parquet(jobdir / "inputs" / f"{name}.parquet")
    provenance = {"snapshot": b.snapshot, "fold": b.fold.id, "train_end": b.fold.train_end, **git_state(b.settings.home)}
    job = {
        "seed": recipe.seed,
        "threads": b.settings.threads,
        "fold": plain_fold(b.fold),
        "dataset_digest": text_hash(*(f"{name}={frame_hash(frame)}" for name, frame in sorted(inputs.items()))),
        "provenance": {key: _plain(value) for key, value in provenance.items()},
    }
    (jobdir / "recipe.json").write_text(recipe.model_dump_json(indent=1))
    (jobdir / "job.json").write_text(json.dumps(job, indent=1, sort_keys=True))
    manifest = run_job(jobdir, outdir, lambda facts: b.progress(progress_line(facts)), b.launch, b.settings.launcher)
    if metrics := read_metrics(outdir):  # what is solved in one go reports no steps
        curve = b.workdir / "loss.png"
        curve.write_bytes(loss_curve_png(metrics))
        b.note(loss_curve=curve)
    return manifest


def job_fold(job: dict[str, Any]) -> Fold:
    """The fold of a job's `job.json`."""
    times = {name: datetime.fromisoformat(job["fold"][name]) for name in FOLD_TIMES if job["fold"][name] is not None}
    days = {name: date.fromisoformat(job["fold"][name]) for name in ("test_first_session", "test_last_session")}
    return Fold(**{**job["fold"], **times, **days})


def plain_fold(fold: Fold) -> dict[str, Any]:
    """A fold as JSON holds it."""
    return {name: _plain(value) for name, value in vars(fold).items()}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value
