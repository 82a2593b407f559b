"""Staleness: what each partition was made from, and which partitions would come out of other inputs today.

`meta.partitions` holds, for every partition of every asset, the hash of its rows and the hash of what it read. A partition is
stale when the second differs from the one computed now: a correction, a changed query or a changed recipe shows up here, and
rows that came out the same stop it from spreading.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

import duckdb

from tapehouse.errors import TapehouseError
from tapehouse.hashing import text_hash
from tapehouse.partitions import DATED, FOLDED
from tapehouse.project import ONCE, Asset, Project
from tapehouse.warehouse import Warehouse


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


def newest_state(warehouse: Warehouse, cursor: duckdb.DuckDBPyConnection, snapshot: int) -> State:
    """`read_state` of a cursor that sees the newest `snapshot`; what this process has read or written itself is not read again.

    The result is shared: do not change it.
    """
    at, state, sure = warehouse.kept_state or (None, {}, False)
    if at != snapshot or not (sure or warehouse.committed() == snapshot):
        state = read_state(cursor)
    warehouse.kept_state = snapshot, state, True
    return state


def keep_state(warehouse: Warehouse, snapshot: int, state: State) -> None:
    """Remember the books as this process has just written them: at `snapshot`, unless another's commit came between."""
    warehouse.kept_state = snapshot, state, False


def in_hash(project: Project, asset: Asset, partition: str, state: State) -> str:
    """Hash of everything one partition reads: its upstream partitions' rows, outside content, fold and definitions of time.

    A partition whose upstream is missing hashes that too, so it turns stale when the upstream appears.
    """
    return in_hashes(project, asset, [partition], state)[partition]


def in_hashes(project: Project, asset: Asset, partitions: Sequence[str], state: State) -> dict[str, str]:
    """`in_hash` of each of the partitions: outside content is asked for once, for all of them."""
    outside = outside_hashes(project, asset, partitions)
    return {partition: _in_hash(project, asset, partition, state, outside.get(partition)) for partition in partitions}


def outside_hashes(project: Project, asset: Asset, partitions: Sequence[str]) -> dict[str, str]:
    """Partition to the fingerprint of what it reads from outside the warehouse; nothing where the asset declares none."""
    if asset.fingerprint is None:
        return {}
    settings, universe = project.settings, project.settings.universe
    if asset.by not in DATED:
        return dict.fromkeys(partitions, asset.fingerprint(settings, universe.start, universe.end))
    spans = [project.span(partition, partition, asset.by) for partition in partitions]
    many = getattr(asset.fingerprint, "ranges", None)  # `tapehouse.chains.Ranged`
    found = many(settings, spans) if many else [asset.fingerprint(settings, *span) for span in spans]
    return dict(zip(partitions, found, strict=True))


def _in_hash(project: Project, asset: Asset, partition: str, state: State, outside: str | None) -> str:
    universe = project.settings.universe
    parts = [f"{universe.calendar}|{universe.interval}|{universe.benchmark}"]
    parts.append(f"{universe.decision_lag_minutes}|{universe.settlement_lag_days}")
    for key in _inputs(project, asset, partition):
        made = state.get(key)
        parts.append(f"{key[0]}@{key[1]}={made.out_hash if made else 'missing'}")
    if asset.by in FOLDED:
        parts.append(repr(project.folds[partition]))
    if any(read.window == "before_folds" for read in asset.reads):
        parts.append(repr(project.first_fitted_until))
    if outside is not None:
        parts.append(outside)
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
    verdicts = project.__dict__.setdefault("_verdicts", _Verdicts(project))
    return verdicts.look(state, set(project.assets if names is None else names))


