"""Rows of `reports.evaluations` of one subject and fold: test block in slices, validation tail as a whole."""

from __future__ import annotations

import polars as pl

from tapehouse.evaluations.agreement import AGREEMENT, with_policy
from tapehouse.evaluations.answers import answered, as_rows, slices_of
from tapehouse.evaluations.barriers import BARRIERS
from tapehouse.evaluations.classes import CLASSES
from tapehouse.evaluations.core import EVALUATIONS, evaluation_frame, measure
from tapehouse.evaluations.horizons import HORIZON_PARTS
from tapehouse.evaluations.orders import ORDERS
from tapehouse.evaluations.outcomes import Market, with_outcomes
from tapehouse.evaluations.rewards import REWARDS, margin_slice
from tapehouse.folds import Fold, block_rows
from tapehouse.predictions import KEYS, TEST, VALIDATION, judged_rows

PARTS = (*CLASSES, *BARRIERS, *HORIZON_PARTS, ORDERS, *REWARDS)
MAIN = "right"  # the daily number of right answers sets the length of blocks


def evaluation_rows(
    subject: str,
    fold: Fold,
    predictions: pl.DataFrame,
    decisions: pl.DataFrame,
    labels: pl.DataFrame,
    forward: pl.DataFrame,
    market: Market,
    policy: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Rows of `reports.evaluations`.

    Args:
        predictions: rows of `models.predictions` of the subject and fold, both splits. decisions: of
            `features.decision_points`, at least those of the fold's block and validation tail. labels: of
            `labels.triple_barrier`, all sides. forward: of `labels.forward_returns`. market: around these decisions.
        policy: rows of `models.predictions` of the policy of reference, both splits; None for what is not compared with it.

    Raises:
        ValueError: no predictions of the test block, two for one decision, or a duplicated label.
    """
    found = []
    block = block_rows(decisions, fold)
    for split, points in ((TEST, block), (VALIDATION, judged_rows(decisions, fold).join(block, on=KEYS, how="anti"))):
        said = predictions.filter(split=split)
        if split == VALIDATION and said.is_empty():
            continue
        frame = with_outcomes(answered(said, points, labels, forward), points, market)
        parts = PARTS
        if policy is not None:
            frame, parts = with_policy(frame, policy), (*PARTS, AGREEMENT)
        rows = as_rows(frame)
        slices = [*slices_of(frame, rows), margin_slice(rows)] if split == TEST else []
        found.append(evaluation_frame(subject, fold.id, split, measure(rows, parts, slices, MAIN)))
    return pl.concat(found).match_to_schema(EVALUATIONS)
