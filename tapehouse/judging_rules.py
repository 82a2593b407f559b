"""`models_registry/judging.yaml`: the baselines that all are measured against, the policy of reference, and promotion."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from tapehouse.errors import TapehouseError
from tapehouse.recipe_sections import Section
from tapehouse.recipes import fault_text
from tapehouse.yaml_files import parse_yaml

FILE = Path("models_registry/judging.yaml")


class Gates(Section):
    """What a challenger needs to become champion."""

    verdict: list[Literal["BEATS", "INCONCLUSIVE", "LOSES"]] = Field(["BEATS"], min_length=1)
    checks: Literal["pass", "any"] = "pass"


class JudgingRules(Section):
    """The baselines and the controls, by name of their recipe or strategy, the policy of reference, and the gates."""

    baselines: list[str] = Field(min_length=1)
    controls: list[str] = Field([], description="Beside the baselines: reports do not count them as tested.")
    policy: str | None = Field(None, description="The recipe whose answers others are compared with; it decides on all folds.")
    champion: Gates = Gates()

    @model_validator(mode="after")
    def _one_or_the_other(self) -> JudgingRules:
        both = sorted(set(self.baselines) & set(self.controls))
        if both:
            raise ValueError(f"{', '.join(both)}: a baseline and a control; a control is no yardstick, remove it from one list")
        return self


def policy_of_reference(home: Path) -> str | None:
    """The policy of the project at `home`; None where it names none, or has no rules of judging."""
    return load_rules(home).policy if (home / FILE).exists() else None


def declared_roles(home: Path) -> tuple[list[str], list[str]]:
    """The baselines and the controls of the project at `home`; none where it has no rules of judging."""
    if not (home / FILE).exists():
        return [], []
    rules = load_rules(home)
    return rules.baselines, rules.controls


def load_rules(home: Path) -> JudgingRules:
    """The rules of the project at `home`. Raises TapehouseError: file, key and remedy."""
    path = home / FILE
    try:
        fields = parse_yaml(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise TapehouseError(f"{path}: no such file; it names the baselines that every subject is measured against") from None
    except yaml.YAMLError as error:
        raise TapehouseError(f"{path}: not YAML: {error}; mend the line it names") from error
    try:
        return JudgingRules.model_validate(fields)
    except ValidationError as error:
        faults = "\n".join(f"  {fault_text(fault, JudgingRules)}" for fault in error.errors())
        raise TapehouseError(f"{path}: not rules of judging:\n{faults}") from None
