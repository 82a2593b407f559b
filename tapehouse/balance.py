"""Balance of classes: rates that balance a table in expectation, and the exact balance of what a fold exports.

In a warehouse table a row may not depend on which others are there: it is kept by a keyed hash at a *declared* rate
(`keep` in `objectives.yaml`), and `keep_rates` proposes such rates from rows of the past. Exact balance needs to count the
rows, so it is made only where a fold's rows are exported: `exact`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.keyed import keyed_uniform

CLASSES: Final = ("regime", "objective", "side", "symbol")
ROUNDS: Final = 200  # of proportional fitting; it settles in about twenty
NEAR_ENOUGH: Final = 1e-9


@dataclass(frozen=True)
class Balanced:
    """What is left of rows after exact balance.

    Attributes:
        rows: as many of each cell, in the order of the rows given.
        per_cell: rows of each combination of classes.
        cells: how many combinations there are.
        left_out: values of the column that may be left out whose cells were too small, with the size of the smallest.
    """

    rows: pl.DataFrame
    per_cell: int
    cells: int
    left_out: dict[str, int]


def exact(rows: pl.DataFrame, by: Sequence[str] = CLASSES, salt: str = "", least: int = 1, spare: str = "symbol") -> Balanced:
    """Equally many rows of every combination of the classes `by`; so each class alone is balanced exactly, too.

    Which rows of a cell stay is drawn by a keyed hash of the row's own key and `salt` (such as the fold), so a re-run keeps the
    same ones.

    Args:
        rows: with `symbol`, `interval` (or the `market` and `source` of a book), `decision_at`, the columns of `by`, and
            whatever else tells rows of a decision apart (`objective`, `placement`) where there is such a column.
        by: columns whose combinations are the cells.
        salt: another one draws other rows.
        least: the smallest cell to put up with.
        spare: the column (one of `by`, or none of them) whose values may be left out to keep to `least`: a symbol that was
            listed last month would otherwise cut all others down to its own few rows.

    Raises:
        TapehouseError: a column is missing or has nulls, or a cell is too small and nothing can be left out for it.
    """
    _check(rows, by)
    left_out: dict[str, int] = {}
    if spare in by:
        smallest = _cells(rows, by).group_by(spare).agg(pl.col("len").min()).sort(spare)
        left_out = dict(smallest.filter(pl.col("len") < least).iter_rows())
        rows = rows.filter(~pl.col(spare).is_in(list(left_out)))
    if rows.is_empty():
        raise TapehouseError(f"balance: no rows are left; cells smaller than {least} had to go: {left_out or 'none'}")
    cells = _cells(rows, by)
    per_cell = int(cells["len"].min())
    if per_cell < max(least, 1):
        worst = cells.sort("len", *by).row(0, named=True)
        raise TapehouseError(
            f"balance: {worst.pop('len')} rows of {worst}, fewer than {max(least, 1)}; balance by fewer columns"
        )
    drawn = rows.with_row_index("_place").with_columns(pl.Series("_draw", _draws(rows, salt)))
    ranks = pl.struct("_draw", "_place").rank("ordinal").over(list(by))
    kept = drawn.filter(ranks <= per_cell).sort("_place").drop("_place", "_draw")
    return Balanced(kept, per_cell, cells.height, left_out)


def drawn(rows: pl.DataFrame, most: int, salt: str = "") -> pl.DataFrame:
    """At most `most` of the rows, in their order, each drawn by a keyed hash of its own key and `salt`, as in :func:`exact`."""
    first = pl.Series(_draws(rows, salt)).rank("ordinal") <= most
    return rows.filter(first)


def keep_rates(rows: pl.DataFrame, shares: Mapping[str, Mapping[str, float]], digits: int = 3) -> dict[str, dict[str, float]]:
    """Rates in (0, 1] whose products, as chances to keep a row, give every class its share in expectation.

    Iterative proportional fitting (W. Deming, F. Stephan, On a Least Squares Adjustment of a Sampled Frequency Table, 1940),
    each column's largest rate being 1. Made from rows of the past, the rates are then declared for all rows.

    Args:
        rows: drawn and told apart, none of them kept at a rate yet; the columns of `shares`.
        shares: of each column the share that each of its values shall have; they sum to 1.
        digits: decimals of the rates.

    Raises:
        TapehouseError: a value without a share, or a share without rows.
    """
    _check(rows, tuple(shares))
    cells = _cells(rows, tuple(shares))
    for column, wanted in shares.items():
        if set(wanted) != set(cells[column]):
            raise TapehouseError(f"balance: {column} has the values {sorted(set(cells[column]))}, its shares {sorted(wanted)}")
    rates = {column: dict.fromkeys(wanted, 1.0) for column, wanted in shares.items()}
    for _ in range(ROUNDS):
        moved = 0.0
        for column, wanted in shares.items():
            kept = cells.with_columns(weight=_product(rates)).group_by(column).agg(pl.col("weight").sum())
            total = kept["weight"].sum()
            for value, weight in kept.iter_rows():
                factor = wanted[value] * total / weight
                rates[column][value] *= factor
                moved = max(moved, abs(factor - 1.0))
        if moved < NEAR_ENOUGH:
            break
    top = {column: max(of.values()) for column, of in rates.items()}
    return {
        column: {value: round(rate / top[column], digits) for value, rate in sorted(of.items())} for column, of in rates.items()
    }


def table(rows: pl.DataFrame, by: Sequence[str] = CLASSES) -> pl.DataFrame:
    """Rows and share of every class of every column: `column`, `value`, `rows`, `share`, sorted by the first two."""
    parts = [
        rows.group_by(pl.col(column).cast(pl.String).alias("value"))
        .agg(pl.len().cast(pl.Int64).alias("rows"))
        .select(pl.lit(column).alias("column"), "value", "rows", share=pl.col("rows") / max(rows.height, 1))
        for column in by
    ]
    return pl.concat(parts).sort("column", "value", nulls_last=True)


def _product(rates: Mapping[str, Mapping[str, float]]) -> pl.Expr:
    weight = pl.col("len").cast(pl.Float64)
    for column, of in rates.items():
        weight = weight * pl.col(column).replace_strict(dict(of), return_dtype=pl.Float64)
    return weight


def _cells(rows: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Rows of every combination of the values that the columns have, those without rows too."""
    grid = pl.DataFrame({"_": [0]})
    for column in by:
        grid = grid.join(rows.select(column).unique().sort(column), how="cross")
    counts = rows.group_by(list(by)).len()
    return grid.drop("_").join(counts, on=list(by), how="left").with_columns(pl.col("len").fill_null(0)).sort(list(by))


