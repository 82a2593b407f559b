"""A small market for tests of classical methods: two symbols, a feature that foretells the label, a fold with a tail."""

from datetime import UTC, date, datetime, time
from pathlib import Path

import numpy as np
import polars as pl

from tapehouse.calendars import all_sessions
from tapehouse.declared_splits import splits_frame
from tapehouse.folds import Fold, FoldSpec, walk_forward
from tapehouse.predictions import KEYS, as_predictions, judged_rows
from tapehouse.recipes import method_module, parse_recipe
from tapehouse.steps.fit import fitted

STAMP = pl.Datetime("us", "UTC")
SESSIONS = 120
DAYS = all_sessions("XNYS").filter(pl.col("session") >= date(2024, 1, 2)).head(SESSIONS + 6)
POINTS, LABELS, SPLITS = "features.decision_points", "labels.triple_barrier", "models.splits"
BARS, ACTIONS = "staging.bars", "raw.corporate_actions"
SPEC = FoldSpec(
    test_sessions=30,
    min_train_sessions=90,
    min_test_sessions=30,
    validation_sessions=20,
    cross_validation={"tuning": {"groups": 3}},
)


def stamp(index: int, hour: int) -> datetime:
    return datetime.combine(DAYS["session"][index], time(hour), UTC)


def calendar() -> pl.DataFrame:
    return DAYS.head(SESSIONS)


def make_fold() -> Fold:
    """90 sessions of training window: 58 to fit, 20 to validate, 12 of purging; then 30 to test."""
    return walk_forward(calendar(), SPEC)[0]


def make_inputs() -> dict[str, pl.DataFrame]:
    """Decisions of two symbols, and labels of all sides that `momentum_30d` foretells, known five sessions later.

    Besides, the splits, and bars that open at 100 and close two per cent the way of the last decision's `momentum_30d`.
    """
    rng = np.random.default_rng(1)
    rows = [
        (s, "1d", stamp(i, 22), stamp(i + 4, 21), stamp(i + 5, 21), 100.0, float(rng.normal()), float(rng.normal()), 2.0)
        for i in range(SESSIONS)
        for s in ("A", "B")
    ]
    names = ["symbol", "interval", "decision_at", "end", "known", "close", "momentum_30d", "noise", "atr_14"]
    points = pl.DataFrame(rows, schema=names, orient="row").with_columns(pl.col("decision_at", "end", "known").cast(STAMP))
    return {
        POINTS: points.drop("end", "known"),
        LABELS: pl.concat(_labels(points, side) for side in (0, 1, -1)),
        SPLITS: splits_frame([make_fold()], SPEC, calendar()),
        BARS: _bars(points),
        ACTIONS: pl.DataFrame(schema=_ACTIONS),
    }


_ACTIONS = {
    "symbol": pl.String,
    "kind": pl.String,
    "ex_date": pl.Date,
    "ratio": pl.Float64,
    "amount": pl.Float64,
    "known_at": STAMP,
    "source": pl.String,
}


def _bars(points: pl.DataFrame) -> pl.DataFrame:
    before = pl.col("momentum_30d").sign().shift(1).over("symbol").fill_null(0.0)
    bars = points.sort("symbol", "decision_at").with_columns(close=100.0 + 2.0 * before)
    session = pl.col("decision_at").dt.date()
    return bars.select(
        "symbol",
        "interval",
        session=session,
        event_at=pl.col("decision_at").dt.offset_by("-1h"),
        open=pl.lit(100.0),
        high=pl.lit(102.5),
        low=pl.lit(97.5),
        close="close",
        known_at=pl.col("decision_at").dt.offset_by("-1h"),
        version=pl.lit(1),
        source=pl.lit("test"),
    )


def _labels(points: pl.DataFrame, side: int) -> pl.DataFrame:
    """Of a side the label is a profit or a stop; of neither there is a vertical in between."""
    signal = pl.col("momentum_30d") * (side or 1)
    dead = 0.0 if side else 0.4
    return points.select(
        *KEYS,
        pl.lit(side, pl.Int32).alias("side"),
        pl.when(signal > dead).then(1).when(signal < -dead).then(-1).otherwise(0).cast(pl.Int32).alias("label"),
        (signal * 0.01).alias("ret"),
        pl.col("end").alias("label_end_at"),
        pl.col("known").alias("label_known_at"),
    )


def recipe(method: str, **fields):
    return parse_recipe({"method": method, "name": method, "description": "for a test", **fields}, "test")


def fit(of, inputs: dict[str, pl.DataFrame], fold: Fold, folder: Path) -> dict:
    """Fit as the step does: on inputs that end with the training window."""
    folder.mkdir(parents=True, exist_ok=True)
    return fitted(of, in_training(inputs, fold), fold, folder)


def in_training(inputs: dict[str, pl.DataFrame], fold: Fold) -> dict[str, pl.DataFrame]:
    """What is read of the training window."""
    window = pl.col("decision_at") < fold.train_end
    return {name: rows.filter(window) if "decision_at" in rows.columns else rows for name, rows in inputs.items()}


def answers(of, inputs: dict[str, pl.DataFrame], fold: Fold, folder: Path) -> pl.DataFrame:
    """Rows of models.predictions, as the step makes them before they are calibrated."""
    asked = inputs | {POINTS: judged_rows(inputs[POINTS], fold)}
    return as_predictions(method_module(of.method).predict(of, asked, fold, folder), of.name, fold)
