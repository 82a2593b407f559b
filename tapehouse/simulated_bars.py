"""Simulated bars, corporate actions and funding as frames, for a range of any length, from the walks of `simulated_walks`."""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from tapehouse.calendars import TIMESTAMP, local_midnight, sessions
from tapehouse.hashing import text_hash
from tapehouse.simulated_walks import (
    FUNDING,
    MARKET_NUMBER,
    Block,
    Life,
    Traits,
    day_levels,
    equity_traits,
    life,
    stream,
    year_block,
)

if TYPE_CHECKING:  # the source that declares what is simulated imports this module
    from tapehouse.sources.simulator import Declaration

PREFIX = "SIM:"
INDEX = "SIM:INDEX"
MARKET_DEVIATION = 0.16  # per root year
CARRY = 0.03  # per year, of a future over its index
PERPETUAL_NUMBERS = 1_000_000  # numbers from here on are no equities
PERPETUAL_PRICE, PERPETUAL_DEVIATION = 20_000.0, 0.6
BOOK_DEVIATION = 0.01  # of a perpetual with a simulated book, which opens each day near one price
CORRECTED_AFTER = timedelta(days=2)
CORRECTED_TICK = 0.01
FUTURE_LIFE = timedelta(days=270)
USUAL_RATE, RATE_DEVIATION, LARGEST_RATE = 1e-4, 2e-4, 0.0075  # of funding, each interval
BARS = {
    **dict.fromkeys(("symbol", "interval", "source"), pl.String),
    **dict.fromkeys(("event_at", "known_at"), TIMESTAMP),
    **dict.fromkeys(("open", "high", "low", "close", "vendor_adj_close"), pl.Float64),
    "session": pl.Date,
    "volume": pl.Int64,
}
BAR_ORDER = [name for name in BARS if name != "source"]
ACTIONS = {
    "symbol": pl.String,
    "kind": pl.String,
    "ex_date": pl.Date,
    "ratio": pl.Float64,
    "amount": pl.Float64,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "source": pl.String,
}
FUNDING_COLUMNS = {
    "symbol": pl.String,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "rate": pl.Float64,
    "mark_price": pl.Float64,
    "source": pl.String,
}


def equity(number: int) -> str:
    """Symbol of an equity: SIM:0001 for 1."""
    return f"{PREFIX}{number:04d}"


def first_session(declared: "Declaration", symbol: str) -> date | None:
    """The session on which a symbol is listed; None for one without bars."""
    if symbol in declared.perpetuals:
        return declared.start
    if _number(symbol) is None and symbol not in declared.futures:
        return None
    listed = declared.start
    if symbol in declared.futures:
        listed = max(listed, declared.futures[symbol] - FUTURE_LIFE + timedelta(days=1))
    return sessions(listed, listed + timedelta(days=14), declared.calendar)["session"][0]


def simulated_bars(declared: "Declaration", symbols: tuple[str, ...], start: datetime, end: datetime) -> pl.DataFrame:
    """Bars that close in [start, end), symbol by symbol within each year."""
    parts: list[pl.DataFrame] = []
    numbered = [number for symbol in symbols if (number := _number(symbol)) is not None]
    for year in _years(declared, start, end):
        if numbered:
            grid = _grid(declared.calendar, year)
            block = _block(declared, tuple(numbered), year)
            kept = _kept(declared, numbered, block, grid)
            names = [INDEX if number == MARKET_NUMBER else equity(number) for number in numbered]
            parts.append(_long(names, grid, block, kept, start, end))
            parts.append(_corrected(parts[-1], names, grid, block, declared.corrected))
        for symbol in symbols:
            if symbol in declared.futures:
                parts.append(_future(declared, symbol, year).filter(pl.col("event_at").is_between(start, end, closed="left")))
            if symbol in declared.perpetuals:
                numbers, traits = [_perpetual_number(symbol)], _perpetual_traits(declared, symbol)
                grid = _grid("24/7", year)
                block = year_block(
                    declared.seed, numbers, traits, declared.start.year, year, _day_of_year(grid), 0.0, splits=False
                )
                listed = (grid["session"] >= declared.start).to_numpy()[None, :]
                parts.append(_long([symbol], grid, block, listed, start, end))
    if not parts:
        return pl.DataFrame(schema=BARS)
    return pl.concat(parts).sort("symbol", "session", "known_at")


