"""What the declarations say of trials: the setting of each subject, and what was tried before trials were logged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tapehouse.hashing import text_hash
from tapehouse.recipes import FOLDER as RECIPES
from tapehouse.recipes import load_recipes
from tapehouse.strategies.schema import FOLDER as STRATEGIES
from tapehouse.strategies.schema import load_strategies


@dataclass(frozen=True)
class DeclaredTrials:
    """By subject: `settings`, a hash of its recipe, or of its strategy with those of its predictors; and `prior` trials."""

    settings: dict[str, str]
    prior: dict[str, int]

    @property
    def fingerprint(self) -> str:
        """Changes when what was tried before does. A setting that changes is traded anew, and so known by what it earns."""
        return text_hash(repr(sorted(self.prior.items())))


def declared_trials(home: Path) -> DeclaredTrials:
    """Of every recipe and strategy of the project at `home`."""
    recipes = load_recipes(home / RECIPES)
    strategies = load_strategies(home / STRATEGIES, recipes)
    settings = {name: recipe.hash for name, recipe in recipes.items()}
    for name, strategy in strategies.items():
        settings[name] = text_hash(strategy.hash, *(recipes[one].hash for one in strategy.predictors))
    return DeclaredTrials(settings, {name: one.prior_trials for name, one in {**recipes, **strategies}.items()})
