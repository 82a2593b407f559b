import re
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.merging import merge_versions
from tapehouse.sources import fred
from tests.vendor_server import (
    BROKEN,
    CUT,
    HANGS,
    WRONG_TYPE,
    Archive,
    Reply,
    VendorServer,
    ask_of,
    conserved,
    fast,
    patience,
    too_many,
    utc,
)

KEY = "abcdefabcdefabcdefabcdefabcdef12"
START, END = utc(2004, 1, 1), utc(2006, 1, 1)
GRAIN = ("series_id", "period", "source")


def archive() -> Archive:
    """Payrolls whose archive starts with a snapshot in 2003-12, revised twice; a yield with a holiday."""
    return Archive(
        {"PAYEMS": "M", "DGS10": "D", "ICSA": "W", "GDP": "Q", "POP": "A"},
        {
            "PAYEMS": {
                date(2003, 11, 1): {date(2003, 12, 5): "130100", date(2004, 1, 9): "130050"},
                date(2003, 12, 1): {date(2004, 1, 9): "130060", date(2004, 2, 6): "130120", date(2005, 2, 4): "130200"},
                date(2004, 1, 1): {date(2004, 2, 6): "130150", date(2005, 2, 4): "130250"},
            },
            "DGS10": {
                date(2004, 7, 2): {date(2004, 7, 6): "4.48"},
                date(2004, 7, 5): {date(2004, 7, 6): "."},
                date(2004, 7, 6): {date(2004, 7, 7): "4.49", date(2004, 7, 9): "."},
            },
            "ICSA": {date(2004, 7, 3): {date(2004, 7, 8): "310000", date(2004, 7, 15): "313000"}},
            "GDP": {date(2004, 4, 1): {date(2004, 7, 30): "11649.3"}},
            "POP": {date(2004, 1, 1): {date(2005, 1, 3): "293"}},
        },
    )


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("FRED_API_KEY", KEY)
    with VendorServer() as server:
        archive().fred(server, KEY)
        yield server


def declared(server, **keys):
    return fred.Declaration(kind="fred", **fast(server, "/fred", **keys))


def macro(server, home, series=("PAYEMS",), start=START, end=END, **keys):
    return fred.deliver(declared(server, **keys), ask_of(home, "macro", series, start, end))


def test_every_vintage(server, tmp_path):
    got = macro(server, tmp_path)
    assert got.rows.select("period", "event_at", "known_at", "value", "vintage", "known_as").rows() == [
        # December ends, for New York, five hours into January.
        (date(2003, 12, 1), utc(2004, 1, 1, 5), utc(2004, 1, 10, 5), 130060.0, date(2004, 1, 9), "vintage"),
        (date(2003, 12, 1), utc(2004, 1, 1, 5), utc(2004, 2, 7, 5), 130120.0, date(2004, 2, 6), "vintage"),
        (date(2003, 12, 1), utc(2004, 1, 1, 5), utc(2005, 2, 5, 5), 130200.0, date(2005, 2, 4), "vintage"),
        (date(2004, 1, 1), utc(2004, 2, 1, 5), utc(2004, 2, 7, 5), 130150.0, date(2004, 2, 6), "vintage"),
        (date(2004, 1, 1), utc(2004, 2, 1, 5), utc(2005, 2, 5, 5), 130250.0, date(2005, 2, 4), "vintage"),
    ]
    assert set(got.rows["frequency"]) == {"m"} and not got.rows["revised"].any() and not got.missing
    # 2005 begins with the three values of 2004 in force, 2004 with one of 2003: they repeat what is known.
    assert got.counts["duplicates"] == 4 and got.counts["accepted"] == 7 and conserved(got)


def test_where_the_archive_starts_is_an_upper_bound(server, tmp_path):
    got = macro(server, tmp_path, start=utc(2003, 12, 1), end=utc(2004, 1, 1))
    assert got.rows.select("vintage", "known_as").rows() == [
        (date(2003, 12, 5), "upper_bound"),
        (date(2004, 1, 9), "vintage"),
    ]


def test_any_range_gives_the_same_versions(server, tmp_path):
    whole = macro(server, tmp_path).rows
    months = [(utc(2004, 1, 1), utc(2004, 2, 1)), (utc(2004, 2, 1), utc(2004, 3, 1)), (utc(2004, 3, 1), END)]
    assert pl.concat([macro(server, tmp_path, start=a, end=b).rows for a, b in months]).equals(whole)


def test_a_release_time(server, tmp_path):
    got = macro(server, tmp_path, release_times={"PAYEMS": "08:30"})
    assert got.rows["known_at"].to_list()[:2] == [utc(2004, 1, 9, 13, 30), utc(2004, 2, 6, 13, 30)]
    assert set(got.rows["known_as"]) == {"release"}
    snapshot = macro(server, tmp_path, start=utc(2003, 12, 1), end=utc(2004, 1, 1), release_time="08:30").rows
    assert snapshot["known_at"][0] == utc(2003, 12, 6, 5)
    with pytest.raises(ValueError, match="write a time of day in quotes"):
        declared(server, release_time=840)  # what YAML makes of 14:00


