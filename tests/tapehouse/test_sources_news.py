import re
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.merging import merge_versions
from tapehouse.sources import news
from tests.vendor_server import (
    BROKEN,
    CUT,
    HANGS,
    WRONG_TYPE,
    Newsroom,
    Reply,
    VendorServer,
    ask_of,
    conserved,
    fast,
    patience,
    too_many,
    utc,
)

KEY = "news-key-123456789"
START, END = utc(2004, 1, 1), utc(2004, 3, 1)


def article(number: int, published: str, *tickers: str, **fields) -> dict:
    about = {
        "id": f"id{number}",
        "publisher": {"name": "The Wire", "homepage_url": "https://example.org"},
        "title": f"Headline {number}",
        "author": "A. Writer",
        "published_utc": published,
        "article_url": f"https://example.org/{number}",
        "tickers": list(tickers),
        "description": f"Summary {number}",
        "keywords": ["x"],
    }
    return about | fields


def newsroom() -> Newsroom:
    return Newsroom(
        [
            article(1, "2004-01-05T14:30:00Z", "AAPL"),
            article(2, "2004-01-05T14:30:00Z", "AAPL", "MSFT"),
            article(3, "2004-01-31T23:59:59Z", "AAPL"),
            article(4, "2004-02-01T00:00:00Z", "AAPL", description=None, publisher=None),
        ]
    )


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NEWS_API_KEY", KEY)
    with VendorServer() as server:
        newsroom().polygon(server, KEY)
        yield server


def declared(server, **keys):
    return news.Declaration(kind="news", **fast(server, **keys))


def deliver(server, home, symbols=("AAPL",), start=START, end=END, **keys):
    return news.deliver(declared(server, **keys), ask_of(home, "news", symbols, start, end))


def test_headlines(server, tmp_path):
    got = deliver(server, tmp_path, ("AAPL", "MSFT"))
    assert got.rows.select("article_id", "symbol", "known_at", "headline", "summary", "publisher").rows() == [
        ("id1", "AAPL", utc(2004, 1, 5, 14, 30), "Headline 1", "Summary 1", "The Wire"),
        ("id2", "AAPL", utc(2004, 1, 5, 14, 30), "Headline 2", "Summary 2", "The Wire"),
        ("id2", "MSFT", utc(2004, 1, 5, 14, 30), "Headline 2", "Summary 2", "The Wire"),
        ("id3", "AAPL", utc(2004, 1, 31, 23, 59, 59), "Headline 3", "Summary 3", "The Wire"),
        ("id4", "AAPL", utc(2004, 2, 1), "Headline 4", None, None),
    ]
    assert got.rows["event_at"].equals(got.rows["known_at"]) and conserved(got) and not got.missing
    assert len(server.requests) == 4 and all(KEY not in str(seen.query) for seen in server.requests)


def test_ranges_add_up(server, tmp_path):
    whole = deliver(server, tmp_path).rows
    edges = [START, utc(2004, 1, 5, 14, 30), utc(2004, 1, 20), utc(2004, 2, 1), END]
    parts = [deliver(server, tmp_path, start=a, end=b).rows for a, b in pairwise(edges)]
    assert pl.concat(parts).equals(whole) and [part.height for part in parts] == [0, 2, 1, 1]


def test_pages(server, tmp_path):
    paged = newsroom()
    paged.page = 1
    paged.polygon(server, KEY)
    got = deliver(server, tmp_path)
    assert got.rows.height == 4 and len(server.requests) == 4 and not got.missing
    assert deliver(server, tmp_path, backoff_s=0.02).rows.equals(got.rows) and len(server.requests) == 4


def test_a_page_that_fails_leaves_those_before_it(server, tmp_path):
    paged = newsroom()
    paged.page = 1
    paged.polygon(server, KEY)
    server.misbehave("cursor=", BROKEN, forever=True)
    got = deliver(server, tmp_path)
    assert got.rows["article_id"].to_list() == ["id1", "id4"]
    (gap,) = got.missing
    assert (gap.start, gap.end) == (utc(2004, 1, 5, 14, 30), utc(2004, 2, 1)) and "HTTP 500" in gap.why


