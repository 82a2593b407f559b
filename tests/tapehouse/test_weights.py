"""Weights by hand and against the textbook's indicator matrix; decay against its closed form; the table over random markets."""

import math
from datetime import timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.errors import TapehouseError
from tapehouse.features.price import price_features
from tapehouse.folds import FoldSpec, walk_forward
from tapehouse.labels.barriers import BarrierSpec
from tapehouse.labels.concurrency import concurrency
from tapehouse.labels.overlap import attributed_returns, average_uniqueness, concurrent_labels
from tapehouse.labels.triple_barrier import triple_barrier
from tapehouse.weights import (
    effective_labels,
    effective_samples,
    fold_weights,
    time_decay,
    weight_rows,
)
from tests.tapehouse.market_records import (
    STAMP,
    action,
    action_frame,
    another_future,
    at,
    bars,
    calendar,
    day,
    decided,
    frame,
    random_market,
    within,
)

FLAT = (100, 101, 99, 100)


def arrays(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    first, last = zip(*spans, strict=True)
    return np.asarray(first, np.int64), np.asarray(last, np.int64)


def indicator(spans, count: int) -> np.ndarray:
    """The textbook's indicator matrix (snippet 4.3): one row a bar, one column a label."""
    matrix = np.zeros((count, len(spans)))
    for column, (first, last) in enumerate(spans):
        matrix[first : last + 1, column] = 1.0
    return matrix


def test_the_three_labels_of_the_book():
    # 4.5.3: labels over bars 0..2, 2..3 and 4..5 of six: uniqueness 5/6, 3/4 and 1.
    first, last = arrays([(0, 2), (2, 3), (4, 5)])
    counts = concurrent_labels(first, last, 6)
    assert counts.tolist() == [1, 1, 2, 1, 1, 1]
    assert average_uniqueness(first, last, counts).tolist() == pytest.approx([5 / 6, 3 / 4, 1.0])


def test_returns_are_shared_by_the_labels_that_are_open():
    held, entry = np.array([9.0, 0.04, -0.06, 0.02]), np.array([0.01, 0.02, 0.03, 0.04])
    first, last = arrays([(0, 2), (1, 2), (2, 3)])
    counts = concurrent_labels(first, last, 4)
    assert counts.tolist() == [1, 2, 3, 1]
    found = attributed_returns(first, last, counts, held, entry)
    assert found.tolist() == pytest.approx([abs(0.01 + 0.02 - 0.02), abs(0.01 - 0.02), abs(0.01 + 0.02)])


def test_labels_without_an_entry_or_an_end_inside_the_bars():
    first, last = arrays([(-1, 4), (1, 9), (2, 3)])
    counts = concurrent_labels(first, last, 4)
    assert counts.tolist() == [0, 1, 2, 2]
    assert np.isnan(average_uniqueness(first, last, counts)).tolist() == [True, True, False]
    assert np.isnan(attributed_returns(first, last, counts, np.ones(4), np.ones(4))).tolist() == [True, True, False]


spans_of = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=40)


@settings(max_examples=100, deadline=None)
@given(spans_of, st.integers(0, 30))
def test_uniqueness_is_that_of_the_indicator_matrix_and_no_other_window_changes_its_bits(drawn, shift):
    spans = [(a, a + length) for a, length in drawn]
    first, last = arrays(spans)
    counts = concurrent_labels(first, last, 60)
    matrix = indicator(spans, 60)
    concurrent = matrix.sum(axis=1)
    assert counts.tolist() == concurrent.tolist()
    shares = matrix / np.maximum(concurrent, 1)[:, None]
    expected = shares.sum(axis=0) / matrix.sum(axis=0)
    found = average_uniqueness(first, last, counts)
    assert found == pytest.approx(expected)
    assert ((found > 0) & (found <= 1)).all()
    # As many independent labels as bars that any label spans, at the most.
    assert effective_labels(pl.Series(found)) <= min(len(spans), (concurrent > 0).sum()) + 1e-9

    later = concurrent_labels(first + shift, last + shift, 60 + shift)
    assert average_uniqueness(first + shift, last + shift, later).tobytes() == found.tobytes()
    order = np.random.default_rng(shift).permutation(len(spans))
    mixed = average_uniqueness(first[order], last[order], concurrent_labels(first[order], last[order], 60))
    assert mixed.tobytes() == found[order].tobytes()


@pytest.mark.parametrize(("length", "step"), [(10, 1), (10, 5), (6, 3), (4, 4)])
def test_a_label_every_few_bars_has_the_uniqueness_of_its_spacing(length, step):
    # Labels of equal length, one every `step` bars: away from the ends each bar is shared by length / step of them.
    spans = [(a, a + length - 1) for a in range(0, 200, step)]
    first, last = arrays(spans)
    found = average_uniqueness(first, last, concurrent_labels(first, last, 240))
    middle = slice(length, len(spans) - length)
    assert found[middle] == pytest.approx(np.full(len(spans[middle]), step / length))


