"""Rows and rejects of a range are those of its months, whatever a vendor says and whatever it fails to say."""

from datetime import date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tapehouse.sources import edgar, eodhd, fred, news, yahoo
from tests.tapehouse.test_sources_edgar import AGENT, EIGHT_K, fact, form4, sale
from tests.tapehouse.test_sources_news import article
from tests.vendor_server import BROKEN, Archive, Companies, Filed, Market, Newsroom, Reply, VendorServer, ask_of, fast, utc

KEY = "ranges-key-1234567890abcdef"
KEYS = ("EODHD_API_KEY", "FRED_API_KEY", "NEWS_API_KEY")
SPAN = utc(2000, 3, 1), utc(2013, 4, 1)  # that of the asks; what is undated is filed at its start
EDGES = [SPAN[0], *(utc(2004, month, 1) for month in (1, 2, 3, 4, 6)), utc(2005, 1, 1), SPAN[1]]
# Each example is dozens of answers: to find the smallest that fails would take minutes.
FEW = settings(max_examples=5, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
NEW_YORK = ZoneInfo("America/New_York")


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    monkeypatch.setenv("SEC_USER_AGENT", AGENT)
    for name in KEYS:
        monkeypatch.setenv(name, KEY)


def adds_up(server, home, module, offer, symbols, path="", **keys) -> None:
    """Compare the whole span with its parts."""
    kind = module.__name__.rsplit(".", 1)[1]
    declared = module.Declaration(kind=kind, **fast(server, path, attempts=1, **keys))

    def deliver(start, end):
        return module.deliver(declared, ask_of(home, offer, symbols, start, end))

    whole, parts = deliver(*SPAN), [deliver(start, end) for start, end in pairwise(EDGES)]
    for kept in ("rows", "rejected"):
        all_of, apart = getattr(whole, kept), pl.concat([getattr(part, kept) for part in parts])
        assert apart.sort(all_of.columns).equals(all_of.sort(all_of.columns)), (offer, kept)
    assert bool(whole.missing) == any(part.missing for part in parts)


# Days about the ends of months, and hours about midnight and the end of the SEC's day.
ENDS = st.builds(
    lambda month, days: date(2004, month, 1) + timedelta(days=days), st.integers(1, 7), st.sampled_from([-40, -2, -1, 0, 1, 15])
)
HOURS = st.builds(time, st.sampled_from([0, 6, 16, 17, 18, 20, 23]), st.sampled_from([0, 31, 59]))
MOMENTS = st.builds(datetime.combine, ENDS, HOURS)
OTHERWISE = st.none() | st.none() | ENDS
FORMS = st.sampled_from(["4", "4", "4/A", "8-K", "10-K"])


PARTS = ["-submissions-001", "x.xml", "x.htm", *(f"-04-{number:06}-index" for number in range(8))]


@st.composite
def filings(draw):
    found = []
    for number in range(draw(st.integers(1, 8))):
        form, accepted = draw(FORMS), draw(MOMENTS)
        traded = [draw(st.just(accepted.date()) | ENDS) for _ in range(draw(st.integers(0, 3)))]
        body = form4(*(sale(str(day), draw(st.sampled_from(["10", "many"]))) for day in traded))
        name = draw(st.sampled_from(["x.xml", "x.xml", "x.xml", "x.txt", ""]))
        header = accepted + draw(st.sampled_from([timedelta()] * 5 + [timedelta(days=40), timedelta(days=-40)]))
        found.append(
            Filed(
                f"0000000001-04-{number:06}",
                form,
                accepted,
                name if form[0] == "4" else "x.htm",
                body if form[0] == "4" else EIGHT_K,
                draw(OTHERWISE),
                draw(st.sampled_from([True] * 5 + [False])),
                draw(OTHERWISE),
                header,
            )
        )
    return found


@st.composite
def figures(draw):
    records = []
    for _ in range(draw(st.integers(0, 12))):
        end, filing = draw(ENDS), f"0000000001-04-{draw(st.integers(0, 7)):06}"
        record = fact(str(end), draw(st.integers(1, 3)), filing, str(end + timedelta(days=30)))
        records.append(record | draw(st.sampled_from([{}] * 6 + [{"val": "x"}, {"end": "9999-12-31"}, {"filed": None}])))
    return records


@FEW
@given(
    filed=filings(),
    facts=figures(),
    by_new_york=st.booleans(),
    recent=st.integers(1, 8),
    disseminated=st.booleans(),
    acceptance=st.sampled_from(["header", "upper_bound"]),
    failing=st.sets(
        st.sampled_from(["-submissions-001", *(f"-04-{n:06}-index" for n in range(8)), "x.xml", "x.htm"]), max_size=3
    ),
)
def test_filings(tmp_path_factory, filed, facts, by_new_york, recent, disseminated, acceptance, failing):
    home = tmp_path_factory.mktemp("edgar")
    named = {"us-gaap": {"Revenues": {"units": {"USD": facts}}}}
    with VendorServer() as server:
        Companies({"AAPL": 1}, {1: filed}, {1: named}, (1,) if by_new_york else (), recent).edgar(server)
        for part in failing:
            server.misbehave(part, BROKEN, forever=True)
        keys = {"archives_url": server.url, "disseminated": disseminated, "acceptance": acceptance}
        for offer in edgar.OFFERS:
            adds_up(server, home, edgar, offer, ("AAPL",), **keys)


ARTICLES = st.builds(
    lambda number, at, title, fields: article(number, f"{at:%Y-%m-%dT%H:%M:%SZ}", "AAPL", title=title, **fields),
    st.integers(1, 5),
    MOMENTS,
    st.sampled_from(["One", "Two", ""]),
    st.sampled_from([{}, {}, {}, {"id": None}, {"publisher": 5}]),
)


@FEW
@given(articles=st.lists(ARTICLES, max_size=12), page=st.integers(1, 4), failing=st.sets(st.integers(1, 8), max_size=2))
def test_news(tmp_path_factory, articles, page, failing):
    with VendorServer() as server:
        Newsroom(articles, page).polygon(server, KEY)
        for month in failing:
            server.misbehave(f"published_utc.gte=2004-{month:02}", BROKEN, forever=True)
        home = tmp_path_factory.mktemp("news")
        # Each month is a request, and nothing but these years has any.
        news_edges = utc(2003, 11, 1), utc(2004, 9, 1)
        declared = news.Declaration(kind="news", **fast(server, attempts=1))
        months = [*(utc(2003, month, 1) for month in (11, 12)), *(utc(2004, month, 1) for month in range(1, 10))]
        whole = news.deliver(declared, ask_of(home, "news", ("AAPL",), *news_edges))
        parts = [news.deliver(declared, ask_of(home, "news", ("AAPL",), a, b)) for a, b in pairwise(months)]
    for kept in ("rows", "rejected"):
        all_of, apart = getattr(whole, kept), pl.concat([getattr(part, kept) for part in parts])
        assert apart.sort(all_of.columns).equals(all_of.sort(all_of.columns)), kept


YEARS = st.sets(st.sampled_from([2003, 2004, 2005, 2006]), max_size=2)
DAYS = [date(2003, 12, 30) + timedelta(days=days) for days in (0, 1, 3, 6, 32, 60, 62, 370, 400)]
EVENTS = st.dictionaries(st.sampled_from(DAYS), st.sampled_from([2.0, 0.5]), max_size=3)
DAMAGE = st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["open", "date", "volume"]), st.sampled_from([None, -1.0, "x"])))


