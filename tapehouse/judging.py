"""Judging new rows before they are visible: partitions, content hashes, the contract's verdict on each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.expectations import Result, evaluate
from tapehouse.hashing import frame_hash
from tapehouse.lineage import State
from tapehouse.partitions import DATED, fold_origin
from tapehouse.project import Asset, Output, Project, Table

# When a row arrived, and provenance that differs between repetitions of the same result, are no content.
UNHASHED = {"ingested_at", "snapshot", "git_commit", "manifest"}


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
    placed = frame.with_columns(partition_of(table, asset, partitions).alias("__partition"))
    strays = placed.filter(~pl.col("__partition").is_in(partitions) | pl.col("__partition").is_null())
    if strays.height:
        raise TapehouseError(f"{where}: {strays.height} rows lie outside the range that was asked for, such as {strays.row(0)}")
    for column, value in output.key:
        if not (frame[column] == value).all():
            raise TapehouseError(f"{where}: writes rows of {table.name} whose {column} is not {value!r}")
    contract = [_grain_result(table, frame), *scanned, *evaluate(frame, _telling(table.doc.contract, frame), check_file)]
    quality = evaluate(frame, table.doc.quality, check_file) if frame.height else []
    failed: dict[str, list[str]] = {}
    keys = placed["__partition"]
    for result in contract:
        if result.success:
            continue
        broken = Counter(keys.gather(list(result.rows)).to_list()) if result.rows else dict.fromkeys(partitions, 0)
        for partition, count in sorted(broken.items()):
            # The detail speaks of the whole range; a month is told how many of the rows are its own.
            own = f"{count} rows here; over the range " if len(broken) > 1 and count else ""
            failed.setdefault(partition, []).append(f"{result.expectation}: {own}{result.detail}")
    hashed = placed.drop([column for column in frame.columns if column in UNHASHED])
    parts = {p: f for (p,), f in hashed.partition_by("__partition", as_dict=True, include_key=False).items()}
    empty = hashed.drop("__partition").clear()
    made = []
    for partition in partitions:
        rows = parts.get(partition, empty)
        digest = frame_hash(rows)
        before = state.get((output.asset, partition))
        changed = before is None or before.out_hash != digest
        made.append(PartitionOutcome(partition, rows.height, digest, changed))
    return OutputOutcome(output, made, contract, quality, failed)


def _telling(entries: Sequence[dict], frame: pl.DataFrame) -> Sequence[dict]:
    """The entries that can fail: of no rows, only what is said of the table as a whole."""
    return entries if frame.height else [entry for entry in entries if next(iter(entry)).startswith("expect_table_")]


def _grain_result(table: Table, frame: pl.DataFrame) -> Result:
    grain = list(table.doc.grain)
    keys = frame.select(grain)
    doubled_or_null = keys.is_duplicated() | keys.select(pl.any_horizontal(pl.all().is_null())).to_series()
    rows = tuple(doubled_or_null.arg_true().to_list()) if frame.height else ()
    detail = f"{len(rows)} rows share or lack a key, such as {frame.select(grain).row(rows[0])}" if rows else ""
    return Result(f"grain({', '.join(grain)})", not rows, rows, detail)


def partition_of(table: Table, asset: Asset, partitions: list[str]) -> pl.Expr:
    """The partition key of each row."""
    if asset.by in DATED:
        return pl.col(table.time).dt.truncate("1mo" if asset.by == "months" else "1d").dt.date().cast(pl.String)
    if asset.by != "folds":
        return pl.lit(partitions[0])
    # What the swap deletes is selected by this column: rows of another fold would stay beside their successors.
    column = table.doc.partition or "fold"
    if column in table.types:
        return pl.col(column)
    return pl.when(pl.col("origin").str.starts_with(fold_origin(partitions[0]))).then(pl.lit(partitions[0]))
