"""The declared splits as rows, by hand on a small calendar, and labelled rows parted by them: no two sides ever overlap."""

from datetime import UTC, date, datetime, timedelta
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import sessions
from tapehouse.declared_splits import SPAN, declared_splits, splits_frame
from tapehouse.errors import TapehouseError
from tapehouse.folds import FoldSpec, walk_forward
from tapehouse.splits import combinatorial, walk_forward_split

# New Year and Martin Luther King's day fall into it; session 0 is 2 January.
DAYS = sessions(date(2024, 1, 1), date(2024, 3, 1))
OPENS, CLOSES = DAYS["open_at"].to_list(), DAYS["close_at"].to_list()
STAMP = pl.Datetime("us", "UTC")
SPEC = FoldSpec(
    test_sessions=5,
    min_train_sessions=15,
    min_test_sessions=3,
    purge_sessions=3,
    count=2,
    cross_validation={
        "tuning": {"groups": 3, "embargo_sessions": 1},
        "paths": {"inside": "span", "groups": 4, "held_out": 2, "embargo_sessions": 2},
    },
)
FOLDS = walk_forward(DAYS, SPEC)
BLOCKS = splits_frame(FOLDS, SPEC, DAYS)


def labelled(spans: list[tuple[int, int | None]]) -> pl.DataFrame:
    """Rows decided five minutes after the close of the first session, labelled at the close of the second."""
    return pl.DataFrame(
        {
            "decision_at": [CLOSES[a] + timedelta(minutes=5) for a, _ in spans],
            "label_end_at": [None if b is None else CLOSES[b] for _, b in spans],
        },
        schema={"decision_at": STAMP, "label_end_at": STAMP},
    )


# A decision at each session, labelled two sessions on.
DAILY = labelled([(i, i + 2) for i in range(len(OPENS) - 2)])


def of(scheme: str, fold: str, split: str) -> list[tuple]:
    own = BLOCKS.filter(scheme=scheme, fold=fold, split=split).sort("block")
    return own.select("block", "role", "start_at", "end_at", "sessions", "labels_before").rows()


def test_the_folds_are_splits_of_the_span():
    assert len(OPENS) == 41 and [f.test_start for f in FOLDS] == [OPENS[30], OPENS[35]]
    first, last = (f.id for f in FOLDS)
    assert of("walk_forward", SPAN, first) == [
        (0, "train", OPENS[0], OPENS[27], 27, OPENS[30]),
        (1, "test", OPENS[30], OPENS[35], 5, None),
    ]
    assert of("walk_forward", SPAN, last)[1] == (1, "test", OPENS[35], OPENS[40], 5, None)
    assert BLOCKS.filter(scheme="walk_forward")["number"].to_list() == [0, 0, 1, 1]


def test_a_validation_tail_is_a_block_of_its_own():
    spec = SPEC.model_copy(update={"validation_sessions": 6})
    fold = walk_forward(DAYS, spec)[0]
    blocks = splits_frame([fold], spec, DAYS)
    own = blocks.filter(scheme="walk_forward").select("role", "start_at", "end_at", "sessions", "labels_before").rows()
    assert own == [
        ("train", OPENS[0], OPENS[21], 21, OPENS[21]),
        ("validation", OPENS[21], OPENS[27], 6, OPENS[30]),
        ("test", OPENS[30], OPENS[35], 5, None),
    ]
    # What tunes splits what is fitted on, and no label of it ends in the tail.
    tuning = blocks.filter(scheme="tuning")
    assert tuning["end_at"].max() == OPENS[21] and tuning["labels_before"].unique().to_list() == [OPENS[21]]
    (split,) = declared_splits(blocks, DAILY, "walk_forward")
    assert (split.train.tolist(), split.validation.tolist()) == ([*range(19)], [*range(21, 27)])
    assert split.test.tolist() == [*range(30, 35)]


