"""Which filings a company has made and when each was accepted, as the SEC lists them."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from urllib.parse import quote

from tapehouse.answers import Answer
from tapehouse.hashing import text_hash
from tapehouse.http import Client, RequestFailed
from tapehouse.sources.vendor import NEW_YORK, Reading, midnight_after

ALWAYS = datetime(2200, 1, 1, tzinfo=UTC)  # a list that grows is never over
HEADER = re.compile(rb"ACCEPTANCE-DATETIME(?:>|&gt;)\s*(\d{14})")
# A page that is absent so long after the filing will not come any more.
HEADER_DUE = timedelta(days=30)
# The SEC may date a filing back. One accepted longer after its date than this is told by no list of the range it belongs to.
DATED_BACK = timedelta(days=30)
# How far a list's time of acceptance, read as New York's, is off: five hours where it is UTC, and an hour to spare.
LIST_SLACK = timedelta(hours=6)
OPENS = time(6)  # New York, when the SEC disseminates what it accepted after 17:30 of the business day before
COLUMNS = ("accessionNumber", "filingDate", "reportDate", "acceptanceDateTime", "form", "primaryDocument")
ACCESSION = re.compile(r"\d{10}-\d{2}-\d{6}")


class InDoubt(ValueError):
    """When a filing was accepted cannot be told; the message says why."""


@dataclass(frozen=True)
class Filing:
    """One line of a company's list. `listed_at` is its acceptance, which the list gives in UTC for some companies and by
    New York's clock for others, under the same letter Z; read as New York's it is never too early."""

    accession: str
    form: str
    filed: date
    period: date | None
    listed_at: datetime
    document: str | None
    record: dict
    origin: str

    @property
    def latest(self) -> datetime:
        """No later than this was it accepted, or is it dated."""
        return max(self.listed_at, midnight_after(self.filed))


@dataclass(frozen=True)
class Listed:
    """What a company's list says: its filings, and the lines that cannot be read, each with its reasons.

    `answers` are those that say so; `lacking` are the lists of earlier filings that could not be had, each with the last
    time that a filing on it may have been accepted, or have a trade of.
    """

    filings: tuple[Filing, ...]
    faulty: tuple[tuple[dict, str, str], ...]  # record, origin, reason
    answers: tuple[Answer, ...] = ()
    lacking: tuple[tuple[datetime, RequestFailed], ...] = ()


def cik_of(client: Client, archives: str, ticker: str) -> int | None:
    """The SEC's number of a company that is listed today; None for a ticker that it does not know."""
    return _tickers(client.get(f"{archives}/files/company_tickers.json", until=ALWAYS, check=_unlike_tickers)).get(ticker)


def list_filings(client: Client, cik: int, since: datetime, until: datetime) -> Listed:
    """The filings of a company from `since` on; there may be earlier ones among them."""
    recent = client.get(f"submissions/CIK{cik:010d}.json", until=until, check=_unlike_submissions)
    answers, lacking = [recent], []
    for name, last, count in _older(recent):
        over = _over(last)
        if over < since:
            continue
        try:
            # The SEC moves filings from the recent list to this file: its span and count say when it has changed.
            answers.append(client.get(f"submissions/{quote(name)}", version=f"{last}/{count}", check=_unlike_columns))
        except RequestFailed as error:
            lacking.append((over, error))
    # A filing keeps its place in the quarantine when it moves to another list, or further down in one.
    parts = [_lines(answer, recent.request) for answer in answers]
    filings: dict[str, Filing] = {}
    for part in parts:
        for filing in part.filings:
            filings.setdefault(filing.accession, filing)
    faulty = tuple(fault for part in parts for fault in part.faulty)
    return Listed(tuple(filings.values()), faulty, tuple(answers), tuple(lacking))


def _over(last: str) -> datetime:
    """When nothing can follow any more from a list whose last filing is of this day."""
    try:
        return midnight_after(date.fromisoformat(last)) + DATED_BACK + timedelta(days=3)
    except ValueError:
        return ALWAYS


@lru_cache(maxsize=4)
def _tickers(answer: Answer) -> dict[str, int]:
    return {entry["ticker"]: int(entry["cik_str"]) for entry in answer.json.values()}


@lru_cache(maxsize=1024)
def _older(answer: Answer) -> tuple[tuple[str, str, str], ...]:
    """Files of earlier filings: name, the day of their last filing, and how many they have."""
    files = answer.json["filings"].get("files", ())
    return tuple((older["name"], str(older.get("filingTo")), str(older.get("filingCount"))) for older in files)


