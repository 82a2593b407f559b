"""Rows to be measured of predictions: what was said of each decision of a block, beside what came of it.

The unsided label (side 0) is the truth for classes: upper barrier = BUY, lower = SELL, neither in the horizon = HOLD. The
sided labels (1, -1) say what the taken direction earned, gross of costs. Nothing that was predicted is left out: an answer
that did not parse acts as HOLD and counts as such, and one without probabilities of a subject that states them has three
equal ones; a decision that nothing was said of counts against coverage alone.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tapehouse.evaluations.core import Slice, slice_of
from tapehouse.evaluations.rows import Rows
from tapehouse.labels.forward import HORIZONS
from tapehouse.predictions import ACTIONS, CHANCES, HOLD

KEYS = ["symbol", "interval", "decision_at"]
BINS = 10  # of the reliability plot
FORWARD = "forward_{}"  # column of a horizon's long return


def answered(predictions: pl.DataFrame, decisions: pl.DataFrame, labels: pl.DataFrame, forward: pl.DataFrame) -> pl.DataFrame:
    """One row a decision of one subject, fold and split, by time and symbol.

    Args:
        predictions: rows of `models.predictions` of one subject, fold and split, one a decision.
        decisions: rows of `features.decision_points`: every decision point that was to be answered.
        labels: rows of `labels.triple_barrier`, all sides. forward: of `labels.forward_returns`. Those of other decisions
            are ignored.

    Returns:
        `KEYS`, what is known at the decision (regime), the columns of the prediction, `asked` and `said` (booleans), and the
        outcomes: label and ret of side 0, long_ret, short_ret, forward_<sessions>.

    Raises:
        ValueError: no predictions, two for one decision, or a duplicated label.
    """
    if predictions.is_empty():
        raise ValueError("no predictions to evaluate: a subject answers every decision point of its test block")
    sides = {
        side: labels.filter(pl.col("side") == side).select(*KEYS, *names)
        for side, names in {
            0: ("label", "ret"),
            1: (pl.col("ret").alias("long_ret"),),
            -1: (pl.col("ret").alias("short_ret"),),
        }.items()
    }
    points = decisions.select(*KEYS, *(["regime"] if "regime" in decisions.columns else []), asked=pl.lit(True))
    said = predictions.with_columns(said=pl.lit(True))
    try:
        rows = points.join(said, on=KEYS, how="full", coalesce=True, validate="1:1")
        for outcome in (*sides.values(), *_forward(forward)):
            rows = rows.join(outcome, on=KEYS, how="left", validate="1:1")
    except pl.exceptions.ComputeError as error:
        raise ValueError("predictions and labels need one row a decision (and side); keep one objective") from error
    return rows.with_columns(pl.col("asked", "said").fill_null(False)).sort("decision_at", "symbol", "interval")


def _forward(forward: pl.DataFrame) -> list[pl.DataFrame]:
    """Returns of each horizon, a column each."""
    return [
        forward.filter(pl.col("horizon") == horizon).select(*KEYS, pl.col("ret").alias(FORWARD.format(horizon)))
        for horizon in HORIZONS
    ]


def as_rows(frame: pl.DataFrame) -> Rows:
    """Arrays of what `answered` gave: `said`, `asked` as 0 or 1, `action` and `truth` as places in `ACTIONS`, NaN for null.

    So are those of orders and rewards (`outcomes`) and of the policy of reference (`agreement`), where they have been added.
    """
    frame = _evenly(frame)
    place = {action: float(i) for i, action in enumerate(ACTIONS)}
    said = {
        "asked": pl.col("asked"),
        "said": pl.col("said"),
        "parsed": pl.col("parse_state") == "ok",
        "action": pl.col("action").replace_strict(place, default=None, return_dtype=pl.Float64),
        "limit": pl.col("limit_price"),
        "confidence": pl.col("confidence"),
        **{name: pl.col(name) for name in CHANCES},
    }
    if "policy" in frame.columns:
        said["policy"] = pl.col("policy").replace_strict(place, default=None, return_dtype=pl.Float64)
    outcomes = {"truth": pl.col("label") + 1}
    outcomes |= {
        name: pl.col(name) for name in frame.columns if name.endswith("_ret") or name.startswith(("forward_", "order_"))
    }
    outcomes |= {name: pl.col(name) for name in ("ret", "reward") if name in frame.columns}
    arrays = frame.select(
        **{name: column.cast(pl.Float64) for name, column in (said | outcomes).items()},
    ).with_columns(pl.all().fill_null(np.nan))
    dates = frame.select(pl.col("decision_at").rle_id()).to_series().to_numpy().astype(np.int64)
    columns = {name: arrays[name].to_numpy() for name in arrays.columns}
    return Rows(columns, dates, int(dates[-1]) + 1, frozenset(outcomes))


def _evenly(frame: pl.DataFrame) -> pl.DataFrame:
    """Answers that did not parse and carry no probabilities get three equal ones, where any that parsed states them.

    Left out, the hardest questions could be left to them: scores of probabilities are proper over all answers alone.
    """
    stated = pl.all_horizontal(pl.col(name).is_not_null() for name in CHANCES)
    parsed = pl.col("parse_state") == "ok"
    mute = pl.col("said") & ~parsed & ~stated & (parsed & stated).any()
    return frame.with_columns(pl.when(mute).then(1 / len(CHANCES)).otherwise(pl.col(name)).alias(name) for name in CHANCES)


def taken_return(rows: Rows) -> np.ndarray:
    """Return of the answered direction by its barriers, (rows,) fractions; NaN for HOLD and where it is not settled."""
    return np.select([rows["action"] == 2, rows["action"] == 0], [rows["long_ret"], rows["short_ret"]], np.nan)


def given(rows: Rows) -> np.ndarray:
    """The probability that was given to the answered action, (rows,), calibrated; NaN where there is none."""
    chances = np.column_stack([rows[name] for name in CHANCES])
    said = ~np.isnan(rows["action"])
    found = np.full(len(rows), np.nan)
    found[said] = chances[said, rows["action"][said].astype(int)]
    return found


def sureness(rows: Rows) -> np.ndarray:
    """What was `given`, (rows,), or else the confidence stated for a BUY or SELL: that it pays; NaN for a rule."""
    stated = (rows["parsed"] == 1) & (rows["action"] != ACTIONS.index(HOLD))
    return np.where(np.isnan(given(rows)) & stated, rows["confidence"], given(rows))


def bins(values: np.ndarray) -> np.ndarray:
    """Place of each share among `BINS` equal ones, the last closed; -1 for NaN."""
    return np.where(np.isnan(values), -1, np.minimum(np.nan_to_num(values) * BINS, BINS - 1)).astype(np.int64)


def slices_of(frame: pl.DataFrame, rows: Rows) -> list[Slice]:
    """Regime, symbol, objective and action, and what the reliability plot is made of: bins of confidence."""
    columns = [name for name in ("regime", "symbol", "objective", "action") if name in frame.columns]
    levels = tuple(f"{i / BINS:.1f}-{(i + 1) / BINS:.1f}" for i in range(BINS))
    return [
        *(slice_of(name, frame[name]) for name in columns),
        Slice("confidence", levels, bins(sureness(rows)), own=True),
    ]
