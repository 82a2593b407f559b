"""Simulated prices: the random walks of any number of symbols, the same bits for a day however its range is cut.

A symbol's log price is a walk over calendar days. Its total over a year is drawn first, from one stream a symbol; the days
of a year are drawn from a stream of their own, keyed by (seed, symbol, year) with Philox (J. Salmon et al., Parallel Random
Numbers: As Easy as 1, 2, 3, SC 2011), and shifted to meet that total, which leaves them independent and normal. So one month
costs the days of its year and one number for each year before it, whatever the length of history. Sessions of an exchange
show the walk on their day: what moves on a weekend is seen at Monday's open.

A share that has become dear is split, a cheap one is joined; payers go ex once a quarter. Half of a symbol's moves follow
the market, which is symbol number 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

import numpy as np
from numba import njit

MARKET_NUMBER = 0
DAYS, DRAWS = 366, 6  # days of a block; draws of a day: step, open, high, low, volume, luck
DAYS_PER_YEAR = 365.25
# Streams of one symbol: the counter's third word. Its fourth is the year, or 0 for what is drawn once.
TOTALS, TRAITS, LIFE, DAILY, FUNDING = range(5)
DEAR, CHEAP, USUAL = 200.0, 4.0, 50.0  # a share above the first is split, below the second joined, towards the third
JOINED = 10.0
CENTS = 100.0


@dataclass(frozen=True)
class Traits:
    """What is constant about each of n symbols; arrays of shape (n,).

    Attributes:
        price: first price. drift: of the log price, per year. beta: on the market. deviation: of its own moves, per root year.
        payout: share of the price paid each quarter, 0 for most. phase: first month of its quarter, 1 to 3.
        shares: usual volume of a session before any split.
    """

    price: np.ndarray
    drift: np.ndarray
    beta: np.ndarray
    deviation: np.ndarray
    payout: np.ndarray
    phase: np.ndarray
    shares: np.ndarray


@dataclass(frozen=True)
class Life:
    """When a symbol is listed, under which name, and when that became known; dates are sessions' dates, inclusive.

    Attributes:
        delisted: last day of trading, None while it lasts. announced: the day on which the delisting is made known.
        renamed: first day under the second name, None for most.
    """

    delisted: date | None = None
    announced: date | None = None
    renamed: date | None = None


@dataclass(frozen=True)
class Block:
    """One calendar year of n symbols on m sessions, in the prices of each day.

    Attributes:
        open, high, low, close: (n, m). volume: (n, m) int64. luck: (n, m) standard normal numbers, by which bars are lost.
        split_at, split: (n,) position of the session on which the split takes effect, -1 for none, and new shares per old.
        paid_at, paid: (n, 4) the same of dividends, and cash for one share held before the ex-date.
    """

    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    volume: np.ndarray
    luck: np.ndarray
    split_at: np.ndarray
    split: np.ndarray
    paid_at: np.ndarray
    paid: np.ndarray


def stream(seed: int, number: int, kind: int, year: int = 0) -> np.random.Generator:
    """The random numbers of one symbol for one purpose and year; no two share a number."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64), counter=[0, 0, kind, year]))


def equity_traits(seed: int, numbers: Sequence[int], splits: bool, dividends: bool) -> Traits:
    """Traits of equities, drawn from each one's own stream; number 0 is the market, which has neither moves of its own nor a
    payout."""
    drawn = np.array([stream(seed, number, TRAITS).random(8) for number in numbers]).reshape(-1, 8)
    market = np.asarray(numbers) == MARKET_NUMBER
    payer = (drawn[:, 3] < 0.6) & ~market & dividends
    return Traits(
        price=np.where(market, 1000.0, 20.0 + 80.0 * drawn[:, 0]),
        drift=0.02 + 0.08 * drawn[:, 1],
        beta=np.where(market, 1.0, 0.6 + 0.8 * drawn[:, 2]),
        deviation=np.where(market, 0.0, 0.12 + 0.28 * drawn[:, 4]),
        payout=np.where(payer, (0.002 + 0.008 * drawn[:, 5]), 0.0),
        phase=1 + (drawn[:, 6] * 3).astype(np.int64),
        shares=np.exp(11.0 + 5.0 * drawn[:, 7]),
    )


