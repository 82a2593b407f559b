"""A local HTTP server that speaks the vendors' documented formats from data in memory, and can misbehave on demand.

What is in the data is the truth, e.g. prices as traded; each vendor's route shows it as that vendor would (Yahoo adjusts
for splits, FRED clips vintages to the asked real-time period), so that a client is tested on getting the truth back.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

from tapehouse.settings import Settings
from tapehouse.sources.base import Ask
from tests.house import ROOT, set_span

JSON = "application/json; charset=utf-8"


@dataclass
class Seen:
    """A request that arrived."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Reply:
    """A response; `cut` closes the connection after half of the body, `hang` waits so many seconds first."""

    body: bytes | str | object = b""
    status: int = 200
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hang: float = 0.0

    def content(self) -> bytes:
        """The body as bytes; what is neither text nor bytes becomes JSON."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


def too_many(retry_after: str | None = "0") -> Reply:
    """429, with `Retry-After` unless it is None."""
    return Reply({"message": "slow down"}, 429, headers={"Retry-After": retry_after} if retry_after is not None else {})


BROKEN = Reply("internal error", 500, "text/plain")
HANGS = Reply({}, hang=2.0)
CUT = Reply([{"date": "2004-01-02", "open": 1.0}] * 50, cut=True)
WRONG_TYPE = Reply("<html>maintenance</html>", 200, "text/html")
TRUNCATED = Reply('[{"date": "2004-01-02", "op', 200)


class VendorServer:
    """Routes by path prefix, the longest first. `misbehave` puts replies before what a route would say."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.routes: dict[str, Callable[[Seen], Reply]] = {}
        self.troubles: list[tuple[str, list[Reply]]] = []
        self._lock = threading.Lock()

    def misbehave(self, part: str, *replies: Reply, forever: bool = False) -> None:
        """The next requests whose path and query contain `part` get these replies; `forever`: the last one from then on."""
        self.troubles.append((part, [*replies, None] if forever else list(replies)))

    def behave(self) -> None:
        """Forget all troubles."""
        self.troubles.clear()

    def answer(self, seen: Seen) -> Reply:
        """What the request gets."""
        with self._lock:
            self.requests.append(seen)
            line = f"{seen.path}?{'&'.join(f'{name}={value}' for name, value in seen.query.items())}"
            for part, replies in self.troubles:
                if part in line and replies:
                    lasting = len(replies) == 2 and replies[1] is None
                    return replies[0] if lasting else replies.pop(0)
        for prefix in sorted(self.routes, key=len, reverse=True):
            if seen.path.startswith(prefix):
                return self.routes[prefix](seen)
        return Reply("no such path", 404, "text/plain")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "VendorServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

            def do_GET(self):
                parts = urlsplit(self.path)
                query = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
                reply = outer.answer(Seen(unquote(parts.path), query, dict(self.headers.items())))
                content = reply.content()
                time.sleep(reply.hang)
                try:
                    self.send_response(reply.status)
                    self.send_header("Content-Type", reply.content_type)
                    self.send_header("Content-Length", str(len(content)))
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(content[: len(content) // 2] if reply.cut else content)
                    if reply.cut:
                        self.close_connection = True
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client has given up, as it was meant to

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Market:
    """What really happened to some symbols: bars as traded, splits (new shares per old) and dividends (cash a share)."""

    bars: dict[str, dict[date, tuple[float, float, float, float, int]]] = field(default_factory=dict)
    splits: dict[str, dict[date, float]] = field(default_factory=dict)
    dividends: dict[str, dict[date, float]] = field(default_factory=dict)

    def factor(self, symbol: str, day: date) -> float:
        """New shares per share of `day`, by the splits after it."""
        factor = 1.0
        for ex_date, ratio in self.splits.get(symbol, {}).items():
            factor *= ratio if ex_date > day else 1.0
        return factor

    def eodhd(self, server: VendorServer, key: str) -> None:
        """`/eod/T.US`, `/div/T.US` and `/splits/T.US`: prices as traded."""

        def within(seen: Seen, records: dict[date, dict]) -> Reply:
            if seen.query.get("api_token") != key:
                return Reply("Unauthenticated", 401, "text/plain")
            first, last = (date.fromisoformat(seen.query[name]) for name in ("from", "to"))
            return Reply([record for day, record in sorted(records.items()) if first <= day <= last])

        def symbol_of(seen: Seen) -> str:
            return seen.path.rsplit("/", 1)[1].removesuffix(".US")

        def eod(seen: Seen) -> Reply:
            symbol = symbol_of(seen)
            if symbol not in self.bars:
                return Reply("Ticker Not Found.", 404, "text/plain")
            names = ("open", "high", "low", "close")
            return within(
                seen,
                {
                    day: {
                        "date": str(day),
                        **dict(zip(names, bar, strict=False)),
                        "adjusted_close": round(bar[3] / self.factor(symbol, day), 4),
                        "volume": bar[4],
                    }
                    for day, bar in self.bars[symbol].items()
                },
            )

        def div(seen: Seen) -> Reply:
            symbol = symbol_of(seen)
            return within(
                seen,
                {
                    day: {
                        "date": str(day),
                        "declarationDate": None,
                        "recordDate": None,
                        "paymentDate": None,
                        "period": "Quarterly",
                        "value": cash / self.factor(symbol, day),
                        "unadjustedValue": cash,
                        "currency": "USD",
                    }
                    for day, cash in self.dividends.get(symbol, {}).items()
                },
            )

        def splits(seen: Seen) -> Reply:
            found = self.splits.get(symbol_of(seen), {})
            return within(seen, {day: {"date": str(day), "split": f"{ratio:.6f}/1.000000"} for day, ratio in found.items()})

        server.routes |= {"/eod/": eod, "/div/": div, "/splits/": splits}

    def yahoo(self, server: VendorServer, zone, opens_at) -> None:
        """`/v8/finance/chart/T`: prices, volumes and dividends adjusted for every split after them."""

        def stamp(day: date) -> int:
            return int(datetime.combine(day, opens_at, zone).timestamp())

        def chart(seen: Seen) -> Reply:
            symbol = seen.path.rsplit("/", 1)[1]
            if symbol not in self.bars:
                fault = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
                return Reply({"chart": {"result": None, "error": fault}}, 404)
            first, last = int(seen.query["period1"]), int(seen.query["period2"])

            def inside(days):
                return sorted(day for day in days if first <= stamp(day) < last)

            days = inside(self.bars[symbol])
            factors = [self.factor(symbol, day) for day in days]
            bars = [self.bars[symbol][day] for day in days]
            quote = {
                name: [bar[at] / by for bar, by in zip(bars, factors, strict=True)]
                for at, name in enumerate(("open", "high", "low", "close"))
            }
            quote["volume"] = [round(bar[4] * by) for bar, by in zip(bars, factors, strict=True)]
            events = {}
            if "div" in seen.query.get("events", ""):
                events["dividends"] = {
                    str(stamp(day)): {"amount": self.dividends[symbol][day] / self.factor(symbol, day), "date": stamp(day)}
                    for day in inside(self.dividends.get(symbol, {}))
                }
            if "split" in seen.query.get("events", ""):
                events["splits"] = {
                    str(stamp(day)): {
                        "date": stamp(day),
                        "numerator": self.splits[symbol][day],
                        "denominator": 1.0,
                        "splitRatio": f"{self.splits[symbol][day]:g}:1",
                    }
                    for day in inside(self.splits.get(symbol, {}))
                }
            result = {
                "meta": {"currency": "USD", "symbol": symbol, "exchangeTimezoneName": str(zone), "dataGranularity": "1d"},
                "indicators": {"quote": [quote if days else {}], "adjclose": [{"adjclose": quote["close"]} if days else {}]},
            }
            result |= {"timestamp": [stamp(day) for day in days]} if days else {}
            result |= {"events": {name: found for name, found in events.items() if found}} if any(events.values()) else {}
            return Reply({"chart": {"result": [result], "error": None}})

        server.routes["/v8/finance/chart/"] = chart


@dataclass
class Archive:
    """Macro series: the frequency, and for each period its values by the day from which each was in force."""

    frequency: dict[str, str] = field(default_factory=dict)
    values: dict[str, dict[date, dict[date, str]]] = field(default_factory=dict)
    page: int | None = None  # the most observations that one answer gives

    def fred(self, server: VendorServer, key: str) -> None:
        """`/fred/series`, `/fred/series/vintagedates` and `/fred/series/observations` (output_type 1)."""

        def known(answer: Callable[[Seen, str], object]) -> Callable[[Seen], Reply]:
            def route(seen: Seen) -> Reply:
                if seen.query.get("api_key") != key:
                    message = "Bad Request.  The value for variable api_key is not registered."
                    return Reply({"error_code": 400, "error_message": message}, 400)
                series = seen.query["series_id"]
                if series not in self.values:
                    return Reply({"error_code": 400, "error_message": "Bad Request.  The series does not exist."}, 400)
                return Reply(answer(seen, series))

            return route

        def about(seen: Seen, series: str) -> object:
            return {"seriess": [{"id": series, "title": series, "frequency_short": self.frequency[series]}]}

        def vintagedates(seen: Seen, series: str) -> object:
            days = sorted({day for versions in self.values[series].values() for day in versions})
            return {"count": len(days), "offset": 0, "limit": 10000, "vintage_dates": [str(day) for day in days]}

        def observations(seen: Seen, series: str) -> object:
            first, last = (date.fromisoformat(seen.query[name]) for name in ("realtime_start", "realtime_end"))
            since = date.fromisoformat(seen.query.get("observation_start", "1776-07-04"))
            found = []
            for period, versions in sorted(self.values[series].items()):
                days = sorted(versions)
                for day, following in zip(days, [*days[1:], date.max], strict=True):
                    until = following if following == date.max else date.fromordinal(following.toordinal() - 1)
                    if period >= since and day <= last and until >= first:
                        found.append(
                            {
                                "realtime_start": str(max(day, first)),
                                "realtime_end": str(min(until, last)),
                                "date": str(period),
                                "value": versions[day],
                            }
                        )
            offset, limit = int(seen.query.get("offset", 0)), self.page or int(seen.query["limit"])
            shown = found[offset : offset + limit]
            return {"count": len(found), "offset": offset, "limit": limit, "observations": shown}

        server.routes |= {
            "/fred/series": known(about),
            "/fred/series/vintagedates": known(vintagedates),
            "/fred/series/observations": known(observations),
        }


@dataclass
class Filed:
    """A filing: `accepted` by New York's clock."""

    accession: str
    form: str
    accepted: datetime
    document: str
    body: str = ""
    period: date | None = None
    has_header: bool = True
    dated: date | None = None  # the day of its acceptance where left out
    header: datetime | None = None  # what the header says, where that is not when it was accepted


@dataclass
class Companies:
    """What companies filed, as the SEC shows it. `by_new_york` names those whose list calls New York's clock UTC."""

    tickers: dict[str, int] = field(default_factory=dict)
    filings: dict[int, list[Filed]] = field(default_factory=dict)
    facts: dict[int, dict] = field(default_factory=dict)
    by_new_york: tuple[int, ...] = ()
    recent: int = 1000  # filings in the list proper; earlier ones are in a file of their own

    def edgar(self, server: VendorServer) -> None:
        """`/files/company_tickers.json`, `/submissions/`, `/api/xbrl/companyfacts/` and `/Archives/edgar/data/`."""

        def fair(answer: Callable[[Seen], Reply]) -> Callable[[Seen], Reply]:
            def route(seen: Seen) -> Reply:
                if "@" not in seen.headers.get("User-Agent", ""):
                    return Reply("Your Request Originates from an Undeclared Automated Tool", 403, "text/html")
                return answer(seen)

            return route

        def columns(cik: int, filings: list[Filed]) -> dict:
            def listed(filing: Filed) -> str:
                when = filing.accepted.replace(tzinfo=ZoneInfo("America/New_York"))
                shown = filing.accepted if cik in self.by_new_york else when.astimezone(UTC)
                return f"{shown:%Y-%m-%dT%H:%M:%S}.000Z"

            return {
                "accessionNumber": [filing.accession for filing in filings],
                "filingDate": [str(filing.dated or filing.accepted.date()) for filing in filings],
                "reportDate": [str(filing.period or "") for filing in filings],
                "acceptanceDateTime": [listed(filing) for filing in filings],
                "form": [filing.form for filing in filings],
                "size": [len(filing.body) for filing in filings],
                "primaryDocument": [filing.document for filing in filings],
            }

        def submissions(seen: Seen) -> Reply:
            name = seen.path.rsplit("/", 1)[1].removesuffix(".json").removeprefix("CIK")
            cik = int(name[:10])
            if cik not in self.filings:
                return Reply("not found", 404, "text/plain")
            newest_first = sorted(self.filings[cik], key=lambda filing: filing.accepted, reverse=True)
            recent, older = newest_first[: self.recent], newest_first[self.recent :]
            if name.endswith("-submissions-001"):
                return Reply(columns(cik, older))
            files = [
                {
                    "name": f"CIK{cik:010d}-submissions-001.json",
                    "filingCount": len(older),
                    "filingFrom": str(min(filing.dated or filing.accepted.date() for filing in older)),
                    "filingTo": str(max(filing.dated or filing.accepted.date() for filing in older)),
                }
                for _ in older[:1]
            ]
            return Reply({"cik": str(cik), "filings": {"recent": columns(cik, recent), "files": files}})

        def facts(seen: Seen) -> Reply:
            cik = int(seen.path.rsplit("/", 1)[1].removesuffix(".json").removeprefix("CIK"))
            if cik not in self.facts:
                return Reply("NoSuchKey", 404, "text/plain")
            return Reply({"cik": cik, "entityName": "", "facts": self.facts[cik]})

        def archives(seen: Seen) -> Reply:
            cik, folder, name = seen.path.removeprefix("/Archives/edgar/data/").split("/", 2)
            for filing in self.filings.get(int(cik), ()):
                if filing.accession.replace("-", "") != folder:
                    continue
                if name == f"{filing.accession}-index-headers.html" and filing.has_header:
                    stamp = f"{filing.header or filing.accepted:%Y%m%d%H%M%S}"
                    page = f"<html><pre>&lt;SEC-HEADER&gt;\n&lt;ACCEPTANCE-DATETIME&gt;{stamp}\n</pre></html>"
                    return Reply(page, content_type="text/html")
                if name == filing.document.rsplit("/", 1)[-1]:
                    return Reply(filing.body, content_type="text/xml" if name.endswith(".xml") else "text/html")
            return Reply("not found", 404, "text/html")

        tickers = {str(at): {"cik_str": cik, "ticker": t, "title": t} for at, (t, cik) in enumerate(self.tickers.items())}
        server.routes |= {
            "/files/company_tickers.json": fair(lambda seen: Reply(tickers)),
            "/submissions/": fair(submissions),
            "/api/xbrl/companyfacts/": fair(facts),
            "/Archives/edgar/data/": fair(archives),
        }


@dataclass
class Newsroom:
    """Articles in the fields of the vendor; `page` is how many of them one answer gives."""

    articles: list[dict] = field(default_factory=list)
    page: int = 1000

    def polygon(self, server: VendorServer, key: str) -> None:
        """`/v2/reference/news` by ticker and time, with cursors."""

        def news(seen: Seen) -> Reply:
            if seen.headers.get("Authorization") != f"Bearer {key}":
                return Reply({"status": "ERROR", "error": "Unknown API Key"}, 401)
            query, offset = seen.query, 0
            if "cursor" in query:
                query = json.loads(bytes.fromhex(query["cursor"]))
                offset = query["offset"]
            found = sorted(
                (
                    article
                    for article in self.articles
                    if query["ticker"] in article["tickers"]
                    and query["published_utc.gte"] <= article["published_utc"] < query["published_utc.lt"]
                ),
                key=lambda article: article["published_utc"],
            )
            shown, end = found[offset : offset + self.page], offset + self.page
            content = {"status": "OK", "request_id": "x", "count": len(shown), "results": shown}
            if end < len(found):
                cursor = json.dumps({**query, "offset": end}).encode().hex()
                content["next_url"] = f"https://api.polygon.io:443/v2/reference/news?cursor={cursor}"
            return Reply(content)

        server.routes["/v2/reference/news"] = news


def utc(*parts: int) -> datetime:
    """A time in UTC."""
    return datetime(*parts, tzinfo=UTC)


def ask_of(home: Path, offer: str, symbols: tuple[str, ...], start: datetime, end: datetime, source: str = "vendor") -> Ask:
    """An ask in a project at `home` that has the default universe, over 2000-03 to 2013-03."""
    if not (home / "sources.yaml").is_file():
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "sources.yaml", home)
        set_span(home, date(2000, 3, 1), date(2013, 4, 1))
    settings = Settings(home=home, warehouse=home / "warehouse")
    return Ask(offer=offer, source=source, symbols=symbols, start=start, end=end, settings=settings)


def fast(server: VendorServer, path: str = "", **keys) -> dict:
    """Keys of a declaration whose vendor is the local server, and whose waits are short."""
    waits = {"backoff_s": 0.01, "timeout_s": 20, "attempts": 3, "requests_per_second": 1000, "give_up_after": 1000}
    return {"base_url": server.url + path} | waits | keys


def patience(trouble: Reply) -> dict:
    """A timeout that a hanging server runs into; others answer when the machine lets them."""
    return {"timeout_s": 0.7} if trouble.hang else {}


def conserved(delivery) -> bool:
    """Whether every record that came in is accounted for."""
    counts = delivery.counts
    return counts["received"] == sum(counts[name] for name in ("accepted", "outside_span", "quarantined", "duplicates"))
