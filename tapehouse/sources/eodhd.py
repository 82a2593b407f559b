"""EODHD (eodhd.com): end-of-day bars, dividends and splits, one request a symbol and year.

Prices and volume come as traded; `adjusted_close` has every later split and dividend in it and is kept for its steps.
https://eodhd.com/financial-apis/api-for-historical-data-and-volumes and .../api-splits-dividends
"""

from datetime import datetime
from functools import lru_cache
from urllib.parse import quote

from tapehouse.answers import Answer
from tapehouse.credentials import Credential
from tapehouse.http import Client, RequestFailed, client_of
from tapehouse.ingest import FIELDS, screen_bars
from tapehouse.records import ACTION_FIELDS, screen_actions
from tapehouse.screening import Screened
from tapehouse.sources.base import Ask, Delivery, Missing
from tapehouse.sources.vendor import Vendor, delivery_hash, missing, stale_gap, year_bounds
from tapehouse.sources.vendor_bars import (
    action_years,
    as_text,
    deliver_screened,
    finished,
    outside,
    session_years,
    text_frame,
    text_record,
    year_part,
)

OFFERS = ("bars", "actions")
KEY = Credential("EODHD_API_KEY", "query", "api_token")
BAR = {"date": "session", "adjusted_close": "vendor_adj_close"}
# `value` has later splits in it; the other fields of a dividend do not concern the table.
DIVIDEND = {"date": "ex_date", "unadjustedValue": "amount"}


class Declaration(Vendor):
    """Keys of an EODHD source. A symbol is asked for as `SYMBOL.<exchange>`, or as `tickers` names it."""

    base_url: str = "https://eodhd.com/api"
    exchange: str = "US"
    ignore: tuple[str, ...] = ()  # further fields of a bar that may be passed over; any other makes it unusable


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Bars or actions of the asked symbols. A year that cannot be had is missing, the others are not."""
    client = client_of(declared, ask.source, ask.settings, KEY)
    universe, missed, parts, late = ask.settings.universe, [], [], 0
    if ask.offer == "bars":
        for symbol in ask.symbols:
            for year in session_years(ask, symbol):
                for answer in _year(client, declared, ask, "eod", symbol, year, missed, period="d", order="a"):
                    given = (symbol, ask.source, universe.calendar_of(symbol), universe.interval, universe.start)
                    screened, unfinished = _bars(answer, year, declared.ignore, *given)
                    parts.append(year_part(screened, year))
                    late += unfinished
        return deliver_screened(ask, parts, screen_bars, FIELDS[1:], missed, unfinished=late)
    for symbol in ask.symbols:
        for year in action_years(ask, symbol):
            for endpoint in ("div", "splits"):
                for answer in _year(client, declared, ask, endpoint, symbol, year, missed):
                    given = (symbol, ask.source, universe.calendar_of(symbol), universe.start)
                    parts.append(year_part(_actions(answer, year, endpoint, *given), year))
    return deliver_screened(ask, parts, screen_actions, ACTION_FIELDS[1:], missed)


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """Hash of what the cached answers hold for the range; what is not cached is fetched."""
    return delivery_hash(deliver(declared, ask))


def _year(
    client: Client, declared: Declaration, ask: Ask, endpoint: str, symbol: str, year: int, missed: list[Missing], **params: str
) -> list[Answer]:
    """The answer for one year, or none, which is noted in `missed`."""
    start, end = year_bounds(year)
    ticker = declared.tickers.get(symbol, f"{symbol}.{declared.exchange}")
    params |= {"fmt": "json", "from": f"{year}-01-01", "to": f"{year}-12-31"}
    try:
        answer = client.get(f"{endpoint}/{quote(ticker)}", params, until=end, check=_list)
    except RequestFailed as error:
        missed.append(missing(ask, symbol, start, end, error))
        return []
    missed += stale_gap(ask, symbol, answer, end)
    return [answer]


def _list(content: object) -> str | None:
    return None if isinstance(content, list) else "expected a list of records"


@lru_cache(maxsize=4096)
def _bars(
    answer: Answer,
    year: int,
    ignore: tuple[str, ...],
    symbol: str,
    source: str,
    calendar: str,
    interval: str,
    undated_at: datetime,
) -> tuple[Screened, int]:
    records = [text_record(record, BAR, ignore) for record in answer.json]
    records = [{"fault": outside(record.get("session"), year), **record} for record in records]
    frame = text_frame(records, FIELDS[1:], answer.request, symbol, source)
    screened = screen_bars(frame, undated_at=undated_at, calendar=calendar, interval=interval, holds=[symbol])
    return finished(screened, answer.fetched_at)


@lru_cache(maxsize=4096)
def _actions(
    answer: Answer, year: int, endpoint: str, symbol: str, source: str, calendar: str, undated_at: datetime
) -> Screened:
    records = []
    for record in answer.json:
        text = text_record(record, DIVIDEND)
        kept = {name: text.get(name) for name in ("ex_date", "record")}
        kept["fault"] = text.get("fault") or outside(text.get("ex_date"), year)
        if endpoint == "div":
            records.append({**kept, "kind": "dividend", "amount": text.get("amount")})
        else:
            records.append({**kept, "kind": "split", "ratio": _ratio(text.get("split"))})
    frame = text_frame(records, ACTION_FIELDS[1:], answer.request, symbol, source)
    return screen_actions(frame, undated_at=undated_at, calendar=calendar, holds=[symbol])


def _ratio(text: str | None) -> str | None:
    """New shares per old, from '7.000000/1.000000'; what is written otherwise stays as it is, and is found unreadable."""
    try:
        new, old = (text or "").split("/")
        return as_text(float(new) / float(old))
    except (ValueError, ZeroDivisionError):
        return text
