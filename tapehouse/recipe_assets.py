"""Recipes become assets: one YAML in `models_registry/adapters/` is a model, its predictions, evaluation and backtest."""

from importlib import import_module
from pathlib import Path

from tapehouse.codeversion import modules_version
from tapehouse.orders import load_objectives
from tapehouse.project import Asset, Output
from tapehouse.prompts.templates import selected, selection
from tapehouse.recipes import TOKENS, Recipe, load_recipes
from tapehouse.tables import Read

FOLDER = Path("models_registry/adapters")
POINTS, LABELS = "features.decision_points", "labels.triple_barrier"
BARS, ACTIONS = "staging.bars", "raw.corporate_actions"


def recipe_assets(home: Path) -> list[Asset]:
    """Four assets for each recipe: `models.<name>`, its predictions, its evaluation and its backtest, all by fold."""
    found = []
    for name, recipe in load_recipes(home / FOLDER).items():
        source = home / FOLDER / f"{name}.yaml"
        found += [_model(recipe, source), _predictions(recipe, source, home)]
        found += [_evaluation(recipe, source), _backtest(recipe, source)]
    return found


def _asset(
    recipe: Recipe, source: Path, name: str, doc: str, outputs: dict[str, str], reads: tuple, step: str, extra: str = ""
) -> Asset:
    key = {"models.adapters": "adapter", "models.predictions": "adapter"}
    return Asset(
        name=name,
        doc=doc,
        by="folds",
        reads=reads,
        outputs=tuple(Output(a, t, ((key.get(t, "subject"), recipe.name),)) for a, t in outputs.items()),
        build=lambda b: import_module(f"tapehouse.steps.{step}").run(b, recipe),
        code_version=modules_version((f"tapehouse.steps.{step}",), recipe.hash, extra),
        source=source,
        kind="torch" if recipe.kind == "adapter" and name == f"models.{recipe.name}" else "python",
    )


def _model(recipe: Recipe, source: Path) -> Asset:
    if recipe.kind == "adapter":
        reads = (Read(TOKENS[recipe.method], window="train"), Read(f"models.{recipe.base}"), Read("models.tokenizer"))
        if recipe.init_from:
            reads += (Read("models.adapters", writer=f"models.{recipe.init_from}"),)
        step = "train"
    else:
        reads = (Read(POINTS, window="train"), Read(LABELS, window="train")) if recipe.method == "gbm" else ()
        step = "fit"
    return _asset(
        recipe,
        source,
        f"models.{recipe.name}",
        f"One row per (adapter, fold): {recipe.description}",
        {f"models.{recipe.name}": "models.adapters"},
        reads,
        step,
    )


def _predictions(recipe: Recipe, source: Path, home: Path) -> Asset:
    own = Read("models.adapters", writer=f"models.{recipe.name}")
    reads: tuple[Read, ...] = (own, Read(POINTS, window="test"))
    words = ""
    if recipe.kind == "adapter":
        reads += (Read(f"models.{recipe.base}"), Read("models.tokenizer"))
        # Objective and template are part of the version: what is asked decides what is answered.
        words = load_objectives(home / "objectives.yaml").words.get(recipe.prompt.objective, "")
        shown = selected(home, "order")
        words += f"|{selection(recipe.prompt.template, shown.mask).version if recipe.prompt.template else shown.version}"
    return _asset(
        recipe,
        source,
        f"models.predictions.{recipe.name}",
        f"One row per (adapter, fold, symbol, interval, decision_at): what {recipe.name} would do over the test block.",
        {f"models.predictions.{recipe.name}": "models.predictions"},
        reads,
        "answer" if recipe.kind == "adapter" else "decide",
        extra=words,
    )


def _evaluation(recipe: Recipe, source: Path) -> Asset:
    reads = (_own_predictions(recipe), Read(POINTS, window="test"), Read(LABELS, window="test"))
    return _asset(
        recipe,
        source,
        f"reports.evaluations.{recipe.name}",
        f"One row per (subject, fold, metric): how well {recipe.name} foresaw what its test block brought.",
        {f"reports.evaluations.{recipe.name}": "reports.evaluations"},
        reads,
        "evaluate",
    )


def _backtest(recipe: Recipe, source: Path) -> Asset:
    # Bars from before the block, for the first order's basis; the block's own are read up to its last close.
    around = {"window": "test", "lookback_months": 1, "lookahead_months": 1}
    reads = (_own_predictions(recipe), Read(POINTS, window="test"), Read(BARS, **around), Read(ACTIONS, **around))
    tables = ("reports.backtests", "reports.backtest_equity", "reports.backtest_trades")
    return _asset(
        recipe,
        source,
        f"reports.backtests.{recipe.name}",
        f"One row per (subject, fold, …): what an account that follows {recipe.name} earned over the test block, at cost.",
        {f"{t}.{recipe.name}": t for t in tables},
        reads,
        "trade",
    )


def _own_predictions(recipe: Recipe) -> Read:
    return Read("models.predictions", writer=f"models.predictions.{recipe.name}")
