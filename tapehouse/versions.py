"""Which version of a record was known when: the bitemporal selection that features, labels and rewards share.

A record is identified by its key; its versions differ in `known_at`. "As known at a cutoff" is the version with the
latest `known_at` not after the cutoff, or no record at all if even the first version came later. What is known later
than a cutoff must change nothing, so nothing here looks at `superseded_at`, which is written by the next version.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError

BAR_KEY = ("symbol", "interval", "session")
ACTION_KEY = ("symbol", "kind", "ex_date")
# Two versions known at the same instant: the higher version number, then the later source name, is taken.
TIE_BREAK = ("known_at", "version", "source")
# The lengths of bars for which anchors, windows and horizons are declared: all of them count sessions.
INTERVALS = ("1d",)
MICROSECONDS = timedelta(microseconds=1)
NEVER = np.iinfo(np.int64).min


def microseconds(column: pl.Series) -> np.ndarray:
    """UTC datetimes as int64 microseconds since 1970, for arithmetic and kernels that must be exact.

    A copy that can be written, as everything that is handed to a kernel: Numba would compile again for read-only views.
    """
    return column.dt.epoch("us").to_numpy(writable=True)


def require_declared_intervals(bars: pl.DataFrame, table: str) -> None:
    """Refuse bars of another length than a session: windows, anchors and horizons would count bars as if they were sessions.

    Args:
        bars: with `symbol`, `interval` and `session`. table: what is made of them.

    Raises:
        TapehouseError: names the table, the first such bar, and what to do.
    """
    other = bars.filter(~pl.col("interval").is_in(INTERVALS))
    if other.height:
        symbol, interval, session = other.select("symbol", "interval", "session").row(0)
        raise TapehouseError(
            f"{table}: {symbol} has a bar of interval {interval!r} on {session}, but anchors, windows and horizons are "
            f"declared for {', '.join(INTERVALS)} alone; keep other bars out of raw.bars (`interval` in "
            "sources.yaml, `interval` in checks/raw/bars.yaml), or declare the interval in tapehouse/versions.py with an "
            "anchor and windows of its own"
        )


def as_known(records: pl.DataFrame, key: Sequence[str], cutoff: pl.Expr) -> pl.DataFrame:
    """The latest version of each record that is known at its own cutoff.

    Args:
        records: every version, with the columns of `key` and `known_at` (`version` and `source` break ties).
        key: the columns that identify a record, whatever its version.
        cutoff: the instant by which a version must be known, as an expression over `records`.

    Returns:
        At most one row for each key, sorted by it. A record whose first version is later than its cutoff is absent.
    """
    ties = [name for name in TIE_BREAK if name in records.columns]
    return (
        records.filter(pl.col("known_at") <= cutoff)
        .sort([*key, *ties])
        .unique(subset=list(key), keep="last", maintain_order=True)
    )


@dataclass(frozen=True)
class Timeline:
    """The versions of one symbol's records, ready to be read as they stood at any instant.

    Arrays have one element a version, sorted by (order, known_at, tie-break): `key` numbers the record that a version
    belongs to, ascending; `known` is its `known_at`; `prompt` marks versions known no later than the first decision
    that could use their record, so that no decision need ask whether they were known.
    """

    key: np.ndarray
    known: np.ndarray
    prompt: np.ndarray

    @property
    def late(self) -> np.ndarray:
        """The instants, in microseconds, at which a version arrived after decisions that could have used it."""
        return np.unique(self.known[~self.prompt])

    def as_known(self, cutoff: int) -> np.ndarray:
        """Positions of the versions in force from `cutoff` until the next late one: one for each known record.

        Prompt versions are taken without asking, also those of records that are still to come: who reads the result
        looks back from each decision, where every prompt version is known.
        """
        seen = np.flatnonzero(self.prompt | (self.known <= cutoff))
        if not seen.size:
            return seen
        last = np.append(self.key[seen][1:] != self.key[seen][:-1], True)
        return seen[last]


def timeline(records: pl.DataFrame, key: Sequence[str], first_use: np.ndarray) -> Timeline:
    """A `Timeline` of records that are already sorted by `key`, then by the tie-break.

    Args:
        records: the versions of one symbol.
        key: the columns that identify a record.
        first_use: for each row, the earliest instant (microseconds) of a decision that could use its record.
    """
    known = microseconds(records["known_at"])
    number = records.select(pl.struct(key).rle_id().cast(pl.Int64)).to_series().to_numpy()
    return Timeline(key=number, known=known, prompt=known <= first_use)


def sorted_versions(records: pl.DataFrame, key: Sequence[str], order: Sequence[str] = ()) -> pl.DataFrame:
    """Records sorted by `order`, then `key`, then the tie-break, as `timeline` wants them."""
    ties = [name for name in TIE_BREAK if name in records.columns]
    return records.sort([*order, *[k for k in key if k not in order], *ties])


def epochs(late: Sequence[np.ndarray], start: datetime, end: datetime) -> Iterator[tuple[int, int]]:
    """Cut [start, end) at the instants of late records into spans in which the known past does not change.

    Yields:
        Half-open spans in microseconds, in order. With no late record there is one span.
    """
    first, last = _microsecond(start), _microsecond(end)
    inside = np.unique(np.concatenate([np.empty(0, np.int64), *late]))
    inside = inside[(inside > first) & (inside < last)]
    edges = [first, *inside.tolist(), last]
    yield from pairwise(edges)


def _microsecond(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError(f"the bound {moment} has no time zone; pass UTC datetimes")
    return (moment - datetime.fromtimestamp(0, moment.tzinfo)) // MICROSECONDS
