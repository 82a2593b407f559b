"""Splits of labelled rows into training, validation and test rows whose labels do not overlap in time.

M. López de Prado, Advances in Financial Machine Learning (2018), 7.3 to 7.4 and 12.3 to 12.4. A row speaks of the time from its
decision to the end of its label. A test block reaches from its first decision to the end of its last label; a training row
whose own interval meets that is purged, before the block and after it, and one decided in the embargo after it is left
out too. Rows of one instant, of however many symbols, always fall on the same side. A row whose label has no end yet
belongs to neither side.

The folds that models are made for are walk-forward (`tapehouse.folds`): they train on the past alone. What is here also
trains on both sides of a block, which is for choosing among models inside a training window.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import combinations
from math import comb

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold

Ends = str | Sequence[str]
Embargo = int | timedelta
NONE = np.empty(0, np.int64)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Split:
    """Positions of rows, ascending, in the frame that was split.

    Attributes:
        name: tells it from its siblings.
        train, validation, test: (n,) positions; no interval of one meets an interval of another.
        blocks: first decision and last label end of each test block, UTC.
        purged: how many rows with a label are in none of the three.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    validation: np.ndarray = field(default_factory=lambda: NONE)
    blocks: tuple[tuple[datetime, datetime], ...] = ()
    purged: int = 0


def chronological(rows: pl.DataFrame, validation_start: datetime, test_start: datetime, ends: Ends = "label_end_at") -> Split:
    """Training, then validation, then test: each row in the part in which it is decided, unless its label ends in a later one.

    Args:
        rows: `decision_at` and the columns `ends`, in any order.
        validation_start, test_start: the first instants of the two later parts.
        ends: the label's end; of several labels, the longest counts.

    Raises:
        TapehouseError: the parts are not in order, one of them has no rows, or a label ends before its decision.
    """
    if validation_start > test_start:
        raise TapehouseError(f"splits: validation starts at {validation_start}, after the test at {test_start}; exchange them")
    start, end, usable = intervals(rows, ends)
    edges = [stamp(validation_start), stamp(test_start), np.iinfo(np.int64).max]
    part = np.searchsorted(edges, start, side="right")
    # A label that ends when the next part begins has been seen by neither: its bar's close is not after that decision.
    inside = usable & (end < np.asarray(edges)[part])
    train, validation, test = (np.flatnonzero(inside & (part == number)) for number in range(3))
    for name, chosen in (("training", train), ("validation", validation), ("test", test)):
        if not chosen.size:
            raise TapehouseError(
                f"splits: no {name} row is left of {len(rows)}; move the edges {validation_start}, {test_start}"
            )
    purged = int(usable.sum()) - train.size - validation.size - test.size
    return Split("chronological", train, test, validation, (_block(start, end, test),), purged)


def walk_forward_split(rows: pl.DataFrame, fold: Fold, ends: Ends = "label_end_at") -> Split:
    """The training and test rows of one fold: decided in its windows, the training row's label ended before the test begins."""
    start, end, usable = intervals(rows, ends)
    tested = usable & (start >= stamp(fold.test_start)) & (start < stamp(fold.test_end))
    window = usable & (start >= stamp(fold.train_start)) & (start < stamp(fold.train_end))
    trained = window & (end < stamp(fold.test_start))
    test = np.flatnonzero(tested)
    blocks = (_block(start, end, test),) if test.size else ()
    return Split(fold.id, np.flatnonzero(trained), test, blocks=blocks, purged=int((window & ~trained).sum()))


def purged_kfold(rows: pl.DataFrame, folds: int, embargo: Embargo = 0, ends: Ends = "label_end_at") -> list[Split]:
    """K contiguous test blocks in time, each with all other rows to train on, purged and embargoed.

    Args:
        rows: `decision_at` and the columns `ends`, in any order; several rows an instant make a panel.
        folds: how many blocks, at least two; each has as many instants as the others, give or take one.
        embargo: what is left out after a block's last label end: a time, or a number of decision instants.
        ends: the label's end; of several labels, the longest counts.

    Returns:
        One split a block, in order of time. Every row with a label is in exactly one test set.

    Raises:
        TapehouseError: fewer instants than blocks, or a label that ends before its decision.
    """
    return _combined(rows, folds, 1, embargo, ends)


