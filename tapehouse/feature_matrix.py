"""Features of decision points as a matrix, and the labelled rows that a classical model is fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tapehouse.folds import fitting_rows, validation_rows
from tapehouse.predictions import KEYS

if TYPE_CHECKING:
    from tapehouse.folds import Fold

# Describe the row or repeat the bar: everything else in features.decision_points is a feature.
NOT_FEATURES: Final = (*KEYS, "session", "known_at", "open", "high", "low", "close", "volume", "bars_of_history")
# In currency: over the close they mean the same for every symbol and year.
PRICE_UNITS: Final = ("atr_14", "macd", "macd_signal", "macd_hist")


def feature_names(name: str, wanted: Sequence[str], points: pl.DataFrame) -> list[str]:
    """The features `wanted`, or every feature of `points` where none is named; `name` is the recipe's, for the error.

    Raises:
        ValueError: a feature that the table does not have.
    """
    available = [column for column, kind in points.schema.items() if column not in NOT_FEATURES and kind.is_numeric()]
    unknown = sorted(set(wanted) - set(available))
    if unknown:
        raise ValueError(f"{name}: params.features: no feature {unknown}; there are {available}")
    return list(wanted) or available


def matrix(points: pl.DataFrame, features: Sequence[str]) -> np.ndarray:
    """(rows, features), float32, NaN where a value is not known; features in currency over the close."""
    columns = [pl.col(f) / pl.col("close") if f in PRICE_UNITS else pl.col(f) for f in features]
    return points.select(c.cast(pl.Float32) for c in columns).to_numpy()


def labelled(points: pl.DataFrame, labels: pl.DataFrame, fold: Fold, part: str = "fit", side: int = 0) -> pl.DataFrame:
    """Decision points of the training window with their `label`, `label_end_at` and `label_known_at`, by time and symbol.

    Args:
        points: rows of `features.decision_points`. labels: rows of `labels.triple_barrier`.
        part: `fit`, the window less its validation tail; or `validation`, that tail. Both purged.
        side: of the labels: 0 for the barriers that a move in either direction may touch.

    Raises:
        ValueError: nothing to fit on.
    """
    kept = (fitting_rows if part == "fit" else validation_rows)(labels.filter(pl.col("side") == side), fold)
    known = kept.drop_nulls("label").select(*KEYS, "label", "ret", "label_end_at", "label_known_at")
    rows = points.join(known, on=KEYS, how="inner", validate="1:1").sort("decision_at", "symbol", "interval")
    if rows.is_empty() and part == "fit":
        raise ValueError(f"fold {fold.id}: no decision before {fold.train_end:%Y-%m-%d} has a label known by its start")
    return rows
