"""Making a trained model again from its pinned snapshot, and holding it against what is stored.

What is read is what the snapshot says; the recipe is the one that the manifest keeps, whatever its file says today. The code is
today's: where its commit is another, the answer says so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from tapehouse.building import make_build
from tapehouse.errors import TapehouseError
from tapehouse.project import Asset, Project
from tapehouse.recipe_assets import model_asset
from tapehouse.recipes import parse_recipe
from tapehouse.warehouse import Warehouse

# The same training on other threads or another processor sums in another order; bf16 keeps eight bits of a number. Relative
# to the length of all weights, what was measured between one and two threads is in docs/models.md.
TOLERANCE: Final = 0.05
HOST: Final = ("cpu", "gpus", "ranks", "threads", "packages", "python")


@dataclass(frozen=True)
class Reproduction:
    """How a model that was made again compares with the stored one.

    Attributes:
        identical: the weights are the same to the bit. distance: length of their difference over the stored weights' length,
        None where the files are not weights. host: facts of the machine that differ, as (name, then, now). commits: then, now.
    """

    adapter: str
    fold: str
    snapshot: int
    digest: str
    found: str
    distance: float | None
    host: tuple[tuple[str, Any, Any], ...]
    commits: tuple[str | None, str | None]
    folder: Path

    @property
    def identical(self) -> bool:
        """Whether every bit of the weights is the same."""
        return self.digest == self.found

    @property
    def holds(self) -> bool:
        """Identical, or on another machine within the tolerance."""
        return self.identical or (bool(self.host) and self.distance is not None and self.distance <= TOLERANCE)


def reproduce(
    project: Project, warehouse: Warehouse, adapter: str, fold: str, progress: Callable[[str], None] | None = None
) -> Reproduction:
    """Train one model of one fold again at the snapshot of its row in `models.adapters`.

    Its files go to `reproduced/` in the warehouse folder; the stored model stays as it is, and nothing is logged.

    Raises:
        TapehouseError: no such model, a snapshot that is gone, or an input that the snapshot does not hold.
    """
    row = _stored(warehouse, adapter, fold)
    stored = project.settings.root / row["path"]
    manifest = json.loads((stored / "manifest.json").read_text())
    asset = _asset(project, adapter, manifest["recipe"])
    options: dict[str, Any] = {"comparing": True} | ({"progress": progress} if progress else {})
    with warehouse.reading(row["snapshot"]) as (cursor, snapshot):
        build = make_build(project, asset, [fold], cursor, snapshot, **options)
        shutil.rmtree(build.workdir)
        made = asset.build(build).row(0, named=True)
    folder = project.settings.root / made["path"]
    now = json.loads((folder / "manifest.json").read_text())
    return Reproduction(
        adapter,
        fold,
        row["snapshot"],
        row["digest"],
        made["digest"],
        distance(stored, folder),
        tuple((name, manifest.get(name), now.get(name)) for name in HOST if manifest.get(name) != now.get(name)),
        (manifest.get("git_commit"), now.get("git_commit")),
        folder,
    )


def distance(stored: Path, found: Path) -> float | None:
    """Length of the difference of two models' weights over the length of the first; None without safetensors in both.

    Raises:
        TapehouseError: their tensors have other names or shapes.
    """
    files = [sorted(folder.glob("*.safetensors")) for folder in (stored, found)]
    if not all(files):
        return None
    from safetensors.numpy import load_file

    ours, theirs = ({name: tensor for file in own for name, tensor in load_file(file).items()} for own in files)
    shapes = [{name: tensor.shape for name, tensor in own.items()} for own in (ours, theirs)]
    if shapes[0] != shapes[1]:
        raise TapehouseError(f"{stored} and {found}: tensors of other names or shapes; the two are not the same model")
    gap = sum(float(((theirs[n].astype(np.float64) - t.astype(np.float64)) ** 2).sum()) for n, t in ours.items())
    size = sum(float((t.astype(np.float64) ** 2).sum()) for t in ours.values())
    return (gap / size) ** 0.5 if size else 0.0


def _stored(warehouse: Warehouse, adapter: str, fold: str) -> dict[str, Any]:
    with warehouse.reading() as (cursor, _):
        rows = cursor.execute("select adapter, fold, snapshot, digest, path from models.adapters").pl()
    found = rows.filter(adapter=adapter, fold=fold)
    if found.is_empty():
        there = ", ".join(f"{a} {f}" for a, f in rows.select("adapter", "fold").sort("adapter", "fold").iter_rows()) or "none"
        raise TapehouseError(f"models.adapters: no {adapter} of fold {fold}; there are {there}")
    return found.row(0, named=True)


def _asset(project: Project, adapter: str, recipe: dict[str, Any]) -> Asset:
    declared = project.assets.get(f"models.{adapter}")
    source = declared.source if declared else project.settings.home
    assert source is not None
    then = parse_recipe(recipe, f"the manifest of {adapter}")
    return replace(model_asset(then, source, project.settings.home), name=f"models.{adapter}")
