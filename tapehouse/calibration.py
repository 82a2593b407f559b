"""Calibration: one temperature a predictor and fold, fitted on the validation tail of the training window.

Probabilities p become p^(1/T), renormalised (C. Guo and others, On Calibration of Modern Neural Networks, 2017). T above 1
takes confidence back; the likeliest action stays the same.

A tail of sixty sessions says little: decisions of one day share its market, and labels overlap for as long as they are held.
So T is not the one of least log loss on the tail, which on the packaged data costs the trees more than it brings, but the
likeliest under a normal prior of log T around 0: it minimises decisions * log loss + (log T)^2 / (2 SPREAD^2), where
`decisions` counts days over the mean number of sessions that a label is held.
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
SPREAD: Final = 0.5  # of its prior: two temperatures of three lie within a factor of e^0.5 = 1.65 of one


def calibrated(rows: pl.DataFrame, labels: pl.DataFrame, fold: Fold) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`rows` with calibrated probabilities, and the fit as rows of `models.calibrations`.

    Args:
        rows: of `models.predictions`, of one predictor and fold, both splits.
        labels: of `labels.triple_barrier`; side 0 of the validation tail is fitted on, if it was known by the test block.

    Returns:
        The rows as they are, and `temperature` 1, where there are no probabilities or fewer than 30 labelled rows.
    """
    adapter = rows["adapter"][0] if rows.height else ""
    known = validation_rows(labels.filter(pl.col("side") == 0), fold).drop_nulls("label")
    known = known.select(*KEYS, "label", "sessions_held")
    tail = rows.filter(split=VALIDATION).drop_nulls(CHANCES).join(known, on=KEYS, how="inner", validate="1:1").sort(KEYS)
    temperature, before, after, decisions = 1.0, None, None, None
    if tail.height >= FEWEST:
        logs, truth = _logs(tail), tail["label"].to_numpy() + 1
        decisions = tail["decision_at"].n_unique() / tail["sessions_held"].mean()
        temperature = best_temperature(logs, truth, decisions)
        before, after = log_loss(logs, truth, 1.0), log_loss(logs, truth, temperature)
        shares = _softmax(_logs(rows) / temperature)
        rows = rows.with_columns(pl.Series(name, shares[:, place]).fill_nan(None) for place, name in enumerate(CHANCES))
    found = {"temperature": temperature, "decisions": decisions, "log_loss_before": before, "log_loss_after": after}
    fits = pl.DataFrame([(adapter, fold.id, key, value, tail.height) for key, value in found.items()], FITS, orient="row")
    return rows, fits


def best_temperature(logs: np.ndarray, truth: np.ndarray, decisions: float) -> float:
    """The likeliest temperature; that of least log loss for ever more `decisions`.

    Args:
        logs: (rows, classes) log-probabilities. truth: (rows,) class numbers.
        decisions: how many independent ones the rows are worth.
    """
    from scipy.optimize import minimize_scalar

    def cost(log_t: float) -> float:
        return decisions * log_loss(logs, truth, float(np.exp(log_t))) + log_t**2 / (2 * SPREAD**2)

    return float(np.exp(minimize_scalar(cost, bounds=BOUNDS, method="bounded").x))


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