def _long(names: list[str], grid: pl.DataFrame, block: Block, kept: np.ndarray, start: datetime, end: datetime) -> pl.DataFrame:
    """A block as rows: of each symbol the sessions that are kept and close in [start, end)."""
    inside = grid.select(pl.col("close_at").is_between(start, end, closed="left")).to_series().to_numpy()
    who, when = np.nonzero(kept & inside)
    closes = grid["close_at"].gather(when)
    return (
        pl.DataFrame(
            {
                "symbol": pl.Series(names, dtype=pl.String).gather(who),
                "session": grid["session"].gather(when),
                "event_at": closes,
                "known_at": closes,
                **{name: getattr(block, name)[who, when] for name in ("open", "high", "low", "close", "volume")},
            }
        )
        .with_columns(interval=pl.lit("1d"), vendor_adj_close=pl.lit(None, pl.Float64))
        .select(BAR_ORDER)
    )


def _corrected(bars: pl.DataFrame, names: list[str], grid: pl.DataFrame, block: Block, share: float) -> pl.DataFrame:
    """Later versions of a share of the bars: two days after the close a print above the high has been added."""
    if share == 0.0:
        return bars.clear()
    who, when = np.nonzero(block.luck > NormalDist().inv_cdf(1 - share))
    which = pl.DataFrame({"symbol": pl.Series(names, dtype=pl.String).gather(who), "session": grid["session"].gather(when)})
    return bars.join(which, on=["symbol", "session"], how="semi", maintain_order="left").with_columns(
        pl.col("known_at") + CORRECTED_AFTER, (pl.col("high") + CORRECTED_TICK).round(2), pl.col("volume") + 100
    )


def _future(declared: "Declaration", symbol: str, year: int) -> pl.DataFrame:
    """Bars of one contract: the index's, carried to its last session."""
    expires, grid = declared.futures[symbol], _grid(declared.calendar, year)
    block = _block(declared, (MARKET_NUMBER,), year)
    days = (pl.lit(expires) - pl.col("session")).dt.total_days()
    alive = (pl.col("session") <= expires) & (pl.col("session") > expires - FUTURE_LIFE)
    rows = grid.with_columns(
        **{name: pl.Series(getattr(block, name)[0]) for name in ("open", "high", "low", "close", "volume")}, days=days
    ).filter(alive)
    # Scaled one by one by a number of the session: nothing is summed.
    carried = np.array([1.0 + CARRY * day / 365.0 for day in rows["days"].to_list()])
    return rows.select(
        *("session", pl.col("close_at").alias("event_at"), pl.col("close_at").alias("known_at"), "volume"),
        **{name: pl.Series(np.round(rows[name].to_numpy() * carried, 2)) for name in ("open", "high", "low", "close")},
        symbol=pl.lit(symbol),
        interval=pl.lit("1d"),
        vendor_adj_close=pl.lit(None, pl.Float64),
    ).select(BAR_ORDER)


def simulated_actions(declared: "Declaration", symbols: tuple[str, ...], start: datetime, end: datetime) -> pl.DataFrame:
    """Splits and dividends that go ex in [start, end), at 00:00 exchange time of the ex-date."""
    rows: list[tuple] = []
    numbered = [number for symbol in symbols if (number := _number(symbol)) not in (None, MARKET_NUMBER)]
    for year in _years(declared, start, end) if numbered else []:
        days = _grid(declared.calendar, year)["session"].to_list()
        block = _block(declared, tuple(numbered), year)
        for place, number in enumerate(numbered):
            found = [("split", block.split_at[place], float(block.split[place]), 0.0)]
            paid = zip(block.paid_at[place], block.paid[place], strict=True)
            found += [("dividend", at, 1.0, float(cash)) for at, cash in paid]
            last = life_of(declared, number).delisted
            for kind, at, ratio, amount in found:
                if at >= 0 and declared.start <= days[at] <= (last or days[at]) and (ratio != 1.0 or amount > 0.0):
                    rows.append((equity(number), kind, days[at], ratio, amount))
    schema = {name: ACTIONS[name] for name in ("symbol", "kind", "ex_date", "ratio", "amount")}
    midnight = local_midnight(pl.col("ex_date"), declared.calendar)
    frame = pl.DataFrame(rows, schema=schema, orient="row").with_columns(event_at=midnight, known_at=midnight)
    return frame.filter(pl.col("event_at").is_between(start, end, closed="left")).sort("symbol", "ex_date", "kind")


