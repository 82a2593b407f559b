"""Recorded streams: what a line means, that no line is lost, and that the scanner of bytes agrees with the judge."""

import gzip
import json
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tapehouse.book_files as book_files
from tapehouse.book_files import Batch, StreamReader
from tapehouse.book_inflate import CUT_OFF, DAMAGED, inflate
from tapehouse.book_judge import Fault, judge
from tapehouse.book_messages import BOOK_SCHEMA, TRADE_SCHEMA, arrival_order
from tapehouse.book_scan import FIELDS, LONGEST_SYMBOL, PADDING, scan
from tapehouse.simulated_books import StreamShape, simulate_day
from tapehouse.simulated_streams import corrupt, stream_lines, write_stream

RECORDED = Path(__file__).parents[3] / "shared" / "data" / "book"
AT = 1723161255030314667
SPOT_DIFF = (
    b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1723161255208,"s":"BTCUSDT","U":5,"u":8,'
    b'"b":[["61737.63000000","0.00000000"],["61730.17000000","1.50000000"]],"a":[]}}'
)
FUTURES_DIFF = (
    b'{"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1723161256299,"T":1723161256298,"s":"BTCUSDT","U":5,"u":8,"pu":3,'
    b'"b":[],"a":[["61800.30","3.330"]]}}'
)
SPOT_TICKER = b'{"stream":"btcusdt@bookTicker","data":{"u":9,"s":"BTCUSDT","b":"1.10","B":"2","a":"1.20","A":"3"}}'
FUTURES_TICKER = (
    b'{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":9,"s":"BTCUSDT","b":"1.10","B":"2","a":"1.20","A":"3",'
    b'"T":1723161256313,"E":1723161256313}}'
)
SPOT_TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255343,"s":"BTCUSDT","t":7,"p":"61837.63","q":"0.02",'
    b'"T":1723161255342,"m":true,"M":true}}'
)
FUTURES_TRADE = (
    b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161256322,"T":1723161256322,"s":"BTCUSDT","t":7,"p":"61800.30",'
    b'"q":"0.006","X":"MARKET","m":false}}'
)
SPOT_SNAPSHOT = b'{"lastUpdateId":6,"bids":[["1.1","2"]],"asks":[["1.2","3"],["1.3","4"]]}'
FUTURES_SNAPSHOT = b'{"lastUpdateId":6,"E":1723161256501,"T":1723161256493,"bids":[["1.1","2"]],"asks":[]}'
GOOD = (SPOT_DIFF, FUTURES_DIFF, SPOT_TICKER, FUTURES_TICKER, SPOT_TRADE, FUTURES_TRADE, SPOT_SNAPSHOT, FUTURES_SNAPSHOT)


def stamped(*messages: bytes) -> list[bytes]:
    return [b"%d %s" % (AT + n * 1_000_000, message) for n, message in enumerate(messages)]


def read(path: Path, lines: list[bytes] | None = None, **declared) -> Batch:
    """All of a file (written first, where lines are given) as one batch."""
    if lines is not None:
        write_stream(path, lines)
    batches = list(StreamReader(path, "recorded", **declared).batches())
    empty = pl.DataFrame(schema=BOOK_SCHEMA), pl.DataFrame(schema=TRADE_SCHEMA)
    return Batch(
        sum(batch.lines for batch in batches),
        pl.concat([empty[0], *(batch.book for batch in batches)]),
        pl.concat([empty[1], *(batch.trades for batch in batches)]),
        pl.concat([batch.rejected for batch in batches]) if batches else pl.DataFrame(),
    )


