"""Checks in Python: the leakage proof on a sample of cuts, after every materialisation of a feature, label or fitted table."""

from datetime import datetime, timedelta

import dagster as dg
import polars as pl

from loaders.assets import asset_key
from resources.warehouse import WarehouseResource
from tapehouse.hashing import text_hash
from tapehouse.leakage import Leak, around, find_leaks
from tapehouse.lineage import State, read_state, stale
from tapehouse.partitions import DATED, FOLDED
from tapehouse.project import Asset, Project
from tapehouse.scratch import needed_months, read_raw
from tapehouse.warehouse import LAKE, Warehouse

SCHEMAS = ("features.", "labels.")
CUTS = 2  # a sample small enough to run always; the tests take many more


def build_checks(project: Project) -> list[dg.AssetChecksDefinition]:
    """`no_leak` for every feature and label table, and for what is fitted for a fold, or follows from it, without a recipe."""
    return [_leakage_check(project, asset) for asset in project.assets.values() if is_proven(asset)]


def is_proven(asset: Asset) -> bool:
    """Whether a table can be made again from raw rows alone, and says by when its rows were known."""
    declared = asset.source is not None and asset.source.suffix in (".py", ".sql")
    if asset.by in FOLDED:
        return declared and asset.name.startswith("models.")
    return asset.by in DATED and asset.name.startswith(SCHEMAS)


def _leakage_check(project: Project, asset: Asset) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(asset.name),
        name="no_leak",
        blocking=True,
        description="Everything known after a cut is changed to other valid values, the table is made again, and every row "
        f"with its cutoff before the cut must be the same to the bit. On {CUTS} cuts drawn by the snapshot. A window that is "
        "declared too short fails too, since fewer partitions are made again than were made at once.",
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
    """Leaks of a stored table at `cuts` instants, drawn by the snapshot from the partitions for which all it needs is there.

    Partitions in which the table or anything behind it is stale are passed over: made again they differ for another reason.
    """
    asset = project.assets[project.writers[name][0]]
    with lake.reading() as (cursor, snapshot):
        state = read_state(cursor)
        old = _stale_behind(project, state, name)
        whole = [key for key in project.partitions(asset) if _complete(project, state, old, name, key)]
        drawn: list[datetime] = []
        leaks: list[Leak] = []

        def stored(table: str, first: str, last: str) -> pl.DataFrame:
            time, fold = project.tables[table].time, project.tables[table].doc.partition
            if time is None:
                return cursor.execute(f'select * from {LAKE}.{table} where "{fold}" between $1 and $2', [first, last]).pl()
            begin, stop = project.span(first, last, asset.by)
            return cursor.execute(
                f"select * from {LAKE}.{table} where {time} >= $begin and {time} < $stop", {"begin": begin, "stop": stop}
            ).pl()

        for number in range(cuts):
            seed = int(text_hash(name, str(snapshot), str(number))[:8], 16)
            if not whole:
                return drawn, leaks
            start, end = _cuts_of(project, asset, whole[seed % len(whole)])
            cut = start + timedelta(seconds=seed % int((end - start).total_seconds()))
            raw = read_raw(cursor, project, [name], *around(project, [name], cut))
            leaks += find_leaks(project, raw, [name], cut, seed, stored)
            drawn.append(cut)
    return drawn, leaks


def _cuts_of(project: Project, asset: Asset, key: str) -> tuple[datetime, datetime]:
    """[start, end) of the cuts at which a partition's rows are compared: of a fold, those before a later fold is fitted."""
    if asset.by not in FOLDED:
        return project.span(key, key, asset.by)
    fold = project.folds[key]
    return fold.train_end, min([fold.test_end, *(f.train_end for f in project.folds.values() if f.train_end > fold.train_end)])


def _stale_behind(project: Project, state: State, name: str) -> set[tuple[str, str]]:
    """Stale (asset, partition) of a table and all behind it. Raw rows count as stored, whatever their files say now."""
    keys = project.partitions(project.assets[project.writers[name][0]])
    tables = needed_months(project, [name], keys[0], keys[-1])
    writers = {w for table in tables for w in project.writers[table] if not table.startswith("raw.")}
    return {(s.asset, s.partition) for s in stale(project, state, writers)}


def _complete(project: Project, state: State, old: set[tuple[str, str]], name: str, key: str) -> bool:
    """Whether the table and all behind it have been made, and are not stale, for what is compared at a partition's cuts."""
    first, last = around(project, [name], _cuts_of(project, project.assets[project.writers[name][0]], key)[0])
    for table, (begin, end) in needed_months(project, [name], first, last).items():
        for writer in project.writers[table]:
            asset = project.assets[writer]
            keys = project.partitions(asset)
            wanted = [k for k in keys if begin <= k <= end] if asset.by != "once" else keys
            outputs = [o.asset for o in asset.outputs if o.table == table]
            if any((o, p) not in state or (writer, p) in old for o in outputs for p in wanted):
                return False
    return True
