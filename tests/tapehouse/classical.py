"""A small market for tests of classical methods: two symbols, a feature that foretells the label, a fold with a tail."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from tapehouse.declared_splits import splits_frame
from tapehouse.folds import Fold, FoldSpec, walk_forward
from tapehouse.predictions import KEYS, as_predictions, judged_rows
from tapehouse.recipes import method_module, parse_recipe
from tapehouse.steps.fit import fitted

STAMP = pl.Datetime("us", "UTC")
FIRST = date(2024, 1, 1)
SESSIONS = 120
POINTS, LABELS, SPLITS = "features.decision_points", "labels.triple_barrier", "models.splits"


def stamp(index: int, hour: int) -> datetime:
    return datetime(2024, 1, 1, hour, tzinfo=UTC) + timedelta(days=index)


def calendar() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "session": [FIRST + timedelta(days=i) for i in range(SESSIONS)],
            "open_at": [stamp(i, 14) for i in range(SESSIONS)],
            "close_at": [stamp(i, 21) for i in range(SESSIONS)],
        }
    )


SPEC = FoldSpec(
    test_sessions=30,
    min_train_sessions=90,
    min_test_sessions=30,
    validation_sessions=20,
    cross_validation={"tuning": {"groups": 3}},
)


def make_fold() -> Fold:
    """90 sessions of training window: 58 to fit, 20 to validate, 12 of purging; then 30 to test."""
    return walk_forward(calendar(), SPEC)[0]


def make_inputs() -> dict[str, pl.DataFrame]:
    """Decisions of two symbols, and labels that `momentum_30d` foretells, known five days later, of all sides; the splits."""
    rng = np.random.default_rng(1)
    rows = [
        (s, "1d", stamp(i, 22), 100.0, float(rng.normal()), float(rng.normal()), 2.0)
        for i in range(SESSIONS)
        for s in ("A", "B")
    ]
    names = ["symbol", "interval", "decision_at", "close", "momentum_30d", "noise", "atr_14"]
    points = pl.DataFrame(rows, schema=names, orient="row").with_columns(pl.col("decision_at").cast(STAMP))
    labels = pl.concat(_labels(points, side) for side in (0, 1, -1))
    return {POINTS: points, LABELS: labels, SPLITS: splits_frame([make_fold()], SPEC, calendar())}


def _labels(points: pl.DataFrame, side: int) -> pl.DataFrame:
    """Of a side the label is a profit or a stop; of neither there is a vertical in between."""
    signal = pl.col("momentum_30d") * (side or 1)
    dead = 0.0 if side else 0.4
    return points.select(
        *KEYS,
        pl.lit(side, pl.Int32).alias("side"),
        pl.when(signal > dead).then(1).when(signal < -dead).then(-1).otherwise(0).cast(pl.Int32).alias("label"),
        (signal * 0.01).alias("ret"),
        (pl.col("decision_at") + timedelta(days=4)).alias("label_end_at"),
        (pl.col("decision_at") + timedelta(days=5)).alias("label_known_at"),
    )


def recipe(method: str, **fields):
    return parse_recipe({"method": method, "name": method, "description": "for a test", **fields}, "test")


def fit(of, inputs: dict[str, pl.DataFrame], fold: Fold, folder: Path) -> dict:
    """Fit as the step does: on inputs that end with the training window."""
    folder.mkdir(parents=True, exist_ok=True)
    window = pl.col("decision_at") < fold.train_end
    return fitted(
        of,
        {name: rows.filter(window) if "decision_at" in rows.columns else rows for name, rows in inputs.items()},
        fold,
        folder,
    )


def answers(of, inputs: dict[str, pl.DataFrame], fold: Fold, folder: Path) -> pl.DataFrame:
    """Rows of models.predictions, as the step makes them before they are calibrated."""
    asked = inputs | {POINTS: judged_rows(inputs[POINTS], fold)}
    return as_predictions(method_module(of.method).predict(of, asked, fold, folder), of.name, fold)
