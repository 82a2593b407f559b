"""Calibration: one temperature a predictor and fold, fitted on the validation tail of the training window.

Probabilities p become p^(1/T), renormalised, with the T that minimises the log loss on the tail (C. Guo and others, On
Calibration of Modern Neural Networks, 2017). T above 1 takes confidence back; the likeliest action stays the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from tapehouse.folds import validation_rows
from tapehouse.predictions import CHANCES, KEYS, VALIDATION

if TYPE_CHECKING:
    from tapehouse.folds import Fold

FITS: Final = {"adapter": pl.String, "fold": pl.String, "key": pl.String, "value": pl.Float64, "rows": pl.Int64}
SMALLEST: Final = 1e-12
FEWEST: Final = 30  # rows that a temperature is fitted on; below it stays 1
BOUNDS: Final = (-3.0, 3.0)  # of the temperature's natural logarithm


def calibrated(rows: pl.DataFrame, labels: pl.DataFrame, fold: Fold) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`rows` with calibrated probabilities, and the fit as rows of `models.calibrations`.

    Args:
        rows: of `models.predictions`, of one predictor and fold, both splits.
        labels: of `labels.triple_barrier`; side 0 of the validation tail is fitted on.

    Returns:
        The rows as they are, and `temperature` 1, where there are no probabilities or fewer than 30 labelled rows.
    """
    adapter = rows["adapter"][0] if rows.height else ""
    known = validation_rows(labels.filter(pl.col("side") == 0), fold).drop_nulls("label").select(*KEYS, "label")
    tail = rows.filter(split=VALIDATION).drop_nulls(CHANCES).join(known, on=KEYS, how="inner", validate="1:1").sort(KEYS)
    temperature, before, after = 1.0, None, None
    if tail.height >= FEWEST:
        logs, truth = _logs(tail), tail["label"].to_numpy() + 1
        temperature = best_temperature(logs, truth)
        before, after = log_loss(logs, truth, 1.0), log_loss(logs, truth, temperature)
        shares = _softmax(_logs(rows) / temperature)
        rows = rows.with_columns(pl.Series(name, shares[:, place]).fill_nan(None) for place, name in enumerate(CHANCES))
    found = {"temperature": temperature, "log_loss_before": before, "log_loss_after": after}
    fits = pl.DataFrame([(adapter, fold.id, key, value, tail.height) for key, value in found.items()], FITS, orient="row")
    return rows, fits


def best_temperature(logs: np.ndarray, truth: np.ndarray) -> float:
    """The temperature of least log loss; `logs` (rows, classes) are log-probabilities, `truth` (rows,) class numbers."""
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(lambda t: log_loss(logs, truth, float(np.exp(t))), bounds=BOUNDS, method="bounded")
    return float(np.exp(found.x))


def log_loss(logs: np.ndarray, truth: np.ndarray, temperature: float) -> float:
    """Mean negative log-probability of the true class at a temperature."""
    scaled = logs / temperature
    top = scaled.max(axis=1, keepdims=True)
    norm = top[:, 0] + np.log(np.exp(scaled - top).sum(axis=1))
    return float((norm - scaled[np.arange(len(truth)), truth]).mean())


def _logs(rows: pl.DataFrame) -> np.ndarray:
    return np.log(np.maximum(rows.select(CHANCES).to_numpy().astype(np.float64), SMALLEST))


def _softmax(logs: np.ndarray) -> np.ndarray:
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)
