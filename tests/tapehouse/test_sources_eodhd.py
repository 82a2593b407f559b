from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import sessions
from tapehouse.errors import TapehouseError
from tapehouse.ingest import BAR_KEY
from tapehouse.merging import merge_versions
from tapehouse.sources import eodhd
from tests.vendor_server import (
    BROKEN,
    CUT,
    HANGS,
    WRONG_TYPE,
    Market,
    Reply,
    VendorServer,
    ask_of,
    conserved,
    fast,
    patience,
    too_many,
    utc,
)

KEY = "eodhd-key-123456"
START, END = utc(2004, 12, 1), utc(2005, 4, 1)
DAYS = sessions(date(2004, 1, 1), date(2006, 1, 1))["session"].to_list()
SPLIT, CASH = date(2005, 2, 28), date(2004, 12, 15)


def market() -> Market:
    """AAPL as if it had cost 80 before its split of 2005 and 40 after it."""
    bars = {}
    for number, day in enumerate(DAYS):
        close = (80.0 if day < SPLIT else 40.0) + number % 7 / 4
        bars[day] = (close - 0.25, close + 1.0, close - 1.0, close, 1_000_000 + number)
    return Market({"AAPL": bars}, {"AAPL": {SPLIT: 2.0}}, {"AAPL": {CASH: 0.12}})


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("EODHD_API_KEY", KEY)
    with VendorServer() as server:
        market().eodhd(server, KEY)
        yield server


def declared(server, **keys):
    return eodhd.Declaration(kind="eodhd", **fast(server, **keys))


def bars(server, home, symbols=("AAPL",), start=START, end=END, **keys):
    return eodhd.deliver(declared(server, **keys), ask_of(home, "bars", symbols, start, end))


def test_bars_as_traded(server, tmp_path):
    got = bars(server, tmp_path)
    assert got.rows["session"].to_list() == [day for day in DAYS if date(2004, 12, 1) <= day < date(2005, 4, 1)]
    before, after = (got.rows.row(by_predicate=pl.col("session") == day, named=True) for day in (date(2005, 2, 25), SPLIT))
    assert 80 <= before["close"] < 82 and 40 <= after["close"] < 42
    assert before["vendor_adj_close"] == before["close"] / 2 and after["vendor_adj_close"] == after["close"]
    assert before["event_at"] == before["known_at"] == utc(2005, 2, 25, 21) and before["source"] == "vendor"
    # Both years in full, of which the range keeps what it asked for.
    assert got.counts == {
        "accepted": len(DAYS),
        "outside_span": 0,
        "quarantined": 0,
        "duplicates": 0,
        "received": len(DAYS),
        "unfinished": 0,
    }
    assert conserved(got) and not got.missing and got.rejected.is_empty()


def test_actions(server, tmp_path):
    got = eodhd.deliver(declared(server), ask_of(tmp_path, "actions", ("AAPL",), START, END))
    assert got.rows.select("kind", "ex_date", "ratio", "amount").sort("ex_date").rows() == [
        ("dividend", CASH, 1.0, 0.12),  # not the 0.06 that the split makes of it
        ("split", SPLIT, 2.0, 0.0),
    ]
    assert got.rows.filter(kind="split")["known_at"].item() == utc(2005, 2, 28, 5)
    assert conserved(got) and len(server.requests) == 4


def test_a_second_run_asks_nothing(server, tmp_path):
    ask = ask_of(tmp_path, "bars", ("AAPL",), START, END)
    first = eodhd.deliver(declared(server), ask)
    assert [seen.query["from"] for seen in server.requests] == ["2004-01-01", "2005-01-01"]
    with VendorServer() as deaf:  # another port, so another client; the same addresses are cached
        assert eodhd.fingerprint(declared(server), ask) == eodhd.fingerprint(declared(server), ask)
        assert not deaf.requests
    again = eodhd.deliver(declared(server, backoff_s=0.02), ask)
    assert len(server.requests) == 2 and again.rows.equals(first.rows)


def test_each_month_has_its_fingerprint(server, tmp_path):
    months = [(utc(2004, 12, 1), utc(2005, 1, 1)), (utc(2005, 1, 1), utc(2005, 2, 1))]
    before = [eodhd.fingerprint(declared(server), ask_of(tmp_path / "a", "bars", ("AAPL",), *m)) for m in months]
    changed = market()
    changed.bars["AAPL"][date(2005, 1, 5)] = (80.0, 81.0, 79.0, 80.5, 7)
    changed.eodhd(server, KEY)
    after = [eodhd.fingerprint(declared(server), ask_of(tmp_path / "b", "bars", ("AAPL",), *m)) for m in months]
    assert before[0] == after[0] and before[1] != after[1]


