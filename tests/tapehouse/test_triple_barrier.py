from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.calendars import all_sessions
from tapehouse.errors import TapehouseError
from tapehouse.features.price import price_features
from tapehouse.labels.triple_barrier import triple_barrier
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
    real_market,
    within,
)

ATR = 2.0  # barriers 3 above and below the entry
FLAT = (100, 101, 99, 100)


def decisions(close=100.0, atr=ATR, index=0, symbol="AAA") -> pl.DataFrame:
    row = (symbol, "1d", decided(index), day(index), close, atr)
    schema = {"symbol": pl.String, "interval": pl.String, "decision_at": STAMP, "session": pl.Date}
    return pl.DataFrame([row], schema=schema | {"close": pl.Float64, "atr_14": pl.Float64}, orient="row")


def labelled(path: list, actions=(), horizon=3, rows=None, extra=()) -> dict[int, dict]:
    """Labels by side of the decision of session 0, with `path` from session 1 on."""
    prices = frame([*bars("AAA", [FLAT, *path]), *extra])
    labels = triple_barrier(
        prices, action_frame(actions), decisions() if rows is None else rows, at(0, 0), at(9, 0), calendar(20), horizon=horizon
    )
    return {row["side"]: row for row in labels.iter_rows(named=True)}


def test_the_upper_barrier_is_profit_for_a_long_and_stop_for_a_short():
    rows = labelled([(100, 101, 99, 100), (100, 104, 99, 101)])
    assert (rows[1]["upper"], rows[1]["lower"], rows[1]["entry_price"]) == (103.0, 97.0, 100.0)
    assert rows[1]["entry_at"] == at(1, 14)
    assert {side: row["touched"] for side, row in rows.items()} == dict.fromkeys((-1, 0, 1), "upper")
    assert {side: row["label"] for side, row in rows.items()} == {-1: -1, 0: 1, 1: 1}
    assert rows[1]["ret"] == pytest.approx(0.03)
    assert rows[0]["ret"] == pytest.approx(0.03)
    assert rows[-1]["ret"] == pytest.approx(-0.03)
    assert (rows[1]["label_end_at"], rows[1]["label_known_at"], rows[1]["sessions_held"]) == (at(2, 21), at(3, 21), 2)


def test_the_session_of_the_entry_counts():
    rows = labelled([(100, 101, 96, 100)])
    assert (rows[1]["touched"], rows[1]["label"], rows[1]["sessions_held"]) == ("lower", -1, 1)
    assert rows[1]["ret"] == pytest.approx(-0.03)
    assert rows[-1]["label"] == 1


def test_a_gap_through_a_barrier_exits_at_the_open():
    rows = labelled([FLAT, (90, 104, 89, 95)])
    assert (rows[1]["touched"], rows[1]["ambiguous"]) == ("lower", False)
    assert rows[1]["ret"] == pytest.approx(-0.10)
    assert rows[-1]["ret"] == pytest.approx(0.10)


def test_both_barriers_in_one_session_stop_a_sided_label_and_void_an_unsided_one():
    rows = labelled([FLAT, (100, 104, 96, 100)])
    assert all(row["ambiguous"] and row["touched"] == "both" for row in rows.values())
    assert (rows[1]["label"], rows[-1]["label"], rows[0]["label"]) == (-1, -1, None)
    assert rows[1]["ret"] == pytest.approx(-0.03)
    assert rows[-1]["ret"] == pytest.approx(-0.03)
    assert rows[0]["ret"] is None
    assert rows[0]["label_end_at"] == at(2, 21)


def test_neither_barrier_ends_at_the_close_of_the_horizon():
    rows = labelled([FLAT, FLAT, (100, 102, 99, 101), (100, 200, 1, 100)])
    assert (rows[1]["touched"], rows[1]["label"], rows[1]["sessions_held"]) == ("vertical", 0, 3)
    assert rows[1]["ret"] == pytest.approx(0.01)
    assert rows[-1]["ret"] == pytest.approx(-0.01)


