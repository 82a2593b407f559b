"""Staleness: what each partition was made from, and which partitions would come out of other inputs today.

`meta.partitions` holds, for every partition of every asset, the hash of its rows and the hash of what it read. A partition is
stale when the second differs from the one computed now: a correction, a changed query or a changed recipe shows up here, and
rows that came out the same stop it from spreading.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import duckdb

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.partitions import DATED
from tapehouse.project import ONCE, Asset, Project


@dataclass(frozen=True)
class Made:
    """The bookkeeping of one partition."""

    rows: int
    out_hash: str
    in_hash: str
    code_version: str
    snapshot: int


State = dict[tuple[str, str], Made]


def read_state(cursor: duckdb.DuckDBPyConnection) -> State:
    """All of `meta.partitions`, by (asset, partition)."""
    rows = cursor.execute(
        'select asset, "partition", rows, out_hash, in_hash, code_version, snapshot from lake.meta.partitions'
    ).fetchall()
    return {(r[0], r[1]): Made(*r[2:]) for r in rows}


def in_hash(project: Project, asset: Asset, partition: str, state: State) -> str:
    """Hash of everything one partition reads: its upstream partitions' rows, outside content, fold and definitions of time.

    A partition whose upstream is missing hashes that too, so it turns stale when the upstream appears.
    """
    universe = project.settings.universe
    parts = [f"{universe.calendar}|{universe.interval}|{universe.benchmark}"]
    parts.append(f"{universe.decision_lag_minutes}|{universe.settlement_lag_days}")
    for key in _inputs(project, asset, partition):
        made = state.get(key)
        parts.append(f"{key[0]}@{key[1]}={made.out_hash if made else 'missing'}")
    if asset.by == "folds":
        parts.append(repr(project.folds[partition]))
    if any(read.window == "before_folds" for read in asset.reads):
        parts.append(repr(min(f.train_end for f in project.folds.values())))
    if asset.fingerprint is not None:
        if asset.by in DATED:
            start, end = project.span(partition, partition, asset.by)
        else:
            start, end = universe.start, universe.end
        parts.append(asset.fingerprint(project.settings, start, end))
    return text_hash(*parts)


def _inputs(project: Project, asset: Asset, partition: str) -> list[tuple[str, str]]:
    """The upstream partitions in order; kept, because every partition of a long history is asked after each run."""
    kept = project.__dict__.setdefault("_inputs", {})
    if (asset.name, partition) not in kept:
        kept[asset.name, partition] = sorted(project.upstream(asset, partition))
    return kept[asset.name, partition]


@dataclass(frozen=True)
class Stale:
    """A partition to make again, and why: `missing`, `code` or `inputs`."""

    asset: str
    partition: str
    why: str


def stale(project: Project, state: State, names: Iterable[str] | None = None) -> list[Stale]:
    """Stale partitions of the assets `names` (default: all), in dependency order.

    An asset is judged by its inputs as they are now: what lies behind a stale partition is named once that one has been made
    and has come out different.
    """
    wanted = set(project.assets if names is None else names)
    found: list[Stale] = []
    for asset in project.assets.values():
        if asset.name not in wanted:
            continue
        for partition in project.partitions(asset):
            made = [state.get((o.asset, partition)) for o in asset.outputs]
            if any(m is None for m in made):
                found.append(Stale(asset.name, partition, "missing"))
            elif any(m.code_version != asset.code_version for m in made if m):
                found.append(Stale(asset.name, partition, "code"))
            elif made[0] and made[0].in_hash != in_hash(project, asset, partition, state):
                found.append(Stale(asset.name, partition, "inputs"))
    return found


def require_upstream(project: Project, asset: Asset, partitions: list[str], state: State) -> None:
    """Refuse to build on a gap.

    Raises:
        TapehouseError: names the upstream table and the partitions that have not been made yet.
    """
    missing: dict[str, list[str]] = {}
    for partition in partitions:
        for name, upstream in project.upstream(asset, partition):
            if (name, upstream) not in state and upstream not in missing.setdefault(name, []):
                missing[name].append(upstream)
    gaps = [f"{name} {_range_text(sorted(parts))}".strip() for name, parts in missing.items() if parts]
    if gaps:
        raise TapehouseError(
            f"{asset.name} reads partitions that have not been made: {'; '.join(gaps)}. Materialise them first "
            "(`tapehouse run` makes whatever is missing, in order)"
        )


def require_fresh(project: Project, asset: Asset, partitions: list[str], state: State) -> None:
    """Refuse to make a model or report of something stale: its snapshot is to name one consistent state (promise 4).

    Raises:
        TapehouseError: names the stale assets behind it.
    """
    behind = _behind(project, asset, partitions)
    found = [s for s in stale(project, state, project.ancestors(asset.name)) if (s.asset, s.partition) in behind]
    if found:
        names = list(dict.fromkeys(s.asset.replace(".", "/") for s in found))
        raise TapehouseError(
            f"{asset.name}: not made, because {', '.join(names)} behind it changed since they were made ({found[0].why}); "
            f"`tapehouse run --select +{asset.name.replace('.', '/')}` makes them first"
        )


def _behind(project: Project, asset: Asset, partitions: list[str]) -> set[tuple[str, str]]:
    """Every (asset, partition) that these partitions of an asset rest on, directly or not: of a fold, not the other folds."""
    maker = {o.asset: a for a in project.assets.values() for o in a.outputs}
    seen: set[tuple[str, str]] = set()
    open_ = [(asset, p) for p in partitions]
    while open_:
        at, partition = open_.pop()
        for output, part in project.upstream(at, partition):
            key = (maker[output].name, part)
            if key not in seen:
                seen.add(key)
                open_.append((maker[output], part))
    return seen


def _range_text(parts: list[str]) -> str:
    if parts == [ONCE]:
        return ""
    return parts[0] if len(parts) == 1 else f"{parts[0]} … {parts[-1]} ({len(parts)})"
