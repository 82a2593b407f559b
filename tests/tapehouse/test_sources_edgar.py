import json
import re
from datetime import date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.merging import merge_rejects, merge_versions
from tapehouse.sources import edgar
from tapehouse.sources.edgar_text import sections, text_of
from tests.vendor_server import (
    BROKEN,
    CUT,
    HANGS,
    WRONG_TYPE,
    Companies,
    Filed,
    Reply,
    VendorServer,
    ask_of,
    conserved,
    fast,
    patience,
    too_many,
    utc,
)

AGENT = "Example Research research@example.org"
START, END = utc(2004, 1, 1), utc(2005, 1, 1)
TEN_K = """<html><head><title>10-K</title><style>p {}</style></head><body>
<div style="display:none"><ix:header>hidden 123</ix:header></div>
<p>ANNUAL REPORT</p>
<table><tr><td>Item 1.</td><td>Business</td><td>1</td></tr><tr><td>Item 1A.</td><td>Risk Factors</td><td>4</td></tr></table>
<p><b>Item&nbsp;1. Business</b></p><p>We make <i>computers</i>.</p><p>Item 7 of this report says more.</p>
<p>Item 1A. Risk Factors</p><p>Many &amp; grave.</p>
</body></html>"""
EIGHT_K = "<html><body><p>Item 2.02 Results of Operations</p><p>Revenue rose.</p></body></html>"


def form4(*transactions: str, head: str = "", root: str = "ownershipDocument") -> str:
    return f"""<?xml version="1.0"?>{head}<{root}><documentType>4</documentType>
<issuer><issuerCik>0000320193</issuerCik><issuerTradingSymbol>AAPL</issuerTradingSymbol></issuer>
<reportingOwner><reportingOwnerId><rptOwnerCik>0001214128</rptOwnerCik><rptOwnerName>DOE JANE</rptOwnerName></reportingOwnerId>
<reportingOwnerRelationship><isDirector>0</isDirector><isOfficer>true</isOfficer><officerTitle>CFO</officerTitle>
</reportingOwnerRelationship></reportingOwner>
<nonDerivativeTable>{"".join(transactions)}<nonDerivativeHolding><securityTitle><value>Common</value></securityTitle>
</nonDerivativeHolding></nonDerivativeTable></{root}>"""


def sale(day: str = "2004-03-02", shares: str = "1000", price: str = "<value>24.5</value>") -> str:
    return f"""<nonDerivativeTransaction><securityTitle><value>Common Stock</value></securityTitle>
<transactionDate><value>{day}</value></transactionDate>
<transactionCoding><transactionFormType>4</transactionFormType><transactionCode>S</transactionCode></transactionCoding>
<transactionAmounts><transactionShares><value>{shares}</value></transactionShares>
<transactionPricePerShare>{price}</transactionPricePerShare>
<transactionAcquiredDisposedCode><value>D</value></transactionAcquiredDisposedCode></transactionAmounts>
<postTransactionAmounts><sharesOwnedFollowingTransaction><value>5000</value></sharesOwnedFollowingTransaction></postTransactionAmounts>
<ownershipNature><directOrIndirectOwnership><value>D</value></directOrIndirectOwnership></ownershipNature>
</nonDerivativeTransaction>"""


def fact(end: str, value: float, accession: str, filed: str, start: str | None = None, form: str = "10-K") -> dict:
    record = {"end": end, "val": value, "accn": accession, "fy": 2004, "fp": "FY", "form": form, "filed": filed}
    return record | ({"start": start} if start else {})


A10K, A8K, A4, A4LATE, B8K = (f"0000320193-04-00000{n}" for n in range(1, 6))
A10K05 = "0000320193-05-000009"


