"""Chains of sources into real tables: who gave a row, what fell back, what is missing, and what was corrected when."""

import json
import logging
import shutil
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
import yaml

from tapehouse.calendars import sessions
from tapehouse.chains import receive
from tapehouse.engine import materialise
from tapehouse.errors import TapehouseError
from tapehouse.lineage import stale
from tapehouse.settings import load_settings
from tests.house import ROOT, House
from tests.vendor_server import BROKEN, Market, Reply, VendorServer, fast

KEY = "eodhd-key-123456"
CLOCK = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = sessions(date(2004, 11, 1), date(2005, 3, 1))["session"].to_list()
RAW = ("raw.bars", "raw.corporate_actions", "staging.bars")
COPIED = (*RAW, "raw.quarantine", "raw.instruments")
SPAN = {"start": date(2004, 12, 1), "end": date(2005, 3, 1)}
ABOUT = {"name": "x", "kind": "equity", "tradable": True, "source": ["eodhd", "yahoo"]}


def market(**closes: float) -> Market:
    """Bars of AAPL and MSFT near 50; `closes` by symbol move all of them. MSFT pays a dividend."""
    bars = {}
    for symbol in ("AAPL", "MSFT"):
        bars[symbol] = {}
        for number, day in enumerate(DAYS):
            close = closes.get(symbol, 50.0) + number % 5 / 4
            bars[symbol][day] = (close - 0.25, close + 1.0, close - 1.0, close, 1000 + number)
    return Market(bars, {"AAPL": {date(2005, 2, 28): 2.0}}, {"MSFT": {date(2005, 1, 14): 0.12}})


class Chain:
    """Two vendors on loopback, and a project whose universe asks the first of them, then the second."""

    def __init__(self, home, first: VendorServer, second: VendorServer):
        self.first, self.second, self.days = first, second, 0
        for folder in ("assets/raw", "sql/staging", "checks/raw", "checks/staging"):
            (home / folder).mkdir(parents=True)
        for table in COPIED:
            name = table.replace(".", "/")
            for path in (f"assets/{name}.py", f"sql/{name}.sql", f"checks/{name}.yaml"):
                if (ROOT / path).exists():
                    shutil.copy(ROOT / path, home / path)
        shutil.copy(ROOT / "workspace.yaml", home)
        content = yaml.safe_load((ROOT / "sources.yaml").read_text())
        content |= {
            "span": SPAN,
            "benchmark": "MSFT",
            "universe": {symbol: {"id": symbol, **ABOUT} for symbol in ("AAPL", "MSFT")},
            "sources": {
                "eodhd": {"kind": "eodhd", **fast(first, failure_minutes=0, recheck_days=0)},
                "yahoo": {"kind": "yahoo", **fast(second, failure_minutes=0)},
            },
            "feeds": {},
        }
        (home / "sources.yaml").write_text(yaml.safe_dump(content))
        (home / "models_registry").mkdir()
        (home / "models_registry" / "folds.yaml").write_text("{min_train_sessions: 20, test_sessions: 10, count: 1}\n")
        self.house = House(home)

    def make(self) -> dict:
        """All tables with a clock that is a day later each time; the notes of raw.bars."""
        self.days += 1
        notes = {}
        for name in RAW:
            clock = CLOCK + timedelta(days=self.days)
            outcome = materialise(self.house.project, self.house.warehouse, name, ingested_at=clock)
            assert not outcome.failed, outcome.failed
            notes[name] = outcome.notes
        return notes["raw.bars"]

    def stale(self, name: str) -> list[str]:
        return [s.partition for s in stale(self.house.project, self.house.state(), [name])]

    def sources(self) -> list[tuple]:
        return self.house.rows(
            "select symbol, source, min(session), max(session), count(*) from raw.bars group by all order by all"
        )


@pytest.fixture
def chain(tmp_path, monkeypatch):
    monkeypatch.setenv("EODHD_API_KEY", KEY)
    with VendorServer() as first, VendorServer() as second:
        market().eodhd(first, KEY)
        market().yahoo(second, ZoneInfo("America/New_York"), time(9, 30))
        yield Chain(tmp_path / "home", first, second)


def test_the_second_is_not_asked_while_the_first_gives(chain):
    chain.make()
    assert {row[1] for row in chain.sources()} == {"eodhd"} and not chain.second.requests
    actions = "select symbol, kind, ex_date, ratio, amount, source from raw.corporate_actions order by all"
    assert chain.house.rows(actions) == [
        ("AAPL", "split", date(2005, 2, 28), 2.0, 0.0, "eodhd"),
        ("MSFT", "dividend", date(2005, 1, 14), 1.0, 0.12, "eodhd"),
    ]


