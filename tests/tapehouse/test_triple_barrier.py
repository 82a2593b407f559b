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
from tapehouse.labels.barriers import BarrierSpec
from tapehouse.labels.horizons import require_lookahead, sessions_around
from tapehouse.labels.triple_barrier import meta_labels, triple_barrier
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


THREE = BarrierSpec(horizon_bars=3)


def labelled(path: list, actions=(), spec=THREE, rows=None, extra=()) -> dict[int, dict]:
    """Labels by side of the decision of session 0, with `path` from session 1 on."""
    prices = frame([*bars("AAA", [FLAT, *path]), *extra])
    rows = decisions() if rows is None else rows
    labels = triple_barrier(prices, action_frame(actions), rows, at(0, 0), at(9, 0), calendar(20), spec)
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


def test_a_session_that_just_reaches_a_barrier_or_both_has_touched():
    rows = labelled([FLAT, (100, 103, 97, 100)])
    assert {side: (row["touched"], row["label"]) for side, row in rows.items()} == {
        -1: ("both", -1),
        0: ("both", None),
        1: ("both", -1),
    }
    assert labelled([FLAT, (100, 103, 98, 100)])[1]["touched"] == "upper"
    assert labelled([FLAT, (97, 98, 96, 97)])[1]["ret"] == pytest.approx(-0.03)


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
    spec = BarrierSpec(horizon_bars=horizon)
    labels = triple_barrier(one, action_frame(), rows, at(0, 0), at(60, 0), calendar(80), spec)
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
    with pytest.raises(TapehouseError, match=r"AAA on 2019-01-01: not a session .* sources.yaml\); declare the instrument"):
        triple_barrier(frame(bars("AAA", [FLAT])), action_frame(), decisions(), at(0, 0), at(9, 0), sunday)


def test_bars_of_another_interval_are_refused():
    hourly = frame(bars("AAA", [FLAT] * 5)).with_columns(interval=pl.lit("1h"))
    with pytest.raises(TapehouseError, match=r"labels and rewards: AAA has a bar of interval '1h' on .* sources.yaml"):
        triple_barrier(hourly, action_frame(), decisions(), at(0, 0), at(9, 0), calendar(20))


def test_a_decision_without_atr_has_no_label():
    rows = decisions().with_columns(atr_14=pl.lit(None, pl.Float64))
    assert labelled([FLAT] * 4, rows=rows) == {}


def test_a_price_that_has_not_moved_has_no_barriers():
    """Barriers at the entry itself would be reached by its own open: a profit of nothing, by definition of none."""
    still = [(100, 100, 100, 100)] * 4
    assert labelled(still, rows=decisions(atr=0.0)) == {}
    spec = BarrierSpec(unit="volatility", horizon_bars=3)
    assert labelled(still, spec=spec, rows=decisions().with_columns(realised_vol_20d=pl.lit(0.0))) == {}


# ---------------------------------------------------------------------- other barriers


def test_unequal_multiples_swap_places_for_a_short():
    spec = BarrierSpec(profit=2.0, stop=1.0, horizon_bars=3)  # 4 and 2 around 100
    rows = labelled([FLAT, (100, 103, 99, 102), (102, 104.5, 101, 103)], spec=spec)
    assert {side: (row["upper"], row["lower"]) for side, row in rows.items()} == {
        -1: (102.0, 96.0),
        0: (104.0, 98.0),
        1: (104.0, 98.0),
    }
    assert {side: row["label"] for side, row in rows.items()} == {-1: -1, 0: 1, 1: 1}
    assert {side: row["sessions_held"] for side, row in rows.items()} == {-1: 2, 0: 3, 1: 3}
    assert rows[-1]["ret"] == pytest.approx(-0.02)


