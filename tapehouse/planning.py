"""What to make next: stale partitions grouped into runs, upstream first, one partition set a run."""

from collections.abc import Set
from dataclasses import dataclass
from itertools import pairwise

from tapehouse.lineage import Stale, State, stale
from tapehouse.partitions import DATED, FOLDED, contiguous
from tapehouse.project import ONCE, Asset, Project
from tapehouse.tables import Cadence

# Small things first, models last: what is made once is often read by all months, and a fold reads every month before it.
ORDER: dict[Cadence, int] = {"once": 0, "days": 1, "months": 2, "folds": 3, "adapter_folds": 4}


@dataclass(frozen=True)
class Wave:
    """One run: assets that share a range of partitions and may be made together."""

    by: Cadence
    assets: tuple[str, ...]
    first: str
    last: str

    def partitions(self, project: Project) -> list[str]:
        """The partition keys of the run."""
        if self.by == "once":
            return [self.first]
        keys = project.folds_of(self.by) if self.by in FOLDED else getattr(project, self.by)
        return [key for key in keys if self.first <= key <= self.last]


def next_wave(
    project: Project, todo: list[Stale], busy: Set[tuple[str, str]] = frozenset(), room: bool = True
) -> Wave | None:
    """The next run for the stale partitions `todo`; None when there are none, or all wait for others.

    An asset joins when nothing upstream of it is left to make outside the run. Behind an asset of the same run it joins only
    with partitions that were never made: whether others are stale is known once their inputs have been made again.

    Args:
        busy: (asset, partition) pairs that are in the making. room: whether training may begin; it goes first, and what is made
            once is trained in a run of its own, so that the others need not wait for it.
    """
    waiting: dict[str, dict[str, str]] = {}
    for item in todo:
        if (item.asset, item.partition) not in busy:
            waiting.setdefault(item.asset, {})[item.partition] = item.why
    making = {asset for asset, _ in busy}
    allowed = {name for name in waiting if room or not project.assets[name].trains}
    ready = [n for n in project.assets if n in allowed and not (project.ancestors(n) & (waiting.keys() | making))]
    if not ready:
        return None
    lead = min(ready, key=lambda name: (not project.assets[name].trains, ORDER[project.assets[name].by]))
    by = project.assets[lead].by
    first, last = _ranges(project, project.assets[lead], waiting[lead])[0]
    if by == "once" and project.assets[lead].trains:
        return Wave(by, (lead,), first, last)
    wanted = set(Wave(by, (), first, last).partitions(project))
    members: list[str] = []
    for name, asset in project.assets.items():
        mine = waiting.get(name)
        if name not in allowed or not mine or asset.by != by or (first, last) not in _ranges(project, asset, mine):
            continue
        if by == "once" and asset.trains:
            continue
        upstream = project.ancestors(name) & waiting.keys()
        outside = (upstream | (project.ancestors(name) & making)) - set(members)
        spilling = any(set(waiting[u]) - wanted for u in upstream if by in DATED and project.assets[u].by == by)
        fresh = all(mine[p] == "missing" for p in mine if p in wanted)
        if not outside and not spilling and (fresh or not upstream):
            members.append(name)
    return Wave(by, tuple(members), first, last)


def plan(
    project: Project, state: State, names: set[str] | None = None, within: set[str] | None = None, optional: bool = False
) -> list[Stale]:
    """Stale partitions of the assets `names`, restricted to the partitions `within` where given.

    What is optional is kept up to date once it has been made, also where its books were dropped because a table of many writers
    has changed its columns; with `optional` it is made, too.
    """
    return [
        s
        for s in stale(project, state, names)
        if (within is None or s.partition in within)
        and (optional or s.why != "missing" or not project.assets[s.asset].optional or _was_made(project, state, s))
    ]


def _was_made(project: Project, state: State, item: Stale) -> bool:
    """Whether another output of a missing partition is in the books, or what was made of it."""
    names = [item.asset, *(a.name for a in project.assets.values() if any(read.writer == item.asset for read in a.reads))]
    return any((o.asset, item.partition) in state for name in names for o in project.assets[name].outputs)


def select(project: Project, selection: str | None) -> set[str]:
    """Asset names for a selection in Dagster's manner: `features/price`, `features/*`, `+x` and `x+` with all up or down of it.

    Several selections are separated by commas; None is everything.

    Raises:
        TapehouseError: a part of the selection names no asset.
    """
    from fnmatch import fnmatch

    from tapehouse.errors import TapehouseError

    if selection is None:
        return set(project.assets)
    chosen: set[str] = set()
    for part in (p.strip() for p in selection.split(",")):
        pattern = part.strip("+").replace("/", ".")
        found = {n for n, a in project.assets.items() if any(fnmatch(o.asset, pattern) for o in a.outputs)}
        if not found:
            raise TapehouseError(f"--select {part}: no such asset; `tapehouse assets` lists them")
        named = set(found)  # `+x+` takes what x needs and what needs x, not all that needs what x needs
        if part.startswith("+"):
            found |= {a for n in named for a in project.ancestors(n)}
        if part.endswith("+"):
            found |= {n for n in project.assets if project.ancestors(n) & named}
        chosen |= found
    return chosen


def _ranges(project: Project, asset: Asset, partitions: dict[str, str]) -> list[tuple[str, str]]:
    """Contiguous runs of an asset's partitions, in order."""
    if asset.by == "once":
        return [(ONCE, ONCE)]
    if asset.by in DATED:
        return contiguous(asset.by, partitions)
    folds = project.folds_of(asset.by)
    places = sorted(folds.index(fold) for fold in partitions)
    breaks = [at for at, (a, b) in enumerate(pairwise(places), start=1) if b != a + 1]
    return [(folds[places[a]], folds[places[b - 1]]) for a, b in pairwise([0, *breaks, len(places)])]
