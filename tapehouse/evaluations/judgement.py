"""How well a reward model's scores go with the rewards that were earned, apart from any account."""

from __future__ import annotations

import numpy as np
import polars as pl

from tapehouse.evaluations.barriers import correlation, correlation_of, correlation_terms
from tapehouse.evaluations.core import EVALUATIONS, Derived, Part, Ratio, Slice, Term, evaluation_frame, measure, slice_of
from tapehouse.evaluations.rows import Rows
from tapehouse.predictions import TEST

MAIN = "right"  # the daily number of right pairs sets the length of blocks, of answers too
# What each metric means. In reports.evaluations beside those of predictions.
MEANING = {
    "n_pairs": "Pairs of answers decided in the test block.",
    "pair_accuracy": "Share of pairs whose better paid answer has the higher score; one half is chance, and a tie a half.",
    "reward_rank_ic": "Spearman correlation of score and realised reward over all answers: prompts and placements, pooled.",
    "margin_rank_ic": "Spearman correlation of the pair's difference of scores with that of its rewards, near less far limit.",
}
SLICES = ("symbol", "objective")
RIGHT = ((pl.col("chosen_score") - pl.col("rejected_score")).sign() + 1) / 2  # a tie is a half


def judgement_rows(subject: str, fold: str, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows of `reports.evaluations` for a reward model.

    Args:
        pairs: the pairs of one block: symbol, objective, decision_at, chosen_reward, rejected_reward, chosen_offset_atr,
            rejected_offset_atr, and the scores chosen_score, rejected_score.
    """
    pairs = pairs.sort("decision_at", "symbol", "objective")
    slices = [slice_of(name, pairs[name]) for name in SLICES]
    twice = [Slice(s.name, s.levels, np.tile(s.codes, 2)) for s in slices]
    figures = pl.concat([measure(_pairs(pairs), (PAIRS,), slices, MAIN), measure(_answers(pairs), (ANSWERS,), twice, MAIN)])
    return evaluation_frame(subject, fold, TEST, figures).match_to_schema(EVALUATIONS)


def _dates(pairs: pl.DataFrame) -> np.ndarray:
    return pairs.select(pl.col("decision_at").rle_id()).to_series().to_numpy().astype(np.int64)


def _pairs(pairs: pl.DataFrame) -> Rows:
    """One row a pair.

    The chosen answer is the better paid one, so that differences of chosen less rejected would all be of one sign; they are
    taken of the nearer limit less the farther one, which was decided without a look at the rewards.
    """
    nearer = pl.when(pl.col("chosen_offset_atr").abs() <= pl.col("rejected_offset_atr").abs()).then(1.0).otherwise(-1.0)
    columns = pairs.select(
        right=RIGHT,
        score=(pl.col("chosen_score") - pl.col("rejected_score")) * nearer,
        reward=(pl.col("chosen_reward") - pl.col("rejected_reward")) * nearer,
    )
    return _rows(columns, _dates(pairs))


def _answers(pairs: pl.DataFrame) -> Rows:
    """One row an answer: those that were paid better, and then the others."""
    sides = [pairs.select(score=f"{side}_score", reward=f"{side}_reward", right=RIGHT) for side in ("chosen", "rejected")]
    return _rows(pl.concat(sides), np.tile(_dates(pairs), 2))


def _rows(columns: pl.DataFrame, dates: np.ndarray) -> Rows:
    arrays = {name: columns[name].cast(pl.Float64).to_numpy() for name in columns.columns}
    return Rows(arrays, dates, int(dates.max(initial=-1)) + 1)


def _paired(rows: Rows) -> list[Term]:
    return [
        Term("pair", np.ones(len(rows))),
        Term("right", rows["right"]),
        *correlation_terms(rows, rows["score"], rows["reward"]),
    ]


PAIRS = Part(
    _paired,
    (
        Derived("n_pairs", ("pair",), lambda pair: pair, None, interval=False),
        Ratio("pair_accuracy", "right", chance=0.5),
        Derived("margin_rank_ic", correlation_of(), correlation, chance=0.0),
    ),
)
ANSWERS = Part(
    lambda rows: [Term("right", rows["right"]), *correlation_terms(rows, rows["score"], rows["reward"])],
    (Derived("reward_rank_ic", correlation_of(), correlation, chance=0.0),),
)
