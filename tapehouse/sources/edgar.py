"""SEC EDGAR: filings with their text, reported fundamentals, and insider trades (Form 4), known when they were accepted.

https://www.sec.gov/search-filings/edgar-application-programming-interfaces. The SEC wants a `User-Agent` with a name and an
address to write to, and at most ten requests a second.
"""

from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Literal
from urllib.parse import quote

import httpx
import polars as pl
from pydantic import Field, model_validator

from tapehouse.answers import Answer
from tapehouse.credentials import Credential
from tapehouse.http import Client, RequestFailed, client_of
from tapehouse.sources.base import Ask, Delivery, Missing
from tapehouse.sources.edgar_facts import FUNDAMENTALS, facts_of, versions_of
from tapehouse.sources.edgar_form4 import Trade, UnreadableForm, trades
from tapehouse.sources.edgar_index import (
    ALWAYS,
    LIST_SLACK,
    Filing,
    InDoubt,
    accepted,
    cik_of,
    disseminated,
    folder,
    list_filings,
)
from tapehouse.sources.edgar_text import sections
from tapehouse.sources.vendor import NEW_YORK, Judged, Reading, Vendor, delivery_hash, midnight_after, missing, stale_gap

OFFERS = ("filings", "fundamentals", "insider_trades")
USER_AGENT = Credential("SEC_USER_AGENT", "header", "User-Agent")
MOST_REQUESTS = 10  # a second; the SEC shuts out who asks faster
STAMP = pl.Datetime("us", "UTC")
FILINGS = {
    **dict.fromkeys(("symbol", "accession", "form"), pl.String),
    "cik": pl.Int64,
    "period": pl.Date,
    **dict.fromkeys(("section", "text", "url"), pl.String),
    **dict.fromkeys(("event_at", "known_at"), STAMP),
    **dict.fromkeys(("known_as", "source"), pl.String),
}
INSIDER_TRADES = {
    **dict.fromkeys(("symbol", "accession", "form"), pl.String),
    **dict.fromkeys(("cik", "line"), pl.Int64),
    **dict.fromkeys(("owner_cik", "owner"), pl.String),
    **dict.fromkeys(("is_director", "is_officer", "is_ten_percent_owner"), pl.Boolean),
    **dict.fromkeys(("officer_title", "security"), pl.String),
    "derivative": pl.Boolean,
    "transaction_date": pl.Date,
    "code": pl.String,
    **dict.fromkeys(("shares", "price"), pl.Float64),
    "acquired_disposed": pl.String,
    "shares_after": pl.Float64,
    **dict.fromkeys(("ownership", "url"), pl.String),
    **dict.fromkeys(("event_at", "known_at"), STAMP),
    **dict.fromkeys(("known_as", "source"), pl.String),
}
VERSION = ("symbol", "concept", "unit", "period_start", "period_end", "known_at", "source")
INSIDER_FORMS = ("4", "4/A")
# A trade is dated no later than its form was accepted, and filed under the midnight after its day.
TRADE_SLACK = LIST_SLACK + timedelta(hours=25)