def combinatorial(
    rows: pl.DataFrame, groups: int, held_out: int, embargo: Embargo = 0, ends: Ends = "label_end_at"
) -> list[Split]:
    """Combinatorial purged cross-validation: every choice of `held_out` of `groups` contiguous blocks is tested once.

    Args and errors as in `purged_kfold`; `held_out` is at least one and less than `groups`.

    Returns:
        C(groups, held_out) splits, in the order of `itertools.combinations`; their names are the groups, as '0+3'.
    """
    return _combined(rows, groups, held_out, embargo, ends)


def backtest_paths(groups: int, held_out: int) -> np.ndarray:
    """Which split of `combinatorial` gives each group's predictions, path by path (12.4.1).

    Returns:
        (paths, groups) numbers of splits: C(groups - 1, held_out - 1) paths, each testing every group once; no two paths
        take a group from the same split.
    """
    chosen = list(combinations(range(groups), held_out))
    by_group = [[number for number, tested in enumerate(chosen) if group in tested] for group in range(groups)]
    paths = np.asarray(by_group, np.int64).T
    assert paths.shape == (comb(groups - 1, held_out - 1), groups)
    return paths


def training_mask(start: np.ndarray, end: np.ndarray, blocks: Sequence[tuple[int, int]], embargo: Sequence[int]) -> np.ndarray:
    """Which intervals may train beside the test blocks: those that end before a block, or start after it and its embargo.

    Args:
        start, end: (n,) int64 instants, both ends counted. blocks: first and last instant of each test block.
        embargo: for each block the last instant at which no training row may start; at least the block's last.
    """
    free = np.ones(start.size, bool)
    for (first, _), until in zip(blocks, embargo, strict=True):
        free &= (end < first) | (start > until)
    return free


def _combined(rows: pl.DataFrame, groups: int, held_out: int, embargo: Embargo, ends: Ends) -> list[Split]:
    start, end, usable = intervals(rows, ends)
    instants = np.unique(start[usable])
    if groups < 2 or not 0 < held_out < groups or instants.size < groups:
        raise TapehouseError(
            f"splits: {held_out} of {groups} blocks cannot be held out of {instants.size} decision instants; at least two "
            "blocks are needed, one of them to train on, and an instant for each"
        )
    cuts = np.asarray([part[0] for part in np.array_split(instants, groups)])
    group = np.searchsorted(cuts, start, side="right") - 1
    # Of each group the interval of its labels and the end of what is kept free behind it.
    spans, until = [], []
    for number in range(groups):
        mine = usable & (group == number)
        spans.append((int(start[mine].min()), int(end[mine].max())))
        until.append(_embargo_end(spans[-1][1], embargo, instants))
    splits = []
    for tested in combinations(range(groups), held_out):
        test = usable & np.isin(group, tested)
        train = usable & ~test & training_mask(start, end, [spans[g] for g in tested], [until[g] for g in tested])
        splits.append(
            Split(
                name="+".join(map(str, tested)),
                train=np.flatnonzero(train),
                test=np.flatnonzero(test),
                blocks=tuple((instant(spans[g][0]), instant(spans[g][1])) for g in tested),
                purged=int((usable & ~test & ~train).sum()),
            )
        )
    return splits


def _embargo_end(last: int, embargo: Embargo, instants: np.ndarray) -> int:
    if isinstance(embargo, timedelta):
        return last + embargo // MICROSECOND
    if embargo == 0:
        return last
    after = np.searchsorted(instants, last, side="right") + embargo - 1
    return int(instants[min(after, instants.size - 1)]) if instants[-1] > last else last


def intervals(rows: pl.DataFrame, ends: Ends) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and end of each row in microseconds, and whether its label has an end (all of several labels do)."""
    names = [ends] if isinstance(ends, str) else list(ends)
    usable = rows.select(pl.all_horizontal(pl.col(names).is_not_null())).to_series()
    longest = rows.select(pl.max_horizontal(names)).to_series()
    backwards = rows.filter(usable & (longest < rows["decision_at"]))
    if backwards.height:
        at, end = backwards["decision_at"][0], backwards.select(pl.max_horizontal(names)).item(0, 0)
        raise TapehouseError(f"splits: the label of the decision at {at} ends before it, at {end}; is {names} its end?")
    start, end = (x.dt.epoch("us").fill_null(0).to_numpy() for x in (rows["decision_at"], longest))
    return start, end, usable.to_numpy()


def _block(start: np.ndarray, end: np.ndarray, test: np.ndarray) -> tuple[datetime, datetime]:
    return instant(int(start[test].min())), instant(int(end[test].max()))


def stamp(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND


def instant(microseconds: int) -> datetime:
    """The UTC time of `stamp`."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