def life(seed: int, number: int, start: date, delisted_per_year: float, renamed: float) -> Life:
    """The dates of one symbol listed on `start`: a constant rate of delisting, a share of symbols renamed within ten years."""
    until, notice, whether, when = stream(seed, number, LIFE).random(4)
    delisted = announced = new_name = None
    if delisted_per_year > 0:
        days = -np.log1p(-until) / delisted_per_year * DAYS_PER_YEAR
        if days < 200 * DAYS_PER_YEAR:
            delisted = start + timedelta(days=30 + int(days))
            announced = delisted - timedelta(days=5 + int(notice * 20))
    if whether < renamed:
        new_name = start + timedelta(days=60 + int(when * 10 * DAYS_PER_YEAR))
        if delisted is not None and new_name > delisted:
            new_name = None
    return Life(delisted, announced, new_name)


def year_block(
    seed: int,
    numbers: Sequence[int],
    traits: Traits,
    first_year: int,
    year: int,
    days: np.ndarray,
    market_deviation: float,
    splits: bool,
) -> Block:
    """One year of some symbols.

    Args:
        numbers: of the symbols, 0 for the market.
        first_year: the year in which every walk begins.
        days: (m,) int64 day of the year of each session, 0 for 1 January, ascending.
        market_deviation: of the market's log price, per root year; 0 for symbols that follow none.
        splits: whether dear shares are split and cheap ones joined.
    """
    length = _days_in(year)
    walk = np.array([stream(seed, number, DAILY, year).standard_normal((DAYS, DRAWS)) for number in numbers])
    common = stream(seed, MARKET_NUMBER, DAILY, year).standard_normal((DAYS, DRAWS))[:, 0]
    years = np.arange(first_year, year + 1)
    totals = np.array([stream(seed, number, TOTALS).standard_normal(years.size) for number in numbers])
    of_market = stream(seed, MARKET_NUMBER, TOTALS).standard_normal(years.size)
    lengths = np.array([_days_in(int(each)) for each in years], np.int64)
    found = _year(
        walk.reshape(-1, DAYS, DRAWS), common, totals.reshape(-1, years.size), of_market, lengths,
        traits.price, traits.drift, traits.beta, traits.deviation, traits.payout, traits.shares,
        _targets(year, traits.phase), np.asarray(days, np.int64), length, market_deviation, splits, np.asarray(numbers), year,
    )  # fmt: skip
    return Block(*found)


def day_levels(
    seed: int, number: int, price: float, deviation: float, first_year: int, year: int
) -> tuple[np.ndarray, np.ndarray]:
    """Log prices of a symbol that follows no market at the start and at the end of each day of a year: two (length,) arrays."""
    walk = stream(seed, number, DAILY, year).standard_normal((DAYS, DRAWS))
    totals = stream(seed, number, TOTALS).standard_normal(year - first_year + 1)
    lengths = np.array([_days_in(each) for each in range(first_year, year + 1)], np.int64)
    return _levels(walk, totals, lengths, price, deviation, _days_in(year))


@lru_cache(maxsize=256)
def _days_in(year: int) -> int:
    return (date(year + 1, 1, 1) - date(year, 1, 1)).days


def _targets(year: int, phase: np.ndarray) -> np.ndarray:
    """(n, 4) day of the year from which a dividend is due; never in the first week: a session of the year goes before it."""
    months = phase[:, None] + np.array([0, 3, 6, 9])
    starts = np.array([(date(year, month, 1) - date(year, 1, 1)).days for month in range(1, 13)])
    return (starts[months - 1] + 9).astype(np.int64)


@njit(cache=True)
def _bridge(walk, total, length):
    """Days of a year that add up to `total` times the root of its length, independent and standard normal beforehand."""
    mean = 0.0
    for d in range(length):
        mean += walk[d]
    shift = total / np.sqrt(length) - mean / length
    steps = np.empty(length)
    for d in range(length):
        steps[d] = walk[d] + shift
    return steps