class Declaration(Vendor):
    """Keys of an EDGAR source.

    Attributes:
        archives_url: where filings lie; `base_url` is that of the lists and facts.
        forms: the forms that filings are taken of.
        concepts: taxonomy and name of the facts that are taken, such as us-gaap:Revenues; all where left out.
        ciks: the SEC's number of companies that its list of today's tickers lacks.
        acceptance: `header` takes the time of acceptance from each filing's header (one small request a filing);
            `upper_bound` from the company's list, which is right for some companies and hours late for others.
        disseminated: whether what was accepted after 17:30 counts as known when it could be read, at 06:00 on the business
            day after, and not when it was accepted.
    """

    base_url: str = "https://data.sec.gov"
    archives_url: str = "https://www.sec.gov"
    requests_per_second: float = Field(default=8.0, gt=0)
    forms: tuple[str, ...] = ("10-K", "10-K/A", "10-Q", "10-Q/A", "8-K", "8-K/A")
    concepts: tuple[str, ...] = ()
    ciks: dict[str, int] = Field(default_factory=dict)
    acceptance: Literal["header", "upper_bound"] = "header"
    disseminated: bool = False

    @model_validator(mode="after")
    def _fair(self) -> "Declaration":
        hosts = (httpx.URL(self.base_url).host, httpx.URL(self.archives_url).host)
        if any(host.endswith("sec.gov") for host in hosts) and self.requests_per_second > MOST_REQUESTS:
            raise ValueError(f"requests_per_second: the SEC allows {MOST_REQUESTS}")
        return self


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Filings, fundamentals or insider trades of the asked symbols. What cannot be had is missing, the rest is not."""
    client = client_of(declared, ask.source, ask.settings, USER_AGENT)
    table, key, schema, of_company = {
        "filings": ("raw.filings", ("symbol", "accession", "section", "source"), FILINGS, _filings),
        "fundamentals": ("raw.fundamentals", VERSION, FUNDAMENTALS, _fundamentals),
        "insider_trades": ("raw.insider_trades", ("symbol", "accession", "line", "source"), INSIDER_TRADES, _insider_trades),
    }[ask.offer]
    judged, missed = Judged(table, ask.source, key, schema), []
    for symbol in ask.symbols:
        try:
            cik = declared.ciks.get(symbol) or cik_of(client, declared.archives_url, declared.tickers.get(symbol, symbol))
            if cik is None:
                raise RequestFailed(f"{ask.source}: the SEC's list of tickers has no {symbol}; give its number in ciks", 404)
            of_company(client, declared, ask, symbol, cik, judged, missed)
        except RequestFailed as error:
            missed.append(missing(ask, symbol, ask.start, ask.end, error))
    return judged.delivery(ask, missed)


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """Hash of what the cached answers hold for the range; what is not cached is fetched."""
    return delivery_hash(deliver(declared, ask))


def _listed(
    client: Client, ask: Ask, symbol: str, cik: int, until: datetime, judged: Judged, missed: list[Missing]
) -> tuple[Filing, ...]:
    listed = list_filings(client, cik, ask.start, until)
    for record, origin, reason in listed.faulty:
        judged.reject(record, origin, symbol, None, reason)
    missed += [gap for answer in listed.answers for gap in stale_gap(ask, symbol, answer, ask.end)]
    missed += [missing(ask, symbol, ask.start, over, error) for over, error in listed.lacking]
    return listed.filings


def _filings(client: Client, declared: Declaration, ask: Ask, symbol: str, cik: int, judged: Judged, missed) -> None:
    for filing in _listed(client, ask, symbol, cik, ask.end, judged, missed):
        latest = filing.latest if declared.disseminated else filing.listed_at
        near = ask.start - LIST_SLACK <= latest and filing.listed_at < ask.end + LIST_SLACK
        if filing.form not in declared.forms or not near:
            continue
        try:
            known_at, known_as = _known(client, declared, cik, filing)
            if not ask.start <= known_at < ask.end:
                continue
            if filing.document is None:
                judged.reject(filing.record, filing.origin, symbol, known_at, "no primary document: it was filed on paper")
                continue
            url = f"{folder(declared.archives_url, cik, filing.accession)}/{quote(filing.document)}"
            answer = client.get(url, types=("html", "text", "xml"))
        except InDoubt as doubt:
            if ask.start <= filing.listed_at < ask.end:
                judged.reject(filing.record, filing.origin, symbol, filing.listed_at, str(doubt))
            continue
        except RequestFailed as error:
            missed.append(_gap(ask, symbol, filing, error))
            continue
        found = _sections(answer, filing.form)
        if not found:
            judged.reject(filing.record, filing.origin, symbol, known_at, "the primary document has no text")
        about = {"symbol": symbol, "cik": cik, "accession": filing.accession, "form": filing.form, "period": filing.period}
        when = {"event_at": known_at, "known_at": known_at, "known_as": known_as, "source": ask.source}
        for name, text in found:
            judged.take(about | {"section": name, "text": text, "url": url} | when, filing.record, f"{url}#{name}")


def _fundamentals(client: Client, declared: Declaration, ask: Ask, symbol: str, cik: int, judged: Judged, missed) -> None:
    answer = client.get(f"api/xbrl/companyfacts/CIK{cik:010d}.json", until=ALWAYS, check=_unlike_facts)
    missed += stale_gap(ask, symbol, answer, ask.end)
    facts, faulty = facts_of(answer, declared.concepts)
    for record, origin, reason, when in faulty:
        judged.reject(record, origin, symbol, when, reason)
    wanted = [fact for fact in facts if ask.start <= fact.event_at < ask.end]
    at, unsure = {}, {}
    for fact in wanted:
        try:
            if fact.filing not in at:
                at[fact.filing] = _accepted(client, declared, cik, *fact.filing, None)
        except RequestFailed as error:
            unsure[fact.event_at] = error
    # Without one filing's time it is not known which of a figure's versions came first: then none of its period is given.
    missed += [missing(ask, symbol, when, when + timedelta(days=1), error) for when, error in sorted(unsure.items())]
    for fact, known_at, known_as in versions_of((fact for fact in wanted if fact.event_at not in unsure), at):
        if known_at is None:
            judged.received += 1
            judged.duplicates += 1
            continue
        row = fact.row | {"symbol": symbol, "cik": cik, "event_at": fact.event_at, "known_at": known_at}
        judged.take(row | {"known_as": known_as, "source": ask.source}, fact.record, fact.origin)


def _insider_trades(client: Client, declared: Declaration, ask: Ask, symbol: str, cik: int, judged: Judged, missed) -> None:
    # A form may come long after its trades: every later one may have some of the range.
    for filing in _listed(client, ask, symbol, cik, ALWAYS, judged, missed):
        if filing.form not in INSIDER_FORMS or filing.latest + TRADE_SLACK < ask.start:
            continue
        # A period after the filing is a slip of the pen, and no day to file the record under.
        when = midnight_after(min(filing.period or filing.filed, filing.filed))
        if filing.document is None or not filing.document.lower().endswith(".xml"):
            judged.reject(filing.record, filing.origin, symbol, when, "no XML form: it was filed on paper or as text")
            continue
        # The list names the page that shows the form; the form itself lies beside it, outside the folder of the style.
        url = f"{folder(declared.archives_url, cik, filing.accession)}/{quote(filing.document.rsplit('/', 1)[-1])}"
        try:
            answer = client.get(url, types=("xml",))
            known_at, known_as = _known(client, declared, cik, filing)
        except InDoubt as doubt:
            judged.reject(filing.record, filing.origin, symbol, when, str(doubt))
            continue
        except RequestFailed as error:
            missed.append(_gap(ask, symbol, filing, error))
            continue
        about = (symbol, cik, filing.accession, filing.form, url, known_at, known_as, ask.source)
        found = _trades(answer, about)
        if isinstance(found, str):
            judged.reject(filing.record, url, symbol, when, found)
            continue
        for row, record, origin, reason in found:
            event_at = row["event_at"]
            if event_at and not ask.start <= event_at < ask.end:
                continue  # it is counted where it belongs: many forms are looked into for each month
            if reason:
                judged.reject(record, origin, symbol, event_at, reason)
            else:
                judged.take(row, record, origin)


@lru_cache(maxsize=1 << 15)
def _trades(answer: Answer, about: tuple) -> tuple[tuple[dict, dict, str, str], ...] | str:
    """(row, record, origin, reason) of each transaction of a form, the reason empty for one that can be used; or why the
    form cannot be read."""
    names = ("symbol", "cik", "accession", "form", "url", "known_at", "known_as", "source")
    try:
        return tuple(_trade(trade, dict(zip(names, about, strict=True))) for trade in trades(answer.body))
    except UnreadableForm as error:
        return str(error)


def _trade(trade: Trade, about: dict) -> tuple[dict, dict, str, str]:
    reading = Reading(trade.record)
    row = {
        "security": reading.text("security"),
        "transaction_date": reading.day("transaction_date"),
        "code": reading.text("code"),
        "shares": reading.number("shares"),
        "price": reading.number("price", required=False),  # a footnote may stand in its place
        "acquired_disposed": reading.text("acquired_disposed"),
        "shares_after": reading.number("shares_after", required=False),
        "ownership": reading.text("ownership", required=False),
    }
    if row["acquired_disposed"] not in (None, "A", "D"):
        reading.faults.append(f"acquired_disposed is neither A nor D: {row['acquired_disposed']!r}")
    day = row["transaction_date"]
    if day and day > about["known_at"].astimezone(NEW_YORK).date():
        reading.faults.append("dated after it was filed")
        day = None
    row |= {**about, **trade.owners, "line": trade.line, "derivative": trade.derivative}
    row["event_at"] = midnight_after(day) if day else None
    return row, trade.record, f"{about['url']}#{trade.line}", "; ".join(reading.faults)


def _known(client: Client, declared: Declaration, cik: int, filing: Filing) -> tuple[datetime, str]:
    return _accepted(client, declared, cik, filing.accession, filing.filed, filing.listed_at)


def _accepted(client: Client, declared: Declaration, cik: int, accession: str, filed: date, listed_at: datetime | None):
    header = declared.acceptance == "header"
    at, known_as = accepted(client, declared.archives_url, cik, accession, filed, listed_at, header)
    return (disseminated(at, filed) if declared.disseminated else at), known_as


def _gap(ask: Ask, symbol: str, filing: Filing, error: RequestFailed) -> Missing:
    """What a filing that cannot be had leaves open: the day of its acceptance, or else all that was asked for."""
    start, end = filing.listed_at - timedelta(days=1), filing.listed_at + timedelta(hours=1)
    if ask.offer == "insider_trades" or not (start < ask.end and end > ask.start):
        start, end = ask.start, ask.end
    return Missing(symbol, max(ask.start, start), min(ask.end, end), f"{filing.form} {filing.accession}: {error}")


def _unlike_facts(content: object) -> str | None:
    return None if isinstance(content, dict) and isinstance(content.get("facts"), dict) else "no facts"


@lru_cache(maxsize=256)
def _sections(answer: Answer, form: str) -> tuple[tuple[str, str], ...]:
    return tuple(sections(answer.body, form))
