"""Theses and calendar events through the engine: from declared sources to staging, corrected, and as they were known."""

from datetime import UTC, date, datetime

import pytest
import yaml

from tests.house import CLOCK, TOY_FOLDS, House, copy_project

SOURCES = {
    "desk": {"kind": "theses", "files": "theses"},
    "exchange": {
        "kind": "calendars",
        "sessions": ["XNYS"],
        "releases": [{"name": "PAYEMS", "rule": "first friday", "at": "08:30 America/New_York"}],
    },
}
FEEDS = {"theses": [{"source": "desk"}], "calendar": [{"source": "exchange"}]}
RECORD = """<thesis>
<as-of-date>{}</as-of-date><reasoning>{}</reasoning><action>{}</action><support>10-Q</support>
</thesis>
"""
RECORDS = [
    ("June 14, 2004", "Phones.", "Strong Buy"),
    ("June 31, 2004", "Never.", "buy"),
    ("2004-06-14", "R&D", "buy"),
    ("2004-07-02", "Music.", "hold"),
    ("2001-01-02", "Before the span.", "sell"),
]


def write(house: House, records: list[tuple[str, str, str]]) -> None:
    body = "".join(RECORD.format(*record) for record in records)
    house.write("theses/apple.xml", f'<stock-theses ticker="aapl" generated-by="desk" version="1">\n{body}</stock-theses>\n')


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    home = copy_project(tmp_path_factory.mktemp("theses") / "home", date(2004, 3, 1), date(2004, 9, 1), TOY_FOLDS)
    declared = yaml.safe_load((home / "sources.yaml").read_text())
    declared["sources"] |= SOURCES
    declared["feeds"] = FEEDS
    (home / "sources.yaml").write_text(yaml.safe_dump(declared))
    found = House(home)
    write(found, RECORDS)
    for name in ("raw.theses", "staging.theses", "raw.calendar_events"):
        assert not found.make(name).failed
    return found


def test_every_record_is_accounted_for(house):
    notes = house.make("raw.theses").notes
    assert {name: notes[name] for name in ("received", "accepted", "quarantined", "outside_span", "duplicates")} == {
        "received": 5,
        "accepted": 2,
        "quarantined": 2,
        "outside_span": 1,
        "duplicates": 0,
    }
    assert house.rows("select symbol, as_of, action, reasoning from raw.theses order by as_of") == [
        ("aapl", date(2004, 6, 14), "strong_buy", "Phones."),
        ("aapl", date(2004, 7, 2), "hold", "Music."),
    ]
    rejects = house.rows("select origin, reason from raw.quarantine where table_name = 'raw.theses' order by origin")
    assert rejects[0] == ("apple.xml:5", "'June 31, 2004': there is no such day")
    assert rejects[1][0] == "apple.xml:8" and rejects[1][1].startswith("broken XML")
    assert house.refresh({"raw.theses", "staging.theses"}) == []


def test_a_calendar_of_a_month(house):
    """2004-06-11 was a day of mourning: a session as scheduled, and a closure when the day began."""
    assert house.rows(
        "select kind, known_at from raw.calendar_events where session = date '2004-06-11' and name = 'session' "
        "order by known_at"
    ) == [
        ("session", datetime(2003, 6, 12, 13, 30, tzinfo=UTC)),
        ("closure", datetime(2004, 6, 11, 4, tzinfo=UTC)),
    ]
    assert house.rows(
        "select count(*) filter (kind = 'session'), count(*) filter (kind = 'release') from raw.calendar_events "
        "where session between date '2004-06-01' and date '2004-06-30'"
    ) == [(22, 1)]


def test_a_correction_is_a_version_and_the_past_stays(house):
    write(house, [*RECORDS[:3], ("2004-07-02", "Music, and more.", "buy"), *RECORDS[4:]])
    house.reload()
    assert house.refresh({"raw.theses", "staging.theses"}) == [("raw.theses", "2004-07-01"), ("staging.theses", "2004-07-01")]
    known = datetime(2004, 7, 3, 4, tzinfo=UTC)
    assert house.rows(
        "select version, action, reasoning, known_at, superseded_at from staging.theses where as_of = date '2004-07-02' "
        "order by version"
    ) == [(1, "hold", "Music.", known, CLOCK), (2, "buy", "Music, and more.", CLOCK, None)]
    then = "select action from staging.theses_as_known(timestamptz '2010-01-01') where as_of = date '2004-07-02'"
    assert house.rows(then) == [("hold",)]
