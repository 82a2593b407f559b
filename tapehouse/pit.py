"""Point-in-time joins: to each row, by key, the latest record known by then; for input in any order.

SQL assets join with DuckDB's `asof join`, which sorts both sides. Python assets join here: neither side is sorted as a
whole. Records are grouped by key with one counting sort and sorted by time within their group, where everything fits the
processor's cache, and each row finds its place by a grid over its group's times. Nothing is added or multiplied, and ties
are refused or broken by declared columns, so the result is the same in whatever order the input comes (promises 2 and 3).
"""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import polars as pl
from numba import njit

from tapehouse.errors import TapehouseError

# Eleven bits a pass: the counters of a pass stay in the first-level cache.
RADIX_BITS = 11
RADIX = 1 << RADIX_BITS
# A group so small is sorted by insertion.
FEW = 24


def as_of_join(
    rows: pl.DataFrame,
    records: pl.DataFrame,
    by: Sequence[str],
    at: str = "decision_at",
    known_at: str = "known_at",
    columns: Sequence[str] | None = None,
    tie_break: Sequence[str] = (),
    at_most: timedelta | None = None,
) -> pl.DataFrame:
    """Each row with the columns of the latest record of its key that was known by its time.

    Args:
        rows: in any order, with the columns `by` and `at`.
        records: in any order, with the columns `by`, `known_at` and what is asked for; (by, known_at) is unique, or the
            last of its records by `tie_break` is taken.
        by: the columns of the key, compared for equality; a key with a null meets nothing.
        at, known_at: the times, of one type; a record is known by a row from `known_at` <= `at` on.
        columns: of `records`, to append; default: all but `by` and `known_at`.
        tie_break: columns by which records of one key and time are ordered.
        at_most: how old a record may be; older ones meet nothing.

    Returns:
        `rows` in its own order, with `columns` appended, null where no record was known.

    Raises:
        TapehouseError: for a missing column, one that both sides have, a time that is null or of another type, and for
            records of one key and time that `tie_break` does not order.
    """
    columns = [c for c in records.columns if c not in (*by, known_at)] if columns is None else list(columns)
    _check(rows, records, by, at, known_at, columns, tie_break)
    row_codes, record_codes, keys = _codes(rows, records, by)
    times = _instants(records[known_at])
    found, tied = last_known(row_codes, _instants(rows[at]), record_codes, times, keys)
    if tied >= 0:
        order = _untied(records, by, known_at, tie_break, tied)
        found, _ = last_known(row_codes, _instants(rows[at]), record_codes[order], times[order], keys)
        found = np.where(found >= 0, order[found], -1)
    if at_most is not None:
        fresh = times[found] >= _instants(rows[at]) - at_most // timedelta(microseconds=1) if len(times) else False
        found = np.where((found >= 0) & fresh, found, -1)
    position = pl.Series("position", found)
    if found.size and found.min() < 0:
        position = pl.select(pl.when(position >= 0).then(position)).to_series()
    return rows.with_columns(records.select(pl.col(columns).gather(position)))


def _check(
    rows: pl.DataFrame,
    records: pl.DataFrame,
    by: Sequence[str],
    at: str,
    known_at: str,
    columns: Sequence[str],
    tie_break: Sequence[str],
) -> None:
    for side, frame, names in (("rows", rows, (*by, at)), ("records", records, (*by, known_at, *columns, *tie_break))):
        for name in names:
            if name not in frame.columns:
                raise TapehouseError(f"as-of join: the {side} have no column {name!r}; they have {', '.join(frame.columns)}")
    for name in columns:
        if name in rows.columns:
            raise TapehouseError(f"as-of join: both sides have a column {name!r}; rename one, or leave it out of `columns`")
    if rows.schema[at] != records.schema[known_at]:
        raise TapehouseError(
            f"as-of join: {at} is {rows.schema[at]} and {known_at} is {records.schema[known_at]}; cast one to the other"
        )
    kind = rows.schema[at]
    if not (isinstance(kind, pl.Datetime) and kind.time_unit == "us"):
        raise TapehouseError(f"as-of join: {at} is {kind}, not a Datetime in microseconds; cast both times to it")
    for side, column in (("rows", rows[at]), ("records", records[known_at])):
        if column.null_count():
            raise TapehouseError(
                f"as-of join: {column.null_count()} of the {side} have no {column.name}; leave them out first, "
                f"the first is number {column.is_null().arg_true()[0]}"
            )


