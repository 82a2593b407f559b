import math
import re
from datetime import date, time
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tapehouse.calendars import sessions
from tapehouse.ingest import BAR_KEY
from tapehouse.merging import merge_versions
from tapehouse.sources import yahoo
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

NEW_YORK = ZoneInfo("America/New_York")
START, END = utc(2004, 12, 1), utc(2005, 4, 1)
DAYS = sessions(date(2004, 1, 1), date(2006, 1, 1))["session"].to_list()
SPLIT, LATER, CASH = date(2005, 2, 28), date(2014, 6, 9), date(2004, 12, 15)


def market() -> Market:
    bars = {}
    for number, day in enumerate(DAYS):
        close = (80.0 if day < SPLIT else 40.0) + number % 7 / 8
        bars[day] = (close - 0.25, close + 1.0, close - 1.03, close, 1_000_000 + number)
    return Market({"AAPL": bars}, {"AAPL": {SPLIT: 2.0, LATER: 7.0}}, {"AAPL": {CASH: 0.13}})


@pytest.fixture
def server():
    with VendorServer() as server:
        market().yahoo(server, NEW_YORK, time(9, 30))
        yield server


def declared(server, **keys):
    return yahoo.Declaration(kind="yahoo", **fast(server, **keys))


def bars(server, home, symbols=("AAPL",), start=START, end=END, **keys):
    return yahoo.deliver(declared(server, **keys), ask_of(home, "bars", symbols, start, end))


def test_prices_and_volumes_are_as_traded(server, tmp_path):
    got, truth = bars(server, tmp_path), market().bars["AAPL"]
    assert got.rows["session"].to_list() == [day for day in DAYS if date(2004, 12, 1) <= day < date(2005, 4, 1)]
    for row in got.rows.iter_rows(named=True):
        assert tuple(row[name] for name in ("open", "high", "low", "close", "volume")) == truth[row["session"]]
    first = got.rows.row(0, named=True)
    assert first["vendor_adj_close"] == pytest.approx(first["close"] / 14)
    assert first["event_at"] == utc(2004, 12, 1, 21) and conserved(got) and not got.missing
    # Two years of bars, and one list of splits for both.
    assert len(server.requests) == 3 and server.requests[2].query["events"] == "split"


def test_actions_are_in_the_basis_of_their_day(server, tmp_path):
    got = yahoo.deliver(declared(server), ask_of(tmp_path, "actions", ("AAPL",), START, END))
    assert got.rows.select("kind", "ex_date", "ratio", "amount").sort("ex_date").rows() == [
        ("dividend", CASH, 1.0, 0.13),  # Yahoo says 0.13 / 14
        ("split", SPLIT, 2.0, 0.0),
    ]
    assert conserved(got)


def test_a_second_run_asks_nothing(server, tmp_path):
    for offer in ("bars", "actions"):
        ask = ask_of(tmp_path, offer, ("AAPL",), START, END)
        first = yahoo.deliver(declared(server), ask)
        sent = len(server.requests)
        again = yahoo.deliver(declared(server, backoff_s=0.02), ask)
        assert len(server.requests) == sent and again.rows.equals(first.rows)
        assert yahoo.fingerprint(declared(server), ask) == yahoo.fingerprint(declared(server, attempts=2), ask)


def test_a_split_after_the_bars_were_fetched(server, tmp_path):
    """It is in no price of an answer from before it: the bars stay what they were."""
    first = bars(server, tmp_path)
    split_again = market()
    split_again.splits["AAPL"][date(2090, 1, 2)] = 3.0
    split_again.yahoo(server, NEW_YORK, time(9, 30))
    assert bars(server, tmp_path).rows.equals(first.rows)


def test_bars_without_their_splits_are_missing(server, tmp_path):
    server.misbehave("interval=3mo", BROKEN, forever=True)
    got = bars(server, tmp_path)
    assert got.rows.is_empty() and "interval=3mo" in got.missing[0].why
    year = utc(2005, 1, 1)
    assert sorted((gap.start, gap.end) for gap in got.missing) == [(START, year), (year, END)]