def test_a_release_time_that_clocks_jump_over(server, tmp_path):
    """02:30 of 2004-04-04 did not exist in New York; what was released then is known at 03:00, 07:00 UTC."""
    moved = archive()
    moved.values["PAYEMS"][date(2004, 2, 1)] = {date(2004, 4, 4): "130300"}
    moved.fred(server, KEY)
    row = macro(server, tmp_path, release_time="02:30").rows.row(by_predicate=pl.col("period") == date(2004, 2, 1), named=True)
    assert row["known_at"] == utc(2004, 4, 4, 7) and row["known_as"] == "release"


def test_other_frequencies(server, tmp_path):
    got = macro(server, tmp_path, ("ICSA", "GDP"))
    assert got.rows.select("series_id", "period", "frequency", "event_at").unique(maintain_order=True).rows() == [
        ("ICSA", date(2004, 7, 3), "w", utc(2004, 7, 4, 4)),  # FRED dates a week by its last day
        ("GDP", date(2004, 4, 1), "q", utc(2004, 7, 1, 4)),
    ]
    with pytest.raises(TapehouseError, match="FRED series POP has the frequency 'A'"):
        macro(server, tmp_path, ("POP",))


def test_missing_values(server, tmp_path):
    got = macro(server, tmp_path, ("DGS10",))
    assert got.rows.select("period", "value", "vintage").rows() == [
        (date(2004, 7, 2), 4.48, date(2004, 7, 6)),
        (date(2004, 7, 6), 4.49, date(2004, 7, 7)),
        (date(2004, 7, 6), None, date(2004, 7, 9)),  # taken back
    ]
    assert got.counts["no_value"] == 1 and got.rejected.is_empty() and conserved(got)


def test_a_value_that_cannot_be_read(server, tmp_path):
    spoilt = archive()
    spoilt.values["PAYEMS"][date(2004, 1, 1)][date(2004, 2, 6)] = "130150e"
    spoilt.fred(server, KEY)
    got = macro(server, tmp_path)
    assert got.rejected["reason"].to_list() == ["unreadable value"] and got.rows.height == 4 and conserved(got)
    assert got.rejected["origin"].item().endswith("limit=100000#2004-01-01/2004-02-06")


def test_a_second_run_asks_nothing(server, tmp_path):
    first = macro(server, tmp_path)
    assert len(server.requests) == 5, "the series, its vintage days, and three years"
    assert macro(server, tmp_path, backoff_s=0.02).rows.equals(first.rows) and len(server.requests) == 5
    ask = ask_of(tmp_path, "macro", ("PAYEMS",), START, END)
    assert fred.fingerprint(declared(server), ask) == fred.fingerprint(declared(server, attempts=2), ask)
    assert len(server.requests) == 5


def test_pages(server, tmp_path):
    paged = archive()
    paged.page = 2
    paged.fred(server, KEY)
    got = macro(server, tmp_path)
    assert got.rows.equals(macro(server, tmp_path).rows) and got.rows.height == 5 and conserved(got)
    assert [seen.query.get("offset") for seen in server.requests if "2004-12-31" in seen.query.values()] == [None, "2", "4"]


@pytest.mark.parametrize("trouble", [too_many("0.05"), BROKEN, HANGS, CUT])
def test_what_passes_costs_nothing(server, tmp_path, trouble):
    server.misbehave("realtime_start=2004", trouble)
    assert macro(server, tmp_path, **patience(trouble)).rows.height == 5 and len(server.requests) == 6


@pytest.mark.parametrize(
    "trouble, said",
    [
        (BROKEN, "HTTP 500"),
        (HANGS, "no answer within"),
        (CUT, "without sending complete"),
        (WRONG_TYPE, "content type text/html"),
        (too_many("0"), "HTTP 429"),
        (Reply({"observation": []}), "no list of observations"),
    ],
)
def test_a_year_that_fails_ends_the_vintages(server, tmp_path, trouble, said):
    server.misbehave("realtime_start=2005", trouble, forever=True)
    got = macro(server, tmp_path, **patience(trouble))
    assert got.rows["vintage"].to_list() == [date(2004, 1, 9), date(2004, 2, 6), date(2004, 2, 6)]
    (gap,) = got.missing
    assert gap.symbol == "PAYEMS" and gap.end == END and re.search(said, gap.why) and KEY not in gap.why
    # What comes later is added to what was stored, and nothing is known twice.
    stored = merge_versions(pl.DataFrame(), got.rows, GRAIN, utc(2006, 1, 1))
    server.behave()
    late = macro(server, tmp_path, failure_minutes=0).rows
    merged = merge_versions(stored, late, GRAIN, utc(2006, 2, 1))
    assert merged.drop("ingested_at").equals(late.sort(*GRAIN, "known_at"))


def merged_with(stored: pl.DataFrame, rows: pl.DataFrame, clock) -> pl.DataFrame:
    return merge_versions(stored, rows, GRAIN, clock, dated=pl.col("known_as") != "rule")