def test_pages_that_go_round(server, tmp_path):
    loop = {"results": [article(1, "2004-01-05T14:30:00Z", "AAPL")], "next_url": "https://elsewhere.example.org/x?cursor=abc"}
    server.routes["/v2/reference/news"] = lambda seen: Reply(loop)
    got = deliver(server, tmp_path, end=utc(2004, 2, 1))
    assert got.rows.height == 1 and got.counts["duplicates"] == 1 and conserved(got)
    assert "the next page is one that came before" in got.missing[0].why


def test_a_second_run_asks_nothing(server, tmp_path):
    first, ask = deliver(server, tmp_path), ask_of(tmp_path, "news", ("AAPL",), START, END)
    assert deliver(server, tmp_path, backoff_s=0.02).rows.equals(first.rows) and len(server.requests) == 2
    assert news.fingerprint(declared(server), ask) == news.fingerprint(declared(server, attempts=2), ask)


@pytest.mark.parametrize("trouble", [too_many("0.05"), BROKEN, HANGS, CUT])
def test_what_passes_costs_nothing(server, tmp_path, trouble):
    server.misbehave("2004-02-01", trouble)
    assert deliver(server, tmp_path, **patience(trouble)).rows.height == 4 and len(server.requests) == 3


@pytest.mark.parametrize(
    "trouble, said",
    [
        (BROKEN, "HTTP 500"),
        (HANGS, "no answer within"),
        (CUT, "without sending complete"),
        (WRONG_TYPE, "content type text/html"),
        (too_many("0"), "HTTP 429"),
        (Reply({"status": "ERROR", "error": f"no plan for {KEY}"}), r"the status is 'ERROR': .*no plan for \[key\]"),
        (Reply({"results": {}}), "no list of results"),
        (Reply([]), "no list of results"),
    ],
)
def test_a_month_that_fails_leaves_the_other(server, tmp_path, trouble, said):
    server.misbehave("published_utc.gte=2004-02-01", trouble, forever=True)
    got = deliver(server, tmp_path, **patience(trouble))
    assert got.rows.height == 3 and [(gap.start, gap.end) for gap in got.missing] == [(utc(2004, 2, 1), END)]
    assert re.search(said, got.missing[0].why) and KEY not in got.missing[0].why


def test_symbols_without_news(server, tmp_path):
    """The vendor does not tell an unknown symbol from one without news: both are an empty answer."""
    got = deliver(server, tmp_path, ("NOPE",))
    assert got.rows.is_empty() and not got.missing and got.rows.schema == deliver(server, tmp_path).rows.schema


