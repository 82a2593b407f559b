"""Rows of `reports.evaluations` of one subject and fold: test block in slices, validation tail as a whole."""

from __future__ import annotations

import polars as pl

from tapehouse.evaluations.answers import answered, as_rows, slices_of
from tapehouse.evaluations.barriers import BARRIERS
from tapehouse.evaluations.classes import CLASSES
from tapehouse.evaluations.core import EVALUATIONS, evaluation_frame, measure
from tapehouse.folds import Fold, block_rows
from tapehouse.predictions import KEYS, TEST, VALIDATION, judged_rows

PARTS = (*CLASSES, *BARRIERS)
MAIN = "right"  # the daily number of right answers sets the length of blocks


def evaluation_rows(
    subject: str, fold: Fold, predictions: pl.DataFrame, decisions: pl.DataFrame, labels: pl.DataFrame, forward: pl.DataFrame
) -> pl.DataFrame:
    """Rows of `reports.evaluations`.

    Args:
        predictions: rows of `models.predictions` of the subject and fold, both splits. decisions: of
            `features.decision_points`, at least those of the fold's block and validation tail. labels: of
            `labels.triple_barrier`, all sides. forward: of `labels.forward_returns`.

    Raises:
        ValueError: no predictions of the test block, two for one decision, or a duplicated label.
    """
    found = []
    block = block_rows(decisions, fold)
    for split, points in ((TEST, block), (VALIDATION, judged_rows(decisions, fold).join(block, on=KEYS, how="anti"))):
        said = predictions.filter(split=split)
        if split == VALIDATION and said.is_empty():
            continue
        frame = answered(said, points, labels, forward)
        rows = as_rows(frame)
        slices = slices_of(frame, rows) if split == TEST else []
        found.append(evaluation_frame(subject, fold.id, split, measure(rows, PARTS, slices, MAIN)))
    return pl.concat(found).match_to_schema(EVALUATIONS)
