from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import all_sessions, local_instant, local_midnight, local_midnight_of, sessions, timezone
from tapehouse.errors import TapehouseError


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


@pytest.mark.parametrize(
    ("calendar", "first"),
    [
        ("XTKS", date(1997, 1, 6)),
        ("XBOM", date(1997, 1, 1)),
        ("XSES", date(1986, 1, 2)),
        ("XSHG", date(1990, 12, 3)),
        ("XSAU", date(2021, 1, 3)),
        ("AIXK", date(2017, 1, 4)),
        ("XNYS", date(1985, 1, 2)),
    ],
)
def test_a_calendar_reaches_as_far_back_as_it_can(calendar, first):
    """Where an exchange's holidays are not on record back to 1985, its sessions begin later."""
    assert all_sessions(calendar)["session"][0] == first


def test_a_calendar_that_cannot_be_worked_out_says_so():
    # Tel Aviv's early closes of Sundays are, to this version of the library, on days that are no sessions.
    with pytest.raises(TapehouseError, match="cannot work out the sessions of XTAE: Special dates") as caught:
        all_sessions("XTAE")
    assert len(str(caught.value)) < 300


def test_days_that_begin_an_hour_late_or_twice():
    # Clocks in São Paulo went from 00:00 to 01:00, three hours behind UTC before and two after.
    assert local_midnight_of(date(2016, 10, 16), "BVMF") == datetime(2016, 10, 16, 3, tzinfo=UTC)
    assert local_midnight_of(date(2016, 10, 17), "BVMF") == datetime(2016, 10, 17, 2, tzinfo=UTC)

    def instant(naive: datetime, zone: str, ambiguous: str = "earliest") -> datetime:
        return pl.select(local_instant(pl.lit(naive).cast(pl.Datetime("us")), zone, ambiguous)).item()

    # Havana had 00:00 to 01:00 of 2016-11-06 twice, in summer time (-4) and then in winter time (-5).
    assert instant(datetime(2016, 11, 6), "America/Havana") == datetime(2016, 11, 6, 4, tzinfo=UTC)
    assert instant(datetime(2016, 11, 6), "America/Havana", "latest") == datetime(2016, 11, 6, 5, tzinfo=UTC)
    # 02:30 was jumped over in New York, as was 02:15 on Lord Howe (02:00 to 02:30).
    assert instant(datetime(2016, 3, 13, 2, 30), "America/New_York") == datetime(2016, 3, 13, 7, tzinfo=UTC)
    assert instant(datetime(2016, 10, 2, 2, 15), "Australia/Lord_Howe") == datetime(2016, 10, 1, 15, 30, tzinfo=UTC)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.datetimes(datetime(1990, 1, 1), datetime(2026, 1, 1)), min_size=2, max_size=2),
    st.sampled_from(["America/New_York", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Beirut", "America/Caracas"]),
)
def test_every_local_time_is_an_instant_and_they_keep_their_order(times, zone):
    frame = pl.DataFrame({"naive": sorted(times)}).cast(pl.Datetime("us"))
    late = frame.select(local_instant(pl.col("naive"), zone, "latest")).to_series()
    early = frame.select(local_instant(pl.col("naive"), zone)).to_series()
    assert late.null_count() == 0 and (early <= late).all() and early[0] <= late[1]
    back = late.dt.convert_time_zone(zone).dt.replace_time_zone(None)
    assert ((back == frame["naive"]) | (back > frame["naive"])).all()


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
