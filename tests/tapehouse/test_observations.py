from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.observations import MACRO_COLUMNS, Calendar, Release, first_vintage, screen_macro
from tapehouse.screening import Screened

START = datetime(2000, 1, 1, tzinfo=UTC)
NEW_YORK = ZoneInfo("America/New_York")
HEADER = ("symbol", "period", "vintage", "value")
GOOD = [("PAYEMS", "2016-06-01", "2016-07-08", "144175"), ("PAYEMS", "2016-06-01", "2016-08-05", "144193")]


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def records(*rows: tuple) -> pl.DataFrame:
    texts = pl.DataFrame(rows, schema=dict.fromkeys(HEADER, pl.String), orient="row").with_row_index("at", offset=2)
    origin = pl.format("macro.csv:{}", "at")
    line = pl.concat_str(HEADER, separator=",", ignore_nulls=True)
    return texts.select(*HEADER, source=pl.lit("here"), origin=origin, record=line, fault=pl.lit(None, pl.String))


def screen(*rows: tuple, **options) -> Screened:
    screened = screen_macro(
        records(*rows), **({"undated_at": START, "dates": Calendar(), "holds": ["PAYEMS", "GDP"]} | options)
    )
    assert screened.accepted.height + screened.rejected.height + screened.duplicates == len(rows)
    return screened


def test_vintages_by_hand():
    screened = screen(*GOOD, ("GDP", "2016-04-01", "2016-07-29", "16575.1"), dates=Calendar(frequencies={"GDP": "q"}))
    assert screened.accepted.columns == list(MACRO_COLUMNS) and screened.rejected.is_empty()
    assert screened.accepted.select("series_id", "period", "frequency", "event_at", "known_at", "vintage").rows() == [
        ("GDP", date(2016, 4, 1), "q", utc(2016, 7, 1, 4), utc(2016, 7, 30, 4), date(2016, 7, 29)),
        ("PAYEMS", date(2016, 6, 1), "m", utc(2016, 7, 1, 4), utc(2016, 7, 9, 4), date(2016, 7, 8)),
        ("PAYEMS", date(2016, 6, 1), "m", utc(2016, 7, 1, 4), utc(2016, 8, 6, 4), date(2016, 8, 5)),
    ]
    assert set(screened.accepted["known_as"]) == {"vintage"} and not screened.accepted["revised"].any()


@pytest.mark.parametrize(
    ("frequency", "given", "period", "ends"),
    [
        ("d", "2014-01-03", date(2014, 1, 3), utc(2014, 1, 4, 5)),
        ("w", "2014-03-08", date(2014, 3, 8), utc(2014, 3, 9, 5)),  # clocks change two hours later
        ("m", "2014-02-01", date(2014, 2, 1), utc(2014, 3, 1, 5)),
        ("m", "2014-02-28", date(2014, 2, 1), utc(2014, 3, 1, 5)),
        ("q", "2014-01-01", date(2014, 1, 1), utc(2014, 4, 1, 4)),
    ],
)
def test_a_period_ends_at_the_midnight_after_its_last_day(frequency, given, period, ends):
    rule = {"dates": Calendar(frequency=frequency), "release": Release(2, time(8, 30)), "revised": True}
    row = screen(("GDP", given, None, "1"), **rule).accepted.row(0, named=True)
    assert (row["period"], row["event_at"], row["known_as"], row["revised"]) == (period, ends, "rule", True)
    last = ends.astimezone(NEW_YORK).date() - timedelta(days=1)
    known = datetime.combine(last + timedelta(days=2), time(8, 30), NEW_YORK)
    assert row["known_at"] == known and row["vintage"] is None


def test_a_release_without_an_hour_is_known_at_the_end_of_its_day():
    rule = {"dates": Calendar(frequency="d"), "release": Release(1)}
    assert screen(("GDP", "2014-03-07", None, "1"), **rule).accepted["known_at"].item() == utc(2014, 3, 9, 5)
    elsewhere = {"dates": Calendar(frequency="d", timezone="Asia/Tokyo"), "release": Release(0, time(15))}
    assert screen(("GDP", "2014-03-07", None, "1"), **elsewhere).accepted["known_at"].item() == utc(2014, 3, 7, 6)