def test_every_kind_of_message_by_hand(tmp_path):
    got = read(tmp_path / "stream.gz", stamped(*GOOD))
    assert (got.lines, got.book.height, got.trades.height, got.rejected.height) == (8, 6, 2, 0)
    rows = got.book.to_dicts()
    assert [(r["market"], r["kind"]) for r in rows] == [
        *[("spot", "diff"), ("futures", "diff"), ("spot", "ticker"), ("futures", "ticker")],
        *[("spot", "snapshot"), ("futures", "snapshot")],
    ]
    assert {r["symbol"] for r in rows} == {"BTCUSDT"}  # the snapshots, too: the file holds no other
    first = rows[0]
    assert (first["first_id"], first["last_id"], first["previous_id"]) == (5, 8, None)
    assert (first["bid_prices"], first["bid_sizes"], first["ask_prices"]) == ([61737.63, 61730.17], [0.0, 1.5], [])
    assert first["event_at"] == datetime(2024, 8, 8, 23, 54, 15, 208_000, UTC)
    # Received before it was sent, by the receiver's clock; and rounded up to the microsecond.
    assert first["known_at"] == datetime(2024, 8, 8, 23, 54, 15, 30_315, UTC)
    assert (first["received_ns"], first["sequence"]) == (AT, AT)
    assert (rows[1]["previous_id"], rows[1]["event_at"].microsecond) == (3, 298_000)  # T, not E
    assert rows[2]["event_at"] == rows[2]["known_at"]  # a spot ticker says no time
    assert (rows[3]["bid_prices"], rows[3]["ask_sizes"]) == ([1.1], [3.0])
    assert rows[4]["ask_sizes"] == [3.0, 4.0]
    trades = got.trades.select("market", "trade_id", "price", "size", "side").rows()
    assert trades == [("spot", 7, 61837.63, 0.02, "sell"), ("futures", 7, 61800.3, 0.006, "buy")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "no receive time"),
        (SPOT_DIFF, "no receive time"),
        (b"17231612 " + SPOT_DIFF, "is not one in ns of the years"),
        (b"%d %s" % (AT, SPOT_DIFF[:-1]), "not JSON"),
        (b"%d 5" % AT, "the message is not an object"),
        (b"%d {}" % AT, "unknown message"),
        (b'%d {"result":null,"id":1}' % AT, "unknown message"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b"depthUpdate", b"aggTrade")), "unknown event 'aggTrade'"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b'"u":8,', b"")), "missing u"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b'"u":8', b'"u":"8"')), "u is not a whole number: '8'"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b'"u":8', b'"u":4')), "U is above u"),
        (b"%d %s" % (AT, FUTURES_DIFF.replace(b'"pu":3,', b"")), "missing pu"),
        (b"%d %s" % (AT, FUTURES_DIFF.replace(b'"T":1723161256298,', b"")), "missing T"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b'"1.50000000"', b'"-1.5"')), "level 2 of b: size is below zero"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b'"1.50000000"', b"1.5")), "size is not a decimal number in quotes: 1.5"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b'"61730.17000000"', b'"0.00"')), "level 2 of b: price is not above zero"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b'"61730.17000000"', b'"1e5"')), "is not a decimal number"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b'"a":[]', b'"a":[["1"]]')), "level 1 of a is not a price and a size"),
        (b"%d %s" % (AT, SPOT_DIFF.replace(b"@depth@", b"@depth20@")), "the stream gives the best levels alone"),
        (b'%d {"stream":"btcusdt@depth5","data":%s}' % (AT, SPOT_SNAPSHOT), "they are no snapshot of the book"),
        (b"%d %s" % (AT, FUTURES_TRADE.replace(b"MARKET", b"INSURANCE_FUND")), "is none between two orders"),
        (b"%d %s" % (AT, SPOT_TRADE.replace(b'"m":true', b'"m":1')), "m is neither true nor false"),
        (b"%d %s" % (AT, SPOT_TRADE.replace(b'"q":"0.02"', b'"q":"0.00"')), "q is not above zero"),
        (b"%d %s" % (AT, SPOT_TRADE.replace(b'"T":1723161255342', b'"T":17')), "T is no time in ms"),
        (b"%d %s" % (AT, FUTURES_TICKER.replace(b'"e":"bookTicker",', b"")), "missing e"),
        (b"%d %s" % (AT, SPOT_SNAPSHOT), "a snapshot names no symbol, and no message before it does"),
    ],
)
def test_an_unusable_line_is_kept_with_its_reason(tmp_path, line, reason):
    got = read(tmp_path / "stream.gz", [line, stamped(SPOT_TICKER)[0]])
    assert (got.lines, got.book.height, got.trades.height, got.rejected.height) == (2, 1, 0, 1)
    reject = got.rejected.to_dicts()[0]
    assert reason in reject["reason"]
    assert reject["origin"] == "stream.gz:1"
    assert reject["table_name"] == ("raw.trades" if b'"trade"' in line else "raw.book_events")
    assert json.loads(reject["record"])["line"].encode() == line


