import json
import logging
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.credentials import Credential
from tapehouse.errors import TapehouseError
from tapehouse.http import RequestFailed, client_of, retry_after
from tapehouse.sources.vendor import Vendor
from tests.vendor_server import (
    BROKEN,
    CUT,
    HANGS,
    TRUNCATED,
    WRONG_TYPE,
    Reply,
    VendorServer,
    ask_of,
    fast,
    patience,
    too_many,
    utc,
)

KEY = "s3cret+key/with=odd chars"
PARAMS = {"symbol": "AAPL", "year": "2004"}
PAST = utc(2005, 1, 1)
QUERY = Credential("VENDOR_API_KEY", "query", "token")
HEADER = Credential("VENDOR_API_KEY", "header", "Authorization", "Bearer ")


@pytest.fixture
def server():
    with VendorServer() as server:
        server.routes["/data"] = lambda seen: Reply({"echo": seen.query.get("symbol")})
        yield server


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("VENDOR_API_KEY", KEY)


def client(server, home, credential=QUERY, **keys):
    declared = Vendor(kind="vendor", **fast(server, **keys))
    return client_of(declared, "vendor", ask_of(home, "bars", (), PAST, PAST).settings, credential)


def test_an_answer_is_asked_for_once(server, tmp_path):
    asked = client(server, tmp_path)
    first = asked.get("data", PARAMS, until=PAST)
    assert first.json == {"echo": "AAPL"} and server.requests[0].query == PARAMS | {"token": KEY}
    assert asked.get("data", PARAMS, until=PAST) == first
    # A process of its own reads the same file.
    again = client(server, tmp_path, backoff_s=0.02).get("data", PARAMS, until=PAST)
    assert again == first and len(server.requests) == 1
    assert asked.get("data", PARAMS | {"year": "2005"}).json == first.json and len(server.requests) == 2


def test_a_key_may_travel_in_a_header(server, tmp_path):
    client(server, tmp_path, HEADER).get("data", PARAMS)
    assert server.requests[0].query == PARAMS and server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


def test_a_key_from_dotenv(server, tmp_path, monkeypatch):
    monkeypatch.delenv("VENDOR_API_KEY")
    asked = client(server, tmp_path)
    with pytest.raises(TapehouseError, match=r"VENDOR_API_KEY is set neither in the environment nor in .*\.env"):
        asked.get("data", PARAMS)
    assert not server.requests
    (tmp_path / ".env").write_text("VENDOR_API_KEY=from-a-file\n")
    asked.get("data", PARAMS)
    assert server.requests[0].query["token"] == "from-a-file"


def test_what_is_cached_needs_no_key(server, tmp_path, monkeypatch):
    client(server, tmp_path).get("data", PARAMS)
    monkeypatch.delenv("VENDOR_API_KEY")
    assert client(server, tmp_path, attempts=1).get("data", PARAMS).json == {"echo": "AAPL"}


def test_it_waits_as_long_as_it_is_told(server, tmp_path):
    server.misbehave("AAPL", too_many("0.2"), too_many("0"), forever=False)
    began = datetime.now(UTC)
    assert client(server, tmp_path).get("data", PARAMS).json == {"echo": "AAPL"}
    assert len(server.requests) == 3 and datetime.now(UTC) - began >= timedelta(seconds=0.2)


def test_a_wait_that_is_too_long(server, tmp_path):
    server.misbehave("AAPL", too_many("3600"))
    with pytest.raises(RequestFailed, match=r"HTTP 429 Too Many Requests.* asks to wait for 3600 s"):
        client(server, tmp_path).get("data", PARAMS)
    assert len(server.requests) == 1


@pytest.mark.parametrize("trouble", [BROKEN, HANGS, CUT, TRUNCATED, too_many(None), Reply("busy", 503, "text/plain")])
def test_what_may_pass_is_tried_again(server, tmp_path, trouble):
    server.misbehave("AAPL", trouble, trouble)
    assert client(server, tmp_path, **patience(trouble)).get("data", PARAMS).json == {"echo": "AAPL"}
    assert len(server.requests) == 3