def companies() -> Companies:
    sales = [
        fact("2004-09-25", 8279e6, A10K, "2004-12-03", start="2003-09-28"),
        fact("2004-09-25", 8279e6, A10K05, "2005-12-01", start="2003-09-28"),
    ]
    profit = [
        fact("2004-09-25", 276e6, A10K, "2004-12-03", start="2003-09-28"),
        fact("2004-09-25", 266e6, A10K05, "2005-12-01", start="2003-09-28"),
    ]
    cash = [fact("2004-09-25", 2969e6, A10K, "2004-12-03")]
    aapl = [
        Filed(A10K, "10-K", datetime(2004, 12, 3, 16, 30, 5), "a10k.htm", TEN_K, date(2004, 9, 25)),
        Filed(A8K, "8-K", datetime(2004, 7, 14, 16, 31), "a8k.htm", EIGHT_K, date(2004, 7, 14)),
        Filed(A4, "4", datetime(2004, 3, 3, 18, 5), "xslF345X02/form4.xml", form4(sale()), date(2004, 3, 2)),
        Filed(A4LATE, "4", datetime(2005, 6, 1, 17, 0), "xslF345X02/late.xml", form4(sale("2004-05-04")), date(2004, 5, 4)),
        Filed(A10K05, "10-K", datetime(2005, 12, 1, 16, 45), "b10k.htm", TEN_K, date(2005, 9, 24)),
        Filed("0000320193-04-000099", "S-8", datetime(2004, 8, 1, 12), "s8.htm", TEN_K),
    ]
    msft = [Filed(B8K, "8-K", datetime(2004, 7, 20, 16, 15), "b8k.htm", EIGHT_K)]
    named = {"SalesRevenueNet": {"units": {"USD": sales}}, "NetIncomeLoss": {"units": {"USD": profit}}}
    named["CashAndCashEquivalents"] = {"units": {"USD": cash}}
    return Companies(
        {"AAPL": 320193, "MSFT": 789019},
        {320193: aapl, 789019: msft},
        {320193: {"us-gaap": named}},
        by_new_york=(789019,),
    )


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("SEC_USER_AGENT", AGENT)
    with VendorServer() as server:
        companies().edgar(server)
        yield server


def declared(server, **keys):
    return edgar.Declaration(kind="edgar", archives_url=server.url, **fast(server, **keys))


def deliver(server, home, offer="filings", symbols=("AAPL",), start=START, end=END, **keys):
    return edgar.deliver(declared(server, **keys), ask_of(home, offer, symbols, start, end))


def test_filings_by_section(server, tmp_path):
    got = deliver(server, tmp_path)
    assert got.rows.select("form", "period", "section", "text").rows() == [
        ("10-K", date(2004, 9, 25), "item_1", "Item 1. Business\nWe make computers.\nItem 7 of this report says more."),
        ("10-K", date(2004, 9, 25), "item_1a", "Item 1A. Risk Factors\nMany & grave."),
        ("10-K", date(2004, 9, 25), "other", "ANNUAL REPORT\nItem 1. Business 1\nItem 1A. Risk Factors 4"),
        ("8-K", date(2004, 7, 14), "item_2.02", "Item 2.02 Results of Operations\nRevenue rose."),
    ]
    assert got.rows["known_at"].unique().to_list() == [utc(2004, 7, 14, 20, 31), utc(2004, 12, 3, 21, 30, 5)]
    assert got.rows["event_at"].equals(got.rows["known_at"]) and set(got.rows["known_as"]) == {"release"}
    assert got.rows["url"][0] == f"{server.url}/Archives/edgar/data/320193/000032019304000001/a10k.htm"
    assert conserved(got) and not got.missing and {seen.headers["User-Agent"] for seen in server.requests} == {AGENT}


def test_both_clocks_of_the_list(server, tmp_path):
    """Some companies' lists say 16:15 New York as 20:15Z, others as 16:15Z: the header tells."""
    both = ("MSFT", "AAPL")
    got = deliver(server, tmp_path, symbols=both).rows.unique("accession").sort("known_at")
    assert got["symbol"].to_list() == ["AAPL", "MSFT", "AAPL"]
    assert got["known_at"].to_list()[:2] == [utc(2004, 7, 14, 20, 31), utc(2004, 7, 20, 20, 15)]
    bound = deliver(server, tmp_path, symbols=both, acceptance="upper_bound").rows.unique("accession").sort("known_at")
    assert bound.select("symbol", "known_at", "known_as").rows()[:2] == [
        ("AAPL", utc(2004, 7, 15, 0, 31), "upper_bound"),  # four hours late
        ("MSFT", utc(2004, 7, 20, 20, 15), "upper_bound"),
    ]