def test_each_next_source_is_asked_for_what_the_one_before_failed_to_give(chain):
    chain.first.misbehave("/eod/AAPL.US?period=d&order=a&fmt=json&from=2004", BROKEN, forever=True)
    notes = chain.make()
    assert "missing" not in notes
    assert [row[:2] for row in chain.sources()] == [("AAPL", "eodhd"), ("AAPL", "yahoo"), ("MSFT", "eodhd")]
    ((_, _, first, last, count),) = [row for row in chain.sources() if row[1] == "yahoo"]
    assert (first, last, count) == (date(2004, 12, 1), date(2004, 12, 31), 22)
    assert {seen.path.rsplit("/", 1)[1] for seen in chain.second.requests} == {"AAPL"}
    # The same prices from another vendor are no correction: nothing is superseded when the first comes back.
    chain.first.behave()
    chain.make()
    assert chain.house.rows("select max(version), count(*) from staging.bars") == [(1, 2 * 61)]


def test_what_none_of_them_has_is_named_and_the_rest_is_kept(chain):
    for server in (chain.first, chain.second):
        server.misbehave("AAPL", BROKEN, forever=True)
    notes = chain.make()
    assert "AAPL 2004-12-01 to 2005-03-01" in notes["missing"]
    assert [row[:2] for row in chain.sources()] == [("MSFT", "eodhd")]
    asked = "select symbol, filed_at, reason from raw.quarantine where table_name = 'raw.bars' order by all"
    lost = chain.house.rows(asked)
    months = [datetime(2004, 12, 1, tzinfo=UTC), datetime(2005, 1, 1, tzinfo=UTC), datetime(2005, 2, 1, tzinfo=UTC)]
    assert lost == [("AAPL", month, "not received: no source gave it") for month in months]
    # The same gap in other words is the same gap, and one month alone says of itself what the range said.
    assert chain.stale("raw.bars") == []
    for server in (chain.first, chain.second):
        server.behave()
        server.misbehave("AAPL", Reply("bad gateway", 502, "text/plain"), forever=True)
    assert chain.stale("raw.bars") == []
    chain.house.make("raw.bars", ["2005-01-01"])
    assert chain.house.rows(asked) == lost
    for server in (chain.first, chain.second):
        server.behave()
    assert len(chain.stale("raw.bars")) == 3
    assert "missing" not in chain.make()
    assert {row[0]: row[4] for row in chain.sources()} == {"AAPL": 61, "MSFT": 61}
    assert chain.house.rows(asked) == []


def test_two_requests_that_fail_for_one_symbol(chain):
    for part in ("/div/", "/splits/"):
        chain.first.misbehave(part, BROKEN, forever=True)
    chain.make()
    asked = "select symbol, kind, amount, source from raw.corporate_actions order by all"
    assert chain.house.rows(asked) == [("AAPL", "split", 0.0, "yahoo"), ("MSFT", "dividend", 0.12, "yahoo")]


def test_one_of_two_requests_fails_and_nothing_is_there_twice(chain):
    chain.first.misbehave("/div/", BROKEN, forever=True)
    chain.make()
    asked = "select symbol, kind, amount, source from raw.corporate_actions order by all"
    assert chain.house.rows(asked) == [("AAPL", "split", 0.0, "eodhd"), ("MSFT", "dividend", 0.12, "yahoo")]


def test_an_action_that_comes_late_from_the_first_source_is_known_when_it_came(chain):
    chain.first.misbehave("/div/", BROKEN, forever=True)
    chain.make()
    chain.first.behave()
    other = market()
    other.dividends["MSFT"][date(2005, 1, 14)] = 0.15
    other.eodhd(chain.first, KEY)
    chain.make()
    asked = "select amount, source, known_at from raw.corporate_actions where symbol = 'MSFT' order by known_at"
    assert chain.house.rows(asked) == [
        (0.12, "yahoo", datetime(2005, 1, 14, 5, tzinfo=UTC)),
        (0.15, "eodhd", CLOCK + timedelta(days=2)),
    ]


def test_what_has_gone_from_the_universe_stays_in_the_past(chain):
    chain.make()
    before = {table: chain.house.rows(f"from {table} order by all") for table in ("raw.bars", "raw.corporate_actions")}
    content = yaml.safe_load((chain.house.home / "sources.yaml").read_text())
    del content["universe"]["AAPL"]
    (chain.house.home / "sources.yaml").write_text(yaml.safe_dump(content))
    chain.house.reload()
    chain.make()
    assert {table: chain.house.rows(f"from {table} order by all") for table in before} == before
    assert {row[0] for row in before["raw.corporate_actions"]} == {"AAPL", "MSFT"}


