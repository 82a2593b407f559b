"""The rows of a feature table while they are made: arrays over all symbols, one frame at the end."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from tapehouse.features.history import UTC_DATETIME, Batch


class Collected:
    """The rows of a feature table while they are made, batch by batch: arrays first, one frame at the end.

    A frame for each symbol would cost more than its features.
    """

    def __init__(self, bars: pl.DataFrame, names: Sequence[str]):
        self.bars = bars
        # No more rows than versions; what stays empty of these arrays takes no memory.
        self.features = {name: np.empty(bars.height) for name in names}
        self.rows, self.decisions, self.known = (np.empty(bars.height, np.int64) for _ in range(3))
        self.history = np.empty(bars.height, np.int32)
        self.height = 0

    def add(self, batch: Batch, features: dict[str, np.ndarray], known: np.ndarray) -> None:
        """Take the decisions' values of arrays over every bar in [batch.first, batch.stop)."""
        at = slice(self.height, self.height + batch.chosen.size)
        for name, column in self.features.items():
            column[at] = batch.column(features[name])
        self.known[at] = batch.column(known)
        self.rows[at], self.decisions[at], self.history[at] = batch.rows, batch.decisions, batch.history
        self.height = at.stop

    def frame(self, columns: Sequence[str]) -> pl.DataFrame:
        """The columns of all rows: features, with nulls for NaN, those of the bars, decision_at, known_at, bars_of_history."""
        rows, taken = self.rows[: self.height], [name for name in columns if name in self.bars.columns and name != "known_at"]
        whole = rows.size == self.bars.height and bool(np.all(rows[1:] == rows[:-1] + 1))
        made = {column.name: column for column in (self.bars if whole else self.bars[rows]).select(taken)}
        made["decision_at"] = pl.Series(self.decisions[: self.height]).cast(UTC_DATETIME)
        made["known_at"] = pl.Series(self.known[: self.height]).cast(UTC_DATETIME)
        made["bars_of_history"] = pl.Series(self.history[: self.height])
        for name in list(self.features):  # each array goes as its column comes
            made[name] = pl.Series(self.features.pop(name)[: self.height], nan_to_null=True)
        return pl.DataFrame({name: made[name] for name in columns})
