"""Rows that a table made from other tables cannot use: they go to the quarantine with the reason, as raw records do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import polars as pl

STAMP: Final = pl.Datetime("us", "UTC")
# The columns of raw.quarantine that are content.
REFUSED: Final = {
    "table_name": pl.String,
    "source": pl.String,
    "origin": pl.String,
    "symbol": pl.String,
    "event_at": STAMP,
    "filed_at": STAMP,
    "reason": pl.String,
    "record": pl.String,
}


def quarantined(refused: Sequence[pl.DataFrame], stored: pl.DataFrame, ingested_at: datetime) -> pl.DataFrame:
    """A table's share of `raw.quarantine`: what is refused now, each record with the time it was first refused at."""
    rows = pl.concat(refused)
    if not stored.height:
        return rows.with_columns(ingested_at=pl.lit(ingested_at, STAMP))
    known = stored.cast({**REFUSED, "ingested_at": STAMP})
    joined = rows.join(known, on=list(REFUSED), how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.col("ingested_at").fill_null(pl.lit(ingested_at, STAMP)))