@pytest.mark.parametrize(
    ("spec", "upper", "lower"),
    [
        (BarrierSpec(unit="percent", profit=2, stop=5), 102.0, 95.0),
        # 0.3175 a year is 0.02 a session: two and one deviations of it.
        (BarrierSpec(unit="volatility", profit=2, stop=1), 104.0, 98.0),
        (BarrierSpec(profit=None, stop=2), None, 96.0),
        (BarrierSpec(profit=1, stop=None), 102.0, None),
    ],
)
def test_widths_in_each_unit_and_without_a_barrier(spec, upper, lower):
    rows = labelled([FLAT] * 12, spec=spec, rows=decisions().with_columns(realised_vol_20d=pl.lit(0.02 * 252**0.5)))
    assert rows[1]["upper"] == (upper and pytest.approx(upper))
    assert rows[1]["lower"] == (lower and pytest.approx(lower))
    assert rows[1]["touched"] == "vertical"


def test_without_one_barrier_the_other_still_counts():
    rows = labelled([(100, 1000, 99, 100), (100, 101, 97, 98)], spec=BarrierSpec(profit=None, stop=1, sides=(1,)))
    assert list(rows) == [1]
    assert (rows[1]["touched"], rows[1]["sessions_held"], rows[1]["label"]) == ("lower", 2, -1)


def test_touch_by_close_sees_neither_highs_nor_opens_and_exits_at_the_close():
    spec = BarrierSpec(touch="close", horizon_bars=3)
    rows = labelled([(100, 104, 96, 100), (104, 105, 99, 102), (100, 106, 100, 105)], spec=spec)
    assert (rows[1]["touched"], rows[1]["sessions_held"]) == ("upper", 3)
    assert rows[1]["ret"] == pytest.approx(0.05)
    assert rows[-1]["ret"] == pytest.approx(-0.05)
    assert not rows[1]["ambiguous"]
    still = labelled([(100, 104, 96, 100), FLAT, FLAT], spec=spec)
    assert (still[1]["touched"], still[1]["ret"]) == ("vertical", 0.0)
    assert labelled([FLAT, FLAT, None, FLAT], spec=spec)[1]["touched"] is None


def test_a_vertical_barrier_in_time_is_the_last_bar_that_closes_before_it():
    # The entry is at 14:00 of session 1; bars close at 21:00.
    for hours, held in ((55, 3), (54.9, 2), (7, 1), (1, 1)):
        spec = BarrierSpec(horizon_bars=None, horizon_time=timedelta(hours=hours))
        rows = labelled([FLAT] * 6, spec=spec)
        assert (rows[1]["touched"], rows[1]["sessions_held"]) == ("vertical", held)
    beyond = BarrierSpec(horizon_bars=None, horizon_time=timedelta(days=40))
    assert labelled([FLAT] * 6, spec=beyond)[1]["touched"] is None


def test_events_alone_are_labelled_where_they_are_given():
    rows = pl.concat([decisions(index=index) for index in range(3)])
    prices = frame(bars("AAA", [FLAT] * 16))
    events = rows.filter(pl.col("session") == day(1))
    chosen = triple_barrier(prices, action_frame(), rows, at(0, 0), at(9, 0), calendar(20), THREE, events=events)
    every = triple_barrier(prices, action_frame(), rows, at(0, 0), at(9, 0), calendar(20), THREE)
    assert_frame_equal(chosen, every.filter(pl.col("decision_at") == decided(1)), check_exact=True)


def test_meta_labels_say_whether_the_given_side_paid():
    rows = pl.concat([decisions(index=index) for index in range(4)])
    prices = frame(bars("AAA", [FLAT, FLAT, (100, 104, 99, 104), FLAT, FLAT]))
    labels = triple_barrier(prices, action_frame(), rows, at(0, 0), at(9, 0), calendar(20), THREE)
    bets = rows.select("symbol", "interval", "decision_at", side=pl.Series([1, -1, 0, 1]))
    met = meta_labels(labels, bets)
    # Long from 100 to 103; short from 100 to 103; no bet; and a bet that the data do not finish.
    assert met.select("side", "meta_label").rows() == [(1, 1), (-1, 0), (1, None)]
    with pytest.raises(TapehouseError, match="a side is 1, -1 or 0"):
        meta_labels(labels, bets.with_columns(side=pl.lit(2)))
    with pytest.raises(TapehouseError, match="has two sides; give one row per decision"):
        meta_labels(labels, pl.concat([bets, bets]))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"horizon_time": timedelta(days=3)}, "exactly one of them; set the other to null"),
        ({"horizon_bars": None}, "exactly one of them"),
        ({"sides": (1, 1)}, "name each of -1, 0, 1 at most once"),
        ({"profit": 0}, "profit"),
        ({"widht": 1}, "widht"),
    ],
)
def test_a_specification_that_cannot_be_is_refused(keys, said):
    with pytest.raises(ValueError, match=said):
        BarrierSpec(**keys)


