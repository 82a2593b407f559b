"""Every declared split as rows of `models.splits`, and labelled rows parted by them.

A split is a list of blocks of sessions, each with its role: `train`, `validation` or `test`. The folds are splits of the whole
span; what `cross_validation` in `models_registry/folds.yaml` declares are splits of each fold's training window, or of the
span. The blocks follow from the calendar alone. Which rows of a block may be used follows from their own intervals:
`declared_splits` purges as `tapehouse.splits` does.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import combinations

import numpy as np
import polars as pl

from tapehouse.calendars import all_sessions
from tapehouse.errors import TapehouseError
from tapehouse.folds import CrossValidation, Fold, FoldSpec, day_after, fitted_until
from tapehouse.splits import Ends, Split, instant, intervals, stamp, training_mask

SPAN = "span"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
NEVER = np.iinfo(np.int64).max
UTC_DATETIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "scheme": pl.String,
    "kind": pl.String,
    "fold": pl.String,
    "split": pl.String,
    "number": pl.Int32,
    "block": pl.Int32,
    "role": pl.String,
    "start_at": UTC_DATETIME,
    "end_at": UTC_DATETIME,
    "sessions": pl.Int32,
    "labels_before": UTC_DATETIME,
    "purge_sessions": pl.Int32,
    "embargo_sessions": pl.Int32,
    "calendar": pl.String,
}


def splits_frame(folds: Sequence[Fold], spec: FoldSpec, sessions: pl.DataFrame) -> pl.DataFrame:
    """The rows of `models.splits`.

    Args:
        folds: as `tapehouse.folds.walk_forward` cuts `sessions` by `spec`.
        sessions: `session`, `open_at`, `close_at` of the span, ascending.
    """
    rows = [row for number, fold in enumerate(folds) for row in _of_fold(fold, number, spec, sessions)]
    for name, declared in spec.cross_validation.items():
        if declared.inside == "span":
            end = day_after(sessions["close_at"].to_list()[-1])
            rows += _of_window(name, declared, spec.calendar, SPAN, sessions, end, None)
            continue
        for fold in folds:
            end = fitted_until(fold)
            own = sessions.filter(pl.col("open_at").is_between(fold.train_start, end, closed="left"))
            # What a label says that ends later belongs to the validation tail, or to the test block.
            rows += _of_window(name, declared, spec.calendar, fold.id, own, end, fold.validation_start or fold.test_start)
    return pl.DataFrame(rows, schema=SCHEMA).sort("scheme", "fold", "number", "block")


def declared_splits(
    blocks: pl.DataFrame, rows: pl.DataFrame, scheme: str, fold: str = SPAN, ends: Ends = "label_end_at"
) -> list[Split]:
    """The splits of labelled rows by one declared scheme, in the order of `number`.

    A row is of the block in which it is decided, if its label ends before the block's `labels_before`. A training row whose
    [decision_at, end] meets a test block's, from its first decision to its last end, is purged, before and after it, and
    so is one decided in the embargo, which begins at that last end.

    Args:
        blocks: rows of `models.splits`. rows: `decision_at` and the columns `ends`, in any order.
        scheme: its name. fold: whose training window is split; `span` for a scheme over the span, the folds themselves too.
        ends: the label's end; of several labels, the longest counts.

    Raises:
        TapehouseError: no such scheme or fold, or a label that ends before its decision.
    """
    own = blocks.filter(scheme=scheme, fold=fold)
    if own.is_empty():
        declared = blocks.select("scheme", "fold").unique().sort("scheme", "fold").rows()
        raise TapehouseError(
            f"models.splits: no scheme {scheme!r} of fold {fold!r}; there are {declared}. Declare it in "
            "models_registry/folds.yaml and make models/splits"
        )
    start, end, usable = intervals(rows, ends)
    opens = all_sessions(own["calendar"][0])["open_at"].dt.epoch("us").to_numpy()
    return [
        _parted(of_split, start, end, usable, opens)
        for of_split in own.sort("number", "block").partition_by("number", maintain_order=True)
    ]


def _parted(blocks: pl.DataFrame, start: np.ndarray, end: np.ndarray, usable: np.ndarray, opens: np.ndarray) -> Split:
    chosen = {role: np.zeros(start.size, bool) for role in (TRAIN, VALIDATION, TEST)}
    decided = np.zeros(start.size, bool)
    spans: list[tuple[int, int]] = []
    until: list[int] = []
    for block in blocks.iter_rows(named=True):
        inside = usable & (start >= stamp(block["start_at"])) & (start < stamp(block["end_at"]))
        decided |= inside
        if block["labels_before"] is not None:
            inside &= end < stamp(block["labels_before"])
        chosen[block["role"]] |= inside
        if block["role"] == TEST and inside.any():
            spans.append((int(start[inside].min()), int(end[inside].max())))
            until.append(_embargo_end(spans[-1][1], block["embargo_sessions"], opens))
    # What validates lies between training and test: `labels_before` keeps it clear of both.
    chosen[TRAIN] &= training_mask(start, end, spans, until)
    train, validation, test = (np.flatnonzero(chosen[role]) for role in (TRAIN, VALIDATION, TEST))
    return Split(
        name=blocks["split"][0],
        train=train,
        test=test,
        validation=validation,
        blocks=tuple((instant(first), instant(last)) for first, last in spans),
        purged=int(decided.sum()) - train.size - validation.size - test.size,
    )


def _embargo_end(last: int, embargo_sessions: int, opens: np.ndarray) -> int:
    """The last instant at which no training row may be decided: up to the open of the session behind the embargo."""
    if embargo_sessions == 0:
        return last
    free = np.searchsorted(opens, last, side="right") + embargo_sessions
    return int(opens[free]) - 1 if free < opens.size else NEVER


def _of_fold(fold: Fold, number: int, spec: FoldSpec, sessions: pl.DataFrame) -> Iterator[dict]:
    parts = [(TRAIN, fold.train_start, fitted_until(fold), fold.validation_start or fold.test_start)]
    if fold.validation_start is not None:
        parts.append((VALIDATION, fold.validation_start, fold.train_end, fold.test_start))
    parts.append((TEST, fold.test_start, fold.test_end, None))
    for block, (role, start, end, labels_before) in enumerate(parts):
        yield {
            **{"scheme": spec.scheme, "kind": spec.scheme, "fold": SPAN, "split": fold.id, "number": number, "block": block},
            **{"role": role, "start_at": start, "end_at": end, "labels_before": labels_before},
            "sessions": sessions.filter(pl.col("open_at").is_between(start, end, closed="left")).height,
            **{"purge_sessions": spec.purge_sessions, "embargo_sessions": spec.embargo_sessions, "calendar": spec.calendar},
        }


def _of_window(
    name: str,
    declared: CrossValidation,
    calendar: str,
    fold: str,
    sessions: pl.DataFrame,
    end: datetime,
    labels_before: datetime | None,
) -> Iterator[dict]:
    """Rows of every choice of the test blocks among equal parts of `sessions`, whose last one ends at `end`."""
    places = [part[0] for part in np.array_split(np.arange(sessions.height), declared.groups)]
    edges = [*(sessions["open_at"][int(place)] for place in places), end]
    counts = np.diff([*places, sessions.height])
    for number, tested in enumerate(combinations(range(declared.groups), declared.held_out)):
        for block in range(declared.groups):
            yield {
                **{"scheme": name, "kind": "purged_kfold" if declared.held_out == 1 else "combinatorial", "fold": fold},
                **{"split": "+".join(map(str, tested)), "number": number, "block": block},
                **{"role": TEST if block in tested else TRAIN, "start_at": edges[block], "end_at": edges[block + 1]},
                **{"sessions": int(counts[block]), "labels_before": labels_before},
                **{"purge_sessions": 0, "embargo_sessions": declared.embargo_sessions, "calendar": calendar},
            }
