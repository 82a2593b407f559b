"""Promotion: which challengers pass the declared gates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import polars as pl

from tapehouse.expectations import evaluate
from tapehouse.judging_rules import Gates

CHAMPIONS: Final = {
    "adapter": pl.String,
    "fold": pl.String,
    "digest": pl.String,
    "verdict": pl.String,
    "failed_checks": pl.Int64,
    "champion": pl.Boolean,
    "reason": pl.String,
}


def newest(models: pl.DataFrame) -> pl.DataFrame:
    """Of each recipe the model of its last fold: `adapter`, `fold`, `digest`."""
    return models.sort("adapter", "fold").group_by("adapter", maintain_order=True).last().select("adapter", "fold", "digest")


def champions(
    models: pl.DataFrame,
    verdicts: pl.DataFrame,
    predictions: pl.DataFrame,
    quality: Sequence[dict],
    gates: Gates,
    controls: Collection[str] = (),
) -> pl.DataFrame:
    """One row of `CHAMPIONS` a recipe.

    Args:
        models: of :func:`newest`. verdicts: rows of `reports.verdicts`. predictions: rows of `models.predictions`.
        quality: the expectations of predictions that warn. gates: what has to hold. controls: who never can, such as a coin.
    """
    words = dict(verdicts.select("subject", "verdict").iter_rows())
    rows = []
    for name, fold, digest in models.iter_rows():
        said = predictions.filter(adapter=name, fold=fold)
        failed = [r.expectation for r in evaluate(said, quality, "checks/models/predictions.yaml") if not r.success]
        word, lacking = words.get(name), []
        if name in controls:
            lacking.append("it is a control")
        if word not in gates.verdict:
            lacking.append(f"its verdict is {word}" if word else "it has no verdict")
        if failed and gates.checks == "pass":
            lacking.append(f"checks on its predictions warn: {', '.join(failed)}")
        rows.append((name, fold, digest, word, len(failed), not lacking, "; ".join(lacking) or "every gate passes"))
    return pl.DataFrame(rows, CHAMPIONS, orient="row")