def test_a_quarter_named_by_its_last_month():
    dates = Calendar(frequency="q", quarter_named_by="last_month")
    screened = screen(("GDP", "2016-06-01", "2016-07-29", "1"), ("GDP", "2016-07-01", "2016-10-29", "1"), dates=dates)
    assert screened.accepted.select("period", "event_at").rows() == [(date(2016, 4, 1), utc(2016, 7, 1, 4))]
    assert screened.rejected["reason"].to_list() == ["period is not the last month of a quarter"]


def test_a_snapshot_is_an_upper_bound():
    rows = [*GOOD, ("PAYEMS", "2016-05-01", "2016-06-29", "143894"), ("PAYEMS", "2016-07-01", "2015-01-01", "1")]
    assert first_vintage(records(*rows)) == date(2016, 6, 29)  # one before its own period is a typing error
    screened = screen(*rows, snapshot=date(2016, 6, 29))
    assert screened.accepted["known_as"].to_list() == ["upper_bound", "vintage", "vintage"]
    assert screened.rejected["reason"].to_list() == ["vintage before its period began"]
    assert first_vintage(records(("PAYEMS", "x", "y", "z"))) is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (("", "2016-06-01", "2016-07-08", "1"), "missing series"),
        (("GDP2", "2016-06-01", "2016-07-08", "1"), "unknown series"),
        (("GDP", None, "2016-07-08", "1"), "missing period"),
        (("GDP", "2016-13-01", "2016-07-08", "1"), "unreadable period"),
        (("GDP", "0216-06-01", "2016-07-08", "1"), "unreadable period"),
        (("GDP", "2016-06-01", "2016-07-08", ""), "missing value"),
        (("GDP", "2016-06-01", "2016-07-08", "1,5"), "unreadable value"),
        (("GDP", "2016-06-01", "2016-07-08", "."), "no value was published"),
        (("GDP", "2016-06-01", "2016-07-08", "nan"), "value is not finite"),
        (("GDP", "2016-06-01", "2016-07-08", "inf"), "value is not finite"),
        (("GDP", "2016-06-01", None, "1"), "missing vintage"),
        (("GDP", "2016-06-01", "soon", "1"), "unreadable vintage"),
        (("GDP", "2016-06-01", "2016-05-31", "1"), "vintage before its period began"),
    ],
)
def test_bad_observations_say_why(row, reason):
    screened = screen(*GOOD, row)
    reject = screened.rejected.row(0, named=True)
    assert (reject["reason"], reject["origin"], reject["table_name"]) == (reason, "macro.csv:4", "raw.macro_observations")
    assert screened.accepted.height == 2
    assert reject["filed_at"] == (START if "period" in reason and "its" not in reason else utc(2016, 7, 1, 4))


def test_duplicates_are_counted_and_conflicts_believed_neither():
    screened = screen(*GOOD, ("PAYEMS", "2016-06-30", "2016-07-08", "144175.0"), (*GOOD[1][:3], "144194"))
    assert screened.duplicates == 1 and screened.accepted["value"].to_list() == [144175]
    assert set(screened.rejected["reason"]) == {"conflicting records for one series, period and vintage"}
    assert screened.rejected["origin"].to_list() == ["macro.csv:3", "macro.csv:5"]


DAYS = st.dates(date(1950, 1, 1), date(2099, 12, 31))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["PAYEMS", "GDP"]), DAYS, DAYS, st.integers(0, 3)), max_size=8))
def test_any_vintage_is_known_when_its_day_has_ended_and_any_period_ends_after_it_began(rows):
    screened = screen(*((s, str(p), str(v), str(x)) for s, p, v, x in rows))
    for row in screened.accepted.to_dicts():
        # The midnight that ends the vintage's day in New York, and no later.
        assert row["known_at"].astimezone(NEW_YORK) == datetime.combine(row["vintage"] + timedelta(days=1), time(0), NEW_YORK)
        assert row["event_at"].astimezone(NEW_YORK).date() > row["period"] and row["vintage"] >= row["period"]
    assert not screened.accepted.select("series_id", "period", "known_at").is_duplicated().any()