def simulated_funding(declared: "Declaration", symbols: tuple[str, ...], start: datetime, end: datetime) -> pl.DataFrame:
    """Funding of the perpetuals in [start, end): the rate of each interval and the mark price it is paid on."""
    rows: list[tuple] = []
    for symbol in symbols:
        if symbol not in declared.perpetuals:
            continue
        hours, number = declared.perpetuals[symbol].funding_hours, _perpetual_number(symbol)
        for year in _years(declared, start, end):
            drawn = stream(declared.seed, number, FUNDING, year).standard_normal((366, 24))
            about = _perpetual_about(declared, symbol)
            opened, closed = day_levels(declared.seed, number, *about, declared.start.year, year)
            first, last = max(start, instant(date(year, 1, 1))), min(end, instant(date(year + 1, 1, 1)))
            moment = instant(first.date())
            while moment < last:
                if moment >= first:
                    day, part = moment.timetuple().tm_yday - 1, moment.hour / 24
                    level = opened[day] + (closed[day] - opened[day]) * part
                    rate = USUAL_RATE + RATE_DEVIATION * drawn[day, moment.hour]
                    rate = round(min(LARGEST_RATE, max(-LARGEST_RATE, rate)), 8)
                    rows.append((symbol, moment, moment, float(rate), round(float(np.exp(level)), 2)))
                moment += timedelta(hours=hours)
    schema = {name: kind for name, kind in FUNDING_COLUMNS.items() if name != "source"}
    return pl.DataFrame(rows, schema=schema, orient="row").sort("symbol", "event_at")


def _kept(declared: "Declaration", numbers: list[int], block: Block, grid: pl.DataFrame) -> np.ndarray:
    """(n, m) which bars exist: listed, not yet delisted, not lost."""
    days = grid["session"].to_numpy()
    kept = np.ones((len(numbers), days.size), bool) & (days >= np.datetime64(declared.start))
    if declared.missing > 0:
        lost = block.luck < NormalDist().inv_cdf(declared.missing)
        kept &= ~lost | (np.asarray(numbers) == MARKET_NUMBER)[:, None]
    for place, number in enumerate(numbers):
        last = life_of(declared, number).delisted
        if last is not None:
            kept[place] &= days <= np.datetime64(last)
    return kept


def _block(declared: "Declaration", numbers: tuple[int, ...], year: int) -> Block:
    traits = _traits(declared.seed, numbers, declared.splits, declared.dividends)
    days = _day_of_year(_grid(declared.calendar, year))
    return year_block(declared.seed, numbers, traits, declared.start.year, year, days, MARKET_DEVIATION, splits=declared.splits)


@lru_cache(maxsize=8)
def _traits(seed: int, numbers: tuple[int, ...], splits: bool, dividends: bool) -> Traits:
    return equity_traits(seed, numbers, splits, dividends)


def _perpetual_about(declared: "Declaration", symbol: str) -> tuple[float, float]:
    """First price of a perpetual and its deviation per root year, near its book where it has one."""
    book = declared.books.get(symbol)
    return (PERPETUAL_PRICE, PERPETUAL_DEVIATION) if book is None else (book.opening_price, BOOK_DEVIATION)


def _perpetual_traits(declared: "Declaration", symbol: str) -> Traits:
    price, deviation = _perpetual_about(declared, symbol)
    one, none = np.ones(1), np.zeros(1)
    return Traits(one * price, none, none, one * deviation, none, np.ones(1, np.int64), one * 1_000_000.0)


def life_of(declared: "Declaration", number: int) -> Life:
    if number == MARKET_NUMBER:
        return Life()
    return _life(declared.seed, number, declared.start, declared.delisted_per_year, declared.renamed)


_life = lru_cache(maxsize=100_000)(life)


def _number(symbol: str) -> int | None:
    """Number of an equity, 0 for the index, None for what is neither."""
    if symbol == INDEX:
        return MARKET_NUMBER
    own = symbol.removeprefix(PREFIX)
    return int(own) if own.isdigit() else None


def _perpetual_number(symbol: str) -> int:
    # By name, not by place, so that another perpetual in the declaration changes nothing of this one.
    return PERPETUAL_NUMBERS + int(text_hash(symbol)[:12], 16)


@lru_cache(maxsize=512)
def _grid(calendar: str, year: int) -> pl.DataFrame:
    return sessions(date(year, 1, 1), date(year + 1, 1, 1), calendar)


def _day_of_year(grid: pl.DataFrame) -> np.ndarray:
    return grid.select(pl.col("session").dt.ordinal_day().cast(pl.Int64) - 1).to_series().to_numpy()


def _years(declared: "Declaration", start: datetime, end: datetime) -> range:
    """Years of sessions that can close in [start, end); a session around the clock closes on the day after its own."""
    return range(max((start - timedelta(days=1)).year, declared.start.year), end.year + 1) if start < end else range(0)


def instant(day: date) -> datetime:
    """00:00 UTC of a date."""
    return datetime.combine(day, time(), UTC)
