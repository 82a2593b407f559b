"""Yahoo Finance's chart endpoint: daily bars, dividends and splits, one request a symbol and year.

Yahoo works every split up to the moment of the answer into prices, volumes and dividends. What is kept here is as
traded: the splits are asked for up to now, by an answer that is not older than the bars', and those that had gone ex
when the bars were fetched are taken out again.
"""

from datetime import UTC, date, datetime
from functools import lru_cache
from urllib.parse import quote
from zoneinfo import ZoneInfo

from tapehouse.answers import Answer
from tapehouse.http import Client, RequestFailed, client_of
from tapehouse.ingest import FIELDS, screen_bars
from tapehouse.records import ACTION_FIELDS, screen_actions
from tapehouse.screening import Screened
from tapehouse.sources.base import Ask, Delivery
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
# Before this no listed share of today had split; it is where the list of splits starts.
FIRST_SPLIT = datetime(1962, 1, 1, tzinfo=UTC)
AMOUNT_DECIMALS = 6  # what is finer in a dividend is single-precision noise
NO_DATA = (400, "Data doesn't exist")  # a year before the listing, or of a holiday
EMPTY = {"meta": {"exchangeTimezoneName": "UTC"}, "indicators": {"quote": [{}]}}
Splits = tuple[tuple[date, float], ...]


