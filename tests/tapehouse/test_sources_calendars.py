from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tapehouse.errors import TapehouseError
from tapehouse.merging import merge_versions
from tapehouse.sources.base import Ask
from tapehouse.sources.calendars import SCHEMA, Declaration, deliver, fingerprint

START, END = datetime(1995, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC)
KEY = ("calendar", "kind", "name", "event_at", "source")
YEAR = timedelta(days=365)
PAYROLLS = {
    "name": "PAYEMS",
    "rule": "first friday",
    "at": "08:30 America/New_York",
    "except": {"2016-07-01": "2016-07-08", "2013-10-04": {"on": "2013-10-22", "known": "2013-10-01"}, "2015-05-01": None},
}
DECLARED = Declaration.model_validate({"sessions": ["XNYS"], "expiries": ["XNYS"], "releases": [PAYROLLS]})
# Full-day closures of the exchange that nobody could plan: attacks, a hurricane, presidents' funerals.
UNPLANNED = [
    *(date(2001, 9, day) for day in (11, 12, 13, 14)),
    *(date(2012, 10, 29), date(2012, 10, 30)),
    *(date(2004, 6, 11), date(2007, 1, 2), date(2018, 12, 5)),
]


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def events(declared: Declaration = DECLARED, start=START, end=END, symbols=()) -> pl.DataFrame:
    universe = SimpleNamespace(start=START, end=END)
    delivery = deliver(declared, Ask("calendar", "exchange", symbols, start, end, SimpleNamespace(universe=universe)))
    counts = delivery.counts
    assert counts["received"] == counts["accepted"] + counts["outside_span"] and delivery.rejected.is_empty()
    assert delivery.rows.columns == [*SCHEMA, "source"]
    return delivery.rows


