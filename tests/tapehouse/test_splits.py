"""Splits by hand on a few intervals, and on random ones: no two labels of different sides ever overlap in time."""

from datetime import UTC, datetime, timedelta
from math import comb

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.folds import FoldSpec, walk_forward
from tapehouse.splits import Split, backtest_paths, chronological, combinatorial, purged_kfold, walk_forward_split

STAMP = pl.Datetime("us", "UTC")
DAY = timedelta(days=1)


def at(index: float) -> datetime:
    return datetime(2024, 1, 1, 21, tzinfo=UTC) + index * DAY


def labelled(spans: list[tuple[float, float | None]]) -> pl.DataFrame:
    """Rows decided on the first day whose labels end on the second."""
    return pl.DataFrame(
        {"decision_at": [at(a) for a, _ in spans], "label_end_at": [None if b is None else at(b) for _, b in spans]},
        schema={"decision_at": STAMP, "label_end_at": STAMP},
    )


# One decision a day, each label two days long.
TEN = labelled([(i, i + 2) for i in range(10)])


def told(split: Split) -> tuple[list[int], list[int]]:
    return split.train.tolist(), split.test.tolist()


def test_kfold_by_hand():
    first, second, third, fourth, fifth = purged_kfold(TEN, 5)
    # The block 4, 5 reaches to the end of 5's label on day 7: 2 and 3 end in it, 6 and 7 begin in it.
    assert told(third) == ([0, 1, 8, 9], [4, 5])
    assert third.blocks == ((at(4), at(7)),) and third.purged == 4
    assert told(first) == ([4, 5, 6, 7, 8, 9], [0, 1])
    assert told(fifth) == ([0, 1, 2, 3, 4, 5], [8, 9])
    assert told(second)[0] == [6, 7, 8, 9] and told(fourth)[0] == [0, 1, 2, 3]


@pytest.mark.parametrize("embargo", [1, DAY, 1.5 * DAY])
def test_the_embargo_begins_after_the_last_label_of_the_block(embargo):
    assert told(purged_kfold(TEN, 5, embargo)[2]) == ([0, 1, 9], [4, 5])


def test_an_embargo_counts_decision_instants_or_time():
    weekly = labelled([(7 * i, 7 * i + 1) for i in range(10)])
    assert told(purged_kfold(weekly, 5, 1)[2]) == ([0, 1, 2, 3, 7, 8, 9], [4, 5])
    assert told(purged_kfold(weekly, 5, DAY)[2]) == ([0, 1, 2, 3, 6, 7, 8, 9], [4, 5])
    assert told(purged_kfold(weekly, 5, 90)[2]) == ([0, 1, 2, 3], [4, 5])


def test_several_labels_purge_to_the_longest_end():
    rows = TEN.with_columns(other_end=pl.col("decision_at") + pl.Series([4 * DAY] + [1 * DAY] * 9))
    assert told(purged_kfold(rows, 5, ends=["label_end_at", "other_end"])[2]) == ([1, 8, 9], [4, 5])
    unknown = rows.with_columns(other_end=pl.lit(None, STAMP))
    with pytest.raises(TapehouseError, match="held out of 0 decision instants"):
        purged_kfold(unknown, 5, ends=["label_end_at", "other_end"])


def test_symbols_of_one_instant_stay_together_and_their_longest_label_counts():
    panel = labelled([(i, i + length) for i in range(6) for length in (1, 2)])
    splits = purged_kfold(panel, 3)
    assert told(splits[1])[1] == [4, 5, 6, 7]
    # The block of days 2 and 3 reaches to day 5; on day 0 one label ends in time, the other on day 2.
    assert told(splits[1])[0] == [0]
    uneven = labelled([(0, 0)] * 7 + [(1, 1), (2, 2)])
    assert [told(s)[1] for s in purged_kfold(uneven, 3)] == [[*range(7)], [7], [8]]


def test_a_row_without_an_end_is_on_neither_side():
    rows = labelled([(0, 0.5), (1, None), (2, 2.5), (3, 3.5)])
    first, second = purged_kfold(rows, 2)
    assert (told(first), told(second)) == (([2 + 1], [0, 2]), ([0, 2], [3]))


