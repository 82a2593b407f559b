"""Two more assets of a recipe that is quickly fitted: what its foresight rests on, and its combinatorial paths.

Which splits they take follows from `models_registry/folds.yaml`: importance the first scheme that leaves out one block of each
training window at a time, paths the first over the span that leaves out several. Where none is declared there is no asset.
"""

from importlib import import_module
from pathlib import Path

from tapehouse.codeversion import modules_version
from tapehouse.folds import FOLDS_FILE, FoldSpec, read_spec
from tapehouse.project import Asset, Output
from tapehouse.recipe_sections import ClassicalRecipe
from tapehouse.recipes import FOLDER, Recipe, load_recipes, method_module
from tapehouse.tables import Cadence, Read

POINTS, LABELS, SPLITS = "features.decision_points", "labels.triple_barrier", "models.splits"
BARS, ACTIONS = "staging.bars", "raw.corporate_actions"


def examination_assets(home: Path) -> list[Asset]:
    """`reports.importance.<name>` and `reports.paths.<name>` of each recipe that has them."""
    spec = read_spec(home / FOLDS_FILE)
    importance, paths = importance_scheme(spec), paths_scheme(spec)
    found = []
    for name, recipe in load_recipes(home / FOLDER).items():
        source = home / FOLDER / f"{name}.yaml"
        if importance is not None and learns_from_features(recipe):
            found.append(_importance(recipe, source, importance))
        if paths is not None and is_quick(recipe):
            found.append(_paths(recipe, source, paths))
    return found


def importance_scheme(spec: FoldSpec) -> str | None:
    """The first scheme of K-fold inside the training windows; None where there is none."""
    return next((name for name, cv in spec.cross_validation.items() if cv.inside == "training" and cv.held_out == 1), None)


def paths_scheme(spec: FoldSpec) -> str | None:
    """The first combinatorial scheme over the span; None where there is none."""
    return next((name for name, cv in spec.cross_validation.items() if cv.inside == "span" and cv.held_out > 1), None)


def is_quick(recipe: Recipe) -> bool:
    """Whether a recipe can be fitted for many splits: no network, and nothing that splits its training window itself."""
    return isinstance(recipe, ClassicalRecipe) and not recipe.apart and SPLITS not in {r.table for r in _method_reads(recipe)}


def learns_from_features(recipe: Recipe) -> bool:
    """Whether it is quick and fits a model to columns of the decision points, so that one of them can be put in disorder."""
    if not is_quick(recipe) or not hasattr(method_module(recipe.method), "fit"):
        return False
    inner = getattr(recipe, "inner_recipe", recipe)
    return hasattr(getattr(inner, "params", None), "features")


def _importance(recipe: Recipe, source: Path, scheme: str) -> Asset:
    beside = [read for read in _method_reads(recipe) if read.table not in (POINTS, LABELS)]
    reads = (Read(POINTS, window="train"), Read(LABELS, window="train"), *beside, Read(SPLITS))
    doc = f"One row per (subject, fold, kind, level): how much worse {recipe.name} foretells with a feature in disorder."
    return _asset("importance", "adapter_folds", recipe, source, reads, doc, scheme)


def _paths(recipe: Recipe, source: Path, scheme: str) -> Asset:
    tables = dict.fromkeys((POINTS, LABELS, *(read.table for read in _method_reads(recipe)), BARS, ACTIONS, SPLITS))
    reads = tuple(Read(table, window="all") for table in tables)
    doc = f"One row per (subject, path, part): what {recipe.name} would have earned by each way of leaving blocks out."
    return _asset("paths", "once", recipe, source, reads, doc, scheme)


def _asset(step: str, by: Cadence, recipe: Recipe, source: Path, reads: tuple[Read, ...], doc: str, scheme: str) -> Asset:
    modules = (f"tapehouse.steps.{step}", *(f"tapehouse.methods.{m}" for m in (recipe.method, *getattr(recipe, "runs", ()))))
    name, table = f"reports.{step}.{recipe.name}", f"reports.{step}"
    return Asset(
        name=name,
        doc=doc,
        by=by,
        reads=reads,
        outputs=(Output(name, table, (("subject", recipe.name),)),),
        build=lambda b: import_module(f"tapehouse.steps.{step}").run(b, recipe, scheme),
        code_version=modules_version(modules, recipe.hash, scheme),
        source=source,
        fitted=True,
        optional=not recipe.selected,
    )


def _method_reads(recipe: Recipe) -> list[Read]:
    method = method_module(recipe.method)
    asked = (getattr(method, name, None) for name in ("fit_reads", "predict_reads"))
    return [read for reads in asked if reads is not None for read in reads(recipe)]