def test_a_year_that_has_its_splits_is_kept_beside_one_that_has_not(server, tmp_path):
    first = bars(server, tmp_path, end=utc(2005, 1, 1))
    server.misbehave("interval=3mo", BROKEN, forever=True)
    got = bars(server, tmp_path)
    assert got.rows.equals(first.rows) and [(gap.start, gap.end) for gap in got.missing] == [(utc(2005, 1, 1), END)]


@pytest.mark.parametrize("trouble", [too_many("0.05"), BROKEN, HANGS, CUT])
def test_what_passes_costs_nothing(server, tmp_path, trouble):
    server.misbehave("interval=1d", trouble)
    got = bars(server, tmp_path, **patience(trouble))
    assert got.rows.height == 83 and not got.missing and len(server.requests) == 4


@pytest.mark.parametrize(
    "trouble, said",
    [
        (BROKEN, "HTTP 500"),
        (HANGS, "no answer within"),
        (CUT, "without sending complete"),
        (WRONG_TYPE, "content type text/html instead of json"),
        (too_many("0"), "HTTP 429"),
        (Reply({"chart": {"result": [{"meta": {}}]}}), "no chart .KeyError: 'exchangeTimezoneName'"),
        (Reply({"chart": None}), "no chart .TypeError"),
    ],
)
def test_a_year_that_fails_leaves_the_other(server, tmp_path, trouble, said):
    server.misbehave(f"period1={int(utc(2004, 1, 1).timestamp())}", trouble, forever=True)
    got = bars(server, tmp_path, **patience(trouble))
    assert got.rows["session"].min() == date(2005, 1, 3) and got.rows.height == 61
    (gap,) = got.missing
    assert (gap.symbol, gap.start, gap.end) == ("AAPL", START, utc(2005, 1, 1)) and re.search(said, gap.why)


def test_an_unknown_symbol_is_missing(server, tmp_path):
    got = bars(server, tmp_path, ("AAPL", "NOPE"))
    assert set(got.rows["symbol"]) == {"AAPL"} and {gap.symbol for gap in got.missing} == {"NOPE"}
    assert got.missing[0].why.startswith("unknown symbol: ") and "symbol may be delisted" in got.missing[0].why
    assert bars(server, tmp_path, ("NOPE",)).rows.schema == bars(server, tmp_path).rows.schema


def test_a_year_without_data_is_an_answer(server, tmp_path):
    """Yahoo answers 400 for a range before the listing."""
    fault = {"code": "Bad Request", "description": "Data doesn't exist for startDate = 1072915200, endDate = 1104537600"}
    server.misbehave(f"period1={int(utc(2004, 1, 1).timestamp())}", Reply({"chart": {"result": None, "error": fault}}, 400))
    got = bars(server, tmp_path)
    assert got.rows.height == 61 and not got.missing
    sent = len(server.requests)
    assert bars(server, tmp_path).rows.equals(got.rows) and len(server.requests) == sent


def test_a_year_without_timestamps(server, tmp_path):
    empty = market()
    empty.bars["AAPL"] = {day: bar for day, bar in empty.bars["AAPL"].items() if day.year == 2005}
    empty.yahoo(server, NEW_YORK, time(9, 30))
    got = bars(server, tmp_path)
    assert got.rows.height == 61 and not got.missing and got.counts["received"] == 252


def changed(server, change):
    inner = server.routes["/v8/finance/chart/"]

    def reply(seen):
        said = inner(seen)
        if seen.query["interval"] == "1d":
            change(said.body["chart"]["result"][0])
        return said

    server.routes["/v8/finance/chart/"] = reply


def test_a_changed_column(server, tmp_path):
    def rename(result):
        quote = result["indicators"]["quote"][0]
        quote["last"] = quote.pop("close")

    changed(server, rename)
    got = bars(server, tmp_path)
    assert got.rows.is_empty() and got.rejected.height == 83 and conserved(got)
    assert got.rejected["reason"][0] == "unknown column 'last'; missing close"


def test_columns_of_different_lengths(server, tmp_path):
    changed(server, lambda result: result["indicators"]["quote"][0]["close"].pop())
    got = bars(server, tmp_path)
    assert got.rows.is_empty() and "a chart whose columns differ in length" in got.missing[0].why