# ---------------------------------------------------------------------- per fold


def fold_rows(uniqueness, attributed=None, instants=None) -> pl.DataFrame:
    count = len(uniqueness)
    return pl.DataFrame(
        {
            "decision_at": [at(i, 21) for i in (instants or range(count))],
            "uniqueness": uniqueness,
            "attributed_ret": attributed or [0.01] * count,
        }
    )


def test_weights_sum_to_the_rows_and_keep_their_proportions():
    rows = fold_rows([0.5, 0.25, 0.25], [0.3, 0.0, 0.1])
    assert fold_weights(rows).to_list() == pytest.approx([1.5, 0.75, 0.75])
    assert fold_weights(rows, "attribution").to_list() == pytest.approx([2.25, 0.0, 0.75])
    assert fold_weights(rows.clear()).is_empty()


@pytest.mark.parametrize(
    ("oldest", "expected"),
    [
        # Cumulated uniqueness 0.5, 1, 2 of 2 in all: the closed forms of 4.7.
        (1.0, [1.0, 1.0, 1.0]),
        (0.5, [0.625, 0.75, 1.0]),
        (0.0, [0.25, 0.5, 1.0]),
        (-0.5, [0.0, 0.0, 1.0]),
    ],
)
def test_decay_is_linear_in_cumulated_uniqueness(oldest, expected):
    rows = fold_rows([0.5, 0.5, 1.0])
    assert time_decay(rows["uniqueness"], rows["decision_at"], oldest).to_list() == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.05, 1), st.integers(0, 8)), min_size=1, max_size=30),
    st.floats(-0.9, 1),
    st.randoms(use_true_random=False),
)
def test_weights_do_not_depend_on_the_order_of_rows_and_equal_times_decay_alike(drawn, oldest, rng):
    rows = fold_rows([u for u, _ in drawn], instants=[t for _, t in drawn]).with_row_index("row")
    weights = fold_weights(rows, oldest=oldest)
    assert weights.sum() == pytest.approx(len(drawn))
    order = list(range(len(drawn)))
    rng.shuffle(order)
    again = fold_weights(rows[order], oldest=oldest)
    assert again.to_list() == [weights[i] for i in order]
    decay = time_decay(rows["uniqueness"], rows["decision_at"], oldest)
    assert decay.is_between(0, 1 + 1e-12).all()
    assert rows.select("decision_at", decay=decay).unique().height == rows["decision_at"].n_unique()


def test_the_table_purges_first_and_scales_each_side_alone():
    sessions = calendar(40)
    fold = walk_forward(
        sessions, FoldSpec(test_sessions=5, min_train_sessions=20, min_test_sessions=5, purge_sessions=2, count=None)
    )[0]
    count = 6
    rows = pl.DataFrame(
        {
            "symbol": ["AAA"] * count,
            "interval": ["1d"] * count,
            "decision_at": [decided(i) for i in (0, 5, 5, 16, 16, 25)],
            "side": [1, 1, 0, 1, 0, 1],
            "uniqueness": [0.5, 1.0, 0.25, 0.9, 0.25, 0.9],
            "attributed_ret": [0.01, 0.03, 0.02, 9.0, 0.06, 9.0],
            "label_end_at": [at(i, 21) for i in (3, 8, 8, 21, 18, 27)],
            "label_known_at": [at(i, 21) for i in (4, 9, 9, 22, 19, 28)],
        },
        schema_overrides={"decision_at": STAMP, "label_end_at": STAMP, "label_known_at": STAMP, "side": pl.Int32},
    )
    found = weight_rows(rows.sample(fraction=1, shuffle=True, seed=2), fold).sort("side", "decision_at")
    # The block begins on session 20: one label ends in it, one is decided after it.
    assert found.select("side", "decision_at").rows() == [(0, decided(5)), (0, decided(16)), (1, decided(0)), (1, decided(5))]
    assert found["uniqueness_weight"].to_list() == pytest.approx([1.0, 1.0, 2 / 3, 4 / 3])
    assert found["attribution_weight"].to_list() == pytest.approx([0.5, 1.5, 0.5, 1.5])
    assert found["decay"].to_list() == pytest.approx([0.75, 1.0, 1 - 0.5 * 2 / 3, 1.0])
    assert found["known_at"].unique().to_list() == [fold.test_start]
    assert weight_rows(rows.clear(), fold).is_empty()