@lru_cache(maxsize=256)
def _lines(answer: Answer, of: str) -> Listed:
    content = answer.json
    columns = content["filings"]["recent"] if "filings" in content else content
    names = [name for name in columns if isinstance(columns[name], list)]
    filings, faulty = [], []
    for values in zip(*(columns[name] for name in names), strict=True):
        record = dict(zip(names, values, strict=True))
        origin = f"{of}#{record.get('accessionNumber') or text_hash(repr(record))[:12]}"
        found = _filing(record, origin)
        if isinstance(found, str):
            faulty.append((record, origin, found))
        else:
            filings.append(found)
    return Listed(tuple(filings), tuple(faulty))


def accepted(client: Client, archives: str, cik: int, accession: str, filed: date, listed_at: datetime | None, header: bool):
    """When a filing was accepted, and how sure that is: 'release', or 'upper_bound'.

    The header of a filing gives the time by New York's clock. Where there is none (or `header` is False, or it is further
    from the list's than the clocks are apart) the list's time, read as New York's, is an upper bound, and for a filing on
    no list the end of its filing day.

    Raises:
        InDoubt: the header is so much later than the list that neither can be believed.
    """
    if header:
        over = datetime.now(UTC) - midnight_after(filed) > HEADER_DUE
        url = f"{folder(archives, cik, accession)}/{accession}-index-headers.html"
        # Of a filing of these days the page is only late: without it, it is missing, and asked for again next time.
        answer = client.get(url, types=("html", "text"), check=_unlike_header, nothing=(404, "") if over else None)
        if found := HEADER.search(answer.body):
            at = _new_york(found[1].decode())
            if listed_at is not None and at - listed_at > LIST_SLACK:
                raise InDoubt(f"its header says that it was accepted at {at}, the list says {listed_at} at the latest")
            if listed_at is None or listed_at - at <= LIST_SLACK:
                return at, "release"
    return listed_at or midnight_after(filed), "upper_bound"


def disseminated(at: datetime, filed: date) -> datetime:
    """When a filing could be read: what comes after 17:30 is dated the next business day, and shown from 06:00 on; forms of
    insiders are dated, and shown, the day they come."""
    return max(at, datetime.combine(filed, OPENS, NEW_YORK).astimezone(UTC))


def folder(archives: str, cik: int, accession: str) -> str:
    """Where the documents of a filing lie."""
    return f"{archives.rstrip('/')}/Archives/edgar/data/{cik}/{accession.replace('-', '')}"


def _new_york(digits: str) -> datetime:
    return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=NEW_YORK).astimezone(UTC)


def _filing(record: dict, origin: str) -> Filing | str:
    """A line of the list, or what is wrong with it."""
    reading = Reading(record)
    accession = reading.parsed("accessionNumber", "accession number", lambda text: ACCESSION.fullmatch(text)[0])
    form, filed = reading.text("form"), reading.day("filingDate")
    period, document = reading.day("reportDate", required=False), reading.text("primaryDocument", required=False)
    listed_at = reading.parsed("acceptanceDateTime", "time", _by_new_york_clock)
    if not reading.faults and listed_at - midnight_after(filed) > DATED_BACK:
        reading.faults.append(f"accepted more than {DATED_BACK.days} days after the day it is dated")
    if reading.faults:
        return "; ".join(reading.faults)
    return Filing(accession, form, filed, period, listed_at, document, record, origin)


def _by_new_york_clock(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


def _unlike_tickers(content: object) -> str | None:
    try:
        for entry in content.values():
            int(entry["cik_str"]), entry["ticker"]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        return f"no list of tickers ({type(error).__name__}: {error})"
    return None


def _unlike_submissions(content: object) -> str | None:
    try:
        columns, files = content["filings"]["recent"], content["filings"].get("files", ())
        [older["name"] for older in files]
    except (AttributeError, LookupError, TypeError) as error:
        return f"no list of filings ({type(error).__name__}: {error})"
    return _unlike_columns(columns)


def _unlike_columns(columns: object) -> str | None:
    if not isinstance(columns, dict):
        return "no columns of filings"
    lengths = {len(values) for values in columns.values() if isinstance(values, list)}
    return None if len(lengths) == 1 else "columns of filings differ in length"


def _unlike_header(body: bytes) -> str | None:
    found = HEADER.search(body)
    try:
        return None if found and _new_york(found[1].decode()) else "no ACCEPTANCE-DATETIME"
    except ValueError:
        return f"no time of acceptance: {found[1].decode()}"