def test_an_outage_takes_no_instrument_away(chain):
    for server in (chain.first, chain.second):
        server.misbehave("AAPL", BROKEN, forever=True)
    with pytest.raises(TapehouseError, match=r"failed to give bars of AAPL .* declare sources\.yaml: universe\.AAPL\.listed"):
        chain.house.make("raw.instruments")
    for server in (chain.first, chain.second):
        server.behave()
    chain.house.make("raw.instruments")
    asked = "select symbol, valid_from from raw.instruments order by all"
    known = chain.house.rows(asked)
    assert known == [("AAPL", date(2004, 12, 1)), ("MSFT", date(2004, 12, 1))]
    shutil.rmtree(chain.house.settings.root / "cache")
    for server in (chain.first, chain.second):
        server.misbehave("AAPL", BROKEN, forever=True)
    chain.house.make("raw.instruments")
    assert chain.house.rows(asked) == known


def test_a_revised_value_is_a_row_known_when_it_came(chain):
    chain.make()
    changed = market()
    changed.bars["MSFT"][date(2005, 1, 5)] = (50.0, 52.0, 49.0, 51.5, 7)
    changed.eodhd(chain.first, KEY)
    chain.make()
    versions = chain.house.rows(
        "select version, close, known_at, superseded_at from staging.bars "
        "where symbol = 'MSFT' and session = '2005-01-05' order by version"
    )
    arrived = CLOCK + timedelta(days=2)
    assert [(row[0], row[1]) for row in versions] == [(1, 50.0), (2, 51.5)]
    assert versions[0][3] == versions[1][2] == arrived and versions[0][2] == datetime(2005, 1, 5, 21, tzinfo=UTC)
    assert chain.house.rows("select count(*) from raw.bars") == [(2 * 61 + 1,)]


def test_a_key_is_nowhere_to_be_read(chain, caplog):
    caplog.set_level(logging.DEBUG)
    chain.first.misbehave("/eod/MSFT", BROKEN, forever=True)
    notes = chain.make()
    assert KEY not in json.dumps(notes, default=str) and KEY not in caplog.text
    files = [path for path in chain.house.settings.root.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_file_of_actions_beside_a_file_of_bars(tmp_path):
    """A source of actions alone: nothing is derived from the bars' adjusted closes where actions are given."""
    settings = _files(tmp_path, ["prices", "events"])
    rows = receive(settings, "actions", settings.universe.start, settings.universe.end).rows
    assert rows.select("symbol", "kind", "ex_date", "amount").rows() == [("AAA", "dividend", date(2005, 1, 5), 0.25)]
    with pytest.raises(TapehouseError, match=r"universe\.AAA\.source: none of \['events'\] gives bars"):
        _ = _files(tmp_path, ["events"]).universe
    with pytest.raises(TapehouseError, match=r"universe\.AAA\.source 'calendar' gives no bars or actions; it gives \['cal"):
        _ = _files(tmp_path, ["prices", "calendar"]).universe


def _files(home, source: list[str]):
    (home / "prices.csv").write_text("Date,O,H,L,C,V\n2005-01-04,10,11,9,10,100\n2005-01-05,10,11,9,10,100\n")
    (home / "events.csv").write_text("Kind,Ex,Cash\ndividend,2005-01-05,0.25\n")
    shutil.copy(ROOT / "workspace.yaml", home)
    content = yaml.safe_load((ROOT / "sources.yaml").read_text())
    columns = {"session": "Date", "open": "O", "high": "H", "low": "L", "close": "C", "volume": "V"}
    events = {"kind": "Kind", "ex_date": "Ex", "amount": "Cash"}
    content |= {
        "span": SPAN,
        "benchmark": "AAA",
        "universe": {"AAA": {"id": "AAA", **ABOUT, "source": source}},
        "sources": {
            "prices": {"kind": "files", "file": "prices.csv", "symbol": "AAA", "columns": columns},
            "events": {"kind": "files", "offer": "actions", "file": "events.csv", "symbol": "AAA", "columns": events},
            "calendar": {"kind": "calendars", "sessions": ["XNYS"]},
        },
        "feeds": {},
    }
    (home / "sources.yaml").write_text(yaml.safe_dump(content))
    return load_settings(home)
