"""Predictions: the one contract that every predictor writes, language model or not, so that one evaluation serves all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from tapehouse.folds import block_rows

if TYPE_CHECKING:
    from tapehouse.folds import Fold

SELL, HOLD, BUY = ACTIONS = ("SELL", "HOLD", "BUY")  # classes 0, 1, 2: label + 1
CHANCES: Final = ("p_sell", "p_hold", "p_buy")
KEYS: Final = ("symbol", "interval", "decision_at")
VALIDATION, TEST = "validation", "test"
DIRECTION: Final = "direction"  # the objective of a predictor that is asked for a side, not for a placement

# What a predictor may say of a decision; what it leaves out is null, and its answer is taken to parse.
ANSWERS: Final = {
    "action": pl.String,
    "limit_price": pl.Float64,
    "confidence": pl.Float64,
    "p_sell": pl.Float64,
    "p_hold": pl.Float64,
    "p_buy": pl.Float64,
    "text": pl.String,
    "parse_state": pl.String,
    "limit_valid_sessions": pl.Int32,
}
PREDICTIONS: Final = {
    "adapter": pl.String,
    "fold": pl.String,
    "split": pl.String,
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": pl.Datetime("us", "UTC"),
    "objective": pl.String,
    **ANSWERS,
}


def judged_rows(points: pl.DataFrame, fold: Fold) -> pl.DataFrame:
    """`points` decided in the validation tail of the training window or in the test block, by symbol and time."""
    tail = pl.lit(False)
    if fold.validation_start is not None:
        tail = pl.col("decision_at").is_between(fold.validation_start, fold.train_end, closed="left")
    block = pl.col("decision_at").is_between(fold.test_start, fold.test_end, closed="left")
    return points.filter(tail | block).sort(KEYS)


def likeliest(chances: pl.DataFrame) -> pl.Series:
    """The likeliest action of each row of `CHANCES`; of equal ones the first in the order of `ACTIONS`."""
    return pl.Series([ACTIONS[place] for place in chances.select(CHANCES).to_numpy().argmax(axis=1)], dtype=pl.String)


def as_predictions(answers: pl.DataFrame, adapter: str, fold: Fold, objective: str = DIRECTION) -> pl.DataFrame:
    """Rows of `models.predictions` from what a predictor said.

    Args:
        answers: `KEYS` and any columns of `ANSWERS`; without `action` the likeliest of the three.

    Raises:
        ValueError: neither an action nor the three probabilities, or two answers for one decision.
    """
    if "action" not in answers.columns:
        if not set(CHANCES) <= set(answers.columns):
            raise ValueError(f"{adapter}: an answer needs an action, or the probabilities {CHANCES}")
        answers = answers.with_columns(action=likeliest(answers))
    if answers.select(pl.struct(KEYS).is_duplicated().any()).item():
        raise ValueError(f"{adapter} {fold.id}: two answers for one decision; give one a row of {KEYS}")
    defaults = {name: pl.lit(None) for name in ANSWERS if name not in answers.columns} | (
        {} if "parse_state" in answers.columns else {"parse_state": pl.lit("ok")}
    )
    tested = block_rows(answers, fold).select(KEYS).with_columns(split=pl.lit(TEST))
    return (
        answers.with_columns(**defaults, adapter=pl.lit(adapter), fold=pl.lit(fold.id), objective=pl.lit(objective))
        .join(tested, on=KEYS, how="left", maintain_order="left")
        .with_columns(pl.col("split").fill_null(VALIDATION))
        .select(pl.col(name).cast(kind) for name, kind in PREDICTIONS.items())
    )
