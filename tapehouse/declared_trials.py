"""What the declarations say of trials: the setting of each subject, and what was tried before trials were logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tapehouse.hashing import text_hash
from tapehouse.recipes import FOLDER as RECIPES
from tapehouse.recipes import Recipe, load_recipes
from tapehouse.strategies.schema import FOLDER as STRATEGIES
from tapehouse.strategies.schema import Strategy, load_strategies


@dataclass(frozen=True)
class DeclaredTrials:
    """By subject: `settings`, a hash of its recipe, or of its strategy with those of its predictors; and `prior` trials."""

    settings: dict[str, str]
    prior: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """Changes when what was tried before does. A setting that changes is traded anew, and so known by what it earns."""
        return text_hash(repr(sorted(self.prior.items())))


def strategy_setting(strategy: Strategy, recipes: Mapping[str, Recipe]) -> str:
    """What identifies what a strategy was tried with: a hash of it and of the recipes of its predictors."""
    return text_hash(strategy.hash, *(recipes[one].hash for one in strategy.predictors))


def declared_trials(home: Path) -> DeclaredTrials:
    """Of every recipe and strategy of the project at `home`."""
    recipes = load_recipes(home / RECIPES)
    strategies = load_strategies(home / STRATEGIES, recipes)
    settings = {name: recipe.hash for name, recipe in recipes.items()}
    for name, strategy in strategies.items():
        settings[name] = strategy_setting(strategy, recipes)
    return DeclaredTrials(settings, {name: one.prior_trials for name, one in {**recipes, **strategies}.items()})