def _instants(times: pl.Series) -> np.ndarray:
    return times.to_physical().to_numpy(writable=True)


def _codes(rows: pl.DataFrame, records: pl.DataFrame, by: Sequence[str]) -> tuple[np.ndarray, np.ndarray, int]:
    """Int32 numbers of the keys on either side, -1 where there is nothing to meet, and how many keys there are."""
    if len(by) == 1 and records.schema[by[0]] == pl.String and rows.schema[by[0]] == pl.String:
        names = pl.Enum(records[by[0]].drop_nulls().unique().sort())
        sides = (frame[by[0]].cast(names, strict=False).to_physical() for frame in (rows, records))
        row_codes, record_codes = (side.cast(pl.Int32).fill_null(-1).to_numpy(writable=True) for side in sides)
        return row_codes, record_codes, len(names.categories)
    keys = records.select(by).drop_nulls().unique().with_row_index("code").with_columns(pl.col("code").cast(pl.Int32))
    joined = (f.select(by).join(keys, on=list(by), how="left", maintain_order="left")["code"] for f in (rows, records))
    row_codes, record_codes = (codes.fill_null(-1).to_numpy(writable=True) for codes in joined)
    return row_codes, record_codes, keys.height


def _untied(records: pl.DataFrame, by: Sequence[str], known_at: str, tie_break: Sequence[str], tied: int) -> np.ndarray:
    """Positions of the records such that the last of those of one key and time is the one to take."""
    named = {name: records[name][tied] for name in (*by, known_at)}
    if not tie_break:
        raise TapehouseError(
            f"as-of join: two records have {named}; which is meant must be said by `tie_break`, or one left out"
        )
    if records.select(pl.struct(*by, known_at, *tie_break).is_duplicated().any()).item():
        double = records.filter(pl.struct(*by, known_at, *tie_break).is_duplicated()).select(*by, known_at, *tie_break)
        raise TapehouseError(f"as-of join: two records have {double.row(0, named=True)}; tie_break does not order them")
    order = records.select(pl.arg_sort_by(*tie_break, nulls_last=False)).to_series()
    return order.cast(pl.Int64).to_numpy(writable=True)


@njit(cache=True)
def last_known(row_codes, row_times, record_codes, record_times, keys):
    """For each row the position of the last record of its key with a time not after its own, or -1.

    Args:
        row_codes, record_codes: int32 numbers of keys below `keys`; -1 meets nothing.
        row_times, record_times: int64 instants.

    Returns:
        found (rows,): int64. tied: the position of a record that shares key and time with another, or -1.
    """
    starts, order, times = _grouped(record_codes, record_times, keys)
    row_starts, row_order, asked = _grouped(row_codes, row_times, keys)
    found = np.full(row_codes.size, -1, np.int64)
    widest = 0
    for key in range(keys):
        widest = max(widest, starts[key + 1] - starts[key])
    spare_times, spare_order = np.empty(widest, np.int64), np.empty(widest, np.int32)
    cells = 1
    while cells < widest:
        cells *= 2
    grid = np.empty(cells + 2, np.int32)
    tied = -1
    for key in range(keys):
        first, stop = starts[key], starts[key + 1]
        if first == stop:
            continue
        _sort(times[first:stop], order[first:stop], spare_times, spare_order)
        for i in range(first + 1, stop):
            if times[i] == times[i - 1]:
                tied = order[i]
        if row_starts[key] < row_starts[key + 1]:
            _place(
                times[first:stop],
                order[first:stop],
                asked[row_starts[key] : row_starts[key + 1]],
                row_order[row_starts[key] : row_starts[key + 1]],
                grid,
                found,
            )
    return found, tied