def test_a_dividend_is_no_fall_and_part_of_the_return():
    rows = labelled([FLAT, (90, 91, 89, 90), (90, 91, 89, 91)], [action("AAA", "dividend", 2, 10)])
    assert (rows[1]["touched"], rows[1]["label"]) == ("vertical", 0)
    assert rows[1]["ret"] == pytest.approx(0.01)  # 91 and ten of dividend


def test_a_split_is_no_crash_and_a_dividend_after_it_is_paid_on_every_new_share():
    actions = [action("AAA", "split", 2, 2), action("AAA", "dividend", 3, 1)]
    rows = labelled([FLAT, (50, 50.5, 49.5, 50), (49, 49.5, 48.5, 49.4)], actions)
    assert rows[1]["touched"] == "vertical"
    assert rows[1]["ret"] == pytest.approx((2 * 49.4 + 2) / 100 - 1)


def test_a_split_on_the_day_of_the_entry_restates_the_barriers():
    rows = labelled([(50, 50.5, 49.5, 50)] * 3, [action("AAA", "split", 1, 2)])
    assert (rows[1]["entry_price"], rows[1]["atr"], rows[1]["upper"], rows[1]["lower"]) == (50.0, 1.0, 51.5, 48.5)
    assert (rows[1]["touched"], rows[1]["ret"]) == ("vertical", 0.0)


def test_a_path_that_the_data_do_not_finish_has_an_entry_and_no_label():
    rows = labelled([FLAT, FLAT])
    assert len(rows) == 3
    assert rows[1]["entry_price"] == 100.0
    for name in ("touched", "label", "ret", "label_end_at", "label_known_at", "sessions_held"):
        assert rows[1][name] is None, name
    assert rows[1]["ambiguous"] is False


def test_without_a_bar_after_the_decision_there_is_no_entry():
    rows = labelled([None, FLAT, FLAT, FLAT])
    for name in ("entry_at", "entry_price", "atr", "upper", "touched", "label_known_at"):
        assert rows[1][name] is None, name


def test_a_bar_counts_as_it_was_known_one_settlement_lag_after_its_close():
    spike = {"symbol": "AAA", "index": 2, "open": 100, "high": 110, "low": 99, "close": 100}
    in_time = bar(**spike, known_at=at(3, 21), version=2)
    too_late = bar(**spike, known_at=at(3, 22), version=2)
    assert labelled([FLAT, FLAT, FLAT], extra=[in_time])[1]["touched"] == "upper"
    assert labelled([FLAT, FLAT, FLAT], extra=[too_late])[1]["touched"] == "vertical"
    assert labelled([FLAT, None, FLAT], extra=[too_late])[1]["touched"] == "vertical"  # missing, so nothing to touch
    assert labelled([FLAT, None, FLAT], extra=[in_time])[1]["touched"] == "upper"


def met_first(path: list[dict | None], atr: float, horizon: int) -> tuple[str | None, int | None]:
    """What the definition says, read off the bars one by one, where there are no actions and no corrections."""
    if path[0] is None:
        return None, None
    upper, lower = path[0]["open"] + 1.5 * atr, path[0]["open"] - 1.5 * atr
    for held, one in enumerate(path[:horizon], start=1):
        if one is None:
            continue
        if one["open"] >= upper or one["open"] <= lower:
            return ("upper" if one["open"] >= upper else "lower"), held
        met = [name for name, yes in (("upper", one["high"] >= upper), ("lower", one["low"] <= lower)) if yes]
        if met:
            return ("both" if len(met) == 2 else met[0]), held
    return ("vertical", horizon) if path[horizon - 1] else (None, None)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), atr=st.floats(0.5, 8), horizon=st.integers(1, 10))
