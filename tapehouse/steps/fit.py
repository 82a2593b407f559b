"""Fitting a baseline."""

import polars as pl

from tapehouse.recipes import Recipe
from tapehouse.steps.rows import adapter_row


def run(b, recipe: Recipe) -> pl.DataFrame:
    """Fit a baseline (for a rule there is nothing to fit) and return its row of `models.adapters`."""
    from tapehouse.baselines import fit
    from tapehouse.training.jobs import move_files
    from tapehouse.training.manifest import git_state, package_versions

    read = {r.table for r in b.asset.reads}
    points, labels = (b.read(t) if t in read else pl.DataFrame() for t in ("features.decision_points", "labels.triple_barrier"))
    # Fitted aside, then moved to a folder named by its digest: a row always points at the file that it was made with.
    aside = b.workdir / "out"
    fitted = fit(recipe, points, labels, b.fold, aside)
    folder = move_files(aside, b.workdir / fitted["digest"][:16])
    manifest = {**fitted, "seed": recipe.seed, "snapshot": b.snapshot, **git_state(b.settings.home)}
    manifest["packages"] = package_versions("numpy", "polars", "xgboost-cpu")
    b.note(rows=fitted["rows"])
    return adapter_row(b, recipe, manifest, str(folder.relative_to(b.settings.root)))