def test_a_filing_without_a_header(server, tmp_path):
    source = companies()
    for filing in source.filings[320193]:
        filing.has_header = False
    source.edgar(server)
    got = deliver(server, tmp_path)
    assert set(got.rows["known_as"]) == {"upper_bound"} and not got.missing
    sent = len(server.requests)
    assert deliver(server, tmp_path).rows.equals(got.rows) and len(server.requests) == sent


def test_what_came_in_the_evening_could_be_read_the_next_morning(server, tmp_path):
    source, late, sold = companies(), "0000320193-04-000021", "0000320193-04-000022"
    source.filings[320193] += [
        Filed(late, "8-K", datetime(2004, 7, 30, 17, 45), "late.htm", EIGHT_K, dated=date(2004, 8, 2)),  # a Friday
        Filed(sold, "4", datetime(2004, 7, 30, 19, 0), "sold.xml", form4(sale("2004-07-30"))),
    ]
    source.edgar(server)
    at, monday, quick = utc(2004, 7, 30, 21, 45), utc(2004, 8, 2, 10), {A8K: utc(2004, 7, 14, 20, 31)}

    def filings(start, end, **keys):
        rows = deliver(server, tmp_path, start=start, end=end, **keys).rows
        return dict(rows.select("accession", "known_at").rows())

    july, august = (utc(2004, 7, 1), utc(2004, 8, 1)), (utc(2004, 8, 1), utc(2004, 9, 1))
    assert filings(*july) == quick | {late: at} and filings(*august) == {}
    assert filings(*july, disseminated=True) == quick and filings(*august, disseminated=True) == {late: monday}
    assert filings(*august, disseminated=True, acceptance="upper_bound") == {late: monday}
    traded = deliver(server, tmp_path, "insider_trades", start=july[0], end=july[1], disseminated=True).rows
    assert traded["known_at"].to_list() == [utc(2004, 7, 30, 23)]


def test_a_header_that_the_list_contradicts(server, tmp_path):
    source = companies()
    for filing in source.filings[320193]:
        filing.header = datetime(2004, 8, 1, 12)
    source.edgar(server)
    got = deliver(server, tmp_path)
    # Later than the list says: neither can be believed. Earlier: the list's time is safe.
    assert got.rejected.select("event_at", "symbol").rows() == [(utc(2004, 7, 15, 0, 31), "AAPL")]
    assert "its header says that it was accepted at 2004-08-01 16:00" in got.rejected["reason"].item()
    assert dict(got.rows.select("accession", "known_as").rows()) == {A10K: "upper_bound"} and conserved(got)


def test_a_filing_dated_back_for_long_is_told_once(server, tmp_path):
    source = companies()
    source.filings[320193][1].dated = date(2004, 6, 1)
    source.edgar(server)
    got = deliver(server, tmp_path, start=utc(2000, 3, 1))
    assert got.rejected["reason"].to_list() == ["accepted more than 30 days after the day it is dated"]
    assert got.rejected["origin"].item().endswith(f"/submissions/CIK0000320193.json#{A8K}") and A8K not in got.rows["accession"]


def test_the_quarantine_does_not_grow_with_the_list(server, tmp_path):
    def stored(existing, day):
        source.edgar(server)
        for offer in edgar.OFFERS:
            got = deliver(server, tmp_path, offer, start=utc(2000, 3, 1), end=utc(2012, 1, 1), refresh_hours=0, recheck_days=0)
            existing = merge_rejects(existing, got.rejected, utc(2013, 1, day))
        return existing

    source = companies()
    source.filings[320193].append(Filed("0000320193-04-000031", "8-K", datetime(2004, 3, 2, 17), "", ""))
    source.filings[320193].append(Filed("no number", "8-K", datetime(2004, 3, 2, 17), "", ""))
    sales = source.facts[320193]["us-gaap"]["SalesRevenueNet"]["units"]["USD"]
    sales.append(fact("2004-09-25", 1, A10K, "2004-12-03") | {"val": "a lot"})
    before = stored(pl.DataFrame(), 1)
    source.filings[320193].append(Filed("0000320193-06-000032", "8-K", datetime(2006, 9, 2, 17), "x.htm", EIGHT_K))
    sales.insert(0, fact("2003-09-25", 5, A10K05, "2005-12-01"))
    assert before.height == 4 and stored(before, 2).equals(before)
    source.recent = 2
    assert stored(before, 3).equals(before)


