"""Simulated streams in the format of recorded files, and what goes wrong with such files, on purpose and by a seed."""

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import polars as pl


def stream_lines(book: pl.DataFrame, trades: pl.DataFrame | None = None) -> Iterator[bytes]:
    """Lines `<receive time in ns> <message as JSON>`, without line feeds, in the order of arrival.

    Args:
        book, trades: rows of `raw.book_events` and `raw.trades` of one symbol and market.
    """
    rows = [(row["received_ns"], 0, row["sequence"], row) for row in book.iter_rows(named=True)]
    if trades is not None:
        rows += [(row["received_ns"], 1, row["trade_id"], row) for row in trades.iter_rows(named=True)]
    for received, is_trade, _, row in sorted(rows, key=lambda entry: entry[:3]):
        message = _trade(row) if is_trade else _event(row)
        if "lastUpdateId" not in message:
            kind = "trade" if is_trade else {"diff": "depth@100ms", "ticker": "bookTicker"}[row["kind"]]
            message = {"stream": f"{row['symbol'].lower()}@{kind}", "data": message}
        yield b"%d %s" % (received, orjson.dumps(message))


def write_stream(path: Path, lines: Iterable[bytes]) -> Path:
    """Write lines to a file, gzipped where its name ends in .gz; the same lines give the same bytes."""
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content, compresslevel=6, mtime=0) if path.suffix == ".gz" else content)
    return path


@dataclass(frozen=True)
class Disturbed:
    """Messages with what was done to them: how many were `lost`, how many pairs `swapped`, how many `copied`."""

    book: pl.DataFrame
    lost: int
    swapped: int
    copied: int


def disturb(book: pl.DataFrame, seed: int, lose: float = 0.0, swap: float = 0.0, copy: float = 0.0) -> Disturbed:
    """Lose differences (a gap), let messages change places with the next one (out of order), and receive some twice.

    Args:
        book: rows of `raw.book_events` of one book. lose, swap, copy: share of the messages that it happens to.

    Returns:
        The messages in their new order, `sequence`, `received_ns` and `known_at` being those of the places.
    """
    random = np.random.default_rng(seed)
    differs = (book["kind"] == "diff").to_numpy()
    lost = differs & (random.random(book.height) < lose)
    order = np.flatnonzero(~lost)
    swapped = 0
    for at in np.flatnonzero(random.random(max(order.size - 1, 0)) < swap).tolist():
        order[[at, at + 1]] = order[[at + 1, at]]
        swapped += 1
    twice = random.random(order.size) < copy
    order = np.repeat(order, 1 + twice)
    changed = book[order]
    # The places: the times of arrival stay in order, and a copy arrives at once.
    times = np.sort(book["received_ns"].to_numpy()[order])
    sequences = np.maximum.accumulate(times - np.arange(times.size)) + np.arange(times.size)
    known = pl.Series(-(-times // 1000)).cast(book.schema["known_at"])
    placed = changed.with_columns(received_ns=pl.Series(times), sequence=pl.Series(sequences), known_at=known)
    return Disturbed(placed, int(lost.sum()), swapped, int(twice.sum()))


def corrupt(line: bytes, random: np.random.Generator) -> bytes:
    """The line with one thing wrong: bytes changed, dropped or added, a piece cut off or repeated, or digits negated."""
    if not line:
        return b"\xff"
    at, to = sorted(random.integers(0, len(line) + 1, 2).tolist())
    what = int(random.integers(0, 6))
    if what == 0:
        return line[:at] + bytes(random.integers(0, 256, 1 + to - at if to - at < 4 else 1, dtype=np.uint8)) + line[at + 1 :]
    if what == 1:
        return line[:at]
    if what == 2:
        return line[:at] + line[to:]
    if what == 3:
        return line[:to] + line[at:]
    if what == 4:
        return line.replace(b'["', b'["-', 1)
    return line.replace(b'"u":', b'"w":', 1)


def _event(row: dict) -> dict:
    futures = row["market"] == "futures"
    at = int(row["event_at"].timestamp() * 1000)
    times = {"T": at, "E": at} if futures else {}
    sides = {side: _pairs(row[f"{side}_prices"], row[f"{side}_sizes"]) for side in ("bid", "ask")}
    if row["kind"] == "snapshot":
        return {"lastUpdateId": row["last_id"], **times, "bids": sides["bid"], "asks": sides["ask"]}
    if row["kind"] == "ticker":
        (bid, bid_size), (ask, ask_size) = sides["bid"][0], sides["ask"][0]
        message = {"u": row["last_id"], "s": row["symbol"], "b": bid, "B": bid_size, "a": ask, "A": ask_size}
        return {"e": "bookTicker", **message, **times} if futures else message
    ids = {"U": row["first_id"], "u": row["last_id"], **({"pu": row["previous_id"]} if futures else {})}
    head = {"e": "depthUpdate", "E": at, **({"T": at} if futures else {}), "s": row["symbol"]}
    return {**head, **ids, "b": sides["bid"], "a": sides["ask"]}


def _trade(row: dict) -> dict:
    at = int(row["event_at"].timestamp() * 1000)
    own = {"X": "MARKET", "m": row["side"] == "sell"} if row["market"] == "futures" else {"m": row["side"] == "sell", "M": True}
    what = {"p": _decimal(row["price"]), "q": _decimal(row["size"])}
    return {"e": "trade", "E": at, "T": at, "s": row["symbol"], "t": row["trade_id"], **what, **own}


def _pairs(prices: list[float], sizes: list[float]) -> list[list[str]]:
    return [[_decimal(price), _decimal(size)] for price, size in zip(prices, sizes, strict=True)]


def _decimal(value: float) -> str:
    return f"{value:.8f}"
