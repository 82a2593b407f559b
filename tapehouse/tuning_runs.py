"""Running a search from the warehouse: its tables are written to the study once, its trials are shared among processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from tapehouse.cross_fitting import LABELS, POINTS
from tapehouse.errors import TapehouseError
from tapehouse.reading import read_table
from tapehouse.recipe_sections import ClassicalRecipe
from tapehouse.recipes import FOLDER, load_recipes
from tapehouse.tables import Read
from tapehouse.training.jobs import environment, plain_fold
from tapehouse.tuning import ACTIONS, BARS, SPLITS, Found, make_study, open_study, outcome, search

if TYPE_CHECKING:
    from tapehouse.project import Project
    from tapehouse.warehouse import Warehouse

ERROR_LINES = 15
# Beside what the recipe reads; bars from before the window, for the first order's basis.
READS = (
    Read(POINTS, window="train"),
    Read(LABELS, window="train"),
    Read(SPLITS),
    Read(BARS, 1, window="train"),
    Read(ACTIONS, 1, window="train"),
)


def tune(
    project: Project, warehouse: Warehouse, name: str, fold: str, trials: int | None = None, processes: int = 1
) -> tuple[Path, Found]:
    """Search what recipe `name` declares, inside the training window of `fold`, until the study has `trials` trials.

    Returns:
        The folder of the study, and what it has found.

    Raises:
        TapehouseError: no such classical recipe or fold, nothing to search, another search of the study is running, or no
        trial is complete.
    """
    recipes = load_recipes(project.settings.home / FOLDER)
    recipe = recipes.get(name)
    if not isinstance(recipe, ClassicalRecipe) or not recipe.search:
        known = sorted(n for n, r in recipes.items() if isinstance(r, ClassicalRecipe) and r.search)
        raise TapehouseError(f"{FOLDER / name}.yaml: no classical recipe with a search section; those are {known}")
    if fold not in project.folds:
        raise TapehouseError(f"--fold {fold}: no such fold; there are {list(project.folds)}")
    folder = _study(project, warehouse, recipe, fold)
    try:
        with FileLock(folder / "search.lock", timeout=0):
            for left in folder.glob("[0-9]*.lock"):  # processes of a search that was killed may still run
                with FileLock(left, timeout=0):
                    pass
            done = sum(trial.state.is_finished() for trial in open_study(folder).get_trials(deepcopy=False))
            _run(folder, max((trials or recipe.tuning.trials) - done, 0), processes)
    except Timeout:
        raise TapehouseError(f"{folder}: another search of this study is running; wait for it, or end it") from None
    return folder, outcome(folder)


def _study(project: Project, warehouse: Warehouse, recipe: ClassicalRecipe, fold: str) -> Path:
    asset = project.assets[f"models.{recipe.name}"]
    reads = {read.table: read for read in (*READS, *asset.reads)}
    with warehouse.reading() as (cursor, snapshot):
        inputs = {table: read_table(cursor, project, read, asset, [fold]) for table, read in reads.items()}
    inputs[SPLITS] = inputs[SPLITS].filter(scheme=recipe.tuning.scheme, fold=fold)
    job = {"fold": plain_fold(project.folds[fold]), "snapshot": snapshot}
    return make_study(project.settings.root, recipe, inputs, project.folds[fold], job)


def _run(folder: Path, trials: int, processes: int) -> None:
    """Run the trials in this process, or in several that take equal shares of them."""
    shares = [trials // processes + (number < trials % processes) for number in range(processes)]
    if len([share for share in shares if share]) <= 1:
        search(folder, trials)
        return
    with tempfile.TemporaryFile("w+") as errors:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tapehouse.tuning", str(folder), str(share), str(number)],
                stdout=errors,
                stderr=errors,
                env={**os.environ, **environment(1)},
            )
            for number, share in enumerate(shares)
            if share
        ]
        try:
            codes = [process.wait() for process in running]
        finally:  # a search that is cancelled leaves nothing behind that still searches
            for process in running:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if any(codes):
            errors.seek(0)
            tail = "\n".join(errors.read().splitlines()[-ERROR_LINES:])
            raise TapehouseError(f"{folder}: the processes of the search ended with {codes}; the end of their errors:\n{tail}")