def test_any_range_gives_the_same_rows(server, tmp_path):
    source = companies()
    # Traded on a month's last day and told the same evening: the trade is filed under the midnight after, in the next month.
    evening = Filed("0000320193-04-000011", "4", datetime(2004, 6, 30, 17, 30), "e.xml", form4(sale("2004-06-30")))
    source.filings[320193].append(evening)
    source.edgar(server)
    july = deliver(server, tmp_path, "insider_trades", start=utc(2004, 7, 1), end=utc(2004, 8, 1)).rows
    assert july.select("accession", "known_at", "event_at").rows() == [
        (evening.accession, utc(2004, 6, 30, 21, 30), utc(2004, 7, 1, 4))
    ]
    edges = [START, utc(2004, 3, 1), utc(2004, 7, 1), utc(2004, 7, 15), utc(2004, 12, 3, 21, 30, 5), END]
    for offer in edgar.OFFERS:
        whole = deliver(server, tmp_path, offer).rows
        parts = [deliver(server, tmp_path, offer, start=a, end=b).rows for a, b in pairwise(edges)]
        assert whole.height and pl.concat(parts).sort(whole.columns).equals(whole.sort(whole.columns))


def test_fundamentals(server, tmp_path):
    got = deliver(server, tmp_path, "fundamentals")
    columns = ("concept", "period_start", "period_end", "instant", "value", "accession", "known_at")
    end, first, second = date(2004, 9, 25), utc(2004, 12, 3, 21, 30, 5), utc(2005, 12, 1, 21, 45)
    assert got.rows.select(columns).rows() == [
        ("us-gaap:CashAndCashEquivalents", end, end, True, 2969e6, A10K, first),
        ("us-gaap:NetIncomeLoss", date(2003, 9, 28), end, False, 276e6, A10K, first),
        ("us-gaap:NetIncomeLoss", date(2003, 9, 28), end, False, 266e6, A10K05, second),  # restated a year later
        ("us-gaap:SalesRevenueNet", date(2003, 9, 28), end, False, 8279e6, A10K, first),  # and repeated: nothing new
    ]
    assert got.rows["event_at"].unique().item() == utc(2004, 9, 26, 4)
    assert got.counts["duplicates"] == 1 and got.counts["received"] == 5 and conserved(got)
    some = deliver(server, tmp_path, "fundamentals", concepts=("us-gaap:NetIncomeLoss",))
    assert some.rows.height == 2


def test_a_restated_figure_is_a_new_row(server, tmp_path):
    key = [name for name in edgar.VERSION if name != "known_at"]
    stored = merge_versions(pl.DataFrame(), deliver(server, tmp_path, "fundamentals").rows, key, utc(2006, 1, 1))
    restated = companies()
    records = restated.facts[320193]["us-gaap"]["SalesRevenueNet"]["units"]["USD"]
    records.append(fact("2004-09-25", 8200e6, "0000320193-06-000001", "2006-02-01", start="2003-09-28", form="10-K/A"))
    filed = Filed("0000320193-06-000001", "10-K/A", datetime(2006, 2, 1, 9, 0), "c.htm", TEN_K)
    restated.filings[320193].append(filed)
    restated.edgar(server)
    fresh = deliver(server, tmp_path, "fundamentals", refresh_hours=0).rows
    merged = merge_versions(stored, fresh, key, utc(2006, 2, 2))
    assert merged.height == stored.height + 1
    added = merged.filter(ingested_at=utc(2006, 2, 2)).row(0, named=True)
    assert (added["value"], added["form"], added["known_at"]) == (8200e6, "10-K/A", utc(2006, 2, 1, 14))


