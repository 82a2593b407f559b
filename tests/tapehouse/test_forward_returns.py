from datetime import timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.errors import TapehouseError
from tapehouse.features.price import price_features
from tapehouse.labels.forward import forward_returns
from tapehouse.labels.signal import CLASSES, classes, fit_quantiles, known_scores, signal_scores
from tests.tapehouse.market_records import (
    STAMP,
    action,
    action_frame,
    another_future,
    at,
    bar,
    bars,
    calendar,
    day,
    decided,
    frame,
    random_market,
    within,
)

FLAT = (100, 101, 99, 100)
INDEX = "^GSPC"
YEARLY = 0.02 * 252**0.5  # 2 % a session


def decisions(index=0, symbol="AAA", volatility=YEARLY) -> pl.DataFrame:
    row = (symbol, "1d", decided(index), day(index), volatility)
    schema = {"symbol": pl.String, "interval": pl.String, "decision_at": STAMP, "session": pl.Date}
    return pl.DataFrame([row], schema=schema | {"realised_vol_20d": pl.Float64}, orient="row")


def returned(path: list, index: list = (), actions=(), horizons=(1, 2, 3), extra=()) -> dict[int, dict]:
    """Returns by horizon of the decision of session 0, with `path` from session 1 on."""
    prices = frame([*bars("AAA", [FLAT, *path]), *bars(INDEX, [FLAT, *index]), *extra])
    rows = forward_returns(
        prices, action_frame(actions), decisions(), at(0, 0), at(9, 0), calendar(40), INDEX, horizons=horizons
    )
    return {row["horizon"]: row for row in rows.iter_rows(named=True)}


def test_from_the_next_open_to_the_close_of_each_horizon_and_less_the_index():
    path = [(100, 103, 99, 102), (102, 110, 101, 110), (110, 111, 98, 99)]
    rows = returned(path, [(1000, 1020, 990, 1010), (1010, 1100, 1000, 1050), (1050, 1060, 1040, 1000)])
    assert [rows[h]["ret"] for h in (1, 2, 3)] == pytest.approx([0.02, 0.10, -0.01])
    assert [rows[h]["index_ret"] for h in (1, 2, 3)] == pytest.approx([0.01, 0.05, 0.0])
    assert [rows[h]["excess_ret"] for h in (1, 2, 3)] == pytest.approx([0.01, 0.05, -0.01])
    assert (rows[2]["entry_at"], rows[2]["entry_price"]) == (at(1, 14), 100.0)
    assert (rows[2]["label_end_at"], rows[2]["label_known_at"]) == (at(2, 21), at(3, 21))


def test_a_split_is_no_loss_and_dividends_on_new_shares_count():
    actions = [action("AAA", "split", 2, 2), action("AAA", "dividend", 3, 1)]
    rows = returned([FLAT, (50, 50, 50, 50), (49, 50, 49, 49.4)], actions=actions)
    assert [rows[h]["ret"] for h in (1, 2, 3)] == pytest.approx([0.0, 0.0, (2 * 49.4 + 2) / 100 - 1])
    # On the day of the entry the entry is already in the new basis.
    assert returned([(50, 50, 50, 51)], actions=[action("AAA", "split", 1, 2)])[1]["ret"] == pytest.approx(0.02)


def test_truncated_ends_missing_bars_and_a_silent_index_are_null():
    rows = returned([FLAT, None, FLAT, FLAT], [FLAT, FLAT], horizons=(1, 2, 3, 9))
    assert rows[1]["ret"] == 0.0 and rows[1]["excess_ret"] == 0.0
    for horizon in (2, 9):
        assert rows[horizon]["entry_at"] == at(1, 14)
        assert [rows[horizon][n] for n in ("ret", "index_ret", "excess_ret", "label_end_at", "label_known_at")] == [None] * 5
    assert rows[3]["ret"] == 0.0 and rows[3]["index_ret"] is None and rows[3]["excess_ret"] is None
    assert returned([None, FLAT])[1]["entry_at"] is None


def test_a_bar_counts_as_it_was_known_one_settlement_lag_after_its_close():
    late = {"symbol": "AAA", "index": 2, "open": 100, "high": 110, "low": 99, "close": 110, "version": 2}
    assert returned([FLAT, FLAT], extra=[bar(**late, known_at=at(3, 21))])[2]["ret"] == pytest.approx(0.1)
    assert returned([FLAT, FLAT], extra=[bar(**late, known_at=at(3, 22))])[2]["ret"] == 0.0