def test_kfold_of_a_training_window_by_hand():
    fold = FOLDS[0]  # 27 sessions of training: three blocks of nine
    assert of("tuning", fold.id, "1") == [
        (0, "train", OPENS[0], OPENS[9], 9, OPENS[30]),
        (1, "test", OPENS[9], OPENS[18], 9, OPENS[30]),
        (2, "train", OPENS[18], OPENS[27], 9, OPENS[30]),
    ]
    first, second, third = declared_splits(BLOCKS, DAILY, "tuning", fold.id)
    # The label of 8 ends at the close of 10, that of 7 at the close of 9, before the first decision but for those of 7:
    # 7 ends five minutes before the decision of 9. The last label ends at the close of 19; 20 is embargoed.
    assert second.train.tolist() == [*range(8), *range(21, 27)]
    assert second.test.tolist() == [*range(9, 18)] and second.purged == 4
    assert second.blocks == ((CLOSES[9] + timedelta(minutes=5), CLOSES[19]),)
    assert first.train.tolist() == [*range(12, 27)] and third.train.tolist() == [*range(17)]
    # 27 to 29 lie between training and the fold's test block: they are in no block.
    assert max(third.test) == 26


def test_labels_that_end_in_the_folds_test_block_are_in_no_split():
    rows = labelled([(i, i + 2) for i in range(25)] + [(25, 29), (26, 30), (26, 40), (26, None)])
    third = declared_splits(BLOCKS, rows, "tuning", FOLDS[0].id)[2]
    assert third.test.tolist() == [*range(18, 26)]


def test_the_embargo_begins_after_the_last_label_whatever_sessions_are_sampled():
    # Of the test block only the decision at 9 is sampled; its label ends at 12, so 13 is embargoed, and 12 decided before it.
    rows = labelled([(2, 3), (9, 12), (20, 21), (26, 27)])
    split = declared_splits(BLOCKS, rows, "tuning", FOLDS[0].id)[1]
    assert (split.train.tolist(), split.test.tolist()) == ([0, 2, 3], [1])
    late = labelled([(2, 3), (9, 19), (19, 20), (20, 21), (21, 22)])
    split = declared_splits(BLOCKS, late, "tuning", FOLDS[0].id)[1]
    assert (split.train.tolist(), split.test.tolist()) == ([0, 4], [1])


def test_combinatorial_paths_by_hand():
    splits = declared_splits(BLOCKS, DAILY, "paths")
    assert [s.name for s in splits] == ["+".join(map(str, two)) for two in combinations(range(4), 2)]
    sizes = BLOCKS.filter(scheme="paths", split="0+3")["sessions"].to_list()
    assert sizes == [11, 10, 10, 10]
    # Tested are 0 to 10 and 31 on. 10's label ends at 12; 13 and 14 are embargoed. 29's ends at the close of 31, five minutes
    # before the first decision of the last block.
    assert splits[2].train.tolist() == [*range(15, 30)]
    assert splits[2].test.tolist() == [*range(11), *range(31, 39)]


def test_names_that_are_not_declared_are_told():
    with pytest.raises(TapehouseError, match=r"no scheme 'tuning' of fold 'span'; there are \[\('paths', 'span'\), \('tun"):
        declared_splits(BLOCKS, DAILY, "tuning")


rows_of = st.lists(st.tuples(st.integers(0, 40), st.none() | st.integers(0, 12)), min_size=1, max_size=40).map(
    lambda drawn: labelled([(a, None if n is None else min(a + 1 + n, 40)) for a, n in drawn if a < 40])
)


def overlapping(rows: pl.DataFrame, ours: np.ndarray, others: np.ndarray) -> int:
    start, end = (rows[name].dt.epoch("us").to_numpy() for name in ("decision_at", "label_end_at"))
    meet = (start[ours][:, None] <= end[others][None, :]) & (start[others][None, :] <= end[ours][:, None])
    return int(meet.sum())