def test_a_figure_beside_one_that_cannot_be_believed(server, tmp_path):
    """Two values in one filing say nothing; the later filing that gives one of them is the first to tell."""
    source = companies()
    named = source.facts[320193]["us-gaap"]["SalesRevenueNet"]["units"]
    named["USD"] = [fact("2004-06-26", value, A10K, "2004-12-03") for value in (100, 110)]
    named["USD"].append(fact("2004-06-26", 110, A10K05, "2005-12-01"))
    source.edgar(server)
    got = deliver(server, tmp_path, "fundamentals", concepts=("us-gaap:SalesRevenueNet",))
    assert got.rows.select("value", "accession").rows() == [(110, A10K05)] and got.counts["duplicates"] == 0
    assert got.rejected["reason"].to_list() == ["conflicting records for one key"] * 2 and conserved(got)


def test_a_filing_without_a_time_costs_its_periods_alone(server, tmp_path):
    source = companies()
    old = "0000320193-03-000001"
    source.facts[320193]["us-gaap"]["NetIncomeLoss"]["units"]["USD"].append(fact("2004-03-27", 46e6, old, "2004-05-06"))
    source.filings[320193].append(Filed(old, "10-Q", datetime(2004, 5, 6, 16), "q.htm", TEN_K))
    source.edgar(server)
    server.misbehave(A10K05, BROKEN, forever=True)
    got = deliver(server, tmp_path, "fundamentals")
    assert got.rows["accession"].to_list() == [old] and "HTTP 500" in got.missing[0].why
    assert [(gap.start, gap.end) for gap in got.missing] == [(utc(2004, 9, 26, 4), utc(2004, 9, 27, 4))]


def test_figures_that_cannot_be_read(server, tmp_path):
    source = companies()
    good = source.facts[320193]["us-gaap"]["SalesRevenueNet"]["units"]["USD"]
    good += [fact("2004-09-25", 1, A10K, "2004-12-03") | {"val": "a lot"}, {"end": "2004-09-25"}, 7]
    good += [fact("2004-06-26", value, A10K, "2004-12-03") for value in (5, 6)]  # two values in one filing
    source.facts[320193]["dei"] = {"EntityRegistrantName": {"units": None}}
    source.edgar(server)
    got = deliver(server, tmp_path, "fundamentals")
    assert got.rows.height == 4 and conserved(got) and not got.missing
    assert sorted(got.rejected["reason"]) == [
        "conflicting records for one key",
        "conflicting records for one key",
        "missing val; missing accn; missing form; missing filed",
        "val is no number: 'a lot'",
    ]
    undated = deliver(server, tmp_path, "fundamentals", start=utc(2000, 3, 1), end=utc(2000, 4, 1)).rejected
    assert sorted(undated["reason"]) == ["a concept without units", "a record is a mapping, this is int"]


def test_insider_trades(server, tmp_path):
    got = deliver(server, tmp_path, "insider_trades")
    assert got.rows.height == 2 and conserved(got)
    assert got.rows.row(0, named=True) == {
        "symbol": "AAPL",
        "accession": A4,
        "form": "4",
        "cik": 320193,
        "line": 1,
        "owner_cik": "0001214128",
        "owner": "DOE JANE",
        "is_director": False,
        "is_officer": True,
        "is_ten_percent_owner": False,
        "officer_title": "CFO",
        "security": "Common Stock",
        "derivative": False,
        "transaction_date": date(2004, 3, 2),
        "code": "S",
        "shares": 1000.0,
        "price": 24.5,
        "acquired_disposed": "D",
        "shares_after": 5000.0,
        "ownership": "D",
        "url": f"{server.url}/Archives/edgar/data/320193/000032019304000003/form4.xml",
        "event_at": utc(2004, 3, 3, 5),
        "known_at": utc(2004, 3, 3, 23, 5),
        "known_as": "release",
        "source": "vendor",
    }
    late = got.rows.row(1, named=True)  # traded in 2004, told in 2005
    assert late["event_at"] == utc(2004, 5, 5, 4) and late["known_at"] == utc(2005, 6, 1, 21)