def traded(splits, dividends) -> Market:
    bars = {day: (10.0, 11.0, 9.0, 10.5, 1000 + number) for number, day in enumerate(DAYS)}
    return Market({"AAPL": bars}, {"AAPL": splits}, {"AAPL": dividends})


@FEW
@given(splits=EVENTS, dividends=EVENTS, damage=DAMAGE, failing=YEARS)
def test_bars_of_one_vendor(tmp_path_factory, splits, dividends, damage, failing):
    with VendorServer() as server:
        traded(splits, dividends).eodhd(server, KEY)
        inner = server.routes["/eod/"]

        def damaged(seen):
            records = inner(seen).body
            for at, name, value in damage:
                if at < len(records):
                    records[at] = records[at] | {name: value}
            return Reply(records)

        server.routes["/eod/"] = damaged
        for year in failing:
            server.misbehave(f"from={year}", BROKEN, forever=True)
        for offer in eodhd.OFFERS:
            adds_up(server, tmp_path_factory.mktemp("eodhd"), eodhd, offer, ("AAPL", "NOPE"))


@FEW
@given(splits=EVENTS, dividends=EVENTS, damage=DAMAGE, failing=YEARS)
def test_bars_of_another(tmp_path_factory, splits, dividends, damage, failing):
    with VendorServer() as server:
        traded(splits, dividends).yahoo(server, NEW_YORK, time(9, 30))
        inner = server.routes["/v8/finance/chart/"]

        def damaged(seen):
            reply = inner(seen)
            result = (reply.body["chart"]["result"] or [{}])[0]
            for at, name, value in damage if seen.query["interval"] == "1d" else ():
                column = result.get("indicators", {}).get("quote", [{}])[0].get(name, [])
                if at < len(column):
                    column[at] = value
            return reply

        server.routes["/v8/finance/chart/"] = damaged
        for year in failing:
            server.misbehave(f"period1={int(utc(year, 1, 1).timestamp())}", BROKEN, forever=True)
        for offer in yahoo.OFFERS:
            adds_up(server, tmp_path_factory.mktemp("yahoo"), yahoo, offer, ("AAPL", "NOPE"))


PERIODS = st.builds(date, st.just(2004), st.integers(1, 6), st.just(1))
VINTAGES = st.dictionaries(
    st.builds(date, st.integers(2003, 2006), st.integers(1, 12), st.sampled_from([1, 20])),
    st.sampled_from(["1", "2", ".", "x"]),
    min_size=1,
    max_size=4,
)


@FEW
@given(values=st.dictionaries(PERIODS, VINTAGES, min_size=1), failing=YEARS, page=st.none() | st.just(2))
def test_macro(tmp_path_factory, values, failing, page):
    with VendorServer() as server:
        Archive({"PAYEMS": "M"}, {"PAYEMS": values}, page).fred(server, KEY)
        for year in failing:
            server.misbehave(f"realtime_start={year}", BROKEN, forever=True)
        adds_up(server, tmp_path_factory.mktemp("fred"), fred, "macro", ("PAYEMS", "NOPE"), "/fred")
