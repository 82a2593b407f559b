"""FRED and ALFRED (St. Louis Fed): macro series with every vintage, one request a series and year of vintages.

A year of vintages that is over never changes, so it is asked for once; only the current one is refreshed. Within a year
an observation's `realtime_start` is cut to 1 January where its value is older: that repeats the year before, and counts as
a duplicate of it. https://fred.stlouisfed.org/docs/api/fred/series_observations.html
"""

import re
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache, partial
from typing import Annotated

import polars as pl
from pydantic import BeforeValidator, Field

from tapehouse.answers import Answer
from tapehouse.calendars import local_instant
from tapehouse.credentials import Credential
from tapehouse.errors import TapehouseError
from tapehouse.http import Client, RequestFailed, client_of
from tapehouse.observations import FIELDS, MACRO_COLUMNS, Calendar, screen_macro
from tapehouse.screening import Screened
from tapehouse.sources.base import Ask, Delivery
from tapehouse.sources.vendor import NEW_YORK, Vendor, delivery_hash, missing, stale_gap, year_bounds
from tapehouse.sources.vendor_bars import Part, deliver_screened, text_frame, text_record

OFFERS = ("macro",)
KEY = Credential("FRED_API_KEY", "query", "api_key")
FREQUENCIES = {"D": "d", "W": "w", "M": "m", "Q": "q"}
OBSERVATION = {"date": "period", "realtime_start": "vintage"}
ISO_DATE = re.compile(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])")
NO_VALUE = "."
FIRST_DAY, LAST_DAY = "1776-07-04", "9999-12-31"  # FRED's own words for "any time"
ALWAYS = datetime(2200, 1, 1, tzinfo=UTC)  # a list that grows is never over
PAGE = {"series": None, "vintagedates": 10_000, "observations": 100_000}  # the most that FRED gives at once