def with_form(body: str, document: str = "xslF345X02/form4.xml") -> Companies:
    source = companies()
    source.filings[320193] = [Filed(A4, "4", datetime(2004, 3, 3, 18, 5), document, body, date(2004, 3, 2))]
    return source


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "body, said",
    [
        (form4(sale().replace("Common Stock", "&b;"), head=BOMB), "a document type declaration is refused"),
        (form4(sale().replace("Common Stock", "&c;"), head=BOMB), "a document type declaration is refused"),
        (form4(sale())[:-30], "no XML form: "),
        ("", "no XML form: "),
        (form4(sale(), root="html"), "no ownership form: its root is <html>"),
        (form4(sale(shares="many")), "shares is no number: 'many'"),
        (form4(sale().replace("transactionDate", "tradeDate")), "missing transaction_date"),
        (form4(sale().replace(">D<", ">X<", 1)), "acquired_disposed is neither A nor D: 'X'"),
    ],
)
def test_a_form_that_cannot_be_read(server, tmp_path, body, said):
    with_form(body).edgar(server)
    got = deliver(server, tmp_path, "insider_trades", start=utc(2000, 3, 1))
    assert got.rows.is_empty() and got.rejected.height == 1 and conserved(got)
    assert got.rejected["reason"].item().startswith(said) and "root:" not in got.rejected["record"].item()


def test_neighbours_of_a_bad_transaction(server, tmp_path):
    with_form(form4(sale(), sale(shares="many"), sale(price='<footnoteId id="F1"/>'))).edgar(server)
    got = deliver(server, tmp_path, "insider_trades")
    assert got.rows.select("line", "price").rows() == [(1, 24.5), (3, None)] and got.rejected.height == 1
    assert got.rejected["origin"].item().endswith("form4.xml#2") and conserved(got)


def test_a_trade_dated_after_its_form(server, tmp_path):
    with_form(form4(sale(), sale("2005-03-02"))).edgar(server)
    assert deliver(server, tmp_path, "insider_trades").rows["line"].to_list() == [1]
    undated = deliver(server, tmp_path, "insider_trades", start=utc(2000, 3, 1), end=utc(2000, 4, 1))
    assert undated.rejected["reason"].to_list() == ["dated after it was filed"]


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 2000), byte=st.binary(max_size=3), cut=st.integers(0, 5))
def test_a_damaged_form_loses_nothing(at, byte, cut):
    from tapehouse.sources.edgar_form4 import UnreadableForm, trades

    whole = form4(sale(), sale(), sale()).encode()
    at %= len(whole)
    try:
        found = list(trades(whole[:at] + byte + whole[at + cut :]))
    except UnreadableForm as error:
        assert str(error)
    else:  # what is still well-formed still has its three trades
        assert [trade.line for trade in found] == [1, 2, 3]


FACT = st.sampled_from(["end", "start", "val", "accn", "fy", "fp", "form", "filed"])
ANY = st.none() | st.text(max_size=5) | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.integers(), max_size=2)


@settings(max_examples=40, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 7), FACT, ANY), max_size=10), stray=st.lists(ANY, max_size=3))
def test_no_figure_is_lost(tmp_path_factory, damage, stray):
    from datetime import UTC

    from tapehouse.answers import keep
    from tapehouse.sources.edgar_facts import facts_of, versions_of

    records = [fact("2004-09-25", number, f"0000320193-04-{number:06}", "2004-12-03") for number in range(8)]
    for at, name, value in damage:
        records[at][name] = value
    body = json.dumps({"facts": {"us-gaap": {"Revenues": {"units": {"USD": records + stray}}}, "dei": 5}})
    path = tmp_path_factory.mktemp("facts") / "answer"
    facts, faulty = facts_of(keep(path, "x", "", datetime.now(UTC), body.encode()), ())
    assert len(facts) + len(faulty) == 8 + len(stray) + 1 and all(reason for *_, reason, _ in faulty)
    assert len(list(versions_of(facts, {f.filing: (utc(2005, 1, 1), "release") for f in facts}))) == len(facts)


def test_a_form_on_paper(server, tmp_path):
    with_form("", document="").edgar(server)
    got = deliver(server, tmp_path, "insider_trades")
    assert got.rejected["reason"].item() == "no XML form: it was filed on paper or as text"