def test_combinations_by_hand():
    splits = combinatorial(labelled([(i, i + 0.5) for i in range(8)]), 4, 2)
    assert [s.name for s in splits] == ["0+1", "0+2", "0+3", "1+2", "1+3", "2+3"]
    assert told(splits[1]) == ([2, 3, 6, 7], [0, 1, 4, 5])
    assert splits[1].blocks == ((at(0), at(1.5)), (at(4), at(5.5)))
    assert backtest_paths(4, 2).tolist() == [[0, 0, 1, 2], [1, 3, 3, 4], [2, 4, 5, 5]]


def test_the_paths_of_the_book():
    # 12.4.1: six groups, two of them tested: fifteen splits and five paths.
    paths = backtest_paths(6, 2)
    assert paths.shape == (5, 6)
    assert set(paths.ravel()) == set(range(15))


def test_chronological_by_hand():
    split = chronological(TEN, at(4), at(7))
    # Labels of 2 and 3 reach into validation, those of 5 and 6 into the test.
    assert (told(split), split.validation.tolist(), split.purged) == (([0, 1], [7, 8, 9]), [4], 4)
    assert split.blocks == ((at(7), at(11)),)


def test_walk_forward_folds_purge_by_the_real_end():
    days = [at(i).date() for i in range(23)]
    opens = [at(i) - timedelta(hours=7) for i in range(23)]
    sessions = pl.DataFrame({"session": days, "open_at": opens, "close_at": [at(i) for i in range(23)]})
    spec = FoldSpec(
        test_sessions=5, min_train_sessions=10, min_test_sessions=3, purge_sessions=3, embargo_sessions=2, count=None
    )
    fold = walk_forward(sessions, spec)[0]
    rows = labelled([(0, 2), (5, 12), (6, 9), (8, 9), (10, 20), (14, 16), (15, 16), (12, None)])
    assert told(walk_forward_split(rows, fold)) == ([0, 2], [4, 5])


# Six instants with a label, and whatever else comes.
spans_of = st.tuples(
    st.lists(st.tuples(st.integers(0, 60), st.floats(0, 15)), min_size=6, max_size=30, unique_by=lambda span: span[0]),
    st.lists(st.tuples(st.integers(0, 60), st.none() | st.floats(0, 15)), max_size=30),
).map(lambda drawn: labelled([(a, None if b is None else a + b) for a, b in [*drawn[1], *drawn[0]]]))
choices = st.integers(2, 6).flatmap(lambda groups: st.tuples(st.just(groups), st.integers(1, groups - 1)))


def overlapping(rows: pl.DataFrame, ours: np.ndarray, others: np.ndarray) -> int:
    """Pairs of rows, one of each side, whose intervals meet; by looking at every pair."""
    start, end = (rows[name].dt.epoch("us").to_numpy() for name in ("decision_at", "label_end_at"))
    meet = (start[ours][:, None] <= end[others][None, :]) & (start[others][None, :] <= end[ours][:, None])
    return int(meet.sum())


@settings(max_examples=150, deadline=None)
@given(rows=spans_of, choice=choices, embargo=st.integers(0, 5) | st.just(3 * DAY))
def test_no_train_and_test_labels_overlap(rows, choice, embargo):
    groups, held = choice
    ended = rows["label_end_at"].is_not_null()
    splits = combinatorial(rows, groups, held, embargo)
    assert len(splits) == comb(groups, held)
    tested = np.zeros(len(rows), int)
    for split in splits:
        assert overlapping(rows, split.train, split.test) == 0
        assert not set(split.train) & set(split.test)
        assert split.train.size + split.test.size + split.purged == ended.sum()
        tested[split.test] += 1
        # Rows of one instant are tested together.
        times = rows["decision_at"].to_list()
        assert not {times[i] for i in split.train} & {times[i] for i in split.test}
        for _, last in split.blocks:
            days = embargo if isinstance(embargo, timedelta) else 0 * DAY
            assert not any(last < times[i] <= last + days for i in split.train)
    # Each labelled row is tested in as many splits as leave its group out.
    assert tested.tolist() == [comb(groups - 1, held - 1) if known else 0 for known in ended]
    paths = backtest_paths(groups, held)
    for path in paths:
        assert (
            sorted(i for g, s in enumerate(path) for i in group_rows(rows, splits[s], g, groups))
            == np.flatnonzero(ended).tolist()
        )


