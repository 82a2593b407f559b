"""Every vendor through the engine, against a local server: what is stored, what a second run asks, where keys are."""

import logging
from datetime import date, time
from zoneinfo import ZoneInfo

import pytest
import yaml

from tapehouse.calendars import sessions
from tests.house import TOY_FOLDS, House, copy_project
from tests.tapehouse.test_sources_edgar import companies
from tests.tapehouse.test_sources_fred import archive
from tests.tapehouse.test_sources_news import newsroom
from tests.vendor_server import BROKEN, Market, VendorServer, fast

KEYS = {
    "EODHD_API_KEY": "eodhd-key-0123456789",
    "FRED_API_KEY": "fred-key-0123456789abcdef",
    "NEWS_API_KEY": "news-key-0123456789",
    "SEC_USER_AGENT": "Example Research research@example.org",
}
TABLES = ("bars", "corporate_actions", "macro_observations", "news", "filings", "fundamentals", "insider_trades")
DAYS = sessions(date(2004, 1, 1), date(2005, 1, 1))["session"].to_list()
SPLIT = date(2004, 6, 1)


def market() -> Market:
    bars = {day: (39.5, 41.0, 39.0, 40.0 if day < SPLIT else 40.25, 1000) for day in DAYS}
    return Market({"AAPL": bars, "IBM": bars}, {"AAPL": {SPLIT: 2.0}}, {"IBM": {date(2004, 3, 8): 0.16}})


@pytest.fixture
def server(monkeypatch):
    for name, key in KEYS.items():
        monkeypatch.setenv(name, key)
    with VendorServer() as server:
        market().eodhd(server, KEYS["EODHD_API_KEY"])
        market().yahoo(server, ZoneInfo("America/New_York"), time(9, 30))
        archive().fred(server, KEYS["FRED_API_KEY"])
        companies().edgar(server)
        newsroom().polygon(server, KEYS["NEWS_API_KEY"])
        yield server


def house_of(server, home) -> House:
    copy_project(home, date(2004, 1, 1), date(2005, 1, 1), TOY_FOLDS)
    declared = yaml.safe_load((home / "sources.yaml").read_text())
    shared = fast(server)
    declared["sources"] = {
        "eodhd": {"kind": "eodhd", **shared},
        "yahoo": {"kind": "yahoo", **shared},
        "alfred": {"kind": "fred", **fast(server, "/fred"), "release_times": {"PAYEMS": "08:30"}},
        "edgar": {"kind": "edgar", "archives_url": server.url, **shared},
        "polygon": {"kind": "news", **shared},
    }
    chain = ["eodhd", "yahoo"]
    declared["universe"] = {
        symbol: {**about, "source": chain} for symbol, about in declared["universe"].items() if symbol in ("AAPL", "IBM")
    }
    declared["benchmark"] = "IBM"
    symbols = {"symbols": ["AAPL", "IBM"]}
    declared["feeds"] = {
        "macro": [{"source": "alfred", "symbols": ["PAYEMS", "DGS10"]}],
        "news": [{"source": "polygon", **symbols}],
    } | {offer: [{"source": "edgar", "symbols": ["AAPL"]}] for offer in ("filings", "fundamentals", "insider_trades")}
    (home / "sources.yaml").write_text(yaml.safe_dump(declared))
    return House(home)


def test_every_vendor_is_stored_and_asked_once(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    # EODHD has no bars of IBM for good: they come from Yahoo, and each row says from whom.
    server.misbehave("/eod/IBM.US", BROKEN, forever=True)
    house = house_of(server, tmp_path / "home")
    for table in TABLES:
        outcome = house.make(f"raw.{table}")
        assert not outcome.failed, outcome.failed
    counts = {table: house.rows(f"select count(*) from raw.{table}")[0][0] for table in TABLES}
    assert counts == {
        "bars": 2 * len(DAYS),
        "corporate_actions": 2,
        "macro_observations": 5 + 3,
        "news": 4 + 0,
        "filings": 4,
        "fundamentals": 4,
        "insider_trades": 2,
    }
    assert set(house.rows("select symbol, source from raw.bars")) == {("AAPL", "eodhd"), ("IBM", "yahoo")}
    assert house.rows("select symbol, kind, ratio, amount from raw.corporate_actions order by symbol") == [
        ("AAPL", "split", 2.0, 0.0),
        ("IBM", "dividend", 1.0, 0.16),
    ]
    sent = len(server.requests)
    before = {table: house.frame(f"raw.{table}") for table in TABLES}
    assert house.refresh({f"raw.{table}" for table in TABLES}) == []
    for table in TABLES:  # a month alone finds in the whole years' answers what the range found
        assert not house.make(f"raw.{table}", [house.project.months[6]]).failed
        assert house.frame(f"raw.{table}").equals(before[table]), table
    repeated = [seen.path for seen in server.requests[sent:]]
    assert set(repeated) <= {"/eod/IBM.US"}, "only what failed is asked for again"

    # Not in a table, a cached answer, a manifest, a log or what a run says of itself.
    said = caplog.text + str(house.rows("select * from meta.partitions")) + str(house.rows("select * from raw.quarantine"))
    files = b"".join(path.read_bytes() for path in house.settings.root.rglob("*") if path.is_file())
    for key in KEYS.values():
        assert key not in said and key.encode() not in files