def test_a_second_run_asks_nothing(server, tmp_path):
    for offer in edgar.OFFERS:
        first = deliver(server, tmp_path, offer)
        sent = len(server.requests)
        assert deliver(server, tmp_path, offer, backoff_s=0.02).rows.equals(first.rows) and len(server.requests) == sent
        ask = ask_of(tmp_path, offer, ("AAPL",), START, END)
        assert edgar.fingerprint(declared(server), ask) == edgar.fingerprint(declared(server, attempts=2), ask)


def test_older_lists(server, tmp_path):
    source = companies()
    source.recent = 2
    source.edgar(server)
    assert deliver(server, tmp_path / "a").rows.height == 4
    assert [seen.path for seen in server.requests if seen.path.endswith("001.json")] == [
        "/submissions/CIK0000320193-submissions-001.json"
    ]
    server.requests.clear()
    assert deliver(server, tmp_path / "b", start=utc(2005, 11, 1), end=utc(2006, 1, 1)).rows.height == 3
    assert not [seen.path for seen in server.requests if seen.path.endswith("001.json")]


def test_an_older_list_that_fails_leaves_the_later_filings(server, tmp_path):
    source = companies()
    source.recent = 2
    source.edgar(server)
    server.misbehave("-submissions-001", BROKEN, forever=True)
    got = deliver(server, tmp_path, end=utc(2006, 1, 1))
    assert got.rows["accession"].unique().to_list() == [A10K05] and "submissions-001.json: HTTP 500" in got.missing[0].why
    last = utc(2004, 12, 4, 5)  # the end of the day of its last filing; the SEC may have dated that back
    assert [(gap.start, gap.end) for gap in got.missing] == [(START, last + timedelta(days=33))]


def test_an_older_list_that_has_grown(server, tmp_path):
    source = companies()
    source.recent = 3
    source.edgar(server)
    before = deliver(server, tmp_path)
    source.recent = 1
    source.edgar(server)
    assert deliver(server, tmp_path, refresh_hours=0, recheck_days=0).rows.equals(before.rows)


@pytest.mark.parametrize("trouble", [too_many("0.05"), BROKEN, HANGS, CUT])
@pytest.mark.parametrize("part", ["company_tickers", "submissions", "index-headers", "a10k.htm"])
def test_what_passes_costs_nothing(server, tmp_path, part, trouble):
    server.misbehave(part, trouble)
    got = deliver(server, tmp_path, **patience(trouble))
    assert got.rows.height == 4 and not got.missing


@pytest.mark.parametrize(
    "trouble, said",
    [
        (BROKEN, "HTTP 500"),
        (HANGS, "no answer within"),
        (CUT, "without sending complete"),
        (Reply({}, 200), "content type application/json; charset=utf-8 instead of html or text or xml"),
        (Reply("", 404, "text/html"), "HTTP 404"),
        (too_many("0"), "HTTP 429"),
    ],
)
def test_a_document_that_fails_leaves_the_others(server, tmp_path, trouble, said):
    server.misbehave("a10k.htm", trouble, forever=True)
    got = deliver(server, tmp_path, **patience(trouble))
    assert set(got.rows["accession"]) == {A8K}
    (gap,) = got.missing
    assert gap.start <= utc(2004, 12, 3, 21, 30, 5) < gap.end
    assert gap.why.startswith(f"10-K {A10K}: ") and re.search(said, gap.why)
    assert AGENT not in gap.why
    server.behave()
    assert deliver(server, tmp_path, failure_minutes=0).rows.height == 4


@pytest.mark.parametrize("offer", edgar.OFFERS)
def test_a_time_of_acceptance_that_fails(server, tmp_path, offer):
    server.misbehave("index-headers", BROKEN, forever=True)
    got = deliver(server, tmp_path, offer)
    assert got.rows.is_empty() and got.missing and all("HTTP 500" in gap.why for gap in got.missing)


def test_a_list_of_the_wrong_type(server, tmp_path):
    server.misbehave("submissions", WRONG_TYPE, forever=True)
    assert "content type text/html instead of json" in deliver(server, tmp_path).missing[0].why


