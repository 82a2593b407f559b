"""Recipes become assets: one YAML in `models_registry/adapters/` is a model, its predictions, evaluation and backtest."""

from importlib import import_module
from pathlib import Path
from typing import Any

from tapehouse.codeversion import modules_version
from tapehouse.errors import TapehouseError
from tapehouse.evaluations.outcomes import MONTHS_AHEAD
from tapehouse.inference.questions import question_reads, question_words
from tapehouse.judging_rules import FILE as RULES
from tapehouse.judging_rules import policy_of_reference
from tapehouse.project import Asset, Output
from tapehouse.recipe_sections import LanguageRecipe
from tapehouse.recipes import BASES, FOLDER, Recipe, load_recipe, load_recipes, method_module
from tapehouse.tables import Read

POINTS, LABELS, RETURNS = "features.decision_points", "labels.triple_barrier", "labels.forward_returns"
PAIRS = "datasets.preference_tokens"
OBJECTIVES = "objectives.yaml"
BARS, ACTIONS = "staging.bars", "raw.corporate_actions"
KEY_OF = dict.fromkeys((f"models.{table}" for table in ("adapters", "predictions", "calibrations", "preferences")), "adapter")


def recipe_assets(home: Path) -> list[Asset]:
    """The assets of each recipe, by fold: `models.<name>` and, of one that decides, predictions, evaluation and backtest."""
    found = []
    recipes = load_recipes(home / FOLDER)
    policy = _policy(home, recipes)
    for name, recipe in recipes.items():
        source = home / FOLDER / f"{name}.yaml"
        found.append(model_asset(recipe, source, home))
        if asks_pairs(recipe):
            found.append(_preferences(recipe, source, home))
        if recipe.predicts:
            found += [_predictions(recipe, source, home), _evaluation(recipe, source, home, policy), _backtest(recipe, source)]
        elif hasattr(method_module(recipe.method), "judged_reads"):
            found.append(_judgement(recipe, source, home))
    return found


def _asset(
    recipe: Recipe, source: Path, name: str, doc: str, tables: dict[str, str], reads: tuple[Read, ...], step: str, **extra: Any
) -> Asset:
    modules = (f"tapehouse.steps.{step}", *extra.pop("modules", ()))
    return Asset(
        name=name,
        doc=doc,
        by="adapter_folds" if recipe.apart else "folds",
        reads=reads,
        outputs=tuple(Output(a, t, ((KEY_OF.get(t, "subject"), recipe.name),)) for a, t in tables.items()),
        build=lambda b: import_module(f"tapehouse.steps.{step}").run(b, recipe),
        code_version=modules_version(modules, recipe.hash, extra.pop("words", "")),
        source=source,
        optional=not recipe.selected,
        **extra,
    )


def model_asset(recipe: Recipe, source: Path, home: Path) -> Asset:
    modules = _modules(recipe)
    words, step = "", "fit"
    if isinstance(recipe, LanguageRecipe):
        reads: tuple[Read, ...] = (Read(recipe.tokens, window="train"), *_base(recipe, home))
        if recipe.model.init_from:
            reads += (_own(recipe.model.init_from),)
        method = method_module(recipe.method)
        reads += method.training_reads(recipe) if hasattr(method, "training_reads") else ()
        step, words = "train", _base_words(recipe, home)
    else:
        method = method_module(recipe.method)
        reads = (Read(POINTS, window="train"),) if hasattr(method, "fit") else ()
        reads += method.fit_reads(recipe) if hasattr(method, "fit_reads") else ()
    if recipe.apart:
        modules += ("tapehouse.training.__main__",)  # what its own process runs
        modules += (f"tapehouse.training.{recipe.method}",) if step == "train" else ()
    return _asset(
        recipe,
        source,
        f"models.{recipe.name}",
        f"One row per (adapter, fold): {recipe.description}",
        {f"models.{recipe.name}": "models.adapters"},
        reads,
        step,
        modules=modules,
        words=words,
        kind="torch" if recipe.apart else "python",
    )


def _predictions(recipe: Recipe, source: Path, home: Path) -> Asset:
    # Labels of the validation tail calibrate the probabilities.
    reads: tuple[Read, ...] = (_own(recipe.name), Read(POINTS, window="judged"), Read(LABELS, window="train"))
    modules, words, step = _modules(recipe), "", "decide"
    if isinstance(recipe, LanguageRecipe):
        reads += (*_base(recipe, home), *question_reads(recipe))
        # Objective and template are part of the version: what is asked decides what is answered.
        words, step = question_words(recipe, home) + _base_words(recipe, home), "answer"
    else:
        method = method_module(recipe.method)
        reads += method.predict_reads(recipe) if hasattr(method, "predict_reads") else ()
    tables = ("models.predictions", "models.calibrations")
    return _asset(
        recipe,
        source,
        f"models.predictions.{recipe.name}",
        f"One row per (adapter, fold, symbol, interval, decision_at): what {recipe.name} would do over the validation tail and "
        "the test block.",
        {f"{t}.{recipe.name}": t for t in tables},
        reads,
        step,
        modules=modules,
        words=words,
    )


def asks_pairs(recipe: Recipe) -> bool:
    """Whether preference pairs are of what it answers: orders, by a language model."""
    return isinstance(recipe, LanguageRecipe) and recipe.predicts and recipe.family == "order"