def test_a_null_day_is_quarantined(server, tmp_path):
    def blank(result):
        for values in result["indicators"]["quote"][0].values():
            values[1] = None

    changed(server, blank)
    got = bars(server, tmp_path)
    assert got.rejected.height == 1 and got.rejected["event_at"].item() == utc(2005, 1, 4, 21) and conserved(got)
    assert got.rejected["reason"].item().startswith("missing open; missing high")


def test_an_event_that_cannot_be_read(server, tmp_path):
    def spoil(result):
        for event in result.get("events", {}).get("dividends", {}).values():
            event["amount"] = "0.0093 USD"
        for event in result.get("events", {}).get("splits", {}).values():
            del event["denominator"]

    changed(server, spoil)
    got = yahoo.deliver(declared(server), ask_of(tmp_path, "actions", ("AAPL",), START, END))
    assert got.rows.is_empty() and conserved(got)
    assert sorted(got.rejected["reason"]) == [
        "unreadable dividend (TypeError: can't multiply sequence by non-int of type 'float')",
        "unreadable split (KeyError: 'denominator')",
    ]


def test_a_list_of_splits_that_cannot_be_read(server, tmp_path):
    inner = server.routes["/v8/finance/chart/"]

    def spoil(seen):
        said = inner(seen)
        for event in said.body["chart"]["result"][0].get("events", {}).get("splits", {}).values():
            event["denominator"] = 0
        return said

    server.routes["/v8/finance/chart/"] = spoil
    got = bars(server, tmp_path)
    assert got.rows.is_empty() and "an unreadable split (ZeroDivisionError" in got.missing[0].why


def test_a_revised_value_is_a_new_version(server, tmp_path):
    ask = ask_of(tmp_path, "bars", ("AAPL",), START, END)
    stored = merge_versions(pl.DataFrame(), yahoo.deliver(declared(server), ask).rows, BAR_KEY, utc(2006, 1, 1))
    revised = market()
    revised.bars["AAPL"][date(2005, 1, 5)] = (80.0, 83.0, 79.0, 82.5, 7)
    revised.yahoo(server, NEW_YORK, time(9, 30))
    fresh = yahoo.deliver(declared(server, recheck_days=0), ask)
    merged = merge_versions(stored, fresh.rows, BAR_KEY, utc(2006, 2, 1))
    assert merged.filter(session=date(2005, 1, 5)).select("known_at", "close", "volume").rows()[1] == (utc(2006, 2, 1), 82.5, 7)
    assert merged.height == stored.height + 1


@settings(max_examples=8, deadline=None)
@example(ratios={date(2004, 12, 20): 1.5, date(2005, 1, 31): 0.05, SPLIT: 0.05, date(2011, 1, 3): 0.05}, cents=100)
@given(
    ratios=st.dictionaries(
        st.sampled_from([date(2004, 12, 20), date(2005, 1, 31), SPLIT, date(2011, 1, 3)]),
        st.sampled_from([2.0, 3.0, 7.0, 1.5, 0.1, 0.05]),
    ),
    cents=st.integers(100, 70_000),
)
def test_any_splits_are_taken_out(tmp_path_factory, ratios, cents):
    close = cents / 100
    bar = (close, close + 0.01, close - 0.01, close, 840_000)
    truth = Market({"AAPL": dict.fromkeys(DAYS, bar)}, {"AAPL": ratios}, {"AAPL": {CASH: 0.25}})
    with VendorServer() as server:
        truth.yahoo(server, NEW_YORK, time(9, 30))
        home = tmp_path_factory.mktemp("vendor")
        rows = bars(server, home).rows
        acted = yahoo.deliver(declared(server), ask_of(home, "actions", ("AAPL",), START, END)).rows
    assert rows["close"].to_list() == [close] * 83
    # Yahoo rounds its own volumes, in the shares of today: of several reverse splits after each other there are few.
    fewest = min(math.prod(ratio for day, ratio in ratios.items() if day > session) for session in DAYS)
    assert (rows["volume"] - 840_000).abs().max() <= max(1.0, 0.5 / fewest + 1.0)
    assert acted.filter(kind="dividend")["amount"].to_list() == [0.25]
