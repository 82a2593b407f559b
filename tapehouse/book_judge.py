"""Judging one line of a recorded stream: a receive time in ns, a blank, and the exchange's message as JSON.

The messages are Binance's (developers.binance.com): `depthUpdate`, `bookTicker` and `trade` events, wrapped as
`{"stream": …, "data": …}` or bare, and the answer of the depth request, a bare `{"lastUpdateId": …, "bids": …, "asks": …}`.
Futures differ from spot: differences have `pu` and `T`, tickers have `e`, `E` and `T`, trades `X` where spot has `M`, and
the snapshot has `E` and `T`. So each message says of which market it is. Fields that are not named here are ignored.

The local clock of a recording may differ from the exchange's by seconds, so that a message can be received before it was
sent: the two times are kept as they are.
"""

import re
from dataclasses import dataclass
from typing import Any

import orjson

from tapehouse.book_messages import DIFF, SNAPSHOT, TICKER, TRADE

RECEIVED = re.compile(rb"([0-9]{1,19}) ")
DECIMAL = re.compile(r"(-?)[0-9]{1,18}(\.[0-9]{1,18})?")
PARTIAL = re.compile(r"@depth[0-9]")  # the stream of the best 5, 10 or 20 levels alone
EARLIEST_MS, LATEST_MS = 946_684_800_000, 4_102_444_800_000  # the years 2000 to 2099
LARGEST_ID = 10**18
SPOT, FUTURES = 0, 1
MARKET_NAMES = ("spot", "futures")