def group_rows(rows: pl.DataFrame, split: Split, group: int, groups: int) -> list[int]:
    """The test rows of one group of a split."""
    known = rows.filter(pl.col("label_end_at").is_not_null())["decision_at"].unique().sort()
    mine = set(np.array_split(known.dt.epoch("us").to_numpy(), groups)[group].tolist())
    times = rows["decision_at"].dt.epoch("us").to_list()
    return [i for i in split.test.tolist() if times[i] in mine]


@settings(max_examples=60, deadline=None)
@given(rows=spans_of, rolling=st.none() | st.integers(8, 20))
def test_walk_forward_folds_never_train_on_a_label_that_meets_their_block(rows, rolling):
    days = [at(i).date() for i in range(75)]
    opens = [at(i) - timedelta(hours=7) for i in range(75)]
    sessions = pl.DataFrame({"session": days, "open_at": opens, "close_at": [at(i) for i in range(75)]})
    spec = FoldSpec(
        test_sessions=9, min_train_sessions=10, min_test_sessions=3, purge_sessions=2, train_sessions=rolling, count=None
    )
    for fold in walk_forward(sessions, spec):
        split = walk_forward_split(rows, fold)
        assert overlapping(rows, split.train, split.test) == 0
        times = rows["decision_at"].to_list()
        assert all(fold.train_start <= times[i] < fold.train_end for i in split.train)
        assert all(fold.test_start <= times[i] < fold.test_end for i in split.test)


@settings(max_examples=100, deadline=None)
@given(rows=spans_of, first=st.integers(5, 50), second=st.integers(0, 30))
def test_chronological_parts_do_not_overlap_and_keep_what_fits(rows, first, second):
    validation, test = at(first - 0.5), at(first + second - 0.5)
    start, end = rows["decision_at"], rows["label_end_at"]
    fits = [
        (start < validation) & (end < validation),
        (start >= validation) & (start < test) & (end < test),
        (start >= test) & end.is_not_null(),
    ]
    parts = [np.flatnonzero(x.fill_null(False).to_numpy()) for x in fits]
    if not all(p.size for p in parts):
        with pytest.raises(TapehouseError, match="row is left"):
            chronological(rows, validation, test)
        return
    split = chronological(rows, validation, test)
    assert [split.train.tolist(), split.validation.tolist(), split.test.tolist()] == [p.tolist() for p in parts]
    for one, other in ((split.train, split.validation), (split.train, split.test), (split.validation, split.test)):
        assert overlapping(rows, one, other) == 0


@settings(max_examples=30, deadline=None)
@given(rows=spans_of, seed=st.integers(0, 1000), weeks=st.integers(0, 9))
def test_the_order_of_rows_and_whole_weeks_change_nothing_else(rows, seed, weeks):
    order = np.random.default_rng(seed).permutation(len(rows))
    moved = rows[order].with_columns(pl.all() + timedelta(weeks=weeks))
    for one, other in zip(purged_kfold(rows, 3, 2 * DAY), purged_kfold(moved, 3, 2 * DAY), strict=True):
        assert sorted(order[other.train]) == one.train.tolist()
        assert sorted(order[other.test]) == one.test.tolist()


def test_splits_that_cannot_be_are_refused():
    with pytest.raises(TapehouseError, match="1 of 11 blocks cannot be held out of 10 decision instants"):
        purged_kfold(TEN, 11)
    with pytest.raises(TapehouseError, match="3 of 3 blocks"):
        combinatorial(TEN, 3, 3)
    with pytest.raises(TapehouseError, match=r"the label of the decision at 2024-01-02 .* ends before it"):
        purged_kfold(labelled([(0, 1), (1, 0)]), 2)
    with pytest.raises(TapehouseError, match="no validation row is left of 10"):
        chronological(TEN, at(4), at(4))
    with pytest.raises(TapehouseError, match="exchange them"):
        chronological(TEN, at(5), at(4))
