"""Materialising: read at one snapshot, build, judge the new rows, swap them in one transaction, keep the books."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb
import polars as pl

from tapehouse.building import make_build, range_sql, run_build
from tapehouse.errors import TapehouseError
from tapehouse.judging import OutputOutcome, judge, places_of
from tapehouse.lineage import Made, State, in_hashes, keep_state, newest_state, require_fresh, require_upstream
from tapehouse.partitions import DATED, FOLDED, contiguous, fold_origin
from tapehouse.project import ONCE, Asset, Output, Project, Table
from tapehouse.shown_values import scan_prompts
from tapehouse.slices import added, joined, slices
from tapehouse.warehouse import Change, Warehouse, apply_change

log = logging.getLogger("tapehouse")
BIG_TABLE_YEARS = {"event_at", "decision_at"}


@dataclass
class Outcome:
    """What became of a materialisation."""

    outputs: list[OutputOutcome]
    snapshot: int
    notes: dict[str, Any]

    @property
    def failed(self) -> dict[str, dict[str, list[str]]]:
        """Table to partition to reasons."""
        return {o.output.table: o.failed for o in self.outputs if o.failed}


def materialise(
    project: Project,
    warehouse: Warehouse,
    name: str,
    partitions: list[str] | None = None,
    run_id: str = "",
    **build_options: Any,
) -> Outcome:
    """Make the partitions of one asset (contiguous, for months and days): read, build, judge, swap, in one commit.

    New rows are judged before they are visible. Partitions that break the contract keep their last good rows; the others are
    committed. Rows that come out as they were are not written again. A table that declares `most_rows` is made in slices, each
    in a commit of its own.

    Args:
        partitions: keys of months, days or folds; default: all of them. What trains for long is committed fold by fold.
        run_id: recorded with each partition.
        build_options: passed to `Build` (`ingested_at`, `launch`, `progress`).

    Raises:
        TapehouseError: an upstream partition is missing, or the build returned other columns, types or rows than declared.
    """
    asset = project.assets[name]
    partitions = partitions or project.partitions(asset)
    _check_partitions(project, asset, partitions)
    needed = [*(r.table for r in asset.reads), *(o.table for o in asset.outputs)]
    if not warehouse.knows(needed):
        create_tables(project, warehouse, needed)
    parts = [partitions]
    if asset.most_rows is not None:
        with warehouse.reading() as (cursor, snapshot):
            parts = slices(project, asset, partitions, newest_state(warehouse, cursor, snapshot))
    if asset.by in FOLDED and asset.trains:  # a fold that took minutes is not to wait for the next
        parts = [[fold] for fold in partitions]
    made = [_make(project, warehouse, asset, part, run_id, build_options) for part in parts]
    if len(made) == 1:
        return made[0]
    return Outcome(joined([m.outputs for m in made]), made[-1].snapshot, added([m.notes for m in made]))


def _make(
    project: Project, warehouse: Warehouse, asset: Asset, partitions: list[str], run_id: str, build_options: dict[str, Any]
) -> Outcome:
    """Make some partitions in one commit."""
    with warehouse.reading() as (cursor, snapshot):
        stored, filled = warehouse.look(cursor, snapshot)
        state = newest_state(warehouse, cursor, snapshot) if "meta.partitions" in filled else {}
        require_upstream(project, asset, partitions, state)
        _require_shapes(project, asset, stored)
        if asset.pinned:
            require_fresh(project, asset, partitions, state)
        hashes = in_hashes(project, asset, partitions, state)
        started = time.monotonic()
        options = {"run_id": run_id, "filled": filled, **build_options}
        if asset.by in FOLDED and len(partitions) > 1:  # each reads a window of its own
            options |= {"shared": {}, "folds_made": partitions}
            builds = [make_build(project, asset, [fold], cursor, snapshot, **options) for fold in partitions]
        else:
            builds = [make_build(project, asset, partitions, cursor, snapshot, **options)]
        frames = run_build(*builds)
        scanned = scan_prompts(project, asset, frames, cursor)
    if not set(frames) <= set(stored):  # a table without a check file has the columns that its build returned
        create_tables(project, warehouse, frames)
    reshaped = {name for name in frames if stored.get(name, project.tables[name].types) != project.tables[name].types}
    outcomes = [
        judge(project, asset, output, frames[output.table], partitions, state, scanned.get(output.table, ()))
        for output in asset.outputs
    ]
    for outcome in outcomes:
        if outcome.output.table in reshaped:
            outcome.reshape()
    _swap(warehouse, asset, outcomes, frames, reshaped, project, state, hashes, snapshot, run_id, filled)
    rows = sum(m.rows for o in outcomes for m in o.made)
    where = _said(partitions)
    log.info("%s %s: %s rows in %.1f s", asset.name.replace(".", "/"), where, f"{rows:,}", time.monotonic() - started)
    return Outcome(outcomes, snapshot, added([build.notes for build in builds]))


def create_tables(project: Project, warehouse: Warehouse, names: Iterable[str]) -> None:
    """Create the declared tables that are missing; one that exists is left as it is."""
    if not warehouse.exists():
        warehouse.initialise()
    declared = [project.tables[name] for name in dict.fromkeys(names)]
    known = warehouse.known()
    missing = [table for table in declared if table.types and table.name not in known]
    for table in missing:
        warehouse.ensure(table.name, table.types, _by_year(table), table.as_known)
    if missing:
        warehouse.known()


def _by_year(table: Table) -> str | None:
    if table.time not in BIG_TABLE_YEARS:
        return None
    # The year of a date costs a tenth of that of an instant, which is looked up in a time zone.
    return 'year("session")' if table.types.get("session") == "date" else f'year("{table.time}")'


def _require_shapes(project: Project, asset: Asset, stored: dict[str, dict[str, str]]) -> None:
    """Refuse to read a table whose stored columns are not the declared ones: its rows are of another declaration."""
    for read in asset.reads:
        declared, have = project.tables[read.table].types, stored.get(read.table)
        if declared and have is not None and have != declared:
            unlike = sorted(c for c in {*declared, *have} if declared.get(c) != have.get(c))
            raise TapehouseError(
                f"{asset.name} reads {read.table}, whose stored columns {unlike} differ from the declared ones; "
                f"make it again first (`tapehouse run --select {read.table.replace('.', '/')}`)"
            )


def _swap(
    warehouse: Warehouse,
    asset: Asset,
    outcomes: list[OutputOutcome],
    frames: dict[str, pl.DataFrame],
    reshaped: set[str],
    project: Project,
    state: State,
    hashes: dict[str, str],
    snapshot: int,
    run_id: str,
    filled: set[str],
) -> None:
    now = datetime.now(UTC)
    failed = {p for o in outcomes for p in o.failed}  # an asset's tables are one unit: a partition changes in all or in none
    changes: list[Change] = []
    books: list[dict] = []
    kept: State = {}
    good: set[str] = set()
    for outcome in outcomes:
        table, output = project.tables[outcome.output.table], outcome.output
        frame = frames[output.table]
        fresh = [m for m in outcome.made if m.partition not in failed]
        good |= {m.partition for m in fresh}
        dirty = [m.partition for m in fresh if m.changed or (output.asset, m.partition) not in state]
        if dirty:
            some = len(dirty) < len(outcome.made)
            rows = frame.filter(places_of(table, asset, frame, dirty) >= 0) if some else frame
            changes.append(Change(table.name, rows, _selection(project, asset, table, output, dirty)))
        for m in fresh:
            made = Made(m.rows, m.out_hash, hashes[m.partition], asset.code_version, snapshot)
            kept[output.asset, m.partition] = made
            books.append({"asset": output.asset, "partition": m.partition, **made.__dict__, "run_id": run_id, "made_at": now})
    if not books:
        return
    names = ", ".join(f"'{o.output.asset}'" for o in outcomes)
    keys = ", ".join(f"'{p}'" for p in sorted(good))
    which = f'asset in ({names}) and "partition" in ({keys})'
    changes.append(Change("meta.partitions", pl.DataFrame(books), which))
    if asset.pinned:
        pin = {"snapshot": snapshot, "asset": asset.name, "run_id": run_id, "made_at": now}
        pins = [{**pin, "partition": p} for p in sorted(good)]
        changes.append(Change("meta.pins", pl.DataFrame(pins), "false"))  # appended: older models keep their snapshots
    message = f"{asset.name} {_said(sorted(good))}".strip()
    extra = {"run_id": run_id, "asset": asset.name, "partitions": sorted(good)}
    with warehouse.writing("tapehouse", message, extra) as cursor:
        alone = warehouse.snapshot(cursor) == snapshot
        if not alone:
            _require_unchanged(cursor, asset, state, which)
        gone: set[str] = set()
        for name in reshaped:
            if not warehouse.adapt(cursor, name, project.tables[name].types):
                continue  # another run has done so since this one looked, and these books may be newer than that
            if macro := project.tables[name].as_known:
                cursor.execute(macro)
            # Rows that are not written here lack what the new columns say: they are no longer made, and read as missing.
            writers = {o.asset for w in project.writers[name] for o in project.assets[w].outputs if o.table == name}
            gone |= writers
            cursor.execute(f"delete from meta.partitions where asset in ({', '.join(repr(w) for w in sorted(writers))})")
        for change in changes:
            apply_change(cursor, change, change.table in filled if alone else None)
    if alone:
        before = {key: made for key, made in state.items() if key[0] not in gone} if gone else state
        keep_state(warehouse, snapshot + 1, before | kept)


def _require_unchanged(cursor: duckdb.DuckDBPyConnection, asset: Asset, state: State, which: str) -> None:
    """Refuse to replace rows that another run has written since these were read: a raw table would lose what it added."""
    rows = cursor.execute(f'select asset, "partition", out_hash from meta.partitions where {which}').fetchall()
    for name, partition, digest in rows:
        before = state.get((name, partition))
        if before is None or before.out_hash != digest:
            raise TapehouseError(
                f"{asset.name} {partition}: another run wrote this partition while it was being made; nothing was changed, "
                "run it again"
            )


def _selection(project: Project, asset: Asset, table: Table, output: Output, partitions: list[str]) -> str:
    terms = [f"\"{column}\" = '{value}'" for column, value in output.key]
    if asset.by in DATED:
        spans = [project.span(first, last, asset.by) for first, last in contiguous(asset.by, partitions)]
        terms.append("(" + " or ".join(range_sql(table.time, *span) for span in spans) + ")")
    elif asset.by in FOLDED:
        column = table.doc.partition or "fold"
        if column in table.types:
            terms.append(f"\"{column}\" in ({', '.join(repr(fold) for fold in partitions)})")
        else:  # the quarantine has no column for the fold
            terms.append("(" + " or ".join(f"starts_with(origin, '{fold_origin(fold)}')" for fold in partitions) + ")")
    return " and ".join(terms) or "true"


def _check_partitions(project: Project, asset: Asset, partitions: list[str]) -> None:
    known = project.partitions(asset)
    unknown = [p for p in partitions if p not in known]
    if unknown or not partitions:
        raise TapehouseError(f"{asset.name}: no partition {unknown}; there are {known[0]} to {known[-1]}, made by {asset.by}")
    first = known.index(partitions[0])
    if known[first : first + len(partitions)] != partitions:
        raise TapehouseError(f"{asset.name}: the {asset.by} of one run must be contiguous, got {partitions}")


def _said(partitions: list[str]) -> str:
    if partitions == [ONCE]:
        return ""
    return partitions[0] if len(partitions) == 1 else f"{partitions[0]} … {partitions[-1]}"
