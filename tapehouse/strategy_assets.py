"""Strategies become assets: one YAML in `models_registry/strategies/` is a backtest, with its trades and its log of vetoes."""

from importlib import import_module
from pathlib import Path

from tapehouse.codeversion import modules_version
from tapehouse.declared_trials import strategy_setting
from tapehouse.hashing import text_hash
from tapehouse.project import Asset, Output
from tapehouse.recipes import FOLDER as RECIPES
from tapehouse.recipes import Recipe, load_recipes
from tapehouse.strategies.schema import FOLDER, Strategy, load_strategies
from tapehouse.tables import Read

POINTS, BARS, ACTIONS, EVENTS = "features.decision_points", "staging.bars", "raw.corporate_actions", "raw.calendar_events"
TABLES = (
    *("reports.backtests", "reports.backtest_equity", "reports.backtest_trades", "reports.sensitivity"),
    *("reports.strategy_decisions", "reports.veto_log"),
)
STEP = "tapehouse.steps.strategy"


def strategy_assets(home: Path) -> list[Asset]:
    """The asset `reports.backtests.<name>` of each strategy, by fold: over all folds that all it reads of models has."""
    recipes = load_recipes(home / RECIPES)
    strategies = load_strategies(home / FOLDER, recipes)
    code = modules_version((STEP,))  # one walk over its modules for all of them
    return [_asset(strategy, home / FOLDER / f"{name}.yaml", recipes, code) for name, strategy in strategies.items()]


def strategy_reads(strategy: Strategy) -> tuple[Read, ...]:
    """What trading a strategy over a fold reads."""
    # Bars from before the tail, for the first order's basis; events are scheduled for what comes after the last decision.
    around = {"window": "judged", "lookback_months": 1, "lookahead_months": 1}
    return (
        *(Read("models.predictions", writer=f"models.predictions.{name}") for name in strategy.predictors),
        Read(POINTS, window="fold" if strategy.reads_training else "judged"),
        *(Read(table, **around) for table in (BARS, ACTIONS)),
        *((Read(EVENTS, **around),) if strategy.vetoes.events else ()),
        Read("raw.instruments", window="all"),
        *((Read("models.regimes"),) if "hidden" in strategy.regime_sources else ()),
        *((Read("features.macro_series", window="judged", lookback_months=1),) if strategy.series else ()),
    )


def _asset(strategy: Strategy, source: Path, recipes: dict[str, Recipe], code: str) -> Asset:
    hidden = "hidden" in strategy.regime_sources  # models.regimes has the folds of adapters alone
    apart = hidden or any(recipes[name].apart for name in strategy.predictors)
    setting = strategy_setting(strategy, recipes)
    return Asset(
        name=f"reports.backtests.{strategy.name}",
        doc=f"One row per (subject, fold, …): what the strategy {strategy.name} earned over the test block, at cost. "
        f"{strategy.description}",
        by="adapter_folds" if apart else "folds",
        reads=strategy_reads(strategy),
        outputs=tuple(Output(f"{table}.{strategy.name}", table, (("subject", strategy.name),)) for table in TABLES),
        build=lambda b: import_module(STEP).run(b, strategy, setting),
        code_version=text_hash(code, strategy.hash),
        source=source,
        optional=not strategy.selected,
    )
