"""Headlines by ticker, in the format of Polygon (now Massive): `/v2/reference/news`, one list a symbol and month.

An article is known when it was published. https://polygon.io/docs/rest/stocks/news
"""

from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import parse_qs, urlsplit

import polars as pl

from tapehouse.answers import Answer
from tapehouse.credentials import Credential
from tapehouse.http import Client, RequestFailed, client_of
from tapehouse.sources.base import Ask, Delivery, Missing
from tapehouse.sources.vendor import Judged, Reading, Vendor, delivery_hash, missing, stale_gap

OFFERS = ("news",)
KEY = Credential("NEWS_API_KEY", "header", "Authorization", "Bearer ")
# One id published again at another time is another row: for which of them a month is asked must not matter.
GRAIN = ("article_id", "symbol", "event_at", "source")
NEWS = {
    **dict.fromkeys(("article_id", "symbol", "headline", "summary", "url", "publisher"), pl.String),
    **dict.fromkeys(("event_at", "known_at"), pl.Datetime("us", "UTC")),
    "source": pl.String,
}
PAGE = 1000  # the most articles that one answer gives


class Declaration(Vendor):
    """Keys of a news source. The free plan allows five requests a minute: `requests_per_second: 0.08`."""

    base_url: str = "https://api.polygon.io"


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Headlines about the asked symbols. What cannot be had of a month is missing, the rest is not."""
    client = client_of(declared, ask.source, ask.settings, KEY)
    judged, missed = Judged("raw.news", ask.source, GRAIN, NEWS), []
    for symbol in ask.symbols:
        for start, end in _months(ask.start, min(ask.end, datetime.now(UTC))):
            judged.home = start, end
            for answer in _pages(client, declared, ask, symbol, start, end, missed):
                for row, record, origin, reason in _articles(answer, symbol, ask.source):
                    if reason:
                        judged.reject(record, origin, symbol, row["event_at"], reason)
                    else:
                        judged.take(row, record, origin)
    return judged.delivery(ask, missed)


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """Hash of what the cached answers hold for the range; what is not cached is fetched."""
    return delivery_hash(deliver(declared, ask))


def _months(start: datetime, end: datetime):
    """Calendar months (UTC) that meet [start, end)."""
    first = datetime(start.year, start.month, 1, tzinfo=UTC)
    while first < end:
        following = datetime(first.year + first.month // 12, first.month % 12 + 1, 1, tzinfo=UTC)
        yield first, following
        first = following


def _pages(
    client: Client, declared: Declaration, ask: Ask, symbol: str, start: datetime, end: datetime, missed: list[Missing]
) -> list[Answer]:
    """The pages of a month, as far as they can be had."""
    query = {
        "ticker": declared.tickers.get(symbol, symbol),
        "published_utc.gte": f"{start:%Y-%m-%dT%H:%M:%SZ}",
        "published_utc.lt": f"{end:%Y-%m-%dT%H:%M:%SZ}",
        "order": "asc",
        "sort": "published_utc",
        "limit": str(PAGE),
    }
    pages: list[Answer] = []
    # Only the cursor is taken of `next_url`: the key goes to no other host than the declared one.
    cursors: list[str] = []
    while True:
        params = {"cursor": cursors[-1]} if cursors else query
        try:
            pages.append(answer := client.get("v2/reference/news", params, until=end, check=_unlike_news))
        except RequestFailed as error:
            missed.append(missing(ask, symbol, _reached(pages, start), end, error))
            return pages
        missed += stale_gap(ask, symbol, answer, end)
        cursor = _cursor(answer)
        if cursor is None:
            return pages
        if cursor in cursors:
            why = f"{answer.request}: the next page is one that came before"
            missed.append(missing(ask, symbol, _reached(pages, start), end, why))
            return pages
        cursors.append(cursor)


def _reached(pages: list[Answer], start: datetime) -> datetime:
    """The publication of the last article that came."""
    found = [row["event_at"] for page in pages for row, *_ in _articles(page, "", "") if row["event_at"]]
    return max(found, default=start)


@lru_cache(maxsize=1 << 14)
def _cursor(answer: Answer) -> str | None:
    following = answer.json.get("next_url")
    return parse_qs(urlsplit(following).query).get("cursor", [None])[0] if following else None


def _unlike_news(content: object) -> str | None:
    if not isinstance(content, dict) or not isinstance(content.get("results", []), list):
        return "no list of results"
    if content.get("status", "OK") != "OK":
        return f"the status is {content['status']!r}"
    following = content.get("next_url")
    return None if following is None or isinstance(following, str) else "a next_url that is no address"


@lru_cache(maxsize=4096)
def _articles(answer: Answer, symbol: str, source: str) -> tuple[tuple[dict, object, str, str], ...]:
    """(row, record, origin, reason) of each article; the reason is empty for one that can be used."""
    found = []
    for number, record in enumerate(answer.json.get("results", []), start=1):
        reading = Reading(record)
        published = reading.instant("published_utc")
        row = {
            "article_id": reading.text("id"),
            "symbol": symbol,
            "headline": reading.text("title"),
            "summary": reading.text("description", required=False),
            "url": reading.text("article_url", required=False),
            "publisher": reading.parsed("publisher", "publisher with a name", lambda value: value["name"], required=False),
            "event_at": published,
            "known_at": published,
            "source": source,
        }
        found.append((row, record, f"{answer.request}#{number}", "; ".join(reading.faults)))
    return tuple(found)
