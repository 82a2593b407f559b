"""Partitions by date: the keys of months and days, the ranges they stand for, and contiguous runs of them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise

from dateutil.relativedelta import relativedelta

STEPS = {"months": relativedelta(months=1), "days": relativedelta(days=1)}
DATED = tuple(STEPS)  # cadences whose partitions are ranges of time
FOLDED = ("folds", "adapter_folds")  # all walk-forward folds; the last of them, for which adapters are trained


def key_start(key: str) -> datetime:
    """The first instant of a partition, in UTC; its key is the ISO date of that."""
    return datetime.fromisoformat(key).replace(tzinfo=UTC)


def key_of(cadence: str, at: datetime) -> str:
    """Key of the partition that an instant lies in."""
    day = at.astimezone(UTC).date()
    return (day.replace(day=1) if cadence == "months" else day).isoformat()


def keys_between(cadence: str, start: datetime, end: datetime) -> list[str]:
    """Keys of every partition that begins in [start's own partition, end), in order."""
    at, found = key_start(key_of(cadence, start)), []
    while at < end:
        found.append(at.date().isoformat())
        at += STEPS[cadence]
    return found


@lru_cache(maxsize=65536)  # asked for again for each partition of a long history
def key_span(cadence: str, first: str, last: str) -> tuple[datetime, datetime]:
    """[start, end) in UTC of the partitions `first` to `last`."""
    return key_start(first), key_start(last) + STEPS[cadence]


def contiguous(cadence: str, keys: Iterable[str]) -> list[tuple[str, str]]:
    """Contiguous runs of keys as (first, last), in order."""
    ordered = sorted(keys)
    if not ordered:
        return []
    breaks = [i for i, (a, b) in enumerate(pairwise(ordered), start=1) if key_start(a) + STEPS[cadence] != key_start(b)]
    return [(ordered[a], ordered[b - 1]) for a, b in pairwise([0, *breaks, len(ordered)])]


def fold_origin(fold: str) -> str:
    """How the origin of a quarantined record begins that a table made by fold refused: the quarantine has no column for it."""
    return f"fold {fold}: "
