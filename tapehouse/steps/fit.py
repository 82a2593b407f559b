"""Fitting a model that is not of language."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from tapehouse.recipes import Recipe, method_module
from tapehouse.steps.rows import adapter_row


def run(b, recipe: Recipe) -> pl.DataFrame:
    """Fit a model (for a rule there is nothing to fit) and return its row of `models.adapters`."""
    from tapehouse.training.jobs import fit_apart, move_files
    from tapehouse.training.manifest import files_digest, git_state, package_versions

    # Fitted aside, then moved to a folder named by its digest: a row always points at the file that it was made with.
    inputs = {read.table: b.read(read.table) for read in b.asset.reads}
    aside = b.workdir / "out"
    if recipe.apart:
        manifest = fit_apart(b, recipe, inputs, aside)
    else:
        aside.mkdir(parents=True, exist_ok=True)
        manifest = fitted(recipe, inputs, b.fold, aside)
        manifest |= {"snapshot": b.snapshot, "fold": b.fold.id, **git_state(b.settings.home)}
        manifest["packages"] = package_versions("numpy", "polars", "scikit-learn", "xgboost-cpu")
    manifest |= {"digest": files_digest(aside), "seed": recipe.seed}
    folder = move_files(aside, b.workdir / manifest["digest"][:16])
    b.note(rows=manifest["rows"])
    return adapter_row(b, recipe, manifest, str(folder.relative_to(b.settings.root)))


def fitted(
    recipe: Recipe, inputs: dict[str, pl.DataFrame], fold, folder: Path, report: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """What the method's `fit` says of its fit; a rule has none, and no rows."""
    fit = getattr(method_module(recipe.method), "fit", None)
    return {"rows": 0} if fit is None else fit(recipe, inputs, fold, folder, report)
