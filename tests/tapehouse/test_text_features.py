"""Text features by hand, against a plain loop over versions, and whatever the order of the records."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.hashing import frame_hash
from tapehouse.text_features import SCHEMA, lexicon, text_features

STAMP = pl.Datetime("us", "UTC")
NOON = datetime(2020, 6, 1, 12, tzinfo=UTC)
NEWS = dict.fromkeys(("article_id", "symbol", "headline", "summary", "source"), pl.String) | {
    "event_at": STAMP,
    "known_at": STAMP,
}
FILINGS = dict.fromkeys(("accession", "symbol", "section", "text", "source"), pl.String) | {
    "event_at": STAMP,
    "known_at": STAMP,
}
THESES = dict.fromkeys(("thesis_id", "symbol", "action", "reasoning", "support"), pl.String) | {
    "event_at": STAMP,
    "known_at": STAMP,
}
DECISION = {"symbol": pl.String, "interval": pl.String, "decision_at": STAMP, "known_at": STAMP}


def day(number: float) -> datetime:
    return NOON + timedelta(days=number)


def article(name, published, headline, summary=None, known=None, symbol="IBM", source="wire") -> dict:
    stamps = {"event_at": day(published), "known_at": day(published if known is None else known)}
    return {"article_id": name, "symbol": symbol, "headline": headline, "summary": summary, "source": source} | stamps


def of(days, news=(), filings=(), theses=(), symbol="IBM") -> pl.DataFrame:
    rows = [(symbol, "1d", day(d), day(d) - timedelta(minutes=5)) for d in days]
    return text_features(
        pl.DataFrame(rows, schema=DECISION, orient="row"),
        pl.DataFrame(list(news), schema=NEWS),
        pl.DataFrame(list(filings), schema=FILINGS),
        pl.DataFrame(list(theses), schema=THESES),
    )


def test_the_lexicon_says_one_thing_of_a_word():
    good, bad = lexicon()
    assert not good & bad
    assert min(len(good), len(bad)) > 80
    assert all(word.isalpha() and word == word.lower() for word in good | bad)


def test_news_by_hand():
    news = [
        article("a", 0, "Record profit, GROWTH ahead", "a lawsuit"),  # 3 good, 1 bad
        article("b", 2, "Profits fell"),  # 1 good, 1 bad
        article("b", 2, "Profits fell, losses", known=3.5),  # corrected later: 1 good, 2 bad
        article("c", 1, "Losses", symbol="MSFT"),
    ]
    rows = of([-0.1, 0, 1, 2, 4, 7, 9, 30, 32], news)
    assert rows["news_1d"].to_list() == [0, 1, 0, 1, 0, 0, 0, 0, 0]  # what was published just a day ago has left the window
    assert rows["news_7d"].to_list() == [0, 1, 1, 2, 2, 1, 0, 0, 0]
    assert rows["news_30d"].to_list() == [0, 1, 1, 2, 2, 2, 2, 1, 0]
    tones = [None, 0.5, 0.5, 2 / 6, 1 / 7, -1 / 3, None, None, None]
    assert rows["news_sentiment_7d"].to_list() == [t if t is None else pytest.approx(t) for t in tones]
    known = [day(-0.1) - timedelta(minutes=5), day(0), day(0), day(2), day(3.5), day(3.5), day(3.5), day(3.5)]
    assert rows["known_at"].to_list() == [*known, day(32) - timedelta(minutes=5)]
    assert rows["embedding"].null_count() == 9


def test_filings_count_once_and_theses_have_an_action():
    stamps = {"event_at": day(0), "known_at": day(0)}
    filings = [
        {"accession": "1", "symbol": "IBM", "section": s, "text": t, "source": "sec"} | stamps
        for s, t in (("item_1a", "Risks. Risk."), ("item_7", "Growth"))
    ]
    thesis = {"thesis_id": "t", "symbol": "IBM", "action": "strong_buy", "reasoning": "weak demand", "support": None} | stamps
    changed = thesis | {"action": "sell", "known_at": day(5)}
    other = thesis | {
        "thesis_id": "u",
        "action": "hold",
        "reasoning": "nothing is said",
        "event_at": day(1),
        "known_at": day(1),
    }
    rows = of([0.5, 2, 6, 30.5, 80, 95], filings=filings, theses=[thesis, changed, other])
    assert rows["filings_30d"].to_list() == [1, 1, 1, 0, 0, 0]
    assert rows["filings_90d"].to_list() == [1, 1, 1, 1, 1, 0]
    assert rows["filing_sentiment_90d"].to_list() == [pytest.approx(-1 / 3)] * 5 + [None]
    assert rows["theses_30d"].to_list() == [1, 2, 2, 1, 0, 0]
    assert rows["thesis_action_30d"].to_list() == [2.0, 1.0, -0.5, 0.0, None, None]
    assert rows["thesis_sentiment_30d"].to_list() == [0.0, 0.0, 0.0, None, None, None]


HEADLINES = ("growth", "loss", "loss growth growth", "nothing")
VERSIONS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 400), st.integers(0, 300), st.sampled_from(HEADLINES)),
    max_size=25,
    unique_by=lambda v: (v[0], v[2]),
)


@settings(max_examples=60, deadline=None)
@given(VERSIONS, st.lists(st.integers(0, 900), min_size=1, max_size=8, unique=True))
def test_a_plain_loop_over_versions_finds_the_same(versions, hours):
    published = {name: hour for name, hour, _, _ in reversed(versions)}
    news = [
        article(str(name), published[name] / 10, headline, known=published[name] / 10 + delay / 10)
        for name, _, delay, headline in versions
    ]
    rows = of([h / 10 for h in hours], news).sort("decision_at")
    for row in rows.iter_rows(named=True):
        at, start = row["decision_at"], row["decision_at"] - timedelta(days=30)
        seen = [a for a in news if a["known_at"] <= at and start < a["event_at"]]
        latest = {a["article_id"]: a for a in sorted(seen, key=lambda a: a["known_at"])}
        words = " ".join(a["headline"] for a in latest.values()).split()
        good, bad = words.count("growth"), words.count("loss")
        assert row["news_30d"] == len(latest)
        assert row["news_sentiment_30d"] == (pytest.approx((good - bad) / (good + bad)) if good + bad else None)
        known = max((a["known_at"] for a in latest.values()), default=at - timedelta(minutes=5))
        assert row["known_at"] == known
        # What lies outside of the longest window may be left out, and the order of records says nothing.
        near = [a for a in reversed(news) if a["event_at"] > at - timedelta(days=90)]
        alone = of([(at - NOON) / timedelta(days=1)], near)
        assert frame_hash(alone) == frame_hash(rows.filter(pl.col("decision_at") == at))


def test_no_decisions_give_no_rows_with_the_columns_of_the_table():
    assert of([]).schema == pl.Schema(SCHEMA)
    assert of([1])["news_30d"].to_list() == [0]


def test_an_action_that_is_none_is_refused():
    thesis = {"thesis_id": "t", "symbol": "IBM", "action": "perhaps", "reasoning": "x", "support": None}
    with pytest.raises(pl.exceptions.InvalidOperationError, match=r"perhaps|mapped"):
        of([1], theses=[thesis | {"event_at": day(0), "known_at": day(0)}])