def test_what_validates_weighs_nothing_and_scales_nothing():
    """Of a fold with a validation tail the rows that fit are weighed, and no label that ends in the tail is among them."""
    spec = FoldSpec(test_sessions=5, min_train_sessions=20, min_test_sessions=5, purge_sessions=2, validation_sessions=6)
    fold = walk_forward(calendar(40), spec)[-1]
    assert fold.validation_start is not None
    first = (fold.validation_start.date() - day(0)).days
    rows = pl.DataFrame(
        {
            "symbol": ["AAA"] * 4,
            "interval": ["1d"] * 4,
            "decision_at": [decided(i) for i in (2, 5, first - 2, first + 1)],
            "side": [1] * 4,
            "uniqueness": [0.5, 1.0, 0.25, 0.9],
            "attributed_ret": [0.01, 0.03, 9.0, 9.0],
            "label_end_at": [at(i, 21) for i in (3, 8, first, first + 2)],
            "label_known_at": [at(i, 21) for i in (4, 9, first + 1, first + 3)],
        },
        schema_overrides={"decision_at": STAMP, "label_end_at": STAMP, "label_known_at": STAMP, "side": pl.Int32},
    )
    found = weight_rows(rows, fold)
    assert found["decision_at"].to_list() == [decided(2), decided(5)]
    assert found["uniqueness_weight"].to_list() == pytest.approx([2 / 3, 4 / 3])
    assert found["known_at"].unique().to_list() == [fold.validation_start]