def test_a_decision_on_a_day_without_session_is_refused():
    without = calendar(20).filter(pl.col("session") != day(0))
    with pytest.raises(TapehouseError, match="not a session"):
        forward_returns(frame(bars("AAA", [FLAT])), action_frame(), decisions(), at(0, 0), at(9, 0), without, INDEX)


# ---------------------------------------------------------------------- the signal


def test_the_score_by_hand():
    # 2 % a session: z is the return over 2 % times the root of the horizon.
    closes = {3: 103.0, 7: 94.0, 15: 120.0}
    path = [(100, 200, 1, closes.get(held, 100.0)) for held in range(1, 16)]
    prices = frame(bars("AAA", [FLAT, *path]))
    row = signal_scores(prices, action_frame(), decisions(), at(0, 0), at(9, 0), calendar(40)).row(0, named=True)
    assert row["volatility"] == pytest.approx(0.02)
    expected = {3: 0.03 / (0.02 * 3**0.5), 7: -0.06 / (0.02 * 7**0.5), 15: 0.2 / (0.02 * 15**0.5)}
    assert [row[f"z_{h}"] for h in expected] == pytest.approx(list(expected.values()))
    assert row["score"] == pytest.approx(0.3 * expected[3] + 0.5 * expected[7] + 0.2 * expected[15])
    assert (row["entry_at"], row["label_end_at"], row["label_known_at"]) == (at(1, 14), at(15, 21), at(16, 21))


def test_without_its_last_horizon_a_score_says_nothing_and_without_volatility_there_is_none():
    prices = frame(bars("AAA", [FLAT] * 12))
    row = signal_scores(prices, action_frame(), decisions(), at(0, 0), at(9, 0), calendar(40)).row(0, named=True)
    assert row["entry_at"] == at(1, 14)
    assert [row[n] for n in ("z_3", "z_7", "z_15", "score", "label_end_at", "label_known_at")] == [None] * 6
    for volatility in (0.0, None):
        rows = decisions(volatility=volatility)
        assert signal_scores(prices, action_frame(), rows, at(0, 0), at(9, 0), calendar(40)).is_empty()


def test_classes_are_cut_at_the_quantiles_of_what_was_known():
    scores = pl.Series("score", [float(x) for x in range(201)])
    thresholds = fit_quantiles(scores.sample(fraction=1, shuffle=True, seed=3))
    assert thresholds == pytest.approx((6.0, 30.0, 106.0, 170.0))
    counts = dict(classes(scores, thresholds).value_counts().iter_rows())
    assert counts == {"strong_sell": 6, "sell": 24, "hold": 76, "buy": 64, "strong_buy": 31}
    edge = classes(pl.Series("score", [-1e9, 6.0, 1e9, None]), (6.0, 30.0, 106.0, 170.0))
    assert edge.to_list() == ["strong_sell", "sell", "strong_buy", None]


def test_scores_of_the_training_window_are_those_known_at_its_end():
    rows = pl.DataFrame(
        {
            "decision_at": [at(0, 21), at(5, 21), at(6, 21), at(7, 21)],
            "label_known_at": [at(10, 21), at(15, 21), at(15, 22), None],
            "score": [0.1, 0.2, 0.3, None],
        },
        schema_overrides={"decision_at": STAMP, "label_known_at": STAMP},
    )
    assert known_scores(rows, at(0, 0), at(15, 21)).to_list() == [0.1, 0.2]
    assert known_scores(rows, at(5, 0), at(15, 21)).to_list() == [0.2]


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([0.1] * 20, "20 scores are known by the end of training, 100 are needed"),
        ([0.1] * 200, "not strictly ascending"),
        ([float(x) for x in range(200)] + [None], "null or not finite"),
    ],
)
def test_scores_that_cannot_be_cut_are_refused(scores, said):
    with pytest.raises(TapehouseError, match=said):
        fit_quantiles(pl.Series(scores, dtype=pl.Float64))


