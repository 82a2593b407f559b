"""Windows of feature rows, sliced when a batch asks for them: rows are held once, never once for each window they lie in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.feature_matrix import matrix
from tapehouse.networks.recipe import lookback_days
from tapehouse.networks.scaler import Scaler
from tapehouse.predictions import KEYS

SLICE: Final = 512  # windows that are looked at at a time


@dataclass(frozen=True)
class Windows:
    """The windows of N decisions over R rows of F features.

    Attributes:
        rows: (R, F) float32, scaled, by symbol and time.
        last: (N,) place of each decision's own row. first: (N,) place of the oldest row that it may see.
        length: rows of a window; where fewer are there, it begins with rows of zeros, which the mask leaves out.
    """

    rows: np.ndarray
    last: np.ndarray
    first: np.ndarray
    length: int

    def __len__(self) -> int:
        return len(self.last)

    def slices(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """`batch` of all decisions, `SLICE` at a time."""
        for start in range(0, len(self), SLICE):
            yield self.batch(slice(start, start + SLICE))

    def batch(self, places: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Windows (n, length, F), oldest row first, and whether each row is there (n, length), of some decisions."""
        at = self.last[places, None] + np.arange(1 - self.length, 1)
        there = at >= self.first[places, None]
        return np.where(there[:, :, None], self.rows[np.maximum(at, 0)], np.float32(0.0)), there


def sorted_rows(price: pl.DataFrame) -> pl.DataFrame:
    """`features.price` by symbol, interval and time, each row known at its own decision.

    So a window of rows up to a decision holds nothing that was not known then.

    Raises:
        TapehouseError: a row that was known only after its decision.
    """
    late = price.filter(pl.col("known_at") > pl.col("decision_at"))
    if late.height:
        row = late.select(*KEYS, "known_at").row(0)
        raise TapehouseError(
            f"features.price: {late.height} rows are known after their decision, the first {row[:2]} of {row[2]}, known at "
            f"{row[3]}; make the table again"
        )
    return price.sort(KEYS)


def windows_of(rows: pl.DataFrame, points: pl.DataFrame, scaler: Scaler, length: int) -> Windows:
    """The window of each row of `points`: the decision's own row of `rows`, and up to `length` - 1 of its symbol before it.

    None is older than `lookback_days(length)` days, so that a window does not depend on how much history was read.

    Args:
        rows: of `sorted_rows`. points: `KEYS` of the decisions.

    Raises:
        TapehouseError: a decision without a row.
    """
    placed = rows.select(
        *KEYS,
        last=pl.int_range(pl.len(), dtype=pl.Int64),
        age=pl.col("decision_at") - timedelta(days=lookback_days(length)),
    )
    oldest = placed.select("symbol", "interval", seen_at="decision_at", first="last").sort("seen_at")
    placed = placed.sort("age").join_asof(
        oldest, left_on="age", right_on="seen_at", by=["symbol", "interval"], strategy="forward", check_sortedness=False
    )
    found = points.select(KEYS).join(placed, on=KEYS, how="left", validate="1:1", maintain_order="left")
    if found["last"].null_count():
        row = found.filter(pl.col("last").is_null()).select(KEYS).row(0)
        raise TapehouseError(f"features.price: no row of {row[:2]} at {row[2]}, a decision point; make the table again")
    values = scaler.scaled(matrix(rows, scaler.names))
    return Windows(values, found["last"].to_numpy(), found["first"].to_numpy(), length)


def fitted_scaler(rows: pl.DataFrame, points: pl.DataFrame, features: Sequence[str], clip: float) -> Scaler:
    """A scaler of the decisions' own rows.

    Raises:
        TapehouseError: a feature that the table does not have.
    """
    missing = sorted(set(features) - set(rows.columns))
    if missing:
        raise TapehouseError(f"encoder.features: features.price has no {missing}; take some of {rows.columns}")
    own = rows.join(points.select(KEYS), on=KEYS, how="semi")
    return Scaler.fitted(list(features), matrix(own, features), clip)