def test_markets_and_symbols_that_are_not_declared(tmp_path):
    lines = stamped(*GOOD, SPOT_TICKER.replace(b"BTCUSDT", b"ETHUSDT"))
    got = read(tmp_path / "stream.txt", lines, market="futures", symbols={"BTCUSDT": "BTC-PERP"})
    assert got.book.select("symbol", "market").unique().rows() == [("BTC-PERP", "futures")]
    assert got.book.height == 3
    assert got.rejected["reason"].to_list() == [
        *["a message of the spot market, declared futures"] * 4,
        "a message of the spot market, declared futures",
    ]
    several = read(tmp_path / "two.txt", [*lines, *stamped(SPOT_SNAPSHOT)], symbols={"BTCUSDT": "A", "ETHUSDT": "B"})
    assert several.rejected["reason"].str.contains("a snapshot names no symbol, and").all()
    unknown = read(tmp_path / "one.txt", lines, symbols={"BTCUSDT": "A"})
    assert unknown.rejected.select("reason", "symbol").rows() == [("unknown symbol", "ETHUSDT")]


def test_what_is_not_written_in_the_usual_form_is_read_all_the_same(tmp_path):
    loose = [json.dumps(json.loads(message)).encode() for message in GOOD]  # with blanks
    bare = [orjson.dumps(json.loads(message).get("data", json.loads(message)) | {"new": [1, {}]}) for message in GOOD]
    usual = read(tmp_path / "usual.gz", stamped(*GOOD))
    for lines in (stamped(*loose), stamped(*bare), [line + b"\r" for line in stamped(*GOOD)]):
        got = read(tmp_path / "other.gz", lines)
        assert not got.rejected.height
        assert got.book.equals(usual.book)
        assert got.trades.equals(usual.trades)


def test_the_order_of_arrival_ascends_whatever_the_clock_does():
    times = np.array([5, 5, 9, 3, 10, 20])
    assert arrival_order(times).tolist() == [5, 6, 9, 10, 11, 20]
    assert arrival_order(times, after=8).tolist() == [9, 10, 11, 12, 13, 20]
    pieces = arrival_order(times[:3]), arrival_order(times[3:], after=9)
    assert np.concatenate(pieces).tolist() == arrival_order(times).tolist()


def test_a_file_that_is_cut_off_gives_what_came_before(tmp_path):
    lines = stamped(*[SPOT_TICKER] * 2000)
    path = write_stream(tmp_path / "stream.gz", lines)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    got = read(path)
    assert 500 < got.book.height < 2000
    assert (got.rejected["reason"].to_list(), got.lines) == ([CUT_OFF], got.book.height + 1)
    assert got.rejected["filed_at"][0] == got.book["known_at"][-1]
    # Damage in the middle; a wrong check sum at the end loses nothing but is told.
    path.write_bytes(whole[:1000] + b"\xff" * 40 + whole[1040:])
    got = read(path)
    assert (got.rejected["reason"][-1], got.lines) == (DAMAGED, got.book.height + got.rejected.height)
    path.write_bytes(whole[:-8] + bytes(8))
    got = read(path)
    assert (got.book.height, got.rejected["reason"].to_list()) == (2000, [DAMAGED])


def test_files_of_several_streams_plain_files_and_last_lines(tmp_path):
    lines = stamped(*[SPOT_TICKER] * 10)
    path = tmp_path / "joined.gz"
    path.write_bytes(gzip.compress(b"\n".join(lines[:4]) + b"\n") + gzip.compress(b"\n".join(lines[4:])) + bytes(512))
    assert b"".join(inflate(path, 100)) == b"\n".join(lines)
    got = read(path)
    assert (got.lines, got.book.height) == (10, 10)  # the last line needs no line feed
    plain = read(tmp_path / "plain.txt", lines)
    assert plain.book.equals(got.book)
    (tmp_path / "empty.gz").write_bytes(b"")
    assert read(tmp_path / "empty.gz").lines == 0


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(book_files, "LONGEST_LINE", 2000)
    path = tmp_path / "stream.txt"
    path.write_bytes(stamped(SPOT_TICKER)[0] + b"\n" + b"x" * 9000 + b"\n" + stamped(SPOT_TICKER)[0])
    got = read(path, chunk=500)
    assert (got.lines, got.book.height) == (3, 2)
    assert got.rejected["origin"].to_list() == ["stream.txt:2"]
    dropped = 9000 - len(json.loads(got.rejected["record"][0])["line"])
    assert got.rejected["reason"].to_list() == [f"a line without end: {dropped} more bytes of it are not kept"]
    path.write_bytes(b"y" * 9000)
    assert read(path, chunk=500).rejected["reason"][0].startswith("a line without end")