def test_a_wrong_key(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NEWS_API_KEY", "another-key-654321")
    why = deliver(server, tmp_path).missing[0].why
    assert "HTTP 401 Unauthorized" in why and "Unknown API Key" in why and "654321" not in why


def test_a_changed_field(server, tmp_path):
    inner = server.routes["/v2/reference/news"]

    def renamed(seen):
        reply = inner(seen)
        reply.body["results"] = [{("headline" if k == "title" else k): v for k, v in r.items()} for r in reply.body["results"]]
        return reply

    server.routes["/v2/reference/news"] = renamed
    got = deliver(server, tmp_path)
    assert got.rows.is_empty() and set(got.rejected["reason"]) == {"missing title"} and conserved(got)
    assert got.rejected["event_at"].to_list()[2:] == [utc(2004, 1, 31, 23, 59, 59), utc(2004, 2, 1)]


def test_a_revised_headline_is_a_new_version(server, tmp_path):
    stored = merge_versions(pl.DataFrame(), deliver(server, tmp_path).rows, news.GRAIN, utc(2004, 6, 1))
    revised = newsroom()
    revised.articles[0]["title"] = "Headline 1, corrected"
    revised.polygon(server, KEY)
    fresh = deliver(server, tmp_path, recheck_days=0).rows
    merged = merge_versions(stored, fresh, news.GRAIN, utc(2004, 6, 2))
    assert merged.height == 5
    assert merged.filter(article_id="id1").select("headline", "known_at").rows() == [
        ("Headline 1", utc(2004, 1, 5, 14, 30)),
        ("Headline 1, corrected", utc(2004, 6, 2)),
    ]


def test_two_articles_with_one_id(server, tmp_path):
    source = newsroom()
    source.articles += [article(1, "2004-01-05T14:30:00Z", "AAPL"), article(3, "2004-01-31T23:59:59Z", "AAPL", title="Other")]
    source.polygon(server, KEY)
    got = deliver(server, tmp_path)
    assert got.counts["duplicates"] == 1 and got.rejected["reason"].to_list() == ["conflicting records for one key"] * 2
    assert got.rows["article_id"].to_list() == ["id1", "id2", "id4"] and conserved(got)


def test_one_article_published_twice(server, tmp_path):
    source = newsroom()
    source.articles += [article(1, "2004-02-02T09:00:00Z", "AAPL", title="Headline 1, updated")]
    source.polygon(server, KEY)
    whole = deliver(server, tmp_path)
    assert whole.rows.filter(article_id="id1").select("headline", "known_at").rows() == [
        ("Headline 1", utc(2004, 1, 5, 14, 30)),
        ("Headline 1, updated", utc(2004, 2, 2, 9)),
    ]
    months = [deliver(server, tmp_path, start=START, end=utc(2004, 2, 1)), deliver(server, tmp_path, start=utc(2004, 2, 1))]
    assert pl.concat([month.rows for month in months]).sort(whole.rows.columns).equals(whole.rows.sort(whole.rows.columns))
    assert whole.rejected.is_empty() and not any(month.rejected.height for month in months)
    # Stored together or apart, either can be corrected.
    stored = merge_versions(pl.DataFrame(), whole.rows, news.GRAIN, utc(2004, 6, 1))
    corrected = whole.rows.with_columns(headline=pl.col("headline") + "!")
    assert merge_versions(stored, corrected, news.GRAIN, utc(2004, 6, 2)).height == 2 * stored.height


FIELDS = st.sampled_from(["id", "title", "published_utc", "description", "publisher", "article_url"])
DATES = st.sampled_from(["2004-01-09T10:00:00", "2004-02-09T10:00:00Z", "1999-01-01T00:00:00Z"])
VALUES = DATES | st.none() | st.text(max_size=8) | st.integers() | st.lists(st.integers(), max_size=2)


@settings(max_examples=15, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(0, 9), FIELDS, VALUES), max_size=12), stray=st.lists(VALUES, max_size=3))
def test_no_article_is_lost(tmp_path_factory, damage, stray):
    import os

    os.environ["NEWS_API_KEY"] = KEY
    records = [article(number, f"2004-01-{number + 1:02}T10:00:00Z", "AAPL") for number in range(10)]
    for at, name, value in damage:
        records[at][name] = value
    with VendorServer() as server:
        january = "2004-01-01T00:00:00Z"
        found = {january: records + stray}
        server.routes["/v2/reference/news"] = lambda seen: Reply({"results": found.get(seen.query["published_utc.gte"], [])})
        home = tmp_path_factory.mktemp("news")
        edges = [utc(2003, 12, 1), utc(2004, 1, 1), utc(2004, 1, 4), utc(2004, 2, 1), utc(2004, 3, 1)]
        parts = [deliver(server, home, start=a, end=b) for a, b in pairwise(edges)]
    counts = parts[1].counts
    assert counts["received"] == 10 + len(stray) and conserved(parts[1]) and not parts[1].missing
    # Every record is in one part's table, in one part's quarantine, or a second copy.
    seen = sum(part.rows.height + part.rejected.height for part in parts)
    assert seen + counts["duplicates"] + counts["outside_span"] == 10 + len(stray)