def _preferences(recipe: LanguageRecipe, source: Path, home: Path) -> Asset:
    # Apart from its answers: those read no outcome of the test block.
    parent = recipe.model.init_from
    before: tuple[Read, ...] = ()
    if parent:
        asked = asks_pairs(load_recipe(home / FOLDER / f"{parent}.yaml"))
        before = (_preferred(parent) if asked else _own(parent),)
    return _asset(
        recipe,
        source,
        f"models.preferences.{recipe.name}",
        "One row per (adapter, fold, symbol, interval, decision_at, objective, placement): which of two answers "
        f"{recipe.name} holds for the likelier one.",
        {f"models.preferences.{recipe.name}": "models.preferences"},
        (_own(recipe.name), *before, Read(PAIRS, window="test"), *_base(recipe, home)),
        "prefer",
        words=_base_words(recipe, home),
    )


def _policy(home: Path, recipes: dict[str, Recipe]) -> str | None:
    """The recipe that `judging.yaml` names for comparison; of all folds, since each evaluation reads it."""
    policy = policy_of_reference(home) if recipes else None
    if policy is not None and not (policy in recipes and recipes[policy].predicts and not recipes[policy].apart):
        fit = ", ".join(name for name, recipe in recipes.items() if recipe.predicts and not recipe.apart)
        raise TapehouseError(f"{home / RULES}: policy: {policy!r} is no recipe that decides on all folds; name one of {fit}")
    return policy


def _evaluation(recipe: Recipe, source: Path, home: Path, policy: str | None) -> Asset:
    reads = (_own_predictions(recipe), *(Read(table, window="judged") for table in (POINTS, LABELS, RETURNS)))
    # Orders rest beyond the block's last decision, and markouts reach thirty sessions beyond their fills.
    reads += tuple(Read(table, window="judged", lookback_months=1, lookahead_months=MONTHS_AHEAD) for table in (BARS, ACTIONS))
    if policy not in (None, recipe.name):
        reads += (Read("models.predictions", writer=f"models.predictions.{policy}"),)
    if asks_pairs(recipe):
        reads += (_preferred(recipe.name),)
    return _asset(
        recipe,
        source,
        f"reports.evaluations.{recipe.name}",
        f"One row per (subject, fold, split, slice, level, metric): how well {recipe.name} foresaw what its block brought.",
        {f"reports.evaluations.{recipe.name}": "reports.evaluations"},
        reads,
        "evaluate",
        words=(home / OBJECTIVES).read_text(encoding="utf-8"),
    )


def _judgement(recipe: LanguageRecipe, source: Path, home: Path) -> Asset:
    """The evaluation of a model that decides nothing, by what its method holds it against."""
    method = method_module(recipe.method)
    return _asset(
        recipe,
        source,
        f"reports.evaluations.{recipe.name}",
        f"One row per (subject, fold, split, slice, level, metric): how well {recipe.name} judged what its block brought.",
        {f"reports.evaluations.{recipe.name}": "reports.evaluations"},
        (_own(recipe.name), *method.judged_reads(recipe), *_base(recipe, home)),
        "judge",
        modules=(*_modules(recipe), f"tapehouse.training.{recipe.method}"),
        fitted=True,
        words=_base_words(recipe, home),
    )


def _backtest(recipe: Recipe, source: Path) -> Asset:
    # Bars from before the block, for the first order's basis; the block's own are read up to its last close.
    around = {"window": "test", "lookback_months": 1, "lookahead_months": 1}
    reads = (_own_predictions(recipe), Read(POINTS, window="test"), Read(BARS, **around), Read(ACTIONS, **around))
    reads += (Read("raw.instruments", window="all"),)
    tables = ("reports.backtests", "reports.backtest_equity", "reports.backtest_trades", "reports.sensitivity")
    return _asset(
        recipe,
        source,
        f"reports.backtests.{recipe.name}",
        f"One row per (subject, fold, …): what an account that follows {recipe.name} earned over the test block, at cost.",
        {f"{t}.{recipe.name}": t for t in tables},
        reads,
        "trade",
    )


def _modules(recipe: Recipe) -> tuple[str, ...]:
    """The method's module, and those of the methods that its own runs."""
    return tuple(f"tapehouse.methods.{method}" for method in (recipe.method, *getattr(recipe, "runs", ())))


def _own(name: str) -> Read:
    return Read("models.adapters", writer=f"models.{name}")


def _own_predictions(recipe: Recipe) -> Read:
    return Read("models.predictions", writer=f"models.predictions.{recipe.name}")


def _preferred(name: str) -> Read:
    return Read("models.preferences", writer=f"models.preferences.{name}")


def _base(recipe: LanguageRecipe, home: Path) -> tuple[Read, ...]:
    """The base as a table, where it is trained here; and the tokenizers."""
    declared = load_recipe(home / BASES / f"{recipe.model.base}.yaml")
    made = (Read(f"models.{recipe.model.base}"),) if declared.method == "pretrain" else ()
    return (*made, Read("models.tokenizer"))


def _base_words(recipe: LanguageRecipe, home: Path) -> str:
    """What identifies a base that is not trained here; one that is, is an input."""
    declared = load_recipe(home / BASES / f"{recipe.model.base}.yaml")
    return "" if declared.method == "pretrain" else declared.hash
