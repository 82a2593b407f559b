"""Large tables in slices: a range of partitions is made some at a time, each slice in a commit of its own, so that memory does
not grow with the range. A partition comes out the same alone and in a range, so it does in any slice.
"""

from collections.abc import Sequence
from typing import Any

from tapehouse.expectations import Result
from tapehouse.judging import OutputOutcome
from tapehouse.lineage import State
from tapehouse.project import ONCE, Asset, Project


def slices(project: Project, asset: Asset, partitions: list[str], state: State) -> list[list[str]]:
    """The partitions in order, cut so that what each slice reads has at most `asset.most_rows` rows; one partition at least."""
    if asset.most_rows is None:
        return [partitions]
    found: list[list[str]] = []
    rows = 0
    for partition in partitions:
        read = sum(state[key].rows for key in project.upstream(asset, partition) if key[1] != ONCE and key in state)
        rows += read
        if not found or rows > asset.most_rows:
            found.append([])
            rows = read
        found[-1].append(partition)
    return found


def joined(parts: Sequence[list[OutputOutcome]]) -> list[OutputOutcome]:
    """What became of each output over all slices."""
    return [
        OutputOutcome(
            own[0].output,
            [made for part in own for made in part.made],
            _joined([part.contract for part in own]),
            _joined([part.quality for part in own]),
            {partition: why for part in own for partition, why in part.failed.items()},
        )
        for own in zip(*parts, strict=True)
    ]


def added(notes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts of all slices added up; of anything else the last."""
    total: dict[str, Any] = {}
    for part in notes:
        for name, value in part.items():
            counts = isinstance(value, int) and isinstance(total.get(name), int)
            total[name] = total[name] + value if counts else value
    return total


def _joined(parts: Sequence[list[Result]]) -> list[Result]:
    """Each expectation's verdict over all slices; a slice without rows has none of its own."""
    found: dict[str, list[Result]] = {}
    for result in (result for part in parts for result in part):
        found.setdefault(result.expectation, []).append(result)
    return [
        Result(name, all(r.success for r in own), (), "; ".join(r.detail for r in own if r.detail))
        for name, own in found.items()
    ]