def test_a_year_that_fails_later_takes_nothing_back(server, tmp_path):
    stored = merged_with(pl.DataFrame(), macro(server, tmp_path / "first").rows, utc(2006, 1, 1))
    server.misbehave("realtime_start=2005", BROKEN, forever=True)
    got = macro(server, tmp_path / "second")
    assert got.rows.height == 3 and len(got.missing) == 1
    assert merged_with(stored, got.rows, utc(2006, 2, 1)).equals(stored)
    server.behave()
    back = macro(server, tmp_path / "second", failure_minutes=0).rows
    assert merged_with(stored, back, utc(2006, 3, 1)).equals(stored) and back.height == 5


def test_the_turn_of_the_year_loses_nothing(server, tmp_path, monkeypatch):
    """The year that has just ended is asked for once more, now that it is whole; where that fails, what came before holds."""

    class Clock(datetime):
        today: datetime

        @classmethod
        def now(cls, tz=None):
            return cls.today.astimezone(tz)

    monkeypatch.setattr(fred, "datetime", Clock)
    Clock.today = datetime(2005, 12, 30, 17, tzinfo=UTC)
    before = macro(server, tmp_path).rows
    assert before.height == 5
    Clock.today = datetime(2006, 1, 2, 17, tzinfo=UTC)
    server.misbehave("realtime_end=2005-12-31", BROKEN, forever=True)
    got = macro(server, tmp_path)
    assert got.rows.equals(before) and [gap.end for gap in got.missing] == [END] and "2005-12-31" in got.missing[0].why
    server.behave()
    after = macro(server, tmp_path, failure_minutes=0)
    assert after.rows.equals(before) and not after.missing


def test_an_unknown_series_is_missing(server, tmp_path):
    got = macro(server, tmp_path, ("NOPE", "PAYEMS"))
    assert got.rows.height == 5 and [gap.symbol for gap in got.missing] == ["NOPE"]
    (gap,) = got.missing
    assert gap.why.startswith("unknown series: vendor: GET ") and (gap.start, gap.end) == (START, END)
    assert macro(server, tmp_path, ("NOPE",)).rows.schema == got.rows.schema


def test_a_wrong_key(server, tmp_path, monkeypatch):
    monkeypatch.setenv("FRED_API_KEY", "ffffffffffffffffffffffffffffffff")
    got = macro(server, tmp_path)
    assert "api_key is not registered" in got.missing[0].why and "fffff" not in got.missing[0].why


def test_an_empty_range(server, tmp_path):
    got = macro(server, tmp_path, start=utc(2009, 1, 1), end=utc(2010, 1, 1))
    assert got.rows.is_empty() and not got.missing and conserved(got)


def test_a_changed_field(server, tmp_path):
    inner = server.routes["/fred/series/observations"]

    def renamed(seen):
        reply = inner(seen)
        for record in reply.body["observations"]:
            record["amount"] = record.pop("value")
        return reply

    server.routes["/fred/series/observations"] = renamed
    got = macro(server, tmp_path)
    assert got.rows.is_empty() and set(got.rejected["reason"]) == {"unknown column 'amount'; missing value"} and conserved(got)


def test_a_revision_is_a_new_row(server, tmp_path):
    stored = merge_versions(pl.DataFrame(), macro(server, tmp_path).rows, GRAIN, utc(2006, 1, 1))
    revised = archive()
    revised.values["PAYEMS"][date(2004, 1, 1)][date(2006, 2, 3)] = "130300"
    revised.fred(server, KEY)
    assert macro(server, tmp_path).rows.height == 5, "the list of vintages is asked for again after `refresh_hours` only"
    fresh = macro(server, tmp_path, refresh_hours=0).rows
    merged = merge_versions(stored, fresh, GRAIN, utc(2006, 2, 5))
    assert merged.height == 6 and merged.sort("known_at").row(-1, named=True)["value"] == 130300
    assert merged.filter(ingested_at=utc(2006, 1, 1)).equals(stored)


@settings(max_examples=15, deadline=None)
@given(
    versions=st.dictionaries(
        st.dates(date(2003, 1, 1), date(2006, 12, 31)), st.integers(0, 3), min_size=1, max_size=8
    )
)
def test_clipped_years_give_the_vintages_back(tmp_path_factory, versions):
    """However vintages lie about the years, each is told once, with the day from which it was in force."""
    import os

    os.environ["FRED_API_KEY"] = KEY
    in_force, last = {}, None
    for day in sorted(versions):  # FRED tells a value that repeats the one before it once
        if versions[day] != last:
            in_force[day] = last = versions[day]
    period = date(2002, 12, 1)
    source = Archive({"X": "M"}, {"X": {period: {day: str(value) for day, value in in_force.items()}}})
    with VendorServer() as server:
        source.fred(server, KEY)
        got = macro(server, tmp_path_factory.mktemp("fred"), ("X",), utc(2003, 1, 1), utc(2003, 2, 1))
    assert got.rows.select("vintage", "value").rows() == [(day, float(value)) for day, value in in_force.items()]
    assert got.rows["known_as"].to_list() == ["upper_bound"] + ["vintage"] * (len(in_force) - 1) and conserved(got)
    assert (got.rows["known_at"] > got.rows["vintage"].cast(pl.Datetime("us", "UTC")) + timedelta(days=1)).all()
