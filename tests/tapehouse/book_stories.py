"""Small streams of book events written by hand, for tests."""

from datetime import UTC, datetime, timedelta

import polars as pl

from tapehouse.book_messages import BOOK_SCHEMA
from tapehouse.books import BookRules, Rebuilt, collected, rebuild

NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)
Levels = list[tuple[float, float]]


def message(seconds: float, kind: str, last: int, bids: Levels, asks: Levels, first=None, previous=None, market="spot") -> dict:
    """A row of `raw.book_events`, received so many seconds after noon."""
    at = NOON + timedelta(seconds=seconds)
    received = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 1000
    ids = {"first_id": first, "last_id": last, "previous_id": previous}
    sides = {
        "bid_prices": [p for p, _ in bids],
        "bid_sizes": [s for _, s in bids],
        "ask_prices": [p for p, _ in asks],
        "ask_sizes": [s for _, s in asks],
    }
    times = {"event_at": at - timedelta(milliseconds=3), "known_at": at, "received_ns": received, "sequence": received}
    return {"symbol": "X", "market": market, "kind": kind, "source": "story", **times, **ids, **sides}


def snapshot(seconds: float, last: int, bids: Levels, asks: Levels, market="spot") -> dict:
    return message(seconds, "snapshot", last, bids, asks, market=market)


def diff(seconds: float, first: int, last: int, bids: Levels = (), asks: Levels = (), previous=None) -> dict:
    """A difference of the spot stream, or where `previous` is given, of the futures stream."""
    return message(seconds, "diff", last, bids, asks, first, previous, "spot" if previous is None else "futures")


def frame(*rows: dict) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=BOOK_SCHEMA)


def played(*rows: dict, until: float = 60, size: int = 10_000, **rules) -> Rebuilt:
    """The rebuilt book from noon on, the stream cut into frames of `size` rows."""
    events = frame(*rows)
    pieces = (events[at : at + size] for at in range(0, events.height, size))
    return collected(rebuild(pieces, BookRules(**rules), NOON, NOON + timedelta(seconds=until), trace=True))


def statuses(rebuilt: Rebuilt) -> list[tuple[float, str]]:
    """Seconds after noon and status of each quote."""
    return [((row["known_at"] - NOON).total_seconds(), row["status"]) for row in rebuilt.quotes.iter_rows(named=True)]
