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
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash
from tapehouse.recipes import DpoRecipe, PretrainRecipe, Recipe, SftRecipe
from tapehouse.tokens import FILES as TOKENIZER_FILES
from tapehouse.tokens import tokenizer_digest
from tapehouse.training.corpus import SCHEMA as PRETRAIN_SCHEMA
from tapehouse.training.manifest import weights_digest

# What a row must have been known by, so that a fold's training window can be purged on it.
KNOWN_AT: Final = {"sft": "label_known_at", "dpo": "reward_known_at"}
ERROR_LINES: Final = 15
NEEDED: Final = {
    "sft": ("input_ids", "loss_mask"),
    "dpo": ("prompt_ids", "chosen_ids", "rejected_ids"),
    "pretrain": tuple(PRETRAIN_SCHEMA),
}
PROVENANCE: Final = ("snapshot", "fold", "train_end", "git_commit", "git_dirty")
BASE_FILES: Final = ("config.json", "model.safetensors")
ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")


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
) -> None:
    """Write a job folder, replacing one that exists.

    `tokens` are rows of datasets.sft_tokens or datasets.preference_tokens, or the frame of
    :func:`tapehouse.training.corpus.pretraining_tokens`. Rows whose `label_known_at` (`reward_known_at`) is not before
    `provenance['train_end']` are left out: a label not yet known then cannot have trained the fold's model.
    `init_dir` is the folder of the adapter that the recipe's `init_from` names, of the same fold.
    `provenance` needs snapshot, fold, train_end, git_commit and git_dirty; what else it holds is kept in the manifest.

    Raises TapehouseError where a column or a key of the provenance is missing, or where no row is left.
    """
    missing = [key for key in PROVENANCE if key not in provenance]
    if missing:
        raise TapehouseError(f"job of recipe {recipe.name}: the provenance lacks {missing}; pass them")
    if not isinstance(recipe, SftRecipe | DpoRecipe | PretrainRecipe):
        raise TapehouseError(f"recipe {recipe.name}: method {recipe.method!r} has nothing to train")
    absent = [name for name in NEEDED[recipe.method] if name not in tokens.columns]
    if absent:
        raise TapehouseError(f"job of recipe {recipe.name}: the tokens lack the columns {absent}; pass its dataset's table")
    rows = _purged(tokens, recipe.method, provenance["train_end"])
    if rows.is_empty():
        raise TapehouseError(f"job of recipe {recipe.name}: no example was known before {provenance['train_end']}; "
                             "materialise the dataset over the training window")  # fmt: skip
    shutil.rmtree(jobdir, ignore_errors=True)
    (jobdir / "tokenizer").mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer_dir / name, jobdir / "tokenizer" / name)
    job = {
        "seed": seed,
        "threads": threads,
        "dataset_digest": frame_hash(rows),
        "rows": rows.height,
        "rows_purged": tokens.height - rows.height,
        "tokenizer_digest": tokenizer_digest(tokenizer_dir),
        "base_digest": None,
        "init_digest": None,
        "provenance": {key: value.isoformat() if isinstance(value, datetime) else value for key, value in provenance.items()},
    }
    if not isinstance(recipe, PretrainRecipe):
        if base_dir is None:
            raise TapehouseError(f"job of recipe {recipe.name}: an adapter needs the folder of its base {recipe.base!r}")
        (jobdir / "base").mkdir()
        for name in BASE_FILES:
            shutil.copyfile(base_dir / name, jobdir / "base" / name)
        job["base_digest"] = weights_digest(base_dir)
        if recipe.init_from is not None:
            if init_dir is None:
                raise TapehouseError(f"job of recipe {recipe.name}: init_from needs the folder of {recipe.init_from!r}")
            (jobdir / "parent").mkdir()
            for name in ADAPTER_FILES:
                shutil.copyfile(init_dir / name, jobdir / "parent" / name)
            job["init_digest"] = weights_digest(init_dir)
    rows.select(NEEDED[recipe.method]).write_parquet(jobdir / "tokens.parquet")
    (jobdir / "recipe.json").write_text(recipe.model_dump_json(indent=1))
    (jobdir / "job.json").write_text(json.dumps(job, indent=1, sort_keys=True))


def command(jobdir: Path, outdir: Path) -> list[str]:
    """The command that runs a job, for :func:`run_job` or for a Pipes client."""
    return [sys.executable, "-m", "tapehouse.training", str(jobdir), str(outdir)]


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
) -> dict[str, Any]:
    """Run a job in a process of its own and return its manifest; `outdir` appears whole or not at all.

    `on_progress` receives one dict a report: step, steps, loss, tokens, tokens_per_s, eta_s. `launch(command, env)` runs
    the process in place of a plain subprocess, as Dagster Pipes do, which carry progress on their own.
    Raises TapehouseError with the end of the process's error output where it fails.
    """
    threads = json.loads((jobdir / "job.json").read_text())["threads"]
    run = launch or partial(run_process, on_progress=on_progress)
    run(command(jobdir, outdir), environment(threads))
    return json.loads((outdir / "manifest.json").read_text())


def run_process(
    command: list[str], env: dict[str, str], on_progress: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Run a command with `env` beside this process's variables; its JSON lines on standard output go to `on_progress`.

    Raises TapehouseError with the end of the process's error output where it fails.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, **env})
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
    """Move every file of a folder into `target`, one by one, so that a reader of equal files there never misses one."""
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.iterdir()):
        file.replace(target / file.name)
    source.rmdir()
    return target


def progress_line(facts: dict[str, Any]) -> str:
    """One progress report in words."""
    if "step" not in facts:
        return f"trained in {facts['wall_s']} s, weights {facts['digest']}"
    words = f"step {facts['step']} of {facts['steps']}, loss {facts['loss']:.3f}"
    return words + (f", {facts['tokens_per_s']} tokens/s, {facts['eta_s']} s left" if "eta_s" in facts else "")


def _purged(tokens: pl.DataFrame, method: str, train_end: datetime) -> pl.DataFrame:
    if method not in KNOWN_AT:  # the base's text was cut where it was read; its examples carry no time
        return tokens
    known = KNOWN_AT[method]
    if known not in tokens.columns:
        raise TapehouseError(f"tokens for method {method!r} lack {known!r}, which the training window is purged by")
    return tokens.filter(pl.col(known) < train_end)