def test_the_effective_number_of_samples():
    assert effective_samples(pl.Series([2.0] * 7)) == pytest.approx(7)
    assert effective_samples(pl.Series([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_samples(pl.Series([3.0, 1.0])) == pytest.approx(16 / 10)
    assert effective_samples(pl.Series([], dtype=pl.Float64)) == 0.0
    assert effective_labels(pl.Series([5 / 6, 3 / 4, 1.0])) == pytest.approx(31 / 12)


def test_rows_that_cannot_be_weighed_are_refused():
    with pytest.raises(TapehouseError, match="1 rows to weigh have no uniqueness; purge"):
        fold_weights(fold_rows([0.5, None]))
    with pytest.raises(TapehouseError, match="all zero; weigh by uniqueness"):
        fold_weights(fold_rows([0.5], [0.0]), "attribution")
    with pytest.raises(TapehouseError, match=r"it must lie in \(-1, 1\]"):
        fold_weights(fold_rows([0.5]), oldest=-1.0)


# ---------------------------------------------------------------------- the table


def decisions(*indices, atr=2.0) -> pl.DataFrame:
    rows = [("AAA", "1d", decided(i), day(i), 100.0, atr) for i in indices]
    return pl.DataFrame(
        rows, schema=["symbol", "interval", "decision_at", "session", "close", "atr_14"], orient="row"
    ).with_columns(pl.col("decision_at").cast(pl.Datetime("us", "UTC")))


THREE = BarrierSpec(horizon_bars=3, sides=(1,))


def weighed(path, indices, actions=(), spec=THREE) -> list[dict]:
    """Rows for decisions of the sessions `indices`; `path` is the market from session 0 on."""
    versions, corporate = frame(bars("AAA", path)), action_frame(actions)
    labels = triple_barrier(versions, corporate, decisions(*indices), at(0, 0), at(30, 0), calendar(40), spec)
    return concurrency(labels, versions, corporate, at(0, 0), at(30, 0), calendar(40), spec).to_dicts()


def test_labels_of_one_symbol_share_sessions_and_returns():
    path = [FLAT, FLAT, (100, 102, 99, 102), (102, 102, 100, 101), (101, 102, 99, 100), FLAT, FLAT]
    rows = weighed(path, [0, 1, 3])  # sessions 1..3, 2..4 and 4..6: two labels are open on 2, 3 and 4
    assert [r["uniqueness"] for r in rows] == pytest.approx([(1 + 1 / 2 + 1 / 2) / 3, 1 / 2, (1 / 2 + 1 + 1) / 3])
    assert [r["most_concurrent"] for r in rows] == [2, 2, 2]
    log = math.log
    first = 0 + log(102 / 100) / 2 + log(101 / 102) / 2
    second = log(102 / 100) / 2 + log(101 / 102) / 2 + log(100 / 101) / 2
    third = log(100 / 101) / 2
    assert [r["attributed_ret"] for r in rows] == pytest.approx([abs(first), abs(second), abs(third)])
    assert rows[0]["label_known_at"] == at(4, 21)


def test_alone_a_label_has_all_of_its_return_with_dividends_and_without_splits():
    path = [FLAT, FLAT, (50, 50.5, 49.5, 50), None, (49, 50, 49, 49.8)]
    actions = [action("AAA", "split", 2, 2), action("AAA", "dividend", 3, 0.5)]
    spec = BarrierSpec(horizon_bars=4, sides=(1,))
    (row,) = weighed(path, [0], actions, spec)
    assert row["uniqueness"] == 1.0
    assert row["attributed_ret"] == pytest.approx(abs(math.log((2 * 49.8 + 2 * 0.5) / 100)))


def test_a_label_that_has_not_ended_is_open_all_the_same():
    rows = weighed([FLAT] * 5, [0, 2, 3])  # sessions 1..3, and two that the data do not finish
    assert rows[0]["uniqueness"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert [(r["uniqueness"], r["attributed_ret"], r["most_concurrent"]) for r in rows[1:]] == [(None, None, None)] * 2
    assert weighed([FLAT, None, FLAT], [0]) == []


def test_labels_of_another_specification_are_refused():
    versions = frame(bars("AAA", [FLAT] * 12))
    labels = triple_barrier(
        versions, action_frame(), decisions(0), at(0, 0), at(30, 0), calendar(40), BarrierSpec(horizon_bars=9)
    )
    with pytest.raises(TapehouseError, match="no close_at of a session within the horizon"):
        concurrency(labels, versions, action_frame(), at(0, 0), at(30, 0), calendar(40), THREE)


def table(versions, actions, rows, start, end, sessions=None):
    sessions, month = calendar(110) if sessions is None else sessions, timedelta(days=31)
    labels = triple_barrier(versions, actions, rows, start - month, end + month, sessions)
    return concurrency(labels, versions, actions, start, end, sessions)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(30, 65))
def test_another_future_leaves_every_row_known_before_it(seed, cut):
    versions, actions = random_market(seed, 70, late=8)
    rows = price_features(versions, actions, at(0, 0), at(70, 0))
    instant = at(cut, 12)
    settled = pl.col("label_known_at") <= instant
    before = table(versions, actions, rows, at(0, 0), at(70, 0)).filter(settled)
    versions, actions = another_future(versions, actions, instant, seed)
    past = rows.filter(pl.col("decision_at") <= instant)
    later = price_features(versions, actions, at(0, 0), at(90, 0)).filter(pl.col("decision_at") > instant)
    after = table(versions, actions, pl.concat([past, later]), at(0, 0), at(70, 0)).filter(settled)
    assert before.height > 0
    assert_frame_equal(after, before, check_exact=True)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(15, 65), max_size=4, unique=True), power=st.integers(-3, 3))
def test_any_cutting_and_any_unit_of_price_give_the_same_bits(seed, cuts, power):
    versions, actions = random_market(seed, 70, late=8)
    rows = price_features(versions, actions, at(0, 0), at(70, 0))
    whole = table(versions, actions, rows, at(0, 0), at(70, 0))
    parts = []
    for start, end in pairwise([at(0, 0), *[at(cut, 0) for cut in sorted(cuts)], at(70, 0)]):
        # Labels are read from a month before to a month after; they are made of a month more.
        seen = start - timedelta(days=31), end + timedelta(days=62)
        parts.append(table(within(versions, *seen), within(actions, *seen), rows, start, end))
    joined = pl.concat(parts[::-1]).sort("symbol", "interval", "decision_at", "side")
    assert_frame_equal(joined, whole, check_exact=True)
    dearer = versions.with_columns(pl.col("open", "high", "low", "close") * 2.0**power)
    paid = actions.with_columns(pl.col("amount") * 2.0**power)
    scaled = table(dearer, paid, rows.with_columns(pl.col("close", "atr_14") * 2.0**power), at(0, 0), at(70, 0))
    assert_frame_equal(scaled, whole, check_exact=True)


def renamed(records: pl.DataFrame) -> pl.DataFrame:
    return records.with_columns(pl.col("symbol").replace({"AAA": "ZZZ", "BBB": "MMM"}))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), weeks=st.integers(1, 20))
def test_other_names_another_order_and_later_weeks_change_nothing_else(seed, weeks):
    versions, actions = random_market(seed, 50, late=4)
    rows = price_features(versions, actions, at(0, 0), at(50, 0))
    before = table(versions, actions, rows, at(0, 0), at(50, 0))
    shuffled = [renamed(x.sample(fraction=1, shuffle=True, seed=seed)) for x in (versions, actions, rows)]
    expected = renamed(before).sort("symbol", "interval", "decision_at", "side")
    assert_frame_equal(table(*shuffled, at(0, 0), at(50, 0)), expected, check_exact=True)
    by = timedelta(weeks=weeks)
    later = [x.with_columns(pl.col(pl.Date, STAMP) + by) for x in (versions, actions, rows)]
    after = table(*later, at(0, 0) + by, at(50, 0) + by, calendar(110).with_columns(pl.all() + by))
    assert_frame_equal(after, before.with_columns(pl.col(STAMP) + by), check_exact=True)
