"""Folds by hand on a small calendar, purging on random intervals, and specifications that must be refused."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.folds import (
    FoldSpec,
    block_rows,
    first_fitted_until,
    fitting_rows,
    folds_frame,
    load_folds,
    purge,
    read_spec,
    training_rows,
    validation_rows,
    walk_forward,
)

FIRST = date(2024, 1, 1)


def calendar(count: int) -> pl.DataFrame:
    """One session a calendar day, open from 14:30 to 21:00 UTC."""
    days = [FIRST + timedelta(days=i) for i in range(count)]
    at = [datetime(d.year, d.month, d.day, tzinfo=UTC) for d in days]
    return pl.DataFrame(
        {
            "session": days,
            "open_at": [t + timedelta(hours=14, minutes=30) for t in at],
            "close_at": [t + timedelta(hours=21) for t in at],
        }
    )


def opening(index: int) -> datetime:
    return datetime(2024, 1, 1, 14, 30, tzinfo=UTC) + timedelta(days=index)


SMALL = FoldSpec(test_sessions=5, min_train_sessions=10, min_test_sessions=3, purge_sessions=3, embargo_sessions=2, count=None)


def test_blocks_by_hand():
    # 10 to train, then 5 + 5 + 3: the last block is partial and long enough.
    folds = walk_forward(calendar(23), SMALL)
    assert [fold.id for fold in folds] == ["2024-01-11", "2024-01-16", "2024-01-21"]
    first, second, last = folds
    assert (first.train_start, first.train_end) == (opening(0), opening(7))
    assert (first.test_start, first.test_end) == (opening(10), opening(15))
    assert first.embargo_end == opening(17)
    assert second.test_start == first.test_end and second.train_start == first.train_start
    assert last.test_end == datetime(2024, 1, 24, tzinfo=UTC)
    assert first_fitted_until(folds) == opening(7)
    tailed = walk_forward(calendar(23), SMALL.model_copy(update={"validation_sessions": 2}))
    assert first_fitted_until(tailed) == opening(5) and first_fitted_until(tailed[1:]) == opening(10)
    assert folds_frame(folds).height == 3


def test_short_last_block_is_left_out_and_count_takes_the_last():
    assert len(walk_forward(calendar(22), SMALL)) == 2
    kept = walk_forward(calendar(23), SMALL.model_copy(update={"count": 2}))
    assert [fold.id for fold in kept] == ["2024-01-16", "2024-01-21"]


def test_a_rolling_window_moves_with_its_block():
    folds = walk_forward(calendar(23), SMALL.model_copy(update={"train_sessions": 10}))
    assert [(fold.train_start, fold.train_end) for fold in folds] == [
        (opening(0), opening(7)),
        (opening(5), opening(12)),
        (opening(10), opening(17)),
    ]
    wide = walk_forward(calendar(23), SMALL.model_copy(update={"train_sessions": 12}))
    assert [fold.train_start for fold in wide] == [opening(0), opening(3), opening(8)]


def test_the_chronological_scheme_tests_the_last_sessions_alone():
    (fold,) = walk_forward(calendar(23), SMALL.model_copy(update={"scheme": "chronological"}))
    assert (fold.test_first_session, fold.test_last_session) == (FIRST + timedelta(days=18), FIRST + timedelta(days=22))
    assert (fold.train_start, fold.train_end, fold.test_start) == (opening(0), opening(15), opening(18))
    (short,) = walk_forward(calendar(13), SMALL.model_copy(update={"scheme": "chronological"}))
    assert short.test_start == opening(10)


def test_the_tail_of_the_training_window_validates():
    spec = SMALL.model_copy(update={"validation_sessions": 2, "min_train_sessions": 11})
    fold = walk_forward(calendar(23), spec)[0]
    assert (fold.validation_start, fold.train_end, fold.test_start) == (opening(6), opening(8), opening(11))
    rows = interval_rows([(2, 1), (3, 2), (4, 2), (5, 1), (6, 1), (7, 2), (7, 9), (8, 1)]).with_row_index("row")
    # Known a day after its end: rows 2 and 3 are not known when validation begins, row 6 not before the test.
    assert fitting_rows(rows, fold)["row"].to_list() == [0]
    assert validation_rows(rows, fold)["row"].to_list() == [4, 5]
    assert folds_frame([fold])["validation_start"].to_list() == [opening(6)]
    plain = walk_forward(calendar(23), SMALL)[0]
    assert fitting_rows(rows, plain).equals(training_rows(rows, plain))
    assert validation_rows(rows, plain).is_empty()


def test_more_sessions_never_move_a_block():
    short, long = walk_forward(calendar(20), SMALL), walk_forward(calendar(31), SMALL)
    assert long[: len(short) - 1] == short[:-1]
    assert long[len(short) - 1].test_start == short[-1].test_start


def test_default_folds_of_the_exchange():
    folds = load_folds(datetime(2000, 3, 1, tzinfo=UTC), datetime(2013, 4, 1, tzinfo=UTC))
    assert [fold.id for fold in folds] == sorted(fold.id for fold in folds)
    assert len(folds) == 25 and all(a.test_end == b.test_start for a, b in pairwise(folds))
    assert folds[-1].test_last_session == date(2013, 3, 28)  # 29 March 2013 was Good Friday


def interval_rows(pairs: list[tuple[int, int | None]]) -> pl.DataFrame:
    stamp = pl.Datetime("us", "UTC")
    return pl.DataFrame(
        {
            "decision_at": [opening(a) for a, _ in pairs],
            "label_end_at": [None if b is None else opening(a + b) for a, b in pairs],
            "label_known_at": [None if b is None else opening(a + b + 1) for a, b in pairs],
        },
        schema={"decision_at": stamp, "label_end_at": stamp, "label_known_at": stamp},
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.none() | st.integers(0, 30)), max_size=40))
def test_purged_rows_never_meet_the_block(pairs):
    fold = walk_forward(calendar(70), SMALL)[2]
    rows = interval_rows(pairs).with_row_index("row")
    kept = purge(rows, fold)
    forbidden = set(range(20, 27))  # 5 test sessions and 2 of embargo
    expected = [i for i, (a, b) in enumerate(pairs) if b is not None and forbidden.isdisjoint(range(a, a + b + 1))]
    assert kept["row"].to_list() == expected
    trained = training_rows(rows, fold)
    assert set(trained["row"]) <= {i for i, (a, b) in enumerate(pairs) if b is not None and a < 17 and a + b + 1 < 20}
    assert trained.join(block_rows(rows, fold), on="row").is_empty()


def test_labels_decided_before_train_end_are_known_at_test_start():
    # The horizon of the default labels: entry on the next session, 10 sessions held, one day to settle.
    spec = FoldSpec(count=None)
    for fold in walk_forward(calendar(700), spec):
        last_decision_index = (fold.train_end - opening(0)).days - 1
        assert opening(last_decision_index + 10) + timedelta(hours=6.5, days=1) <= fold.test_start


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("test_sesions: 120\n", r"test_sesions: unknown key; the keys are calendar, test_sessions"),
        ("test_sessions: 0\n", r"test_sessions: Input should be greater than or equal to 1"),
        ("{test_sessions: 120\n", r"not YAML: .*line 2"),
        ("- 120\n", r"expected a mapping with the keys calendar, .*; got a list"),
        ("{min_train_sessions: 10, purge_sessions: 10}\n", r"purge_sessions 10 leaves nothing of min_train_sessions 10; lower"),
        ("validation_sessions: 300\n", r"a training window of 320 sessions holds nothing beside validation_sessions 300"),
        ("train_sessions: 12\n", r"a training window of 12 sessions holds nothing beside validation_sessions 0"),
        ("scheme: random\n", r"scheme: Input should be 'walk_forward' or 'chronological'"),
        ("{cross_validation: {paths: {groups: 4, held_out: 4}}}\n", r"cross_validation.paths: held_out 4 of groups 4 leaves"),
        ("{cross_validation: {paths: {held_out: 4}}}\n", r"cross_validation.paths.groups: Field required"),
        ("{cross_validation: {walk_forward: {groups: 4}}}\n", r"cross_validation.walk_forward: the name stands for the folds"),
        ("{cross_validation: {tuning: {groups: 309}}}\n", r"cross_validation.tuning: groups 309 do not fit into 308 sessions"),
        ("calendar: XMRS\n", r"calendar: no exchange calendar 'XMRS'"),
        ("min_train_sessions: 4000\n", r"no fold fits into 42 sessions: at least 4060 are needed; lower min_train_sessions"),
    ],
)
def test_bad_specifications_name_file_key_and_remedy(tmp_path, text, said):
    bad = tmp_path / "folds.yaml"
    bad.write_text(text)
    with pytest.raises(TapehouseError, match=f"(?s)folds.yaml: {said}"):
        load_folds(datetime(2000, 3, 1, tzinfo=UTC), datetime(2000, 5, 1, tzinfo=UTC), bad)


def test_a_missing_specification_says_what_it_is_for(tmp_path):
    with pytest.raises(TapehouseError, match=r"folds.yaml: no such file; it says how test blocks are cut \(calendar"):
        read_spec(tmp_path / "folds.yaml")


def test_a_calendar_too_short_for_a_block():
    with pytest.raises(ValueError, match="no fold fits"):
        walk_forward(calendar(12), SMALL)