@pytest.mark.parametrize("trouble", [too_many("0.05"), BROKEN, HANGS, CUT])
def test_what_passes_costs_nothing(server, tmp_path, trouble):
    server.misbehave("/eod/AAPL.US", trouble)
    got = bars(server, tmp_path, **patience(trouble))
    assert got.rows.height == 83 and not got.missing and len(server.requests) == 3


@pytest.mark.parametrize(
    "trouble, said",
    [
        (BROKEN, "HTTP 500"),
        (HANGS, "no answer within"),
        (CUT, "without sending complete"),
        (WRONG_TYPE, "content type text/html instead of json"),
        (too_many("0"), "HTTP 429"),
        (Reply({"error": "no plan"}), "expected a list of records: {.error.: .no plan.}"),
    ],
)
def test_a_year_that_fails_leaves_the_other(server, tmp_path, trouble, said):
    server.misbehave("from=2004", trouble, forever=True)
    got = bars(server, tmp_path, **patience(trouble))
    assert got.rows["session"].min() == date(2005, 1, 3) and got.rows.height == 61
    (gap,) = got.missing
    assert (gap.symbol, gap.start, gap.end) == ("AAPL", START, utc(2005, 1, 1))
    import re

    assert re.search(said, gap.why) and "from=2004-01-01" in gap.why and KEY not in gap.why
    # Asked again, it is all there; what had come is not asked for again.
    server.behave()
    server.requests.clear()
    assert bars(server, tmp_path, failure_minutes=0).rows.height == 83 and len(server.requests) == 1


def test_an_unknown_symbol_is_missing(server, tmp_path):
    got = bars(server, tmp_path, ("AAPL", "NOPE"))
    assert set(got.rows["symbol"]) == {"AAPL"}
    assert [(gap.symbol, gap.start, gap.end) for gap in got.missing] == [
        ("NOPE", START, utc(2005, 1, 1)),
        ("NOPE", utc(2005, 1, 1), END),
    ]
    assert all(gap.why.startswith("unknown symbol: vendor: GET ") for gap in got.missing)
    assert bars(server, tmp_path, ("NOPE",)).rows.schema == bars(server, tmp_path).rows.schema


def test_a_wrong_key(server, tmp_path, monkeypatch):
    monkeypatch.setenv("EODHD_API_KEY", "another-key-654321")
    got = bars(server, tmp_path)
    assert "HTTP 401 Unauthorized: Unauthenticated" in got.missing[0].why and "654321" not in got.missing[0].why


def test_no_key(server, tmp_path, monkeypatch):
    monkeypatch.delenv("EODHD_API_KEY")
    with pytest.raises(TapehouseError, match="EODHD_API_KEY is set neither"):
        bars(server, tmp_path)


def test_empty_days(server, tmp_path):
    empty = market()
    empty.bars["AAPL"] = {}
    empty.eodhd(server, KEY)
    got = bars(server, tmp_path)
    assert got.rows.is_empty() and not got.missing and got.counts["received"] == 0
    assert bars(server, tmp_path).rows.is_empty() and len(server.requests) == 2


def test_a_changed_column(server, tmp_path):
    inner = server.routes["/eod/"]

    def renamed(seen):
        reply = inner(seen)
        for record in reply.body:
            if record["date"] >= "2005-01-01":
                record["adj_close"] = record.pop("adjusted_close")
        return reply

    server.routes["/eod/"] = renamed
    got = bars(server, tmp_path)
    assert got.rows["session"].max() == date(2004, 12, 31) and got.rejected.height == 61 and conserved(got)
    first = got.rejected.row(0, named=True)
    assert first["reason"] == "unknown column 'adj_close'; missing vendor_adj_close" and '"adj_close"' in first["record"]
    assert "#1" in first["origin"] and "/eod/AAPL.US?" in first["origin"] and KEY not in first["origin"]


def test_a_further_field_may_be_passed_over(server, tmp_path):
    inner = server.routes["/eod/"]

    def warned(seen):
        reply = inner(seen)
        for record in reply.body:
            record["warning"] = "Data is limited by one year"
        return reply

    server.routes["/eod/"] = warned
    assert bars(server, tmp_path / "a").rejected["reason"].unique().to_list() == ["unknown column 'warning'"]
    assert bars(server, tmp_path / "b", ignore=("warning",)).rows.height == 83