FAILURES = {
    "500": (BROKEN, "HTTP 500 Internal Server Error: internal error; sent 3 times at most"),
    "timeout": (HANGS, r"no answer within 0.7 s \(ReadTimeout\)"),
    "cut": (CUT, r"the connection failed \(RemoteProtocolError: .*without sending complete message body"),
    "truncated": (TRUNCATED, "cut or damaged JSON .* of 27 bytes"),
    "429": (too_many("0"), "HTTP 429 Too Many Requests"),
    "type": (WRONG_TYPE, "content type text/html instead of json: <html>maintenance</html>"),
    "404": (Reply("Ticker Not Found.", 404, "text/plain"), "HTTP 404 Not Found: Ticker Not Found"),
    "redirect": (Reply("", 302, headers={"Location": f"/login?token={KEY}"}), "HTTP 302 Found"),
    "echo": (Reply(f"the token {KEY} is not valid", 403, "text/plain"), r"HTTP 403 Forbidden: the token \[key\] is not valid"),
    "echo in 500": (Reply(f"cannot log {KEY}", 500, "text/plain"), r"cannot log \[key\]"),
    "echo in type": (Reply("x", 200, f"text/{KEY}"), r"content type text/\[key\] instead of json"),
    "quoted echo": (Reply("/data?token=s3cret%2Bkey%2Fwith%3Dodd%20chars", 400, "text/plain"), r"token=\[key\]"),
    "unexpected": (Reply({"error": KEY}), r"expected a list: {.error.: .\[key\].}"),
}


def forms(key: str) -> set[str]:
    from urllib.parse import quote, quote_plus

    return {key, quote(key, safe=""), quote(key), quote_plus(key), key.split("+")[0]}


def chain(error: BaseException | None) -> str:
    """All that an error and those behind it say, however they are linked."""
    text, seen = "", set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        text += repr(error) + repr(vars(error)) + "".join(traceback.format_exception(error))
        for linked in vars(error).values():
            text += repr(getattr(linked, "url", ""))
        error = error.__cause__ or error.__context__
    return text


@pytest.mark.parametrize("credential", [QUERY, HEADER], ids=["query", "header"])
@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_shows_the_key_or_is_kept(server, tmp_path, caplog, capfd, failure, credential):
    caplog.set_level(logging.DEBUG)
    reply, said = FAILURES[failure]
    server.misbehave("AAPL", reply, forever=True)
    asked = client(server, tmp_path, credential, **patience(reply))
    with pytest.raises(RequestFailed, match=said) as raised:
        asked.get("data", PARAMS, check=lambda content: None if isinstance(content, list) else "expected a list")
    assert str(raised.value).startswith(f"vendor: GET {server.url}/data?symbol=AAPL&year=2004: ")
    logs = "\n".join(record.getMessage() + str(vars(record)) for record in caplog.records)
    shown = chain(raised.value) + logs + "".join(capfd.readouterr()) + repr(asked) + repr(vars(asked))
    files = [path for path in (tmp_path / "warehouse").rglob("*") if path.is_file() and "pace" not in path.name]
    assert not [form for form in forms(KEY) if form in shown] and not files
    assert failure == "timeout" or "HTTP Request: GET" in logs  # httpx did log the request, without the key
    sent = len(server.requests)
    with pytest.raises(RequestFailed, match=said):
        asked.get("data", PARAMS)
    assert len(server.requests) == sent, "a request that failed is not sent again at once"