def _quoted(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError('write a time of day in quotes, as "08:30": YAML takes it for a number')
    return value


Clock = Annotated[time, BeforeValidator(_quoted)]


class Declaration(Vendor):
    """Keys of a FRED source. A value is known at the end of its vintage day in New York, or at the time of day that
    `release_time` gives for all series and `release_times` for single ones."""

    base_url: str = "https://api.stlouisfed.org/fred"
    requests_per_second: float = 2.0  # FRED allows 120 a minute
    release_time: Clock | None = None
    release_times: dict[str, Clock] = Field(default_factory=dict)


def deliver(declared: Declaration, ask: Ask) -> Delivery:
    """Every vintage of the observations in the range.

    Where a year of vintages cannot be had, that and later ones are left out, since what was known between is not known; of
    last year there may be what came while it ran. Versions left out are none taken back: a table that has them keeps them,
    as long as it merges these rows as `dated`.
    """
    client = client_of(declared, ask.source, ask.settings, KEY)
    parts, missed, empty = [], [], 0
    for series in ask.symbols:
        answers: list[tuple[int, tuple[Answer, ...]]] = []
        try:
            about = _pages(client, "series", series, until=None)
            vintages = _vintages(_pages(client, "vintagedates", series, ALWAYS, **_realtime(FIRST_DAY, LAST_DAY)))
            for year in _years(vintages, ask):
                try:
                    answers.append((year, _observations(client, ask, series, year)))
                except RequestFailed:
                    answers += _while_it_ran(client, ask, series, year)
                    raise
                missed += [gap for page in answers[-1][1] for gap in stale_gap(ask, series, page, ask.end)]
        except RequestFailed as error:
            # Any period of the range may have been revised in the years that are lacking.
            unknown = "unknown series: " if "does not exist" in error.body else ""
            missed.append(missing(ask, series, ask.start, ask.end, f"{unknown}{error}"))
        if answers:
            frequency = _frequency(series, about[0])
            at = declared.release_times.get(series, declared.release_time)
            span = ask.settings.universe.start
            screened, without = _screened(tuple(answers), vintages, series, ask.source, frequency, at, span)
            parts.append(Part(screened))  # all of a series is read for any range
            empty += without
    return deliver_screened(ask, parts, partial(screen_macro, dates=Calendar()), FIELDS[1:], missed, no_value=empty)


def fingerprint(declared: Declaration, ask: Ask) -> str:
    """Hash of what the cached answers hold for the range; what is not cached is fetched."""
    return delivery_hash(deliver(declared, ask))


def _pages(client: Client, endpoint: str, series: str, until: datetime | None, **params: str) -> tuple[Answer, ...]:
    """All pages of an answer."""
    path = "series" if endpoint == "series" else f"series/{endpoint}"
    field = {"series": "seriess", "vintagedates": "vintage_dates"}.get(endpoint, endpoint)
    params = {"series_id": series, "file_type": "json", **params}
    if PAGE[endpoint]:
        params["limit"] = str(PAGE[endpoint])

    def unlike(content: object) -> str | None:
        if not isinstance(content, dict) or not isinstance(content.get(field), list):
            return f"no list of {field}"
        dates = content[field] if endpoint == "vintagedates" else []
        return None if all(isinstance(day, str) and ISO_DATE.fullmatch(day) for day in dates) else "a vintage that is no date"

    pages, got = [], 0
    while True:
        pages.append(client.get(path, params | ({"offset": str(got)} if got else {}), until=until, check=unlike))
        given, count = _sizes(pages[-1], field)
        got += given
        if not given or got >= count:
            return tuple(pages)


@lru_cache(maxsize=1 << 14)
def _sizes(page: Answer, field: str) -> tuple[int, int]:
    """How many records a page has, and how many there are on all pages."""
    content = page.json
    return len(content[field]), content.get("count", 0)


def _realtime(start: str, end: str) -> dict[str, str]:
    return {"realtime_start": start, "realtime_end": end}


@lru_cache(maxsize=1024)
def _vintages(pages: tuple[Answer, ...]) -> tuple[date, ...]:
    """Days on which anything of a series was published, in order."""
    return tuple(sorted(date.fromisoformat(day) for page in pages for day in page.json["vintage_dates"]))


def _years(vintages: tuple[date, ...], ask: Ask) -> list[int]:
    """Years of vintages since the start of the span: those of all periods, so that any range gives the same versions."""
    first, today = ask.settings.universe.start.year, datetime.now(NEW_YORK).year
    return sorted({day.year for day in vintages if first <= day.year <= today})


def _observations(client: Client, ask: Ask, series: str, year: int) -> tuple[Answer, ...]:
    """A year's vintages. FRED takes no day to come but the last of all, so the year that runs is asked for up to that."""
    over = year < datetime.now(NEW_YORK).year
    return _observations_to(client, ask, series, year, f"{year}-12-31" if over else LAST_DAY)


def _while_it_ran(client: Client, ask: Ask, series: str, year: int) -> list[tuple[int, tuple[Answer, ...]]]:
    """What was asked for while last year ran, now that the whole of it cannot be had; nothing of any other year, or if not
    even that is there."""
    if year != datetime.now(NEW_YORK).year - 1:
        return []
    try:
        return [(year, _observations_to(client, ask, series, year, LAST_DAY))]
    except RequestFailed:  # the failure of the request proper is told
        return []


def _observations_to(client: Client, ask: Ask, series: str, year: int, last: str) -> tuple[Answer, ...]:
    params = _realtime(f"{year}-01-01", last)
    # A period of a year before the span may end inside it.
    params["observation_start"] = f"{ask.settings.universe.start.year - 1}-01-01"
    return _pages(client, "observations", series, year_bounds(year)[1], **params)


@lru_cache(maxsize=1024)
def _frequency(series: str, about: Answer) -> str:
    given = str((about.json["seriess"] or [{}])[0].get("frequency_short"))
    if given not in FREQUENCIES:
        raise TapehouseError(f"FRED series {series} has the frequency {given!r}, not one of {list(FREQUENCIES)}; leave it out")
    return FREQUENCIES[given]


@lru_cache(maxsize=1024)
def _screened(
    answers: tuple[tuple[int, tuple[Answer, ...]], ...],
    vintages: tuple[date, ...],
    series: str,
    source: str,
    frequency: str,
    at: time | None,
    undated_at: datetime,
) -> tuple[Screened, int]:
    """All versions of a series, and the number of records that never had a value (FRED has one for each holiday). A value
    that a later vintage takes back is null from then on."""
    frames, repeated, empty = [], 0, 0
    taken_back: set[tuple[str, str]] = set()
    known: dict[str, str] = {}
    uncertain = {str(vintages[0])}  # the archive starts with what was out by then
    for number, (year, pages) in enumerate(answers):
        cut = f"{year}-01-01"
        if date(year, 1, 1) not in vintages:
            uncertain.add(cut)
        for page in pages:
            records = []
            for record in sorted(page.json["observations"], key=_order):
                text = text_record(record, OBSERVATION, ignore=("realtime_end",))
                period, value = text.get("period") or "", text.get("value")
                same = "fault" not in text and known.get(period) == value
                before, known[period] = known.get(period), value
                if same and number and text.get("vintage") == cut and cut in uncertain:
                    repeated += 1
                elif value == NO_VALUE and before in (None, NO_VALUE):
                    empty += 1
                else:
                    if value == NO_VALUE:
                        taken_back.add((period, text.get("vintage") or ""))
                        text["value"] = "0"  # judged as any other, and null in the end
                    records.append(text)
            # Its place in the answer changes with every revision: named after it, it would be another record.
            name = pl.format("{}#{}/{}", pl.lit(page.request), *(pl.col(day).fill_null("?") for day in ("period", "vintage")))
            frames.append(text_frame(records, FIELDS[1:], page.request, series, source).with_columns(origin=name))
    screened = screen_macro(
        pl.concat(frames, how="diagonal"), undated_at=undated_at, dates=Calendar(frequency=frequency), holds=[series]
    )
    bound = pl.col("vintage").is_in([date.fromisoformat(day) for day in uncertain])
    known_as, known_at = pl.lit("vintage"), pl.col("known_at")
    if at is not None:
        clock = timedelta(hours=at.hour, minutes=at.minute, seconds=at.second)
        released = local_instant(pl.col("vintage").cast(pl.Datetime("us")) + clock, str(NEW_YORK), ambiguous="latest")
        known_as, known_at = pl.lit("release"), pl.when(bound).then("known_at").otherwise(released)
    of_day = pl.concat_str(pl.col("period", "vintage").cast(pl.String), separator=" ")
    accepted = screened.accepted.with_columns(
        value=pl.when(~of_day.is_in([" ".join(day) for day in sorted(taken_back)])).then("value"),
        known_at=known_at,
        known_as=pl.when(bound).then(pl.lit("upper_bound")).otherwise(known_as),
    )
    return Screened(accepted.select(MACRO_COLUMNS), screened.rejected, screened.duplicates + repeated), empty


def _order(received: object) -> tuple[str, str]:
    """Versions of a period in the order of their vintages, whatever the order in the answer."""
    record = received if isinstance(received, dict) else {}
    return str(record.get("date")), str(record.get("realtime_start"))
