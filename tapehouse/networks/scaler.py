"""A scaler per fold: mean and deviation of each feature over the rows that a model is fitted on, and nothing later."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tapehouse.errors import TapehouseError

FILE: Final = "scaler.json"


@dataclass(frozen=True)
class Scaler:
    """`names`, `mean` and `deviation` of (F,) features; `clip` in deviations."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    clip: float

    @classmethod
    def fitted(cls, names: list[str], values: np.ndarray, clip: float) -> Scaler:
        """Fitted on `values` (rows, F), NaN where not known.

        A feature that is never known, or never moves, has deviation 1: it is 0 in what it was fitted on.
        """
        known = ~np.isnan(values)
        count = np.maximum(known.sum(axis=0), 1)
        mean = np.where(known, values, 0.0).sum(axis=0, dtype=np.float64) / count
        spread = np.where(known, values - mean, 0.0)
        deviation = np.sqrt((spread**2).sum(axis=0) / count)
        deviation = np.where(deviation > 1e-12 * np.maximum(np.abs(mean), 1.0), deviation, 1.0)
        return cls(tuple(names), tuple(mean.tolist()), tuple(deviation.tolist()), clip)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """(rows, F) float32, within `clip` of 0, and 0 for what is not known."""
        scores = (values.astype(np.float64) - np.array(self.mean)) / np.array(self.deviation)
        return np.nan_to_num(np.clip(scores, -self.clip, self.clip), nan=0.0).astype(np.float32)

    def with_known(self, values: np.ndarray) -> np.ndarray:
        """(rows, 2 F) float32: `scaled`, and of each value whether it is known, 1 or 0."""
        return np.concatenate([self.scaled(values), (~np.isnan(values)).astype(np.float32)], axis=1)

    def save(self, folder: Path) -> None:
        """Write `scaler.json`: numbers as text that reads back as the same bits."""
        (folder / FILE).write_text(json.dumps(self.__dict__, indent=1))

    @classmethod
    def load(cls, folder: Path) -> Scaler:
        """Raises TapehouseError where the folder holds none."""
        try:
            fields = json.loads((folder / FILE).read_text())
        except FileNotFoundError:
            raise TapehouseError(f"{folder / FILE}: no such file; materialise the model again") from None
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})