class _Verdicts:
    """What is stale, kept from one look to the next: of a long history only what has changed in between is judged again."""

    def __init__(self, project: Project):
        self.project = project
        self.guard = Lock()
        self.state: State = {}
        self.assets: dict[str, Asset] = {}
        self.why: dict[str, dict[str, str]] = {}  # asset -> stale partition -> why
        self.open: dict[str, set[str]] = {}  # asset -> partitions to judge
        self.outside: dict[tuple[str, str], str] = {}
        self.readers: dict[tuple[str, str], list[tuple[str, str]]] = {}  # output's partition -> whom its rows reach

    def look(self, state: State, names: set[str]) -> list[Stale]:
        """Stale partitions of the assets `names`, in order."""
        with self.guard:
            self._open_what_changed(state)
            found: list[Stale] = []
            for name, asset in self.project.assets.items():
                if name in names:
                    self._judge(asset)
                    why = self.why[name]
                    found += [Stale(name, p, why[p]) for p in self.project.partitions(asset) if p in why] if why else []
            return found

    def _open_what_changed(self, state: State) -> None:
        project = self.project
        if self.assets != project.assets:
            self.assets, self.state = dict(project.assets), dict(state)
            self.open = {name: set(project.partitions(asset)) for name, asset in project.assets.items()}
            self.why, self.readers = {name: {} for name in project.assets}, {}
            for name, asset in project.assets.items():
                for partition in project.partitions(asset):
                    for output in asset.outputs:
                        self.readers.setdefault((output.asset, partition), []).append((name, partition))
                    for key in _inputs(project, asset, partition):
                        self.readers.setdefault(key, []).append((name, partition))
            return
        before = self.state
        changed = [key for key, made in state.items() if (old := before.get(key)) is not made and old != made]
        changed += [key for key in before if key not in state]
        for key in changed:
            for name, partition in self.readers.get(key, ()):
                self.open[name].add(partition)
        self.state = dict(state)

    def _judge(self, asset: Asset) -> None:
        project, why, state = self.project, self.why[asset.name], self.state
        for partition in self.open[asset.name]:
            made = [state.get((output.asset, partition)) for output in asset.outputs]
            if any(m is None for m in made):
                why[partition] = "missing"
            elif any(m.code_version != asset.code_version for m in made if m):
                why[partition] = "code"
            elif partition in why:
                del why[partition]
        partitions = project.partitions(asset) if asset.fingerprint else self.open[asset.name]
        asked = [partition for partition in partitions if why.get(partition) not in ("missing", "code")]
        outside = outside_hashes(project, asset, asked)
        for partition in asked:
            key = (asset.name, partition)
            if partition not in self.open[asset.name] and self.outside[key] == outside[partition]:
                continue
            made = state[asset.outputs[0].asset, partition]
            if made.in_hash != _in_hash(project, asset, partition, state, outside.get(partition)):
                why[partition] = "inputs"
            else:
                why.pop(partition, None)
            if asset.fingerprint:
                self.outside[key] = outside[partition]
        self.open[asset.name] = set()


def require_upstream(project: Project, asset: Asset, partitions: list[str], state: State) -> None:
    """Refuse to build on a gap.

    Raises:
        TapehouseError: names the upstream table and the partitions that have not been made yet.
    """
    missing: dict[str, list[str]] = {}
    for partition in partitions:
        for name, upstream in project.upstream(asset, partition):
            if (name, upstream) in project.may_lack(asset):
                continue
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
    behind = _behind(project, asset, partitions, state)
    found = [s for s in stale(project, state, project.ancestors(asset.name)) if (s.asset, s.partition) in behind]
    if found:
        names = list(dict.fromkeys(s.asset.replace(".", "/") for s in found))
        raise TapehouseError(
            f"{asset.name}: not made, because {', '.join(names)} behind it changed since they were made ({found[0].why}); "
            f"`tapehouse run --select +{asset.name.replace('.', '/')}` makes them first"
        )


def _behind(project: Project, asset: Asset, partitions: list[str], state: State) -> set[tuple[str, str]]:
    """Every (asset, partition) that these partitions of an asset rest on, directly or not: of a fold, not the other folds.

    What may be lacking, and is, it does not rest on.
    """
    maker = {o.asset: a for a in project.assets.values() for o in a.outputs}
    seen: set[tuple[str, str]] = set()
    open_ = [(asset, p) for p in partitions]
    while open_:
        at, partition = open_.pop()
        for output, part in project.upstream(at, partition):
            if (output, part) not in state and (output, part) in project.may_lack(at):
                continue
            key = (maker[output].name, part)
            if key not in seen:
                seen.add(key)
                open_.append((maker[output], part))
    return seen


def _range_text(parts: list[str]) -> str:
    if parts == [ONCE]:
        return ""
    return parts[0] if len(parts) == 1 else f"{parts[0]} … {parts[-1]} ({len(parts)})"
