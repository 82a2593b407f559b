"""Sweeps: a strategy under every combination of some settings, each traded over the validation tail of one fold and logged.

A test block is never looked at: what was chosen by it could not be judged by it. Whoever takes the best of a sweep has tried
all of them, so every setting is a trial (`tapehouse.trials`), one that could not be traded too, and the deflated Sharpe ratio
counts it. The tail is part of what a model's stops and calibration saw, and 60 sessions are few: a sweep shows where a strategy
is sensitive, hardly what is best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from tapehouse.errors import TapehouseError
from tapehouse.metrics import sharpe
from tapehouse.recipes import fault_text
from tapehouse.strategies.schema import Strategy
from tapehouse.trial_files import COMPLETE, FAILED, SWEEP, record_trial

KEPT = ("signals.", "tail.")


@dataclass(frozen=True)
class Swept:
    """One setting: its values by key, what the tail's sessions returned, and why there are none."""

    setting: dict[str, Any]
    returns: np.ndarray
    reason: str | None = None

    @property
    def sharpe(self) -> float | None:
        """Annualised; None where nothing was traded."""
        return sharpe(self.returns) if np.any(self.returns) else None


def grid_of(words: Sequence[str]) -> dict[str, list[Any]]:
    """Values by dotted key, from words such as `gates.confidence.least=0.5,0.9`; each value is read as YAML.

    Raises:
        TapehouseError: a word that is none of these, or a key that is given twice.
    """
    found: dict[str, list[Any]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        if not (key and equals and values) or key in found:
            raise TapehouseError(f"{word!r}: give each key once, with its values, as in gates.confidence.least=0.5,0.75,0.9")
        found[key] = [yaml.safe_load(value) for value in values.split(",")]
    if not found:
        raise TapehouseError("a sweep needs at least one key with values, as in gates.confidence.least=0.5,0.75,0.9")
    return found


def with_setting(strategy: Strategy, setting: Mapping[str, Any]) -> Strategy:
    """`strategy` with the values of `setting`, by dotted key, checked as a file would be.

    Raises:
        TapehouseError: a key or a combination that a strategy cannot have, or one that a sweep keeps.
    """
    fields = strategy.model_dump(mode="json", exclude_unset=True)  # what was not said stays unsaid
    for key, value in setting.items():
        if key.startswith(KEPT):
            raise TapehouseError(
                f"{key}: a sweep keeps the signals, and trades the tail at full size; declare another strategy"
            )
        *path, last = key.split(".")
        at = fields
        for step in path:
            at[step] = at.get(step) or {}
            at = at[step]
            if not isinstance(at, dict):
                raise TapehouseError(f"{key}: {step} is no section of a strategy")
        at[last] = value
    try:
        return Strategy.model_validate(fields)
    except ValidationError as error:
        faults = "; ".join(fault_text(fault, Strategy) for fault in error.errors())
        raise TapehouseError(f"{strategy.name}: {faults}") from None


def sweep(
    strategy: Strategy, grid: Mapping[str, Sequence[Any]], fold: str, trade: Callable[[Strategy], np.ndarray], root: Path
) -> list[Swept]:
    """Trade every combination of `grid` and log each as a trial, the ones that cannot be among them; best first.

    Args:
        trade: daily returns of a strategy over the validation tail, from its second session on. root: the warehouse folder.
    """
    found = []
    for values in product(*grid.values()):
        setting = dict(zip(grid, values, strict=True))
        try:
            swept = Swept(setting, trade(with_setting(strategy, setting)))
        except (TapehouseError, ValueError) as error:
            swept = Swept(setting, np.zeros(0), str(error).splitlines()[0])
        trial = {"subject": strategy.name, "fold": fold, "kind": SWEEP, "state": FAILED if swept.reason else COMPLETE}
        said = {"params": setting, "returns": swept.returns.tolist(), "objective": swept.sharpe, "reason": swept.reason}
        record_trial(root, f"{strategy.name}-{fold}-sweep", trial | said)
        found.append(swept)
    return sorted(found, key=lambda one: -np.inf if one.sharpe is None else one.sharpe, reverse=True)
