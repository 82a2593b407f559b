"""The CUSUM filter by hand, against the book's loop, and restarting at anchors."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from dateutil.relativedelta import relativedelta
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.declarations import load_project
from tapehouse.labels.events import cusum_events
from tapehouse.settings import load_settings
from tests.house import ROOT

STAMP = pl.Datetime("us", "UTC")
DAILY = 0.01
START, END = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def decisions(returns, first=date(2019, 12, 1), volatility=DAILY, symbol="AAA") -> pl.DataFrame:
    days = [first + timedelta(days=i) for i in range(len(returns))]
    return pl.DataFrame(
        {
            "symbol": [symbol] * len(days),
            "interval": ["1d"] * len(days),
            "decision_at": [datetime(d.year, d.month, d.day, 21, 5, tzinfo=UTC) for d in days],
            "session": days,
            "known_at": [datetime(d.year, d.month, d.day, 21, tzinfo=UTC) for d in days],
            "ret_1d": returns,
            "realised_vol_20d": [volatility and volatility * 252**0.5] * len(days),
        },
        schema={
            "symbol": pl.String,
            "interval": pl.String,
            "decision_at": STAMP,
            "session": pl.Date,
            "known_at": STAMP,
            "ret_1d": pl.Float64,
            "realised_vol_20d": pl.Float64,
        },
    )


def found(rows: pl.DataFrame, threshold=2.0) -> list[tuple[int, int]]:
    """(day of the month, direction) of each event."""
    events = cusum_events(rows, START, END, threshold)
    return events.select(pl.col("decision_at").dt.day(), "direction").rows()


def test_sums_fire_beyond_the_threshold_and_start_again():
    # Two deviations are 0.02. Up: 0.012, 0.022 fires; then 0.015 alone; down: -0.03 fires at once.
    assert found(decisions([0.012, 0.010, 0.015, -0.03, 0.001])) == [(2, 1), (4, -1)]
    row = cusum_events(decisions([0.012, 0.010]), START, END).row(0, named=True)
    assert row["known_at"] == datetime(2019, 12, 2, 21, tzinfo=UTC)
    assert (row["moved"], row["threshold"]) == (pytest.approx(0.022), pytest.approx(0.02))


def test_a_fall_takes_the_upper_sum_down_but_not_below_zero():
    # 0.015 - 0.01 + 0.016 = 0.021; had the sum gone below zero on the first day it would not get there.
    assert found(decisions([-0.005, 0.015, -0.01, 0.016])) == [(4, 1)]


def test_an_event_leaves_the_other_sum_as_it_is():
    """The threshold halves: the rise fires, and of the fall before it 0.005 is left, to which the next fall is added."""
    rows = decisions([-0.03, 0.025, -0.018, 0.0])
    halved = rows.with_columns(realised_vol_20d=pl.Series([0.02, 0.01, 0.01, 0.01]) * 252**0.5)
    assert found(halved) == [(2, 1), (3, -1)]
    assert cusum_events(halved, START, END)["moved"].to_list() == [pytest.approx(0.025), pytest.approx(-0.023)]


def test_a_new_year_starts_flat():
    rows = decisions([0.015, 0.015], first=date(2019, 12, 31))
    assert found(rows) == []
    assert found(decisions([0.015, 0.015], first=date(2020, 1, 1))) == [(2, 1)]


def test_without_volatility_there_is_no_event_and_without_a_return_nothing_moves():
    assert found(decisions([0.5, 0.5], volatility=None)) == []
    assert found(decisions([0.5, 0.5], volatility=0.0)) == []
    assert found(decisions([0.015, None, 0.006])) == [(3, 1)]


def test_symbols_do_not_mix_and_the_order_of_rows_does_not_matter():
    both = pl.concat([decisions([0.015, 0.015, 0.0]), decisions([0.015, -0.05, 0.0], symbol="BBB")])
    assert found(both) == [(2, 1), (2, -1)]
    assert found(both.sample(fraction=1, shuffle=True, seed=1)) == [(2, 1), (2, -1)]


def textbook(returns: list[float], threshold: float) -> list[int]:
    """Snippet 2.4 of the book."""
    events, up, down = [], 0.0, 0.0
    for place, change in enumerate(returns):
        up, down = max(0.0, up + change), min(0.0, down + change)
        if down < -threshold:
            down = 0.0
            events.append(place)
        elif up > threshold:
            up = 0.0
            events.append(place)
    return events


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-0.04, 0.04), min_size=1, max_size=80), st.integers(0, 80))
def test_the_filter_is_the_books_and_any_part_from_the_anchor_gives_the_same(returns, cut):
    rows = decisions(returns, first=date(2020, 1, 1))
    whole = cusum_events(rows, START, END)
    threshold = whole["threshold"][0] if whole.height else 2 * DAILY
    places = (whole["decision_at"].dt.date() - date(2020, 1, 1)).dt.total_days().to_list()
    assert places == textbook(returns, threshold)
    middle = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(days=cut)
    parts = [
        cusum_events(rows.filter(pl.col("decision_at") < end), start, end) for start, end in ((START, middle), (middle, END))
    ]
    assert_frame_equal(pl.concat(parts), whole, check_exact=True)


def test_the_declared_look_back_reaches_the_anchor_of_a_session_that_ends_in_the_year_after():
    """The last session of a year on a calendar without pauses closes at midnight: its decision is one of January."""
    project = load_project(load_settings(ROOT))
    asset = project.assets["features.cusum_events"]
    (read,) = (r for r in asset.reads if r.table == "features.price")
    days = [date(2011, 12, 1) + timedelta(days=i) for i in range(400)]
    closes = [datetime(d.year, d.month, d.day, tzinfo=UTC) + timedelta(days=1, minutes=5) for d in days]
    # Nothing happens until the year's last session, which goes just beyond what January 2012 had begun.
    returns = [0.019 if day == date(2012, 1, 5) else 0.002 if day == date(2012, 12, 31) else 0.0 for day in days]
    rows = decisions(returns, first=days[0]).with_columns(decision_at=pl.Series(closes, dtype=STAMP), session=pl.Series(days))
    start, end = project.span("2013-01-01", "2013-01-01")
    begin = start - relativedelta(months=read.lookback_months)
    whole, alone = cusum_events(rows, start, end), cusum_events(rows.filter(pl.col("decision_at") >= begin), start, end)
    assert whole["decision_at"].to_list() == [datetime(2013, 1, 1, 0, 5, tzinfo=UTC)]
    assert_frame_equal(alone, whole, check_exact=True)
