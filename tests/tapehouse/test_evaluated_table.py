"""Rows of a subject and fold: what belongs to which split, and the blocks that intervals are drawn from."""

import numpy as np
import polars as pl
import pytest

from tapehouse.bootstrap import block_length, resample, tail
from tests.tapehouse.test_evaluated_outcomes import FOLD, answers, evaluated, whole
from tests.tapehouse.test_evaluated_outcomes import world as world


def test_the_validation_tail_is_measured_without_the_block(world):
    """All decisions of either are answered: those of the block beside the tail's would be decisions without an answer."""
    rows, points = evaluated(world, answers(world[2])), world[2]
    inside = points.filter(pl.col("decision_at").is_between(FOLD.validation_start, FOLD.train_end, closed="left"))
    in_tail, in_block = (whole(rows, split=split) for split in ("validation", "test"))
    assert in_tail["coverage"] == in_block["coverage"] == 1.0
    assert in_tail["n"] == inside.height < in_block["n"]


def test_blocks_are_as_long_as_right_answers_keep_together(world):
    """Right at first, wrong later: the daily number of right answers asks for blocks longer than a label's horizon."""
    names = {1: "BUY", 0: "HOLD", -1: "SELL"}
    known = world[3].filter(side=0).select("symbol", "decision_at", true=pl.col("label").replace_strict(names))
    right = pl.col("decision_at").dt.date().rank("dense").sub(1) < 47
    wrong = pl.when(pl.col("true") == "BUY").then(pl.lit("SELL")).otherwise(pl.lit("BUY"))
    said = answers(world[2]).join(known, on=["symbol", "decision_at"], maintain_order="left")
    said = said.with_columns(action=pl.when(right).then("true").otherwise(wrong))
    found = evaluated(world, said.drop("true")).filter(slice="all", split="test", metric="accuracy").row(0, named=True)
    days = (
        said.filter(split="test")
        .group_by("decision_at")
        .agg((pl.col("action") == pl.col("true")).sum(), n=pl.col("true").count())
    )
    hits, n = (days.sort("decision_at")[name].to_numpy().astype(float) for name in ("action", "n"))
    drawn = resample(len(days), block_length(hits))
    assert drawn.block > 10 and found["n"] == n.sum()
    expected = np.quantile(drawn.sums(hits) / drawn.sums(n), [tail(drawn), 1 - tail(drawn)])
    assert (found["low"], found["high"]) == pytest.approx(expected, rel=1e-9)
