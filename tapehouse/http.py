"""How vendors are asked over HTTP: at their pace, again where it may help, and never twice for the same answer.

Every answer is kept below `<warehouse>/cache/<source>/`, in a file named after the request without its key, so that a
second run asks the network nothing. Failures are never kept. A key is added to a request inside the transport, beneath
everything that logs, raises or remembers requests: no URL that one can see holds it.
"""

import hashlib
import logging
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode
from urllib.request import getproxies, proxy_bypass

import httpx
import orjson

from tapehouse.answers import Answer, keep, kept
from tapehouse.credentials import Credential, Key, Keyed
from tapehouse.errors import TapehouseError
from tapehouse.settings import Settings
from tapehouse.sources.vendor import Vendor

# Statuses that may pass by themselves: request timeout, too early, too many requests, and the server's own faults.
PASSING = (408, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT_S = 60.0
LOG = logging.getLogger(__name__)
SHOWN_BODY = 200  # characters of an error's body that are worth repeating


class RequestFailed(TapehouseError):
    """A request that failed for good. `status` is the HTTP status, where there was one; `body` what came with it."""

    def __init__(self, message: str, status: int | None = None, body: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class _Passing(Exception):
    """A failure that may pass. `wait` is the pause the vendor asked for, in seconds."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class _Wanted(NamedTuple):
    """What an answer must be like: see `Client.get`."""

    types: tuple[str, ...]
    check: Callable[[Any], str | None]
    nothing: tuple[int, str] | None


class Client:
    """Asks one source's vendor. Made by `client_of`, one a process and source, so that pace and failures are shared."""

    def __init__(self, declared: Vendor, source: str, settings: Settings, credential: Credential | None) -> None:
        self.declared, self.source, self.settings, self.credential = declared, source, settings, credential
        self.folder = settings.root / "cache" / source
        self._fixed: dict[tuple[str, str], Answer] = {}  # what never changes need not be looked up twice
        self._failed: dict[Path, tuple[float, RequestFailed]] = {}
        self._in_row: list[float] = []

    def get(
        self,
        url: str,
        params: dict[str, str] | None = None,
        *,
        types: Sequence[str] = ("json",),
        until: datetime | None = None,
        newer_than: datetime | None = None,
        version: str = "",
        check: Callable[[Any], str | None] = lambda content: None,
        nothing: tuple[int, str] | None = None,
    ) -> Answer:
        """The answer to a GET, from the cache where it is still good.

        Args:
            url: a path below `base_url`, or a whole URL.
            params: the query, without the key.
            types: words one of which the content type must hold; 'json' answers must also parse.
            until: the end of the range that the answer covers; None for what never changes.
            newer_than: an answer fetched before this is not good enough.
            version: sets apart answers to the same request, where something says that it has changed.
            check: says what is wrong with an answer (parsed where it is JSON, else bytes), so that it is not kept.
            nothing: (status, words): an error by which the vendor says that it has nothing for this request. That is an
                answer, kept as the JSON `null`.

        Raises:
            RequestFailed: for good, and nothing is cached from before.
            TapehouseError: the key is needed and not set.
        """
        address = url if url.startswith(("https://", "http://")) else f"{self.declared.base_url.rstrip('/')}/{url}"
        shown = f"{address}?{urlencode(params)}" if params else address
        fixed = until is None and newer_than is None and self.declared.recheck_days is None
        if fixed and (shown, version) in self._fixed:
            return self._fixed[shown, version]
        path = self._path(shown, version)
        held = kept(path)
        if held and self._good(held, until, newer_than):
            if fixed:
                self._fixed[shown, version] = held
            return held
        try:
            return self._fetched(path, address, params, shown, version, _Wanted(tuple(types), check, nothing))
        except RequestFailed as error:
            if held is None:
                raise
            LOG.warning("%s; the answer of %s is used", error, held.fetched_at.isoformat())
            return replace(held, stale=str(error))

    def _path(self, shown: str, version: str) -> Path:
        name = hashlib.sha256(f"{shown}\n{version}".encode()).hexdigest()
        return self.folder / name[:2] / name

    def _good(self, held: Answer, until: datetime | None, newer_than: datetime | None) -> bool:
        if newer_than and held.fetched_at < newer_than:
            return False
        age, declared = datetime.now(UTC) - held.fetched_at, self.declared
        if until and held.fetched_at < until + timedelta(hours=declared.settle_hours):
            return age < timedelta(hours=declared.refresh_hours)
        return declared.recheck_days is None or age < timedelta(days=declared.recheck_days)

    def _fetched(self, path: Path, address: str, params, shown: str, version: str, wanted: _Wanted) -> Answer:
        self._refuse_hopeless(path, shown)
        body, why, final = b"", "", None
        try:
            body = self._tried(address, params, wanted)
            self._in_row.clear()
        except _Passing as error:
            why = f"{error}; sent {self.declared.attempts} times at most"
            self._in_row.append(time.monotonic())
        except RequestFailed as error:
            final = error
        # Raised outside of the handlers: an exception's context would carry what httpx knows of the request.
        if final and final.status not in PASSING:
            self._in_row.clear()  # the vendor is up, and has refused this one request
        if why or final:
            failed = RequestFailed(
                self._key.hide(f"{self.source}: GET {shown}: {why or final}"),
                final.status if final else None,
                final.body if final else "",
            )
            self._failed[path] = time.monotonic(), failed
            raise failed
        return keep(path, shown, version, datetime.now(UTC), body)

    def _refuse_hopeless(self, path: Path, shown: str) -> None:
        """What failed a moment ago fails again: a range has many months, and each asks for the same years."""
        recent = time.monotonic() - 60 * self.declared.failure_minutes
        when, error = self._failed.get(path, (recent, None))
        if error and when > recent:
            raise RequestFailed(str(error), error.status, error.body)
        self._in_row = [when for when in self._in_row if when > recent]
        if len(self._in_row) >= self.declared.give_up_after:
            raise RequestFailed(f"{self.source}: GET {shown}: not sent, since the last {len(self._in_row)} requests failed")

    def _tried(self, address: str, params, wanted: _Wanted) -> bytes:
        import stamina
        from stamina.instrumentation import LoggingOnRetryHook, set_on_retry_hooks

        set_on_retry_hooks([LoggingOnRetryHook])  # its default prints, where structlog happens to be installed
        declared = self.declared
        for attempt in stamina.retry_context(
            on=self._pause,
            attempts=declared.attempts,
            timeout=None,
            wait_initial=declared.backoff_s,
            wait_max=LONGEST_WAIT_S,
            wait_jitter=declared.backoff_s,
        ):
            with attempt:
                body = self._once(address, params, wanted)
        return body

    def _pause(self, error: Exception) -> bool | float:
        if not isinstance(error, _Passing):
            return False
        return True if error.wait is None else error.wait + random.uniform(0, self.declared.backoff_s)

    def _once(self, address: str, params, wanted: _Wanted) -> bytes:
        self._pace.try_acquire(self.source)
        why, final, body, response, deadline = "", "", b"", None, time.monotonic() + self.declared.deadline_s
        try:
            with self._http.stream("GET", address, params=params) as response:
                parts = []
                for part in response.iter_bytes():
                    parts.append(part)
                    if time.monotonic() > deadline:
                        why = f"not all of it came within {self.declared.deadline_s} s"
                        break
                body = b"".join(parts)
        except httpx.InvalidURL as error:
            final = f"no address that can be asked ({error})"
        except httpx.TimeoutException as error:
            why = f"no answer within {self.declared.timeout_s} s ({type(error).__name__})"
        except (httpx.TransportError, httpx.DecodingError) as error:
            why = f"the connection failed ({type(error).__name__}: {error})"
        if final:
            raise RequestFailed(self._key.hide(final))
        if why:
            raise _Passing(self._key.hide(why))
        return self._judged(response, body, wanted)

    def _judged(self, response: httpx.Response, body: bytes, wanted: _Wanted) -> bytes:
        """The body, if it is what was asked for."""
        body = self._key.hide_bytes(body)
        said = self._key.hide(body.decode("utf-8", errors="replace")[:SHOWN_BODY].strip())
        status = f"HTTP {response.status_code} {response.reason_phrase}" + (f": {said}" if said else "")
        if response.status_code in PASSING:
            wait = retry_after(response.headers.get("Retry-After"))
            if wait is not None and wait > self.declared.longest_wait_s:
                raise RequestFailed(f"{status}; it asks to wait for {wait:.0f} s", response.status_code, said)
            raise _Passing(status, wait)
        if wanted.nothing and response.status_code == wanted.nothing[0] and wanted.nothing[1].encode() in body:
            return b"null"
        if response.status_code != 200:
            raise RequestFailed(status, response.status_code, said)
        kind = response.headers.get("Content-Type", "none")
        if not any(word in kind for word in wanted.types):
            expected = " or ".join(wanted.types)
            raise RequestFailed(f"content type {self._key.hide(kind)} instead of {expected}: {said}", 200, said)
        content, fault = _parsed(body) if "json" in kind else (body, None)
        if fault:
            raise _Passing(f"cut or damaged JSON ({fault}) of {len(body)} bytes")
        if fault := wanted.check(content):
            raise RequestFailed(f"{fault}: {said}", 200, said)
        return body

    @cached_property
    def _key(self) -> Key:
        return self.credential.read(self.settings) if self.credential else Key()

    @cached_property
    def _http(self) -> httpx.Client:
        below = httpx.HTTPTransport(proxy=_proxy(self.declared.base_url))
        # Its DEBUG lines repeat the headers of a response, in which a vendor may echo the key.
        logging.getLogger("httpcore").setLevel(logging.INFO)
        headers = {"User-Agent": self.declared.user_agent}
        transport = Keyed(self.credential, self._key, below) if self.credential else below
        return httpx.Client(transport=transport, timeout=self.declared.timeout_s, headers=headers)

    @cached_property
    def _pace(self):
        from pyrate_limiter import Limiter, Rate, SQLiteBucket

        file = self.settings.root / "cache" / f"pace-{self.declared.kind}.sqlite"
        file.parent.mkdir(parents=True, exist_ok=True)
        per_second = self.declared.requests_per_second
        rate = Rate(int(per_second), 1000) if per_second >= 1 else Rate(1, round(1000 / per_second))
        # A file under a lock, so that processes share one pace: the vendor sees one address.
        return Limiter(SQLiteBucket.init_from_file([rate], db_path=str(file), use_file_lock=True))


def client_of(declared: Vendor, source: str, settings: Settings, credential: Credential | None = None) -> Client:
    """The one client of this process for a source as declared."""
    return _client(type(declared), declared.model_dump_json(), source, settings, credential)


@lru_cache(maxsize=64)
def _client(kind: type[Vendor], declared: str, source: str, settings: Settings, credential: Credential | None) -> Client:
    return Client(kind.model_validate_json(declared), source, settings, credential)


def retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for: a number, or an HTTP date; None for none or nonsense."""
    if value is None:
        return None
    if re.fullmatch(r"\s*-?\d+(\.\d*)?\s*", value):
        return max(0.0, float(value))
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _proxy(url: str) -> str | None:
    """The proxy that the environment declares for a URL: httpx looks for none where it is given a transport."""
    parts = httpx.URL(url)
    return None if proxy_bypass(parts.host) else getproxies().get(parts.scheme)


def _parsed(body: bytes) -> tuple[Any, str | None]:
    """JSON, and what is wrong with its text."""
    try:
        return orjson.loads(body), None
    except orjson.JSONDecodeError as error:
        return None, str(error)