def test_an_answer_that_repeats_the_key(server, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    server.routes["/echo"] = lambda seen: Reply({"you sent": seen.query["token"], "rows": []})
    answer = client(server, tmp_path).get("echo", PARAMS)
    assert answer.json == {"you sent": "[key]", "rows": []}
    kept = b"".join(path.read_bytes() for path in (tmp_path / "warehouse").rglob("*") if path.is_file())
    assert not [form for form in forms(KEY) if form.encode() in kept + answer.body or form in caplog.text]


def test_failures_are_forgotten_in_time(server, tmp_path):
    server.misbehave("AAPL", BROKEN, BROKEN, BROKEN)
    asked = client(server, tmp_path, failure_minutes=0)
    with pytest.raises(RequestFailed):
        asked.get("data", PARAMS)
    assert asked.get("data", PARAMS).json == {"echo": "AAPL"}


def test_a_vendor_that_is_down_is_left_alone(server, tmp_path):
    server.misbehave("data", BROKEN, forever=True)
    asked = client(server, tmp_path, attempts=1, give_up_after=2)
    for year in ("2001", "2002"):
        with pytest.raises(RequestFailed, match="HTTP 500"):
            asked.get("data", {"year": year})
    with pytest.raises(RequestFailed, match="year=2003: not sent, since the last 2 requests failed"):
        asked.get("data", {"year": "2003"})
    assert len(server.requests) == 2


def test_a_refusal_does_not_mean_that_a_vendor_is_down(server, tmp_path):
    asked = client(server, tmp_path, attempts=1, give_up_after=1)
    for symbol in ("NONE", "NADA"):
        with pytest.raises(RequestFailed, match="HTTP 404"):
            asked.get("missing", {"symbol": symbol})


def test_an_address_that_cannot_be_asked(server, tmp_path):
    with pytest.raises(RequestFailed, match="no address that can be asked"):
        client(server, tmp_path).get("a\x00b")
    with pytest.raises(RequestFailed, match="HTTP 404"):  # below the base address, wherever it would like to be
        client(server, tmp_path).get("x/https://elsewhere.example.org")
    assert server.requests[0].path == "/x/https://elsewhere.example.org"


def test_nothing_listens(tmp_path, server):
    gone = VendorServer()
    with gone:
        asked = client(gone, tmp_path, attempts=2)
    with pytest.raises(RequestFailed, match=r"the connection failed \(ConnectError"):
        asked.get("data", PARAMS)


def test_the_live_edge(server, tmp_path):
    values = iter(range(100))
    server.routes["/data"] = lambda seen: Reply([next(values)])
    live = datetime.now(UTC) + timedelta(days=3)
    eager = client(server, tmp_path, refresh_hours=0)
    assert eager.get("data", PARAMS, until=live).json == [0]
    assert eager.get("data", PARAMS, until=live).json == [1]
    # What is over stays, whatever `refresh_hours` says; yet a day that has just ended is not settled.
    assert eager.get("data", PARAMS, until=PAST).json == [1]
    assert eager.get("data", PARAMS, until=datetime.now(UTC) - timedelta(hours=1)).json == [2]
    assert client(server, tmp_path, refresh_hours=1).get("data", PARAMS, until=live).json == [2]
    assert client(server, tmp_path, recheck_days=0).get("data", PARAMS, until=PAST).json == [3]
    assert client(server, tmp_path, recheck_days=1).get("data", PARAMS, until=PAST).json == [3]
    answer = eager.get("data", PARAMS)
    assert eager.get("data", PARAMS, newer_than=answer.fetched_at) == answer
    assert eager.get("data", PARAMS, newer_than=datetime.now(UTC)).json == [4]
    assert eager.get("data", PARAMS, version="2").json == [5]


def test_the_last_answer_is_kept_where_no_newer_can_be_had(server, tmp_path, caplog):
    live = datetime.now(UTC) + timedelta(days=3)
    asked = client(server, tmp_path, refresh_hours=0)
    first = asked.get("data", PARAMS, until=live)
    server.misbehave("AAPL", BROKEN, forever=True)
    second = asked.get("data", PARAMS, until=live)
    assert second.json == first.json and second.fetched_at == first.fetched_at
    assert first.stale is None and "HTTP 500" in second.stale and "the answer of 20" in caplog.text and KEY not in caplog.text


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    asked = client(server, tmp_path)
    path = asked.get("data", PARAMS).path
    for damage in (b"", b"{}", path.read_bytes()[:-5], b"{}\n" + path.read_bytes()):
        path.write_bytes(damage)
        assert asked.get("data", PARAMS).json == {"echo": "AAPL"}
    assert len(server.requests) == 5


def test_the_pace_is_shared_by_clients(server, tmp_path):
    slow = [client(server, tmp_path, requests_per_second=rate) for rate in (4, 4.5)]  # two processes would be two clients
    began = datetime.now(UTC)
    for year in range(6):
        slow[year % 2].get("data", {"year": str(year)})
    assert datetime.now(UTC) - began >= timedelta(seconds=0.9)


@given(st.integers(0, 10**6))
def test_retry_after_as_a_date(seconds):
    when = datetime.now(UTC) + timedelta(seconds=seconds)
    assert abs(retry_after(format_datetime(when, usegmt=True)) - seconds) < 3
    assert retry_after(str(seconds)) == seconds


def test_retry_after_that_says_nothing():
    assert retry_after(None) is None and retry_after("soon") is None and retry_after("-3") == 0
    assert retry_after("nan") is None


@given(body=st.recursive(st.none() | st.text() | st.integers(-(2**53), 2**53), lambda inner: st.lists(inner, max_size=3)))
def test_what_is_kept_is_what_came(tmp_path_factory, body):
    from tapehouse.answers import keep, kept

    path = tmp_path_factory.mktemp("cache") / "answer"
    written = keep(path, "GET x", "", datetime.now(UTC), json.dumps(body).encode())
    assert kept(path) == written and written.json == body
