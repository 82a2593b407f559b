"""What to make next: stale partitions grouped into runs, upstream first, one partition set a run."""

from collections.abc import Set
from dataclasses import dataclass, replace
from itertools import pairwise

from tapehouse.lineage import Stale, State, stale
from tapehouse.partitions import DATED, FOLDED, contiguous
from tapehouse.project import ONCE, Asset, Project
from tapehouse.tables import Cadence

MANY = 8  # assets that are worth a second run
# Small things first, models last: what is made once is often read by all months, and a fold reads every month before it.
ORDER: dict[Cadence, int] = {"once": 0, "months": 1, "days": 2, "folds": 3, "adapter_folds": 4}


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


def next_wave(project: Project, todo: list[Stale], busy: Set[tuple[str, str]] = frozenset(), room: bool = True) -> Wave | None:
    """The next run for the stale partitions `todo`; None when there are none, or all wait for others.

    An asset joins when nothing upstream of it is left to make outside the run. Behind an asset of the same run it joins only
    with partitions that were never made: whether others are stale is known once their inputs have been made again. A fold waits
    for what it reads of other tables by fold, and not for their other folds.

    What training waits for is made before anything else, and the rest beside it: training takes longest.

    Args:
        busy: (asset, partition) pairs that are in the making. room: whether training may begin; it goes first and in a run of
            its own, so that the others need not wait for it.
    """
    waiting: dict[str, dict[str, str]] = {}
    for item in todo:
        if (item.asset, item.partition) not in busy:
            waiting.setdefault(item.asset, {})[item.partition] = item.why
    pending = {(name, p) for name, partitions in waiting.items() for p in partitions} | busy
    allowed = [name for name in project.assets if name in waiting and (room or not project.assets[name].trains)]
    ready = {name: found for name in allowed if (found := _open(project, name, waiting[name], pending))}
    if not ready:
        return None
    urgent = set().union(*(project.ancestors(name) for name in waiting if project.assets[name].trains))
    lead = min(ready, key=lambda n: (not project.assets[n].trains, n not in urgent, ORDER[project.assets[n].by]))
    by = project.assets[lead].by
    first, last = _ranges(project, project.assets[lead], ready[lead])[0]
    if project.assets[lead].trains:
        return Wave(by, (lead,), first, last)
    wanted = set(Wave(by, (), first, last).partitions(project))
    members: list[str] = []
    left = pending  # to be made outside this run
    for name in allowed:
        asset, mine = project.assets[name], waiting[name]
        if asset.by != by or asset.trains or (lead in urgent and name not in urgent):
            continue
        opened = _open(project, name, mine, left)
        if not opened or (first, last) not in _ranges(project, asset, opened):
            continue
        upstream = project.ancestors(name) & waiting.keys()
        spilling = any(set(waiting[u]) - wanted for u in upstream if by in DATED and project.assets[u].by == by)
        behind = bool(upstream) if by not in FOLDED else _open(project, name, mine, pending) != opened
        fresh = all(mine[p] == "missing" for p in mine if p in wanted)
        if not spilling and (fresh or not behind):
            members.append(name)
            left = left - {(name, p) for p in (mine if by in DATED else wanted)}
    return Wave(by, tuple(members), first, last)


def trains_next(project: Project, todo: list[Stale], wave: Wave) -> bool:
    """Whether training waits for nothing but `wave`, or is part of it."""
    missing = {item.asset for item in todo} - set(wave.assets)
    return any(project.assets[item.asset].trains and not missing & project.ancestors(item.asset) for item in todo)


def shared_out(project: Project, wave: Wave) -> tuple[Wave, Wave | None]:
    """A run as it is; or what many others of it wait for, alone; or two runs of those others, that can be made at once.

    So the pages of a report, none of which waits for another, are made by two processes.
    """
    waited_for = set().union(*(project.ancestors(name) for name in wave.assets))
    first, others = ([n for n in wave.assets if (n in waited_for) == wanted] for wanted in (True, False))
    if wave.by != "once" or len(others) < MANY:
        return wave, None
    if first:
        return replace(wave, assets=tuple(first)), None
    return replace(wave, assets=tuple(others[::2])), replace(wave, assets=tuple(others[1::2]))


def _open(project: Project, name: str, partitions: dict[str, str], pending: Set[tuple[str, str]]) -> dict[str, str]:
    """Those of an asset's partitions that nothing in `pending` lies upstream of."""
    by_asset = {asset for asset, _ in pending}
    if project.assets[name].by not in FOLDED:
        return {} if project.ancestors(name) & by_asset else partitions
    return {p: why for p, why in partitions.items() if not _waits(project, name, p, pending, by_asset)}


def _waits(project: Project, name: str, fold: str, pending: Set[tuple[str, str]], by_asset: Set[str]) -> bool:
    """Whether something upstream of a fold is pending: of a table by fold the same fold, of any other one anything."""
    seen, stack = {name}, [name]
    while stack:
        for read in project.assets[stack.pop()].reads:
            for writer in set(project.writers_of(read)) - seen:
                seen.add(writer)
                if project.assets[writer].by in FOLDED:
                    if (writer, fold) in pending:
                        return True
                    stack.append(writer)
                elif writer in by_asset or project.ancestors(writer) & by_asset:
                    return True
    return False


def plan(
    project: Project, state: State, names: set[str] | None = None, within: set[str] | None = None, optional: bool = False
) -> list[Stale]:
    """Stale partitions of the assets `names`, restricted to the partitions `within` where given.

    What is optional is kept up to date once it has been made, also where its books were dropped because a table of many writers
    has changed its columns; with `optional` it is made, too.
    """
    made_of: dict[str, list[str]] = {}  # what reads rows of one writer
    for asset in project.assets.values():
        for read in asset.reads:
            if read.writer:
                made_of.setdefault(read.writer, []).append(asset.name)

    def was_made(item: Stale) -> bool:
        """Whether another output of a missing partition is in the books, or what was made of it."""
        names = [item.asset, *made_of.get(item.asset, ())]
        return any((o.asset, item.partition) in state for name in names for o in project.assets[name].outputs)

    return [
        s
        for s in stale(project, state, names)
        if (within is None or s.partition in within)
        and (optional or s.why != "missing" or not project.assets[s.asset].optional or was_made(s))
    ]


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