@dataclass(frozen=True, slots=True)
class Message:
    """A usable message.

    Attributes:
        kind, market: codes. symbol: as the exchange writes it; None for a snapshot, which names none.
        received_ns: when it arrived. event_ms: when it happened by the exchange's clock, -1 where it does not say.
        first_id, last_id, previous_id: U, u, pu; -1 where there is none. A trade has its id as the last.
        bids, asks: price and size of each level; a trade has one bid, its price and size.
        sold: whether a trade's aggressor sold.
    """

    kind: int
    market: int
    symbol: str | None
    received_ns: int
    event_ms: int
    first_id: int
    last_id: int
    previous_id: int
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]
    sold: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a line cannot be used, and what it says for itself nevertheless.

    Attributes:
        kind: code, None where that cannot be told.
    """

    reason: str
    kind: int | None = None
    symbol: str | None = None
    received_ns: int | None = None


def judge(line: bytes, market: int | None = None) -> Message | Fault:
    """The message of a line without its line feed, or every reason why it cannot be used.

    Args:
        market: the only one whose messages are taken; None takes either.
    """
    head = RECEIVED.match(line)
    if head is None:
        return Fault("no receive time in ns, followed by a blank, before the message")
    received = int(head[1])
    if not EARLIEST_MS <= received // 1_000_000 < LATEST_MS:
        return Fault(f"the receive time {received} is not one in ns of the years 2000 to 2099")
    try:
        content = orjson.loads(line[head.end() :])
    except orjson.JSONDecodeError as error:
        return Fault(f"not JSON: {error}", received_ns=received)
    stream = None
    if isinstance(content, dict) and "data" in content:
        stream, content = content.get("stream"), content["data"]
        if not isinstance(stream, str):
            return Fault("stream is not text", received_ns=received)
    if not isinstance(content, dict):
        return Fault("the message is not an object", received_ns=received)
    return _message(content, stream, received, market)


def _message(data: dict[str, Any], stream: str | None, received: int, market: int | None) -> Message | Fault:
    event = data.get("e")
    fields = _Fields(data)
    bids, asks, sold, first, previous = [], [], False, -1, -1
    if event == "depthUpdate":
        kind, of = DIFF, FUTURES if "pu" in data or "T" in data else SPOT
        first, last, bids, asks = fields.id("U"), fields.id("u"), fields.levels("b"), fields.levels("a")
        if of == FUTURES:
            previous = fields.id("pu")
        if first > last >= 0:
            fields.faults.append("U is above u")
        if previous > last >= 0:
            fields.faults.append("pu is above u")
        if stream is not None and PARTIAL.search(stream):
            fields.faults.append("the stream gives the best levels alone: they are no differences")
        at = fields.time("T" if of == FUTURES else "E")
    elif event == "bookTicker" or (event is None and "lastUpdateId" not in data and {"u", "b", "B", "a", "A"} & data.keys()):
        kind, of = TICKER, FUTURES if event is not None or "T" in data or "E" in data else SPOT
        if of == FUTURES and event is None:
            fields.faults.append("missing e")
        last = fields.id("u")
        bids, asks = [(fields.number("b"), fields.number("B"))], [(fields.number("a"), fields.number("A"))]
        at = fields.time("T") if of == FUTURES else -1
    elif event == "trade":
        kind, of = TRADE, FUTURES if "X" in data else SPOT
        if of == FUTURES and data["X"] != "MARKET":
            fields.faults.append(f"a trade of type {data['X']!r} is none between two orders")
        if ("X" in data) == ("M" in data):
            fields.faults.append("of X and M one is needed, to tell futures from spot")
        last, bids = fields.id("t"), [(fields.number("p", above_zero=True), fields.number("q", above_zero=True))]
        sold, at = fields.flag("m"), fields.time("T")
    elif event is None and "lastUpdateId" in data:
        kind, of = SNAPSHOT, FUTURES if "T" in data or "E" in data else SPOT
        last, bids, asks = fields.id("lastUpdateId"), fields.levels("bids"), fields.levels("asks")
        at = fields.time("T") if of == FUTURES else -1
        if stream is not None:
            fields.faults.append("the stream gives the best levels alone: they are no snapshot of the book")
    else:
        return Fault(f"unknown event {event!r}" if event is not None else "unknown message", received_ns=received)
    symbol = None if kind == SNAPSHOT else fields.text("s")
    if market is not None and of != market:
        fields.faults.append(f"a message of the {MARKET_NAMES[of]} market, declared {MARKET_NAMES[market]}")
    if fields.faults:
        return Fault("; ".join(fields.faults), kind, symbol or None, received)
    return Message(kind, of, symbol, received, at, first, last, previous, bids, asks, sold)


class _Fields:
    """Typed fields of a message; what is missing or ill-typed is added to `faults` and read as -1, NaN, empty or False."""

    def __init__(self, data: dict[str, Any]):
        self.data = data
        self.faults: list[str] = []

    def id(self, name: str) -> int:
        value = self._whole(name)
        if value is not None and not 0 <= value < LARGEST_ID:
            self.faults.append(f"{name} is no update id: {value}")
            value = None
        return -1 if value is None else value

    def time(self, name: str) -> int:
        value = self._whole(name)
        if value is not None and not EARLIEST_MS <= value < LATEST_MS:
            self.faults.append(f"{name} is no time in ms of the years 2000 to 2099: {value}")
        return -1 if value is None else value

    def _whole(self, name: str) -> int | None:
        value = self.data.get(name)
        if type(value) is int:
            return value
        self.faults.append(f"{name} is not a whole number: {_shown(value)}" if name in self.data else f"missing {name}")
        return None

    def text(self, name: str) -> str:
        value = self.data.get(name)
        if isinstance(value, str) and value:
            return value
        self.faults.append(f"{name} is not text: {_shown(value)}" if name in self.data else f"missing {name}")
        return ""

    def flag(self, name: str) -> bool:
        value = self.data.get(name)
        if not isinstance(value, bool):
            self.faults.append(f"{name} is neither true nor false: {_shown(value)}" if name in self.data else f"missing {name}")
        return value is True

    def number(self, name: str, above_zero: bool = False) -> float:
        if name not in self.data:
            self.faults.append(f"missing {name}")
            return float("nan")
        value, fault = _decimal(self.data[name])
        if fault or (above_zero and value == 0):
            self.faults.append(f"{name} {fault or 'is not above zero'}")
        return value

    def levels(self, name: str) -> list[tuple[float, float]]:
        value = self.data.get(name)
        if not isinstance(value, list):
            self.faults.append(f"{name} is not a list: {_shown(value)}" if name in self.data else f"missing {name}")
            return []
        found = []
        for number, level in enumerate(value, start=1):
            if not isinstance(level, list) or len(level) != 2:
                self.faults.append(f"level {number} of {name} is not a price and a size: {_shown(level)}")
                return []
            (price, price_fault), (size, size_fault) = _decimal(level[0]), _decimal(level[1])
            fault = price_fault or ("is not above zero" if price == 0 else "")
            if fault or size_fault:
                what = f"price {fault}" if fault else f"size {size_fault}"
                self.faults.append(f"level {number} of {name}: {what}")
                return []
            found.append((price, size))
        return found


def _decimal(value: Any) -> tuple[float, str]:
    match = DECIMAL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return float("nan"), f"is not a decimal number in quotes: {_shown(value)}"
    return float(value), "is below zero" if match[1] else ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