def _draws(rows: pl.DataFrame, salt: str) -> pl.Series:
    """A number in [0, 1) for each row, by its decision, and its objective and placement where it has them."""
    if "interval" not in rows.columns:  # decisions on books
        rows = rows.with_columns(interval=pl.concat_str("market", "source", separator="|"))
    parts = [column for column in ("objective", "placement", "dataset", "fold", "origin") if column in rows.columns]
    what = rows.select(
        pl.concat_str(pl.lit(f"export|{salt}"), *parts, separator="|").alias("what"), pl.int_range(pl.len()).alias("n")
    )
    draws = pl.DataFrame(schema={"n": pl.Int64, "draw": pl.Float64})
    for (text,), part in what.group_by("what", maintain_order=True):
        of_part = pl.Series("draw", keyed_uniform(rows[part["n"]], text), dtype=pl.Float64)
        draws = draws.vstack(pl.DataFrame([part["n"].cast(pl.Int64), of_part]))
    return draws.sort("n")["draw"]


def _check(rows: pl.DataFrame, by: Sequence[str]) -> None:
    for column in by:
        if column not in rows.columns:
            raise TapehouseError(f"balance: the rows have no column {column!r}; there are {rows.columns}")
        if rows[column].null_count():
            raise TapehouseError(
                f"balance: {column} is null in {rows[column].null_count()} rows; leave them out, or balance by others"
            )