def test_an_unknown_symbol_is_missing(server, tmp_path):
    got = deliver(server, tmp_path, symbols=("NOPE", "AAPL"))
    assert got.rows.height == 4 and [gap.symbol for gap in got.missing] == ["NOPE"]
    assert got.missing[0].why == "unknown symbol: vendor: the SEC's list of tickers has no NOPE; give its number in ciks"
    assert deliver(server, tmp_path, symbols=("OLD",), ciks={"OLD": 320193}).rows.height == 4
    nameless = deliver(server, tmp_path, "fundamentals", symbols=("MSFT",))
    assert nameless.rows.is_empty() and "HTTP 404" in nameless.missing[0].why


def test_a_company_that_filed_nothing(server, tmp_path):
    source = companies()
    source.filings[320193] = []
    source.edgar(server)
    got = deliver(server, tmp_path)
    assert got.rows.is_empty() and not got.missing and conserved(got)


def test_a_changed_column(server, tmp_path):
    inner = server.routes["/submissions/"]

    def renamed(seen):
        reply = inner(seen)
        recent = reply.body["filings"]["recent"]
        recent["acceptedAt"] = recent.pop("acceptanceDateTime")
        return reply

    server.routes["/submissions/"] = renamed
    got = deliver(server, tmp_path, start=utc(2000, 3, 1))
    assert got.rows.is_empty() and got.rejected.height == 6 and set(got.rejected["reason"]) == {"missing acceptanceDateTime"}
    assert conserved(got) and not got.missing


def test_columns_of_different_lengths(server, tmp_path):
    inner = server.routes["/submissions/"]

    def cut(seen):
        reply = inner(seen)
        reply.body["filings"]["recent"]["form"].pop()
        return reply

    server.routes["/submissions/"] = cut
    assert "columns of filings differ in length" in deliver(server, tmp_path).missing[0].why


def test_it_says_who_asks_and_keeps_the_pace(server, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="requests_per_second: the SEC allows 10"):
        edgar.Declaration(kind="edgar", requests_per_second=11)
    assert edgar.Declaration(kind="edgar").requests_per_second <= 10
    monkeypatch.setenv("SEC_USER_AGENT", "nobody")
    assert "HTTP 403 Forbidden: Your Request Originates" in deliver(server, tmp_path).missing[0].why
    monkeypatch.delenv("SEC_USER_AGENT")
    with pytest.raises(TapehouseError, match="SEC_USER_AGENT is set neither"):
        deliver(server, tmp_path / "b")


def test_parts_of_a_quarterly_report():
    body = "<p>PART I</p><p>Item 1. Statements</p><p>numbers</p><p>PART II</p><p>Item 1. Proceedings</p><p>none</p>"
    found = [name for name, _ in sections(f"<html>{body}</html>".encode(), "10-Q")]
    assert found == ["other", "part_1_item_1", "part_2_item_1"]


def test_plain_text_and_old_encodings():
    assert sections(b"Item 5. Other Events\n\n  Profit \x96 up", "8-K") == [
        ("item_5", "Item 5. Other Events\nProfit \u2013 up")
    ]
    assert sections(b"", "8-K") == [] and sections(b"<html></html>", "8-K") == []
    assert sections(b"no items here", "8-K") == [("document", "no items here")]


WORDS = st.sampled_from(["Item 1. Business", "Item 1A. Risks", "PART II", "Item 7", "sales rose", "a < b & c", "Items 3", ""])


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(WORDS | st.text(max_size=30), max_size=30), form=st.sampled_from(["10-K", "10-Q", "8-K"]))
def test_no_text_is_left_out(lines, form):
    import html

    body = "<html><body>" + "".join(f"<p>{html.escape(line)}</p>" for line in lines) + "</body></html>"
    found = sections(body.encode("utf-8", errors="replace"), form)
    kept = sorted(line for _, text in found for line in text.split("\n"))
    assert kept == sorted(text_of(body.encode("utf-8", errors="replace")).split("\n")) or (not found and not kept)
    assert len({name for name, _ in found}) == len(found)


@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", errors="replace")))
def test_any_bytes_are_text(body):
    for found in (sections(body, "10-K"), sections(b"<html><p>" + body, "10-K")):
        assert all(name and text for name, text in found)
