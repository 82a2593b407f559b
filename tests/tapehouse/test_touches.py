"""The walk to the first barrier against one that looks at every bar, over horizons long enough to pass over blocks."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.triple_barrier import ours, textbook, walk
from tapehouse.labels.touches import BOTH, LOWER, NOT_REACHED, UPPER, VERTICAL, first_touches

BARS = 150


def market(seed: int, actions: bool):
    """Two rows of bars with some missing, and splits and dividends now and then."""
    rng = np.random.default_rng(seed)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (2, BARS)), axis=1))
    opens = closes * np.exp(rng.normal(0, 0.004, closes.shape))
    highs = np.maximum(opens, closes) * (1 + rng.random(closes.shape) * 0.004)
    lows = np.minimum(opens, closes) * (1 - rng.random(closes.shape) * 0.004)
    shares, cash = np.ones_like(closes), np.zeros_like(closes)
    if actions:
        shares[rng.random(closes.shape) < 0.01] = 2.0
        paid = rng.random(closes.shape) < 0.02
        cash[paid] = 0.7
    missing = rng.random(closes.shape) < 0.03
    for prices in (opens, highs, lows, closes):
        prices[missing] = math.nan
    return opens, highs, lows, closes, shares, cash


def bar_by_bar(row, first, last, upper, lower, by_close, opens, highs, lows, closes, shares_step, cash_step):
    """What the definition says of one event."""
    shares, cash = 1.0, 0.0
    for t in range(first, min(last + 1, BARS)):
        if t > first:
            cash += shares * cash_step[row, t]
            shares *= shares_step[row, t]
        opened, high, low, close = (x[row, t] * shares + cash for x in (opens, highs, lows, closes))
        if math.isnan(opened):
            continue
        if by_close:
            opened = high = low = close
        if opened >= upper or opened <= lower:
            return (UPPER if opened >= upper else LOWER), opened, t
        if high >= upper and low <= lower:
            return BOTH, math.nan, t
        if high >= upper or low <= lower:
            return (UPPER, upper, t) if high >= upper else (LOWER, lower, t)
        if t == last:
            return VERTICAL, close, t
    return NOT_REACHED, math.nan, -1


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    actions=st.booleans(),
    by_close=st.booleans(),
    horizon=st.integers(1, 140),
    profit=st.floats(0.001, 0.3) | st.just(math.inf),
    stop=st.floats(0.001, 0.3) | st.just(math.inf),
)
def test_no_bar_that_matters_is_passed_over(seed, actions, by_close, horizon, profit, stop):
    grid = market(seed, actions)
    events = [(row, t) for row in (0, 1) for t in range(BARS) if not math.isnan(grid[0][row, t])]
    rows, first = (np.asarray(x, np.int64) for x in zip(*events, strict=True))
    last, entry = first + horizon - 1, grid[0][rows, first]
    upper, lower = entry + entry * profit, entry - entry * stop
    found = first_touches(rows, first, last, upper, lower, by_close, *grid)
    expected = [
        bar_by_bar(r, f, x, u, d, by_close, *grid) for r, f, x, u, d in zip(rows, first, last, upper, lower, strict=True)
    ]
    for one, other in zip(found, zip(*expected, strict=True), strict=True):
        assert np.asarray(one, np.float64).tobytes() == np.asarray(other, np.float64).tobytes()


def test_an_event_without_an_entry_has_no_outcome():
    grid = market(1, False)
    one = np.array([-1]), np.array([5]), np.array([math.nan]), np.array([math.nan])
    touched, value, column = first_touches(np.array([0]), *one, False, *grid)
    assert (touched[0], column[0]) == (NOT_REACHED, -1)
    assert math.isnan(value[0])


@pytest.mark.parametrize("at", [15, 16, 17, 31, 32, 48, 60])
def test_a_single_spike_is_found_wherever_it_lies(at):
    closes = np.full((1, 64), 100.0)
    closes[0, at] = 110.0
    arrays = np.array([0]), np.array([0]), np.array([63]), np.array([105.0]), np.array([95.0])
    touched, _, column = first_touches(*arrays, True, *[closes] * 4, np.ones((1, 64)), np.zeros((1, 64)))
    assert (touched[0], column[0]) == (UPPER, at)


def test_first_touches_are_those_of_the_books_snippet():
    closes = walk(1200)
    touched, bars = ours(closes)
    assert bars.tolist() == textbook(closes).tolist()
    assert {NOT_REACHED, UPPER, LOWER, VERTICAL} == set(touched.tolist())
