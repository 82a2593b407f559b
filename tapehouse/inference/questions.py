"""What a recipe asks at each decision: the prompts of its family, short enough for the model, as in the datasets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from tapehouse.inference.families import FAMILIES, Choices, Family
from tapehouse.orders import load_objectives
from tapehouse.predictions import DIRECTION, KEYS
from tapehouse.prompts.agent import render_agents
from tapehouse.prompts.orders import render_orders
from tapehouse.prompts.templates import Selection, selected, selection
from tapehouse.prompts.thesis import render_theses
from tapehouse.tables import Read
from tapehouse.token_rows import asked_prompts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tapehouse.recipe_sections import LanguageRecipe
    from tapehouse.tokens import Vocabulary

COMPANY, ACCOUNT = "features.company", "features.policy_state"


@dataclass(frozen=True)
class Questions:
    """Prompts by decision, in the order of `points`; `choices` where answers are scored."""

    points: pl.DataFrame
    prompts: list[str]
    family: Family
    objective: str
    choices: list[Choices] | None


def family_of(recipe: LanguageRecipe) -> Family:
    """The family of answers that a recipe trains."""
    return FAMILIES[recipe.family]


def question_reads(recipe: LanguageRecipe) -> tuple[Read, ...]:
    """What prompts show beside `features.decision_points`."""
    beside = {"thesis": COMPANY, "agent": ACCOUNT}.get(recipe.family)
    return (Read(beside, window="judged"),) if beside else ()


def question_words(recipe: LanguageRecipe, home: Path) -> str:
    """What decides a recipe's prompts beside its own text and the tables: the objective's words and the template."""
    shown = _shown(recipe, home)
    words = load_objectives(home / "objectives.yaml").words.get(recipe.prompt.objective, "") if recipe.family == "order" else ""
    return f"{words}|{shown.version}"


def questions(
    recipe: LanguageRecipe, points: pl.DataFrame, beside: Mapping[str, pl.DataFrame], home: Path, vocabulary: Vocabulary
) -> Questions:
    """What `recipe` asks at each of `points`.

    Args:
        points: rows of `features.decision_points`.
        beside: the tables of `question_reads`, by name.
        home: the project's folder, for the objectives' words and the selected templates.

    Raises:
        ValueError: a value that a template always shows is null, as the account of an agent at a decision without one is.
    """
    family, shown, objective = family_of(recipe), _shown(recipe, home), DIRECTION
    if recipe.family == "order":
        objective = recipe.prompt.objective
        words = load_objectives(home / "objectives.yaml").words[objective]
        prompts = render_orders(points, words, shown.template, shown.mask)
    elif recipe.family == "thesis":
        points = points.join(beside[COMPANY].drop("known_at"), on=KEYS, how="left", maintain_order="left")
        prompts = render_theses(points, shown.template, shown.mask)
    else:
        account = beside[ACCOUNT].drop("session", "known_at")
        points = points.join(account, on=KEYS, how="left", maintain_order="left")
        prompts = render_agents(points, shown.template, shown.mask)
    choices = family.choices(points, prompts, shown.template) if recipe.prompt.answer == "score" else None
    asked = asked_prompts(vocabulary, prompts.to_list(), shown.template, family.room)
    return Questions(points, asked, family, objective, choices)


def _shown(recipe: LanguageRecipe, home: Path) -> Selection:
    shown = selected(home, recipe.family)
    return selection(recipe.prompt.template, shown.mask) if recipe.prompt.template else shown