def as_known(rows: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    """The latest version of each event that was known, without those that are known to be closed."""
    latest = rows.filter(pl.col("known_at") <= instant).sort("known_at").unique(KEY, keep="last", maintain_order=True)
    closed = latest.filter(kind="closure").select("calendar", "name", "event_at")
    return latest.filter(pl.col("kind") != "closure").join(closed, on=["calendar", "name", "event_at"], how="anti")


def test_sessions_by_hand():
    rows = events(start=at(2012, 11, 19), end=at(2012, 11, 27)).filter(kind="session")
    assert rows.select("session", "event_at", "ends_at").rows() == [
        (date(2012, 11, 19), at(2012, 11, 19, 14, 30), at(2012, 11, 19, 21)),
        (date(2012, 11, 20), at(2012, 11, 20, 14, 30), at(2012, 11, 20, 21)),
        (date(2012, 11, 21), at(2012, 11, 21, 14, 30), at(2012, 11, 21, 21)),
        (date(2012, 11, 23), at(2012, 11, 23, 14, 30), at(2012, 11, 23, 18)),  # the day after Thanksgiving: until 13:00
        (date(2012, 11, 26), at(2012, 11, 26, 14, 30), at(2012, 11, 26, 21)),
    ]
    assert rows["scheduled"].all() and (rows["event_at"] - rows["known_at"] == YEAR).all()
    summer = events(start=at(2012, 7, 2), end=at(2012, 7, 3)).row(0, named=True)
    assert (summer["event_at"], summer["ends_at"]) == (at(2012, 7, 2, 13, 30), at(2012, 7, 2, 20))


@pytest.mark.parametrize(
    ("month", "expiry"),
    [
        ((2012, 6), date(2012, 6, 15)),
        ((2008, 3), date(2008, 3, 20)),  # the third Friday was Good Friday
        ((2014, 4), date(2014, 4, 17)),
        ((2001, 9), date(2001, 9, 21)),
    ],
)
def test_monthly_expiries_by_hand(month, expiry):
    start = at(*month, 1)
    (row,) = events(start=start, end=start + timedelta(days=28)).filter(kind="expiry").rows(named=True)
    assert (row["session"], row["event_at"], row["scheduled"]) == (expiry, at(*expiry.timetuple()[:3], 20), True)
    assert row["known_at"] == row["event_at"] - YEAR


def test_releases_by_hand():
    rows = events(start=at(2016, 6, 1), end=at(2016, 9, 1)).filter(calendar="macro")
    assert rows.select("kind", "event_at", "scheduled").rows() == [
        ("release", at(2016, 6, 3, 12, 30), True),
        ("release", at(2016, 7, 8, 12, 30), True),  # the first Friday was before a holiday: moved in the schedule itself
        ("release", at(2016, 8, 5, 12, 30), True),
    ]
    assert events(start=at(2015, 5, 1), end=at(2015, 6, 1)).filter(calendar="macro").is_empty()
    shutdown = events(start=at(2013, 10, 1), end=at(2013, 11, 1)).filter(calendar="macro")
    end_of_day = at(2013, 10, 2, 4)  # of October 1 in New York
    assert shutdown.select("kind", "event_at", "known_at", "scheduled").rows() == [
        ("closure", at(2013, 10, 4, 12, 30), end_of_day, False),
        ("release", at(2013, 10, 4, 12, 30), at(2012, 10, 4, 12, 30), True),
        ("release", at(2013, 10, 22, 12, 30), end_of_day, False),
    ]


@pytest.mark.parametrize(
    ("year", "days"),
    [
        (2006, "01-06 02-03 03-10 04-07 05-05 06-02 07-07 08-04 09-01 10-06 11-03 12-08"),
        (2016, "01-08 02-05 03-04 04-01 05-06 06-03 07-08 08-05 09-02 10-07 11-04 12-02"),
    ],
)
def test_the_employment_situation_by_its_own_rule(year, days):
    """The dates on which it came out. On 2016-01-01, which the rule gives, nothing did."""
    rule = PAYROLLS | {"rule": "third friday after the week of day 12", "except": {"2016-01-01": "2016-01-08"}}
    rows = events(Declaration.model_validate({"releases": [rule]}), at(year, 1, 1), at(year + 1, 1, 1))
    assert [f"{day:%m-%d}" for day in rows["session"]] == days.split()


@pytest.mark.parametrize("day", UNPLANNED)
def test_an_unplanned_closure_is_a_session_until_it_is_known(day):
    """Known when its day began in New York; on 2001-09-11 at the hour of the open, when the doors stayed shut."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo("America/New_York")).astimezone(UTC)
    known = midnight + timedelta(hours=9.5 if day == date(2001, 9, 11) else 0)
    rows = events(start=midnight, end=midnight + timedelta(days=1)).filter(name="session")
    before, closed = as_known(rows, known - timedelta(microseconds=1)), as_known(rows, known)
    assert before["session"].to_list() == [day] and before["scheduled"].all() and closed.is_empty()
    (hours,) = before.select(
        pl.col("event_at", "ends_at").dt.convert_time_zone("America/New_York").dt.strftime("%H:%M")
    ).iter_rows()
    assert hours == ("09:30", "16:00")


def test_nothing_of_the_future_is_listed():
    """At any instant the list ahead is what the rules say: no trace of what was to come without notice."""
    rows = events()
    for instant in (at(2001, 9, 10, 21), at(2004, 6, 4), at(2006, 12, 1), at(2012, 10, 26, 21), at(2018, 11, 1)):
        ahead = as_known(rows, instant).filter(
            (pl.col("kind") == "session") & (pl.col("event_at") > instant) & (pl.col("event_at") < instant + timedelta(days=45))
        )
        assert ahead["scheduled"].all()
        days = pl.date_range(instant.date() + timedelta(days=1), instant.date() + timedelta(days=44), eager=True)
        missing = set(days.filter(days.dt.weekday() <= 5)) - set(ahead["session"])
        # Columbus Day is a session; Independence Day, Thanksgiving, Christmas and New Year's Day are holidays by rule.
        assert missing <= {date(2004, 7, 5), date(2012, 11, 22), date(2006, 12, 25), date(2007, 1, 1), date(2018, 11, 22)}
    late = rows.filter(~pl.col("scheduled") & (pl.col("name") == "session"))
    assert set(late.filter(kind="closure")["session"]) >= set(UNPLANNED)
    assert date(2003, 12, 26) in late.filter(kind="session")["session"].to_list()
    midnight = pl.col("session").cast(pl.Datetime("us")).dt.replace_time_zone("America/New_York").dt.convert_time_zone("UTC")
    happened = pl.when(pl.col("kind") == "closure").then("event_at").otherwise("ends_at")
    assert late.select((pl.col("known_at") == midnight) | (pl.col("known_at") == happened)).to_series().all()
    on_the_day = late.filter(pl.col("known_at") == happened)["session"].to_list()
    assert on_the_day == [date(2001, 9, 11)]


def test_a_holiday_by_a_new_rule_was_not_known_before_the_rule():
    rows = events().filter(pl.col("session").is_in([date(2022, 6, 20), date(2023, 6, 19), date(1998, 1, 19)]))
    assert rows.select("kind", "session", "scheduled").rows() == [
        ("closure", date(1998, 1, 19), False),  # the first Martin Luther King day
        ("session", date(1998, 1, 19), True),
        ("closure", date(2022, 6, 20), False),  # Juneteenth; a year later it is no session from the start
        ("session", date(2022, 6, 20), True),
    ]
    midnight = rows.filter(session=date(2022, 6, 20), kind="closure")["known_at"].to_list()
    assert midnight == [at(2022, 6, 20, 4)]


def test_announcements_are_declared():
    said = {
        "XNYS": {"2012-10-30": "2012-10-29", "2018-12-05": "2018-12-01T10:00:00", "2001-09-11": "2001-09-11T09:10:00-04:00"}
    }
    rows = events(Declaration.model_validate({"sessions": ["XNYS"], "announced": said})).filter(kind="closure")
    known = dict(rows.select("session", "known_at").iter_rows())
    assert known[date(2012, 10, 30)] == at(2012, 10, 30, 4)
    assert known[date(2018, 12, 5)] == at(2018, 12, 1, 15)
    assert known[date(2001, 9, 11)] == at(2001, 9, 11, 13, 10)


def test_markets_that_never_close():
    rows = events(Declaration(sessions=("24/7",)), at(2020, 2, 28), at(2020, 3, 2))
    assert rows["session"].to_list() == [date(2020, 2, 28), date(2020, 2, 29), date(2020, 3, 1)]
    assert (rows["ends_at"] - rows["event_at"] == timedelta(days=1)).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.datetimes(datetime(1994, 1, 1), datetime(2025, 1, 1)), max_size=4))
def test_any_split_of_a_range_gives_the_same_rows(cuts):
    edges = [START, *sorted(cut.replace(tzinfo=UTC) for cut in cuts if START <= cut.replace(tzinfo=UTC) < END), END]
    parts = [events(start=a, end=b) for a, b in pairwise(edges)]
    whole = events()
    assert pl.concat(parts).equals(whole)
    assert not whole.select(*KEY, "known_at").is_duplicated().any()
    assert (whole.filter("scheduled")["known_at"] < whole.filter("scheduled")["event_at"]).all()


def test_ingesting_again_adds_nothing():
    rows = events(start=at(2001, 9, 1), end=at(2001, 10, 1))
    clock = at(2020, 1, 1)
    stored = merge_versions(pl.DataFrame(), rows, KEY, clock)
    assert merge_versions(stored, rows, KEY, clock + YEAR).equals(stored) and stored.height == rows.height


def test_fingerprints_follow_the_declaration():
    def of(declared: Declaration, year: int) -> str:
        universe = SimpleNamespace(start=START, end=END)
        return fingerprint(
            declared, Ask("calendar", "x", (), at(year, 1, 1), at(year + 1, 1, 1), SimpleNamespace(universe=universe))
        )

    other = Declaration.model_validate(
        {"sessions": ["XNYS"], "expiries": ["XNYS"], "releases": [PAYROLLS | {"except": {"2016-07-01": "2016-07-08"}}]}
    )
    assert of(DECLARED, 2016) == of(other, 2016) and of(DECLARED, 2013) != of(other, 2013)


def test_only_the_calendars_that_are_asked_for():
    assert events(symbols=("macro",))["calendar"].unique().to_list() == ["macro"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rule": "first freitag"}, "is not like 'first friday'"),
        ({"rule": None}, "give either rule or dates"),
        ({"at": "8.30 New York"}, "is not like '08:30 America/New_York'"),
        ({"except": {"2016-07-04": "2016-07-08"}}, "except names 2016-07-04, on which there is no release"),
        ({"wher": "here"}, "Extra inputs"),
    ],
)
def test_a_bad_release_is_refused(change, said):
    with pytest.raises(ValidationError, match=said):
        Declaration.model_validate({"releases": [PAYROLLS | {"except": {}} | change]})


def test_a_calendar_that_begins_later_than_others():
    rows = events(Declaration(sessions=("XTKS",)), at(2005, 3, 1), at(2005, 3, 3))
    assert rows.filter(kind="session")["event_at"].to_list() == [at(2005, 3, 1), at(2005, 3, 2)]


def test_an_unknown_calendar_is_refused():
    with pytest.raises(TapehouseError, match="knows no calendar 'NOWHERE'"):
        events(Declaration(sessions=("NOWHERE",)))