def test_no_file_is_read_whole(tmp_path):
    day = simulate_day(3, "SIM:T", date(2024, 1, 5), StreamShape("spot", messages_per_second=0.01))
    path = write_stream(tmp_path / "stream.gz", stream_lines(day.book, day.trades))
    whole = read(path)
    for chunk in (200, 5_000):
        batches = list(StreamReader(path, "recorded", chunk=chunk).batches())
        assert len(batches) > 20
        assert pl.concat([batch.book for batch in batches]).equals(whole.book)
        assert pl.concat([batch.trades for batch in batches]).equals(whole.trades)


@settings(max_examples=150, deadline=None)
@given(
    which=st.lists(st.integers(0, len(GOOD) - 1), min_size=1, max_size=12),
    broken=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
    noise=st.lists(st.binary(max_size=40), max_size=3),
)
def test_nothing_is_lost_and_the_scanner_agrees_with_the_judge(tmp_path_factory, which, broken, seed, noise):
    """In = accepted + quarantined, whatever was done to the lines; each with the values or reasons that the judge gives."""
    random = np.random.default_rng(seed)
    lines = [corrupt(line, random) if random.random() < broken else line for line in stamped(*(GOOD[n] for n in which))]
    lines = [*lines, *noise]
    text = b"\n".join(lines)
    path = tmp_path_factory.getbasetemp() / "fuzzed.txt"
    path.write_bytes(text)
    received = text.removesuffix(b"\n").split(b"\n") if text else []
    got = read(path, symbols={"BTCUSDT": "B"}) if text else None
    if got is None:
        return
    assert got.lines == len(received) == got.book.height + got.trades.height + got.rejected.height
    verdicts = [judge(line.removesuffix(b"\r")) for line in received]
    taken = [v for v in verdicts if not isinstance(v, Fault) and v.symbol in ("BTCUSDT", None)]
    assert len(taken) == got.book.height + got.trades.height
    events = [v for v in taken if v.kind != 3]
    assert got.book["last_id"].to_list() == [v.last_id for v in events]
    assert got.book["received_ns"].to_list() == [v.received_ns for v in events]
    assert got.book["bid_prices"].to_list() == [[p for p, _ in v.bids] for v in events]
    assert got.book["ask_sizes"].to_list() == [[s for _, s in v.asks] for v in events]
    assert got.trades["price"].to_list() == [v.bids[0][0] for v in taken if v.kind == 3]
    reasons = [v.reason for v in verdicts if isinstance(v, Fault)]
    assert [r for r in got.rejected["reason"] if r != "unknown symbol"] == reasons


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_at_all(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "bytes.gz"
    path.write_bytes(content)
    got = read(path)
    if not content.startswith(b"\x1f\x8b"):
        assert got.lines == len(content.removesuffix(b"\n").split(b"\n")) if content else got.lines == 0
    assert got.lines == got.book.height + got.trades.height + (got.rejected.height if got.lines else 0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**17), st.integers(0, 17))
def test_a_decimal_is_the_double_that_python_reads(tmp_path_factory, digits, point):
    text = str(digits).rjust(point + 1, "0")
    text = f"{text[: len(text) - point]}.{text[len(text) - point :]}" if point else text
    message = SPOT_TICKER.replace(b'"1.10"', f'"{text}"'.encode())
    got = read(tmp_path_factory.getbasetemp() / "decimal.txt", stamped(SPOT_TICKER, message))
    if not got.rejected.height:
        assert got.book["bid_prices"][1].to_list() == [float(text)]
    else:
        assert len(text.split(".")[0]) > 18


@pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded streams are not here")
@pytest.mark.parametrize("name", ["usdm", "spot"])
def test_the_scanner_takes_every_real_line_but_the_snapshot(name):
    text = gzip.decompress((RECORDED / f"binance_{name}_btcusdt_20240808.gz").read_bytes())
    rows = text.count(b"\n")
    known = np.zeros((1, 1 + LONGEST_SYMBOL), np.uint8)
    known[0, :8] = [7, *b"BTCUSDT"]
    room = (
        np.zeros((rows, FIELDS), np.int64),
        np.zeros((rows + 1, 2), np.int64),
        tuple(np.zeros(len(text) // 10) for _ in range(4)),
    )
    at, taken, left = 0, 0, []
    while at < len(text):
        at, taken = scan(np.frombuffer(text + PADDING, np.uint8), at, len(text), -1, known, *room, np.zeros((rows, 2)), taken)
        if at < len(text):
            end = text.index(b"\n", at)
            left.append(text[at:end])
            at = end + 1
    assert (taken, len(left)) == (rows - 1, 1)
    assert b'{"lastUpdateId"' in left[0]