def test_labels_are_what_the_definition_says_bar_by_bar(seed, atr, horizon):
    versions, _ = random_market(seed, 50, symbols=("AAA",))
    one = versions.filter(pl.col("version") == 1)
    by_day = {row["session"]: row for row in one.iter_rows(named=True)}
    rows = pl.concat([decisions(atr=atr, index=index) for index in range(35)])
    labels = triple_barrier(one, action_frame(), rows, at(0, 0), at(60, 0), calendar(80), horizon=horizon)
    unsided = labels.filter(pl.col("side") == 0)
    expected = [met_first([by_day.get(day(i + 1 + j)) for j in range(10)], atr, horizon) for i in range(35)]
    assert unsided.select("touched", "sessions_held").rows() == expected


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(22, 50))
def test_another_future_leaves_every_label_known_before_it(seed, cut):
    versions, actions = random_market(seed, 60, late=8)
    rows = price_features(versions, actions, at(0, 0), at(60, 0))
    instant = at(cut, 12)
    settled = pl.col("label_known_at") <= instant
    before = triple_barrier(versions, actions, rows, at(0, 0), at(60, 0), calendar(80)).filter(settled)
    versions, actions = another_future(versions, actions, instant, seed)
    rows = rows.filter(pl.col("decision_at") <= instant)  # features of before the cut do not change, as tested there
    after = triple_barrier(versions, actions, rows, at(0, 0), at(60, 0), calendar(80)).filter(settled)
    assert len(before) > 0
    assert_frame_equal(after, before, check_exact=True)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(15, 55), max_size=4, unique=True))
def test_any_cutting_of_a_range_gives_the_same_bits(seed, cuts):
    versions, actions = random_market(seed, 60, late=8)
    rows = price_features(versions, actions, at(0, 0), at(60, 0))
    whole = triple_barrier(versions, actions, rows, at(0, 0), at(60, 0), calendar(80))
    parts = []
    for start, end in pairwise([at(0, 0), *[at(cut, 0) for cut in sorted(cuts)], at(60, 0)]):
        seen = start, end + timedelta(days=31)
        parts.append(triple_barrier(within(versions, *seen), within(actions, *seen), rows, start, end, calendar(80)))
    joined = pl.concat(parts[::-1]).sort("symbol", "interval", "decision_at", "side")
    assert_frame_equal(joined, whole, check_exact=True)


def test_the_split_of_apple_and_the_dividend_of_microsoft_touch_nothing():
    versions, actions = real_market()
    span = datetime(2000, 1, 1, tzinfo=UTC), datetime(2014, 1, 1, tzinfo=UTC)
    rows = price_features(versions, actions, *span).filter(~pl.col("symbol").str.starts_with("^"))
    labels = triple_barrier(versions, actions, rows, *span, all_sessions()).filter(pl.col("side") == 1)
    apple = labels.filter((pl.col("symbol") == "AAPL") & (pl.col("decision_at").dt.date() == date(2005, 2, 25))).row(
        0, named=True
    )
    assert (apple["entry_price"], apple["touched"]) == (44.68, "lower")
    assert apple["label_end_at"].date() == date(2005, 3, 3)
    on_the_special = (pl.col("symbol") == "MSFT") & (pl.col("label_end_at").dt.date() == date(2004, 11, 15))
    assert labels.filter(on_the_special & (pl.col("touched") == "lower")).is_empty()  # 29.97 to 27.39, and 3.08 paid
    assert labels["touched"].null_count() <= 40  # the last sessions of the data alone


def test_a_decision_on_a_day_without_session_is_refused():
    sunday = calendar(20).filter(pl.col("session") != day(0))
    with pytest.raises(TapehouseError, match="AAA on 2019-01-01: not a session"):
        triple_barrier(frame(bars("AAA", [FLAT])), action_frame(), decisions(), at(0, 0), at(9, 0), sunday)


def test_a_decision_without_atr_has_no_label():
    rows = decisions().with_columns(atr_14=pl.lit(None, pl.Float64))
    assert labelled([FLAT] * 4, rows=rows) == {}