def test_thresholds_must_fit_the_classes():
    with pytest.raises(TapehouseError, match=f"{len(CLASSES)} classes need 4 ascending thresholds"):
        classes(pl.Series([1.0]), (1.0, 0.0, 2.0, 3.0))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=100, max_size=300, unique=True))
def test_every_score_has_the_class_of_its_rank(values):
    thresholds = fit_quantiles(values)
    found = classes(pl.Series(sorted(values)), thresholds).to_list()
    assert [CLASSES.index(x) for x in found] == sorted(CLASSES.index(x) for x in found)
    assert abs(found.count("strong_sell") / len(values) - 0.03) <= 1 / len(values)
    assert abs(found.count("strong_buy") / len(values) - 0.15) <= 1 / len(values)


# ---------------------------------------------------------------------- both, over random markets


def made(versions, actions, rows, start, end, sessions=None):
    """Both tables as one frame."""
    sessions = calendar(100) if sessions is None else sessions
    ret = forward_returns(versions, actions, rows, start, end, sessions, INDEX, horizons=(1, 5, 30))
    score = signal_scores(versions, actions, rows, start, end, sessions).with_columns(horizon=pl.lit(0, pl.Int32))
    return pl.concat([ret, score], how="diagonal").sort("symbol", "interval", "decision_at", "horizon")


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(40, 70))
def test_another_future_leaves_every_label_known_before_it(seed, cut):
    versions, actions = random_market(seed, 80, late=8)
    rows = price_features(versions, actions, at(0, 0), at(80, 0))
    instant = at(cut, 12)
    settled = pl.col("label_known_at") <= instant
    before = made(versions, actions, rows, at(0, 0), at(80, 0)).filter(settled)
    versions, actions = another_future(versions, actions, instant, seed)
    rows = rows.filter(pl.col("decision_at") <= instant)
    after = made(versions, actions, rows, at(0, 0), at(80, 0)).filter(settled)
    assert before.height > 0
    assert_frame_equal(after, before, check_exact=True)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(15, 75), max_size=4, unique=True), power=st.integers(-3, 3))
def test_any_cutting_and_any_unit_of_price_give_the_same_bits(seed, cuts, power):
    versions, actions = random_market(seed, 80, late=8)
    rows = price_features(versions, actions, at(0, 0), at(80, 0))
    whole = made(versions, actions, rows, at(0, 0), at(80, 0))
    parts = []
    for start, end in pairwise([at(0, 0), *[at(cut, 0) for cut in sorted(cuts)], at(80, 0)]):
        seen = start, end + timedelta(days=62)
        parts.append(made(within(versions, *seen), within(actions, *seen), rows, start, end))
    joined = pl.concat(parts[::-1]).sort("symbol", "interval", "decision_at", "horizon")
    assert_frame_equal(joined, whole, check_exact=True)
    dearer = versions.with_columns(pl.col("open", "high", "low", "close") * 2.0**power)
    after = made(dearer, actions.with_columns(pl.col("amount") * 2.0**power), rows, at(0, 0), at(80, 0))
    assert_frame_equal(after, whole.with_columns(pl.col("entry_price") * 2.0**power), check_exact=True)


def renamed(records: pl.DataFrame) -> pl.DataFrame:
    return records.with_columns(pl.col("symbol").replace({"AAA": "ZZZ", "BBB": "MMM"}))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), weeks=st.integers(1, 20))
def test_other_names_another_order_and_later_weeks_change_nothing_else(seed, weeks):
    versions, actions = random_market(seed, 60, late=4)
    rows = price_features(versions, actions, at(0, 0), at(60, 0))
    key = ["symbol", "interval", "decision_at", "horizon"]
    before = made(versions, actions, rows, at(0, 0), at(60, 0))
    shuffled = [renamed(x.sample(fraction=1, shuffle=True, seed=seed)) for x in (versions, actions, rows)]
    assert_frame_equal(made(*shuffled, at(0, 0), at(60, 0)), renamed(before).sort(key), check_exact=True)
    by = timedelta(weeks=weeks)
    later = [x.with_columns(pl.col(pl.Date, STAMP) + by) for x in (versions, actions, rows)]
    after = made(*later, at(0, 0) + by, at(60, 0) + by, calendar(100).with_columns(pl.all() + by))
    assert_frame_equal(after, before.with_columns(pl.col(STAMP) + by), check_exact=True)