@njit(cache=True)
def _grouped(codes, times, keys):
    """Counting sort by key, stable: where each key starts (keys + 1,), positions (n,) int32, their times (n,)."""
    starts = np.zeros(keys + 1, np.int64)
    for code in codes:
        if code >= 0:
            starts[code + 1] += 1
    for key in range(keys):
        starts[key + 1] += starts[key]
    order = np.empty(starts[keys], np.int32)
    grouped = np.empty(starts[keys], np.int64)
    place = starts.copy()
    for i in range(codes.size):
        code = codes[i]
        if code >= 0:
            at = place[code]
            order[at], grouped[at] = i, times[i]
            place[code] = at + 1
    return starts, order, grouped


@njit(cache=True)
def _sort(times, order, spare_times, spare_order):
    """Sort one group by time in place, stable: by insertion where it is small, else by radix."""
    n = times.size
    lowest, highest, sorted_already = times[0], times[0], True
    for i in range(1, n):
        lowest, highest = min(lowest, times[i]), max(highest, times[i])
        sorted_already &= times[i] >= times[i - 1]
    if sorted_already:
        return
    if n <= FEW:
        for i in range(1, n):
            time, position, j = times[i], order[i], i
            while j > 0 and times[j - 1] > time:
                times[j], order[j] = times[j - 1], order[j - 1]
                j -= 1
            times[j], order[j] = time, position
        return
    span = np.uint64(highest) - np.uint64(lowest)
    counts = np.zeros(RADIX, np.int64)
    shift, swapped = np.uint64(0), False
    source_times, source_order, target_times, target_order = times, order, spare_times[:n], spare_order[:n]
    while shift < 64 and (span >> shift) > 0:
        counts[:] = 0
        for i in range(n):
            counts[((np.uint64(source_times[i]) - np.uint64(lowest)) >> shift) & np.uint64(RADIX - 1)] += 1
        total = 0
        for digit in range(RADIX):
            counts[digit], total = total, total + counts[digit]
        for i in range(n):
            digit = ((np.uint64(source_times[i]) - np.uint64(lowest)) >> shift) & np.uint64(RADIX - 1)
            at = counts[digit]
            target_times[at], target_order[at] = source_times[i], source_order[i]
            counts[digit] = at + 1
        source_times, source_order, target_times, target_order = target_times, target_order, source_times, source_order
        shift, swapped = shift + np.uint64(RADIX_BITS), not swapped
    if swapped:
        times[:] = source_times
        order[:] = source_order


@njit(cache=True)
def _place(times, order, asked, rows, grid, found):
    """For each asked time the last of the sorted times not after it, by a grid of about one time a cell."""
    n = times.size
    lowest, highest = times[0], times[n - 1]
    span = np.uint64(highest) - np.uint64(lowest)
    shift = np.uint64(0)
    while (span >> shift) >= n:
        shift += np.uint64(1)
    # grid[c]: how many times lie in cells before c.
    cell = 0
    for i in range(n):
        own = np.int64((np.uint64(times[i]) - np.uint64(lowest)) >> shift)
        while cell <= own:
            grid[cell] = i
            cell += 1
    grid[cell] = n
    for i in range(asked.size):
        time = asked[i]
        if time < lowest:
            continue
        if time >= highest:
            found[rows[i]] = order[n - 1]
            continue
        own = np.int64((np.uint64(time) - np.uint64(lowest)) >> shift)
        low, high = grid[own], grid[own + 1]
        while low < high:
            middle = (low + high) // 2
            if times[middle] <= time:
                low = middle + 1
            else:
                high = middle
        found[rows[i]] = order[low - 1]
