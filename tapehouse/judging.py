"""Judging new rows before they are visible: partitions, content hashes, the contract's verdict on each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.expectations import Result, evaluate
from tapehouse.hashing import frame_hashes
from tapehouse.lineage import State
from tapehouse.partitions import DATED, FOLDED, fold_origin, key_span, key_start
from tapehouse.project import Asset, Output, Project, Table

# When a row arrived, and provenance that differs between repetitions of the same result, are no content.
UNHASHED = {"ingested_at", "snapshot", "git_commit", "manifest"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PartitionOutcome:
    """One partition of one output: rows and content hash, and whether the rows differ from those before."""

    partition: str
    rows: int
    out_hash: str
    changed: bool


@dataclass
class OutputOutcome:
    """What became of one table in a materialisation."""

    output: Output
    made: list[PartitionOutcome]
    contract: list[Result]
    quality: list[Result]
    failed: dict[str, list[str]]  # partition -> reasons; these kept their last good rows

    def reshape(self) -> None:
        """The table's columns change with this commit: every row is written again, and a failure keeps all as it was."""
        self.made = [replace(part, changed=True) for part in self.made]
        if self.failed:
            why = f"not written: the table's columns changed, and {', '.join(self.failed)} failed"
            self.failed |= {part.partition: [why] for part in self.made if part.partition not in self.failed}


def judge(
    project: Project,
    asset: Asset,
    output: Output,
    frame: pl.DataFrame,
    partitions: list[str],
    state: State,
    scanned: Sequence[Result] = (),
) -> OutputOutcome:
    """Hash each partition and judge it by the table's contract and quality entries.

    Args:
        frame: normalised rows of all `partitions`.
        state: the books before, to tell which partitions have changed.
        scanned: what was found of the rows beside their contract's entries, and blocks as these do (`tapehouse.shown_values`).

    Raises:
        TapehouseError: rows outside the partitions, or of another key than the asset's own.
    """
    table = project.tables[output.table]
    where = str(asset.source or asset.name)
    check_file = str(project.settings.home / "checks" / Path(*table.name.split(".")).with_suffix(".yaml"))
    places = places_of(table, asset, frame, partitions)
    strays = np.flatnonzero(places < 0)
    if strays.size:
        example = {name: str(value) for name, value in frame.row(int(strays[0]), named=True).items()}
        raise TapehouseError(f"{where}: {strays.size} rows lie outside the range that was asked for, such as {example}")
    for column, value in output.key:
        if not (frame[column] == value).all():
            raise TapehouseError(f"{where}: writes rows of {table.name} whose {column} is not {value!r}")
    contract = [_grain_result(table, frame), *scanned, *evaluate(frame, _telling(table.doc.contract, frame), check_file)]
    quality = evaluate(frame, table.doc.quality, check_file) if frame.height else []
    failed: dict[str, list[str]] = {}
    for result in contract:
        if result.success:
            continue
        at = Counter(places[list(result.rows)].tolist()) if result.rows else dict.fromkeys(range(len(partitions)), 0)
        broken = {partitions[place]: count for place, count in at.items()}
        for partition, count in sorted(broken.items()):
            # The detail speaks of the whole range; a month is told how many of the rows are its own.
            own = f"{count} rows here; over the range " if len(broken) > 1 and count else ""
            failed.setdefault(partition, []).append(f"{result.expectation}: {own}{result.detail}")
    made = []
    for partition, rows, digest in zip(partitions, *_contents(frame, places, len(partitions)), strict=True):
        before = state.get((output.asset, partition))
        changed = before is None or before.out_hash != digest
        made.append(PartitionOutcome(partition, rows, digest, changed))
    return OutputOutcome(output, made, contract, quality, failed)


def _contents(frame: pl.DataFrame, places: np.ndarray, count: int) -> tuple[list[int], list[str]]:
    """Rows and content hash of each of `count` partitions."""
    hashed = frame.drop([column for column in frame.columns if column in UNHASHED])
    if (np.diff(places) < 0).any():
        order = np.argsort(places, kind="stable")  # inside a partition the rows keep their order
        hashed, places = hashed[order], places[order]
    ends = np.searchsorted(places, np.arange(count + 1)).tolist()
    return np.diff(ends).tolist(), frame_hashes(hashed, pairwise(ends))


def _telling(entries: Sequence[dict], frame: pl.DataFrame) -> Sequence[dict]:
    """The entries that can fail: of no rows, only what is said of the table as a whole."""
    return entries if frame.height else [entry for entry in entries if next(iter(entry)).startswith("expect_table_")]


def _grain_result(table: Table, frame: pl.DataFrame) -> Result:
    grain = list(table.doc.grain)
    keys, name = frame.select(grain), f"grain({', '.join(grain)})"
    if not frame.height:
        return Result(name, True)
    # Sorted by the grain as the rows are, those that share a key stand side by side.
    like_last = keys.select(pl.all_horizontal(pl.all().eq_missing(pl.all().shift(1)))).to_series()
    like_last[0] = False
    doubled = like_last | like_last.shift(-1, fill_value=False)
    lacking = keys.select(pl.any_horizontal(pl.all().is_null())).to_series()
    rows = tuple((doubled | lacking).arg_true().to_list())
    detail = f"{len(rows)} rows share or lack a key, such as {keys.row(rows[0])}" if rows else ""
    return Result(name, not rows, rows, detail)


def places_of(table: Table, asset: Asset, frame: pl.DataFrame, partitions: list[str]) -> np.ndarray:
    """The place in `partitions` of the one that each row belongs to; -1 where it belongs to none of them."""
    if asset.by in DATED:
        starts = [_microseconds(key_start(key)) for key in partitions]
        order = np.argsort(starts)
        ends = [_microseconds(key_span(asset.by, key, key)[1]) for key in partitions]
        times = frame[table.time or ""].cast(pl.Datetime("us")).to_physical().fill_null(np.iinfo(np.int64).min).to_numpy()
        found = np.searchsorted(np.array(starts)[order], times, side="right") - 1
        at = order[found]
        return np.where((found >= 0) & (times < np.array(ends)[at]), at, -1)
    if asset.by not in FOLDED:
        return np.zeros(frame.height, np.int64)
    # What the swap deletes is selected by this column: rows of another fold would stay beside their successors.
    column = table.doc.partition or "fold"
    if column not in table.types:
        found = np.full(frame.height, -1)
        for at, fold in enumerate(partitions):
            found[frame["origin"].str.starts_with(fold_origin(fold)).fill_null(False).to_numpy()] = at
        return found
    keys = frame[column].cast(pl.String)
    return keys.replace_strict({key: at for at, key in enumerate(partitions)}, default=-1, return_dtype=pl.Int64).to_numpy()


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