@njit(cache=True)
def _ratio(price):
    """New shares per old for a share of this price at the start of a year: 1 leaves it alone."""
    if price > DEAR:
        return float(min(10, max(2, int(price / USUAL))))
    if price < CHEAP:
        return 1.0 / JOINED
    return 1.0


@njit(cache=True)
def _levels(walk, totals, lengths, price, deviation, length):
    level = np.log(price)
    for y in range(lengths.size - 1):
        level += deviation / np.sqrt(DAYS_PER_YEAR) * np.sqrt(lengths[y]) * totals[y]
    steps = _bridge(walk[:, 0], totals[-1], length)
    starts, ends = np.empty(length), np.empty(length)
    for d in range(length):
        starts[d] = level
        level += deviation / np.sqrt(DAYS_PER_YEAR) * steps[d]
        ends[d] = level
    return starts, ends


@njit(cache=True)
def _year(
    walk, common, totals, of_market, lengths, prices, drifts, betas, deviations, payouts, shares, targets, days, length,
    market_deviation, splits, numbers, year,
):  # fmt: skip
    n, m, last = prices.size, days.size, lengths.size - 1
    opens, highs, lows, closes = np.empty((n, m)), np.empty((n, m)), np.empty((n, m)), np.empty((n, m))
    volumes, luck = np.empty((n, m), np.int64), np.empty((n, m))
    split_at, split = np.full(n, -1, np.int64), np.ones(n)
    paid_at, paid = np.full((n, 4), -1, np.int64), np.zeros((n, 4))
    root = np.sqrt(DAYS_PER_YEAR)
    market_steps = _bridge(common, of_market[last], length)
    for s in range(n):
        own, of_all = deviations[s] / root, betas[s] * market_deviation / root
        level, grown, ratio = np.log(prices[s]), 1.0, 1.0
        for y in range(last + 1):
            ratio = _ratio(np.exp(level)) if splits else 1.0
            if y == last:
                break
            level += drifts[s] * lengths[y] / DAYS_PER_YEAR - np.log(ratio) + 4.0 * np.log(1.0 - payouts[s])
            level += np.sqrt(lengths[y]) * (own * totals[s, y] + of_all * of_market[y])
            grown *= ratio
        steps = _bridge(walk[s, :, 0], totals[s, last], length)
        daily = np.sqrt(own**2 + of_all**2)
        due = 45 + (numbers[s] * 7919 + year * 104729) % 250  # the day of the split: mid-February to October, scattered
        j, before = 0, 0.0
        for d in range(length):
            step = drifts[s] / DAYS_PER_YEAR + own * steps[d] + of_all * market_steps[d]
            if j == m or days[j] != d:
                level += step
                continue
            past = days[j - 1] if j > 0 else -1
            for q in range(4):
                if payouts[s] > 0.0 and past < targets[s, q] <= d and j > 0:
                    level += np.log(1.0 - payouts[s])
                    paid_at[s, q], paid[s, q] = j, np.round(before * payouts[s] * 1e4) / 1e4
            if ratio != 1.0 and past < due <= d and j > 0:
                level -= np.log(ratio)
                grown *= ratio
                split_at[s], split[s] = j, ratio
            opened = level + 0.3 * step + 0.3 * daily * walk[s, d, 1]
            level += step
            high = max(opened, level) + 0.5 * daily * abs(walk[s, d, 2])
            low = min(opened, level) - 0.5 * daily * abs(walk[s, d, 3])
            opens[s, j], highs[s, j], lows[s, j], closes[s, j] = _cents(opened), _cents(high), _cents(low), _cents(level)
            volumes[s, j] = int(shares[s] * grown * np.exp(0.4 * walk[s, d, 4]))
            luck[s, j] = walk[s, d, 5]
            before = closes[s, j]
            j += 1
    return opens, highs, lows, closes, volumes, luck, split_at, split, paid_at, paid


@njit(cache=True)
def _cents(level):
    return max(1.0, np.round(np.exp(level) * CENTS)) / CENTS