class Declaration(Vendor):
    """Keys of a Yahoo source. `price_decimals`: to how many decimals prices were quoted that splits are taken out of;
    Yahoo's are single-precision, so the last of more than four would be noise below a price of 800."""

    base_url: str = "https://query2.finance.yahoo.com"
    user_agent: str = "Mozilla/5.0"  # others are turned away
    requests_per_second: float = 2.0
    price_decimals: int = 4


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Bars or actions of the asked symbols. A year that cannot be had is missing, the others are not."""
    client = client_of(declared, ask.source, ask.settings)
    universe, missed, parts, late = ask.settings.universe, [], [], 0
    years = session_years if ask.offer == "bars" else action_years
    for symbol in ask.symbols:
        calendar, answers = universe.calendar_of(symbol), []
        for year in years(ask, symbol):
            start, end = year_bounds(year)
            try:
                answer = _chart(client, declared, symbol, start, end, "1d", "div,split")
                answers.append((year, answer))
            except RequestFailed as error:
                missed.append(missing(ask, symbol, start, end, error))
            else:
                missed += stale_gap(ask, symbol, answer, end)
        splits: dict[int, Splits] = {}
        # The newest first: a list of splits that is new enough for it is so for all.
        for year, answer in sorted(answers, key=lambda part: part[1].fetched_at, reverse=True):
            try:
                splits[year] = _known_splits(client, declared, symbol, answer)
            except RequestFailed as error:  # what the prices of that year were cannot be told
                missed.append(missing(ask, symbol, *year_bounds(year), error))
        for year, answer in answers:
            if year not in splits:
                continue
            if ask.offer == "bars":
                given = (symbol, ask.source, calendar, universe.interval, universe.start, declared.price_decimals)
                screened, unfinished = _bars(answer, year, splits[year], *given)
                late += unfinished
            else:
                screened = _actions(answer, year, splits[year], symbol, ask.source, calendar, universe.start)
            parts.append(year_part(screened, year))
    if ask.offer == "bars":
        return deliver_screened(ask, parts, screen_bars, FIELDS[1:], missed, unfinished=late)
    return deliver_screened(ask, parts, screen_actions, ACTION_FIELDS[1:], missed)


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """Hash of what the cached answers hold for the range; what is not cached is fetched."""
    return delivery_hash(deliver(declared, ask))


def _chart(
    client: Client, declared: Declaration, symbol: str, start: datetime, end: datetime, interval: str, events: str, **how
) -> Answer:
    ticker = declared.tickers.get(symbol, symbol)
    params = {
        "period1": str(int(start.timestamp())),
        "period2": str(int(end.timestamp())),
        "interval": interval,
        "events": events,
        "includeAdjustedClose": "true",
    }
    how = {"check": _unlike_a_chart} | how
    return client.get(f"v8/finance/chart/{quote(ticker)}", params, until=end, nothing=NO_DATA, **how)


def _known_splits(client: Client, declared: Declaration, symbol: str, bars: Answer) -> Splits:
    """All splits of a symbol, as they stood when a year of its bars was fetched or later.

    The end of their range is that of the year in which the bars were fetched: fixed, so that the request is one for all
    that were fetched in it, and late enough for every split that they may have in them.
    """
    how = {"newer_than": bars.fetched_at, "check": _unlike_splits}
    answer = _chart(client, declared, symbol, FIRST_SPLIT, year_bounds(bars.fetched_at.year)[1], "3mo", "split", **how)
    if answer.stale and answer.fetched_at < bars.fetched_at:
        raise RequestFailed(f"the splits behind the bars: {answer.stale}")
    return _splits(answer)


def _unlike_a_chart(content: object) -> str | None:
    """What is wrong with an answer, if it is no chart."""
    try:
        result = content["chart"]["result"][0]
        count = len(result.get("timestamp", ()))
        ZoneInfo(result["meta"]["exchangeTimezoneName"])
        result["indicators"]["quote"][0]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return f"no chart ({type(error).__name__}: {error})"
    columns = [*result["indicators"]["quote"][0].values(), *_adjusted(result)]
    return "a chart whose columns differ in length" if any(len(values) != count for values in columns) else None


def _adjusted(result: dict) -> list[list]:
    return [part["adjclose"] for part in result["indicators"].get("adjclose", ()) if "adjclose" in part]


def _unlike_splits(content: object) -> str | None:
    """The same for the list of all splits, each of which must be readable: prices are restored by them."""
    if fault := _unlike_a_chart(content):
        return fault
    try:
        _read_splits(content["chart"]["result"][0])
        return None
    except (LookupError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        return f"an unreadable split ({type(error).__name__}: {error})"


@lru_cache(maxsize=4096)
def _splits(answer: Answer) -> Splits:
    return _read_splits(_result(answer))


def _result(answer: Answer) -> dict:
    """The chart of an answer; an empty one where Yahoo has nothing."""
    content = answer.json
    return content["chart"]["result"][0] if content else EMPTY


def _read_splits(result: dict) -> Splits:
    """(ex-date, new shares per old) of every split in an answer."""
    zone, found = _zone(result), result.get("events", {}).get("splits", {}).values()
    return tuple(sorted((_day(split["date"], zone), split["numerator"] / split["denominator"]) for split in found))


def _zone(result: dict) -> ZoneInfo:
    return ZoneInfo(result["meta"]["exchangeTimezoneName"])


def _day(stamp: float, zone: ZoneInfo) -> date:
    return datetime.fromtimestamp(stamp, zone).date()


def _within(splits: Splits, answer: Answer, zone: ZoneInfo) -> Splits:
    """The splits that were in the prices of an answer: those gone ex by the day it was fetched."""
    fetched = answer.fetched_at.astimezone(zone).date()
    return tuple((ex_date, ratio) for ex_date, ratio in splits if ex_date <= fetched)


@lru_cache(maxsize=4096)
def _bars(
    answer: Answer,
    year: int,
    splits: Splits,
    symbol: str,
    source: str,
    calendar: str,
    interval: str,
    undated_at: datetime,
    decimals: int,
) -> tuple[Screened, int]:
    result = _result(answer)
    zone = _zone(result)
    columns = dict(result["indicators"]["quote"][0])
    for values in _adjusted(result):
        columns["vendor_adj_close"] = values
    records = []
    for at, stamp in enumerate(result.get("timestamp", ())):
        record = {"session": str(_day(stamp, zone)), **{name: values[at] for name, values in columns.items()}}
        records.append(text_record(record) | {"fault": outside(record["session"], year)})
    frame = text_frame(records, FIELDS[1:], answer.request, symbol, source)
    screened = screen_bars(
        frame,
        undated_at=undated_at,
        calendar=calendar,
        interval=interval,
        holds=[symbol],
        splits={symbol: _within(splits, answer, zone)},
        price_decimals=decimals,
    )
    return finished(screened, answer.fetched_at)


@lru_cache(maxsize=4096)
def _actions(
    answer: Answer, year: int, splits: Splits, symbol: str, source: str, calendar: str, undated_at: datetime
) -> Screened:
    result = _result(answer)
    zone, events = _zone(result), result.get("events", {})
    known, records = _within(splits, answer, zone), []
    for kind in ("dividends", "splits"):
        for event in events.get(kind, {}).values():
            record = text_record(event)
            kept = {name: record.get(name) for name in ("record", "fault")} | {"kind": kind.removesuffix("s")}
            try:
                kept["ex_date"] = str(day := _day(event["date"], zone))
                kept["fault"] = kept["fault"] or outside(kept["ex_date"], year)
                if kind == "splits":
                    kept["ratio"] = as_text(event["numerator"] / event["denominator"])
                else:
                    kept["amount"] = as_text(round(event["amount"] * _factor(known, day), AMOUNT_DECIMALS))
            except (KeyError, TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
                kept["fault"] = kept["fault"] or f"unreadable {kind.removesuffix('s')} ({type(error).__name__}: {error})"
            records.append(kept)
    frame = text_frame(records, ACTION_FIELDS[1:], answer.request, symbol, source)
    return screen_actions(frame, undated_at=undated_at, calendar=calendar, holds=[symbol])


def _factor(splits: Splits, day: date) -> float:
    """New shares per share of a day."""
    factor = 1.0
    for ex_date, ratio in splits:
        factor *= ratio if ex_date > day else 1.0
    return factor
