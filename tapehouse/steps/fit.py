"""Fitting a model that is not of language."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from tapehouse.hashing import frame_hash, text_hash
from tapehouse.recipes import Recipe, method_module
from tapehouse.steps.publish import publish
from tapehouse.steps.rows import adapter_row


def run(b, recipe: Recipe) -> pl.DataFrame:
    """Fit a model (for a rule there is nothing to fit) and return its row of `models.adapters`."""
    from tapehouse.training.jobs import fit_apart, move_files, plain_fold
    from tapehouse.training.manifest import files_digest, git_state, host_facts
    from tapehouse.trial_files import failure_recorded

    # Fitted aside, then moved to a folder named by its digest: a row always points at the file that it was made with.
    inputs = {read.table: b.read(read.table) for read in b.asset.reads}
    aside = b.workdir / "out"
    if recipe.apart:
        with failure_recorded(b, recipe):
            manifest = fit_apart(b, recipe, inputs, aside)
    else:
        shutil.rmtree(aside, ignore_errors=True)  # of a fit that was killed
        aside.mkdir(parents=True)
        with failure_recorded(b, recipe):
            manifest = fitted(recipe, inputs, b.fold, aside)
        manifest |= {"name": recipe.name, "method": recipe.method, "recipe": json.loads(recipe.model_dump_json())}
        manifest |= {"snapshot": b.snapshot, "fold": b.fold.id, "train_end": b.fold.train_end.isoformat(), "seed": recipe.seed}
        manifest |= {"recipe_hash": recipe.hash, **git_state(b.settings.home), **host_facts(1)}
        manifest["dataset_digest"] = text_hash(*(f"{name}={frame_hash(frame)}" for name, frame in sorted(inputs.items())))
    manifest |= {"digest": files_digest(aside), "window": plain_fold(b.fold)}
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True))
    folder = move_files(aside, b.workdir / manifest["digest"][:16])
    if recipe.apart or b.fold == b.folds[-1]:  # of what is fitted anew for every fold, the last is served
        publish(b, manifest, folder)
    b.note(rows=manifest["rows"])
    return adapter_row(b, recipe, manifest, str(folder.relative_to(b.settings.root)))


def fitted(
    recipe: Recipe, inputs: dict[str, pl.DataFrame], fold, folder: Path, report: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """What the method's `fit` says of its fit; a rule has none, and no rows."""
    fit = getattr(method_module(recipe.method), "fit", None)
    return {"rows": 0} if fit is None else fit(recipe, inputs, fold, folder, report)
