"""Another future for records that are not bars: after a cut other values, texts, sizes; some vanish, some come, some come late.

All of it is valid: nothing that a source or a check would refuse. What was known by the cut is untouched.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import polars as pl

LATEST_CORRECTION = timedelta(days=40)
CORRECTIBLE = timedelta(days=400)  # corrected, or arriving late, are records of the time before the cut
VANISH, CORRECT, ARRIVE = 0.1, 0.15, 0.02  # shares of the later records that are left out, of the earlier ones that change late
WORDS = ("gain", "loss", "strong", "weak", "lawsuit", "growth", "default", "record")
ACTIONS = ("strong_sell", "sell", "hold", "buy", "strong_buy")
Change = Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame]


def mutated_records(
    rows: pl.DataFrame, change: Change, cut: datetime, rng: np.random.Generator, stream: bool = False
) -> pl.DataFrame:
    """The rows known by `cut`, and another future: changed by `change`, thinned out, with late corrections and arrivals.

    Of a `stream`, whose messages are known when they are received, none is corrected and none comes late.
    """
    past, future = rows.filter(pl.col("known_at") <= cut), rows.filter(pl.col("known_at") > cut)
    kept = change(_some(future, 1 - VANISH, rng), rng)
    if stream:
        return pl.concat([past, kept])
    late = past.filter(pl.col("event_at") > cut - CORRECTIBLE)
    corrected = restamped(change(_some(late, CORRECT, rng), rng), cut, rng)
    arrived = restamped(change(_some(late, ARRIVE, rng), rng), cut, rng)
    if "source" in rows.columns:
        arrived = arrived.with_columns(source=pl.lit("late"))
    return pl.concat([past, kept, corrected, arrived])


def change_of(name: str, rows: pl.DataFrame) -> Change:
    """How the records of a raw table change in another future: as `RECORDS` declares, else by other floating numbers.

    Of a table without any, records still vanish.
    """
    return RECORDS.get(name) or _scaled(*(column for column, kind in rows.schema.items() if kind.is_float()))


def restamped(rows: pl.DataFrame, cut: datetime, rng: np.random.Generator) -> pl.DataFrame:
    """The same records, known some time between the cut and forty days later."""
    seconds = rng.integers(1, int(LATEST_CORRECTION.total_seconds()), rows.height)
    late = pl.Series([cut + timedelta(seconds=int(s)) for s in seconds], dtype=pl.Datetime("us", "UTC"))
    return rows.with_columns(known_at=late, **({"ingested_at": late} if "ingested_at" in rows.columns else {}))


def _some(rows: pl.DataFrame, share: float, rng: np.random.Generator) -> pl.DataFrame:
    return rows.filter(pl.Series(rng.random(rows.height) < share, dtype=pl.Boolean))


def _scaled(*columns: str) -> Change:
    """Numbers times something between a half and twice."""

    def change(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        factor = pl.Series(np.exp(rng.uniform(-0.7, 0.7, rows.height)))
        return rows.with_columns(pl.col(c) * factor for c in columns if c in rows.columns)

    return change


def _reworded(*columns: str) -> Change:
    """Texts with a word that a lexicon knows before them, and theses with another action."""

    def change(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
        words = pl.Series(np.array(WORDS)[rng.integers(0, len(WORDS), rows.height)].astype(object), dtype=pl.String)
        changed = [(words + " " + pl.col(c).fill_null("")).alias(c) for c in columns if c in rows.columns]
        if "action" in rows.columns:
            drawn = np.array(ACTIONS)[rng.integers(0, len(ACTIONS), rows.height)].astype(object)
            changed.append(pl.Series("action", drawn, dtype=pl.String))
        return rows.with_columns(changed)

    return change


def _resized(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Other sizes on the levels of a book's messages; a level that is taken away stays so."""
    factor = pl.Series("factor", np.exp(rng.uniform(-0.7, 0.7, rows.height)))
    sizes = [c for c in ("bid_sizes", "ask_sizes") if c in rows.columns]
    return rows.with_columns(factor).with_columns(pl.col(c) * pl.col("factor") for c in sizes).drop("factor")


def _traded_otherwise(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Other numbers of shares at other prices, and some that were bought are sold."""
    turned = pl.Series("turned", rng.random(rows.height) < 0.3, dtype=pl.Boolean)
    sold = [
        pl.when(turned).then(pl.col(name).replace(pairs)).otherwise(name).alias(name)
        for name, pairs in (("code", {"P": "S", "S": "P"}), ("acquired_disposed", {"A": "D", "D": "A"}))
    ]
    return _scaled("shares", "price")(rows, rng).with_columns(sold)


def _shortened(rows: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """Sessions that end earlier, never before they begin."""
    left = pl.Series("left", rng.uniform(0.3, 0.9, rows.height))
    whole = (pl.col("ends_at") - pl.col("event_at")).dt.total_microseconds()
    return rows.with_columns(ends_at=pl.col("event_at") + pl.duration(microseconds=(whole * left).cast(pl.Int64)))


STREAMS = ("raw.book_events", "raw.trades")
RECORDS: dict[str, Change] = {
    "raw.macro_observations": _scaled("value"),
    "raw.news": _reworded("headline", "summary"),
    "raw.filings": _reworded("text"),
    "raw.theses": _reworded("reasoning"),
    "raw.book_events": _resized,
    "raw.trades": _scaled("price", "size"),
    "raw.funding": _scaled("rate", "mark_price"),
    "raw.fundamentals": _scaled("value"),
    "raw.insider_trades": _traded_otherwise,
    "raw.calendar_events": _shortened,
}
