"""Checks in Python: the leakage proof on a sample of cuts, after every materialisation of a feature or label table."""

from datetime import datetime, timedelta

import dagster as dg
import polars as pl

from loaders.assets import asset_key
from resources.warehouse import WarehouseResource
from tapehouse.hashing import text_hash
from tapehouse.leakage import Leak, find_leaks
from tapehouse.lineage import State, read_state, stale
from tapehouse.partitions import DATED
from tapehouse.project import Asset, Project
from tapehouse.scratch import month_of, needed_months, read_raw, shift_month
from tapehouse.warehouse import LAKE, Warehouse

SCHEMAS = ("features.", "labels.")
CUTS = 2  # a sample small enough to run always; the tests take many more


def build_checks(project: Project) -> list[dg.AssetChecksDefinition]:
    """`no_leak` for every feature and label table."""
    return [
        _leakage_check(project, asset)
        for asset in project.assets.values()
        if asset.by == "months" and asset.name.startswith(SCHEMAS)
    ]


def _leakage_check(project: Project, asset: Asset) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(asset.name),
        name="no_leak",
        blocking=True,
        description="Everything known after a cut is changed to other valid values, the table is made again, and every row "
        f"with its cutoff before the cut must be the same to the bit. On {CUTS} cuts drawn by the snapshot. A window that is "
        "declared too short fails too, since fewer months are made again than were made at once.",
    )
    def no_leak(warehouse: WarehouseResource) -> dg.AssetCheckResult:
        cuts, leaks = check_leakage(project, warehouse.lake, asset.name)
        return dg.AssetCheckResult(
            passed=not leaks and len(cuts) == CUTS,  # nothing looked at is nothing proven: a warning
            severity=dg.AssetCheckSeverity.ERROR if leaks else dg.AssetCheckSeverity.WARN,
            metadata={
                "cuts": [cut.isoformat() for cut in cuts],
                "leaks": "\n".join(str(leak) for leak in leaks) or "none",
            },
        )

    return no_leak


def check_leakage(project: Project, lake: Warehouse, name: str, cuts: int = CUTS) -> tuple[list[datetime], list[Leak]]:
    """Leaks of a stored table at `cuts` instants, drawn by the snapshot from the months for which all it needs is there.

    Months in which the table or anything behind it is stale are passed over: made again they differ for another reason.
    """
    with lake.reading() as (cursor, snapshot):
        state = read_state(cursor)
        old = _stale_behind(project, state, name)
        whole = [m for m in project.months if _complete(project, state, old, name, m)]
        drawn: list[datetime] = []
        leaks: list[Leak] = []
        for number in range(cuts):
            seed = int(text_hash(name, str(snapshot), str(number))[:8], 16)
            if not whole:
                return drawn, leaks
            start, end = project.span(*[whole[seed % len(whole)]] * 2)
            cut = start + timedelta(seconds=seed % int((end - start).total_seconds()))

            def stored(table: str, first: str, last: str) -> pl.DataFrame:
                begin, stop = project.span(first, last)
                time = project.tables[table].time
                return cursor.execute(
                    f"select * from {LAKE}.{table} where {time} >= $begin and {time} < $stop", {"begin": begin, "stop": stop}
                ).pl()

            last = month_of(cut)
            first = max(shift_month(last, -2), project.months[0])
            raw = read_raw(cursor, project, [name], first, last)
            leaks += find_leaks(project, raw, [name], cut, seed, stored)
            drawn.append(cut)
    return drawn, leaks


def _stale_behind(project: Project, state: State, name: str) -> set[tuple[str, str]]:
    """Stale (asset, partition) of a table and all behind it. Raw rows count as stored, whatever their files say now."""
    tables = needed_months(project, [name], project.months[0], project.months[-1])
    writers = {w for table in tables for w in project.writers[table] if not table.startswith("raw.")}
    return {(s.asset, s.partition) for s in stale(project, state, writers)}


def _complete(project: Project, state: State, old: set[tuple[str, str]], name: str, month: str) -> bool:
    """Whether the table and all behind it have been made, and are not stale, for a month and what it reads."""
    first = max(shift_month(month, -2), project.months[0])
    for table, (begin, end) in needed_months(project, [name], first, month).items():
        for writer in project.writers[table]:
            asset = project.assets[writer]
            keys = project.partitions(asset)
            wanted = [k for k in keys if begin <= k <= end] if asset.by in DATED else keys
            outputs = [o.asset for o in asset.outputs if o.table == table]
            if any((o, p) not in state or (writer, p) in old for o in outputs for p in wanted):
                return False
    return True