def test_a_revised_value_is_a_new_version(server, tmp_path):
    ask = ask_of(tmp_path, "bars", ("AAPL",), START, END)
    stored = merge_versions(pl.DataFrame(), eodhd.deliver(declared(server), ask).rows, BAR_KEY, utc(2006, 1, 1))
    revised = market()
    revised.bars["AAPL"][date(2005, 1, 5)] = (80.0, 83.0, 79.0, 82.5, 7)
    revised.eodhd(server, KEY)
    # Without `recheck_days` what is past is not asked for again, with it is.
    same = eodhd.deliver(declared(server), ask)
    assert merge_versions(stored, same.rows, BAR_KEY, utc(2006, 2, 1)).equals(stored)
    fresh = eodhd.deliver(declared(server, recheck_days=0), ask)
    merged = merge_versions(stored, fresh.rows, BAR_KEY, utc(2006, 2, 1))
    assert merged.height == stored.height + 1
    versions = merged.filter(session=date(2005, 1, 5)).select("known_at", "close", "volume").rows()
    assert [version[0] for version in versions] == [utc(2005, 1, 5, 21), utc(2006, 2, 1)] and versions[1][1:] == (82.5, 7)
    assert merge_versions(merged, fresh.rows, BAR_KEY, utc(2006, 3, 1)).equals(merged)


def test_a_session_that_is_not_over_waits(server, tmp_path):
    """The vendor already shows a bar for a session that closes later than its answer came."""
    live = Market({"AAPL": {}}, {}, {})
    recent = sessions(date.today() - timedelta(days=10), date.today() + timedelta(days=5))
    open_ones = recent.filter(pl.col("close_at") > datetime.now(UTC))["session"].to_list()
    for day in recent["session"]:
        live.bars["AAPL"][day] = (1.0, 2.0, 0.5, 1.5, 10)
    live.eodhd(server, KEY)
    first, last = recent["session"][0], recent["session"][-1]
    ask = ask_of(tmp_path, "bars", ("AAPL",), utc(first.year, first.month, first.day), utc(last.year + 1, 1, 1))
    got = eodhd.deliver(declared(server), ask)
    # The default span ends in 2013, so what is over counts as outside of it.
    assert got.counts["unfinished"] + got.counts["outside_span"] == recent.height and conserved(got)
    assert got.counts["unfinished"] >= len([day for day in open_ones if day.year == date.today().year])


def test_what_cannot_be_refreshed_says_so(server, tmp_path):
    """The days it had are kept; of a year that was over none is missing, of one that lasts those since the answer came."""
    today = date.today()
    first = sessions(today - timedelta(days=40), today)["session"][0]
    live = Market({"AAPL": dict.fromkeys(sessions(first, today)["session"], (1.0, 2.0, 0.5, 1.5, 10))}, {}, {})
    live.eodhd(server, KEY)
    ask = ask_of(tmp_path, "bars", ("AAPL",), utc(2005, 1, 1), utc(today.year + 1, 1, 1))
    before, came = eodhd.deliver(declared(server), ask), datetime.now(UTC)
    server.misbehave("/eod/", BROKEN, forever=True)
    got = eodhd.deliver(declared(server, recheck_days=0, refresh_hours=0), ask)
    assert got.rows.equals(before.rows) and got.counts == before.counts and not before.missing
    (gap,) = got.missing
    assert gap.start <= came and gap.end == utc(today.year + 1, 1, 1) and "HTTP 500" in gap.why


FIELDS = st.sampled_from(["date", "open", "high", "low", "close", "adjusted_close", "volume"])
VALUES = st.none() | st.text(max_size=6) | st.floats() | st.integers() | st.lists(st.integers(), max_size=2) | st.booleans()
VALUES |= st.dates(date(2003, 12, 1), date(2005, 2, 1)).map(str) | st.sampled_from(["1999-05-03", "2013-05-01", "2004-13-01"])


@settings(max_examples=8, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 20), FIELDS, VALUES), max_size=12), repeated=st.integers(0, 3))
def test_no_record_is_lost(tmp_path_factory, damage, repeated):
    import json
    import os

    os.environ["EODHD_API_KEY"] = KEY
    source = market()
    with VendorServer() as server:
        source.eodhd(server, KEY)
        inner = server.routes["/eod/"]

        def damaged(seen):
            records = inner(seen).body[:21]
            for at, name, value in damage:
                if isinstance(records[at], dict):
                    records[at] = records[at] | {name: value}
            # JSON has no NaN: what the vendor cannot say is left out.
            text = json.dumps(records + records[:repeated]).replace("NaN", "null").replace("-Infinity", "null")
            return Reply(text.replace("Infinity", "null"))

        server.routes["/eod/"] = damaged
        home, edges = tmp_path_factory.mktemp("vendor"), [utc(2004, month, 1) for month in range(1, 13)] + [utc(2005, 1, 1)]
        months = [bars(server, home, start=a, end=b) for a, b in pairwise(edges)]
    counts = months[0].counts
    assert counts["received"] == 21 + repeated and conserved(months[0]) and not months[0].missing
    # Every record is in one month's table, in one month's quarantine, or a second copy.
    seen = sum(month.rows.height + month.rejected.height for month in months)
    assert seen + counts["duplicates"] + counts["outside_span"] == 21 + repeated


def test_an_unknown_key_of_the_declaration():
    with pytest.raises(ValueError, match="api_key"):
        eodhd.Declaration(kind="eodhd", api_key="x")