@settings(max_examples=100, deadline=None)
@given(rows=rows_of, validation=st.sampled_from([0, 4]), rolling=st.sampled_from([None, 16]), data=st.data())
def test_no_train_and_test_labels_overlap_and_all_that_may_train_does(rows, validation, rolling, data):
    spec = SPEC.model_copy(update={"validation_sessions": validation, "train_sessions": rolling})
    folds = walk_forward(DAYS, spec)
    blocks = splits_frame(folds, spec, DAYS)
    scheme, fold = data.draw(st.sampled_from(blocks.select("scheme", "fold").unique().sort("scheme", "fold").rows()))
    times, stops = rows["decision_at"].to_list(), rows["label_end_at"].to_list()
    embargo = blocks.filter(scheme=scheme, fold=fold)["embargo_sessions"][0]
    for split in declared_splits(blocks, rows, scheme, fold):
        for one, other in ((split.train, split.test), (split.train, split.validation), (split.validation, split.test)):
            assert overlapping(rows, one, other) == 0
        own = blocks.filter(scheme=scheme, fold=fold, split=split.name)
        inside = {role: np.zeros(len(rows), bool) for role in ("train", "validation", "test")}
        for role, start, end, before in own.select("role", "start_at", "end_at", "labels_before").iter_rows():
            for i, (a, b) in enumerate(zip(times, stops, strict=True)):
                inside[role][i] |= b is not None and start <= a < end and (before is None or b < before)
        assert split.test.tolist() == np.flatnonzero(inside["test"]).tolist()
        # By hand: a row goes where it meets a block that is held out, or is decided in the embargo after it.
        held = [(first, last, embargo) for first, last in split.blocks]
        if len(split.validation):
            spent = [(times[i], stops[i]) for i in np.flatnonzero(inside["validation"])]
            held.append((min(a for a, _ in spent), max(b for _, b in spent), embargo))
        expected = [
            i
            for i in np.flatnonzero(inside["train"])
            if all(stops[i] < first or times[i] >= free_from(last, sessions_out) for first, last, sessions_out in held)
        ]
        assert split.train.tolist() == expected


def free_from(last: datetime, embargo: int) -> datetime:
    """The first instant after a label's end, or the open behind the embargo."""
    if embargo == 0:
        return last + timedelta(microseconds=1)
    following = [at for at in [*OPENS, *(datetime(2024, 3, d, 14, 30, tzinfo=UTC) for d in (1, 4, 5, 6, 7, 8))] if at > last]
    return following[embargo]


def test_they_are_the_splits_of_the_functions():
    """Where every session has its decision and nothing is embargoed, groups of instants are groups of sessions."""
    spec = SPEC.model_copy(
        update={"cross_validation": {"paths": SPEC.cross_validation["paths"].model_copy(update={"embargo_sessions": 0})}}
    )
    rows = labelled([(i, min(i + 3, 40)) for i in range(40) for _ in range(2)])
    ours = declared_splits(splits_frame(FOLDS, spec, DAYS.head(40)), rows, "paths")
    for one, other in zip(ours, combinatorial(rows, 4, 2), strict=True):
        assert (one.name, one.blocks, one.purged) == (other.name, other.blocks, other.purged)
        assert one.train.tolist() == other.train.tolist() and one.test.tolist() == other.test.tolist()
    for fold, split in zip(FOLDS, declared_splits(BLOCKS, rows, "walk_forward"), strict=True):
        known = walk_forward_split(rows, fold)
        assert split.train.tolist() == known.train.tolist() and split.test.tolist() == known.test.tolist()


def test_an_embargo_beyond_the_calendar_never_ends():
    spec = SPEC.model_copy(
        update={"cross_validation": {"long": SPEC.cross_validation["paths"].model_copy(update={"embargo_sessions": 99_999})}}
    )
    splits = declared_splits(splits_frame(FOLDS, spec, DAYS), DAILY, "long")
    assert splits[0].train.size == 0  # blocks 0 and 1 are tested: all that follows is embargoed