def test_a_horizon_beyond_what_is_read_is_refused():
    sessions = all_sessions()
    end = datetime(2001, 9, 1, tzinfo=UTC)  # September 2001 had 15 sessions
    require_lookahead("labels.x", sessions, end, 1, 15)
    require_lookahead("labels.x", sessions, end, 1, timedelta(days=26))
    for horizon in (16, timedelta(days=27)):
        with pytest.raises(TapehouseError, match=r"labels.x: .* 1 months ahead are read; raise lookahead_months"):
            require_lookahead("labels.x", sessions, end, 1, horizon)


@pytest.mark.parametrize("horizon", [1, 3, timedelta(hours=55), timedelta(hours=1)])
def test_sessions_around_decisions_reach_one_beyond_their_horizons(horizon):
    found = sessions_around(calendar(20), day(2), day(4), horizon)
    # The last entry is on session 5; 55 hours from its open are over with session 7's close, 1 hour before its own.
    last = {1: 6, 3: 8, timedelta(hours=55): 8, timedelta(hours=1): 5}[horizon]
    assert found["session"].to_list() == [day(i) for i in range(2, last + 1)]
    assert sessions_around(calendar(20), day(2), day(19), horizon)["session"][-1] == day(19)
    assert sessions_around(calendar(20), None, None, horizon).height == 1


# ---------------------------------------------------------------------- metamorphic


def scaled(versions: pl.DataFrame, actions: pl.DataFrame, rows: pl.DataFrame, factor: float):
    prices = pl.col("open", "high", "low", "close") * factor
    return (
        versions.with_columns(prices),
        actions.with_columns(pl.col("amount") * factor),
        rows.with_columns(pl.col("close", "atr_14") * factor),
    )


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), power=st.integers(-4, 4))
def test_other_units_of_price_other_names_and_another_order_change_only_what_they_should(seed, power):
    versions, actions = random_market(seed, 45, late=4)
    rows = price_features(versions, actions, at(0, 0), at(45, 0))
    label = lambda *records: triple_barrier(*records, at(0, 0), at(45, 0), calendar(70))  # noqa: E731
    before = label(versions, actions, rows)
    # Powers of two scale without rounding, so that even the bits of what has no unit stay.
    prices = ["entry_price", "atr", "upper", "lower"]
    after = label(*scaled(versions, actions, rows, 2.0**power))
    assert_frame_equal(after, before.with_columns(pl.col(prices) * 2.0**power), check_exact=True)

    shuffled = [x.sample(fraction=1, shuffle=True, seed=seed) for x in (versions, actions, rows)]
    assert_frame_equal(label(*shuffled), before, check_exact=True)

    other = {"AAA": "ZZZ", "BBB": "MMM", "^GSPC": "^X"}
    renamed = label(*(x.with_columns(pl.col("symbol").replace(other)) for x in (versions, actions, rows)))
    expected = before.with_columns(pl.col("symbol").replace(other)).sort("symbol", "interval", "decision_at", "side")
    assert_frame_equal(renamed, expected, check_exact=True)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), weeks=st.integers(1, 20))
def test_the_same_market_some_weeks_later_has_the_same_labels(seed, weeks):
    by = timedelta(weeks=weeks)
    versions, actions = random_market(seed, 40)
    rows = price_features(versions, actions, at(0, 0), at(40, 0))
    before = triple_barrier(versions, actions, rows, at(0, 0), at(40, 0), calendar(60))
    moved = [x.with_columns(pl.col(pl.Date, STAMP) + by) for x in (versions, actions, rows, calendar(60))]
    after = triple_barrier(*moved[:3], at(0, 0) + by, at(40, 0) + by, moved[3])
    assert_frame_equal(after, before.with_columns(pl.col(STAMP) + by), check_exact=True)
