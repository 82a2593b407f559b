from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import all_sessions, local_midnight, local_midnight_of, sessions, timezone


def close_of(day: date) -> datetime:
    return sessions(day, date.fromordinal(day.toordinal() + 1))["close_at"].item()


def test_closes_by_hand():
    # New York is five hours behind UTC in winter and four in summer; the day after Thanksgiving closes at 13:00.
    assert close_of(date(2005, 2, 28)) == datetime(2005, 2, 28, 21, tzinfo=UTC)
    assert close_of(date(2005, 7, 1)) == datetime(2005, 7, 1, 20, tzinfo=UTC)
    assert close_of(date(2012, 11, 23)) == datetime(2012, 11, 23, 18, tzinfo=UTC)
    # The clocks of 2007 went forward on 11 March, three weeks earlier than in 2006.
    assert close_of(date(2006, 3, 13)).hour == 21
    assert close_of(date(2007, 3, 12)).hour == 20


def test_closures_are_no_sessions():
    assert sessions(date(2001, 9, 10), date(2001, 9, 18))["session"].to_list() == [date(2001, 9, 10), date(2001, 9, 17)]
    assert sessions(date(2012, 10, 27), date(2012, 10, 31)).is_empty()  # a weekend, then Hurricane Sandy


def test_a_range_is_half_open_and_takes_datetimes():
    month = sessions(datetime(2000, 3, 1, tzinfo=UTC), datetime(2000, 4, 1, tzinfo=UTC))
    assert (month.height, month["session"][0], month["session"][-1]) == (23, date(2000, 3, 1), date(2000, 3, 31))
    assert month.schema["close_at"] == pl.Datetime("us", "UTC")
    assert sessions(date(2000, 3, 1), date(2000, 3, 1)).is_empty()


def test_midnight_of_an_ex_date():
    assert local_midnight_of(date(2005, 2, 28)) == datetime(2005, 2, 28, 5, tzinfo=UTC)
    days = pl.DataFrame({"day": [date(2000, 6, 21), date(2005, 2, 28)]})
    assert days.select(local_midnight(pl.col("day"))).to_series().to_list() == [
        datetime(2000, 6, 21, 4, tzinfo=UTC),
        datetime(2005, 2, 28, 5, tzinfo=UTC),
    ]
    assert timezone() == "America/New_York"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.dates(date(1990, 1, 1), date(2025, 1, 1)), min_size=3, max_size=3).map(sorted))
def test_ranges_add_up(days):
    first, middle, last = days
    whole = sessions(first, last)
    assert pl.concat([sessions(first, middle), sessions(middle, last)]).equals(whole)
    assert (whole["open_at"] < whole["close_at"]).all()
    assert whole["session"].is_sorted() and whole["session"].is_unique().all()
    # The close is on the session's own date in UTC: a month of sessions is a month of closes.
    assert (whole["close_at"].dt.date() == whole["session"]).all()


def test_an_unknown_calendar_is_named():
    with pytest.raises(Exception, match="NOWHERE"):
        all_sessions("NOWHERE")
