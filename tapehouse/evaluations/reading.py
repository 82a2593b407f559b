"""How reports look figures up: wide by metric, and pooled over folds; and what each metric means."""

from __future__ import annotations

from typing import Final, Literal

import polars as pl

from tapehouse.evaluations import agreement, barriers, classes, horizons, judgement, orders, preferences, rewards
from tapehouse.evaluations.core import ALL
from tapehouse.predictions import TEST

# What each metric of reports.evaluations means. Also the tooltips of reports.
MEANING: Final = {
    name: text
    for measured in (classes, barriers, horizons, orders, rewards, agreement, judgement, preferences)
    for name, text in measured.MEANING.items()
}
# Numbers of something, which add up over folds; all others are means.
COUNTED: Final = frozenset({"n", "n_labelled", "n_taken", "n_pairs", *(f"confusion_{cell}" for cell in classes.CELLS)})
# Statistics that are normal without an effect; folds are weighed together so that the result is, too.
TESTED: Final = frozenset(name for name in horizons.MEANING if name.startswith("t_"))
KNOWN = 0.5  # least share of the observations whose folds have an interval, for a pooled one


def figures(
    evaluations: pl.DataFrame,
    slice: str = ALL,
    split: str = TEST,
    what: Literal["value", "low", "high", "n", "shuffled"] = "value",
) -> pl.DataFrame:
    """One row a subject, fold and level, one column a metric of `MEANING`, in its order, and others after them.

    Args:
        evaluations: rows of `reports.evaluations`. what: the figure itself, an end of its 95 % interval, the observations
            behind it, or what the same answers score against shuffled outcomes.

    A metric that was measured nowhere has a column of nulls, so that a page can ask for it.
    """
    keys = ["subject", "fold", "level"]
    some = evaluations.filter((pl.col("slice") == slice) & (pl.col("split") == split)).select(*keys, "metric", what)
    wide = some.pivot("metric", index=keys, values=what, aggregate_function=None)
    missing = [name for name in MEANING if name not in wide.columns]
    wide = wide.with_columns(pl.lit(None, dtype=evaluations.schema[what]).alias(name) for name in missing)
    others = sorted(set(wide.columns) - set(keys) - set(MEANING))
    return wide.select(*keys, *MEANING, *others).sort(keys)


def pooled(evaluations: pl.DataFrame, slice: str = ALL, split: str = TEST) -> pl.DataFrame:
    """One row a subject, level and metric over all its folds: value, low, high, n, shuffled, folds.

    Folds weigh by their observations; counts add up, and t-statistics combine to one (S. Stouffer, The American Soldier, 1949;
    weights the roots of the observations). Blocks of disjoint sessions are taken as independent, so that distances
    from the value to an end add in squares (Zou and Donner, Construction of confidence limits about effect measures, 2008).
    Where some folds have no interval the others give it, as if theirs were all observations: it is then too wide, and null
    where those hold less than half.
    """
    keys = ["subject", "level", "metric"]
    some = evaluations.filter(
        (pl.col("slice") == slice) & (pl.col("split") == split) & pl.col("value").is_not_null() & (pl.col("n") > 0)
    )
    known = pl.col("low").is_not_null() & pl.col("high").is_not_null()

    def mean(name: str) -> pl.Expr:
        there = pl.col(name).is_not_null()
        return (pl.col(name) * pl.col("n")).filter(there).sum() / pl.col("n").filter(there).sum()

    def away(end: str) -> pl.Expr:
        part = pl.col("n").filter(known) / pl.col("n").filter(known).sum()
        return ((part * (pl.col(end) - pl.col("value")).filter(known)) ** 2).sum().sqrt()

    def if_any(of: str, value: pl.Expr) -> pl.Expr:
        return pl.when(pl.col(of).is_not_null().any()).then(value)

    counted, tested = pl.col("metric").is_in(list(COUNTED)), pl.col("metric").is_in(list(TESTED))
    enough = pl.col("n").filter(known).sum() >= KNOWN * pl.col("n").sum()
    return (
        some.sort(*keys, "fold")
        .group_by(keys, maintain_order=True)
        .agg(
            pl.col("value").sum().alias("total"),
            ((pl.col("value") * pl.col("n").sqrt()).sum() / pl.col("n").sum().sqrt()).alias("together"),
            mean("value").alias("value"),
            pl.when(enough & known.any()).then(mean("value") - away("low")).alias("low"),
            pl.when(enough & known.any()).then(mean("value") + away("high")).alias("high"),
            pl.col("n").sum(),
            if_any("shuffled", mean("shuffled")).alias("shuffled"),
            if_any("shuffled", pl.col("shuffled").sum()).alias("shuffled_total"),
            pl.col("fold").n_unique().cast(pl.Int64).alias("folds"),
        )
        .with_columns(
            value=pl.when(counted).then("total").when(tested).then("together").otherwise("value"),
            shuffled=pl.when(counted).then("shuffled_total").otherwise("shuffled"),
        )
        .drop("total", "together", "shuffled_total")
    )
