"""Where a tick is declared the account counts in whole ticks: what is reached is decided as on paper, as is what is paid."""

from dataclasses import replace
from datetime import date
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapehouse.backtest.config import BacktestConfig
from tapehouse.order_kernels import tick_one
from tests.tapehouse.test_account import FREE, NONE, flat, panel, run

CENT = np.array([0.01])
EXITS = FREE.model_copy(update={"barrier_atr": 1.0, "centre": "fill"})
TICKS = [0.01, 0.05, 0.25, 0.005, 0.1, 0.0001, 0.03125, 0.03, 1.0, 5.0]
THREE_TENTHS = 0.1 + 0.2  # of floats: a little above 0.3
TEN_FOUR = 1004 * 0.01  # the same, above 10.04


def on_tick(price: float, tick: float) -> bool:
    return Decimal(repr(price)) % Decimal(repr(tick)) == 0


@pytest.mark.parametrize(("written", "computed"), [(0.3, THREE_TENTHS), (10.04, TEN_FOUR)])
@pytest.mark.parametrize("beyond", [False, True])
def test_a_limit_at_the_end_of_the_bar_is_not_traded_through(written, computed, beyond):
    """The bar ends at the limit: nothing fills, whichever of the two is the double a little off. A tick beyond it fills."""
    assert written < computed and round(written, 8) == round(computed, 8)
    far = 0.01 if beyond else 0.0
    low = [flat(2 * written, 1)[0], (2 * written, 2 * written, written - far, 2 * written), flat(2 * written, 1)[0]]
    buy = run(panel(low, tick=CENT), [(0, 0, 1, 1, computed, 1)])
    high = [flat(written / 2, 1)[0], (written / 2, computed + far, written / 2, written / 2), flat(written / 2, 1)[0]]
    sell = run(panel(high, tick=CENT), [(0, 0, -1, 1, written, 1)])
    for result in (buy, sell):
        assert result.counts["filled"] == int(beyond) and result.counts["expired"] == int(not beyond)
        assert result.trades["entry_price"].to_list() == [written] * beyond


def test_a_target_and_a_stop_at_the_end_of_the_bar_are_reached():
    """Entry at 0.1 and 0.2 of risk: the target is 0.3, though 0.1 + 0.2 is above it. The stop of 0.3 less 0.2 is 0.1 alike."""
    assert THREE_TENTHS > 0.3 and 0.3 - 0.2 < 0.1
    rises = [flat(0.1, 1)[0], (0.1, 0.1, 0.1, 0.1), (0.1, 0.3, 0.1, 0.2), (1, 1, 1, 1)]
    trade = run(panel(rises, tick=CENT), [(0, 0, 1, 0.2, None, 0)], EXITS).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("take", 0.3, date(2024, 1, 3))
    falls = [flat(0.3, 1)[0], (0.3, 0.3, 0.3, 0.3), (0.2, 0.3, 0.1, 0.2), (1, 1, 1, 1)]
    trade = run(panel(falls, tick=CENT), [(0, 0, 1, 0.2, None, 0)], EXITS).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("stop", 0.1, date(2024, 1, 3))


def test_bars_off_the_grid_go_to_the_nearest_tick():
    bars = [flat(10.0, 1)[0], (10.004, 10.006, 9.994, 10.004), *flat(10.006, 2)]
    trade = run(panel(bars, tick=CENT), [(0, 0, 1, 1, None, 0)]).trades.row(0, named=True)
    assert (trade["entry_price"], trade["exit_price"]) == (10.0, 10.01)
    # A low of 9.996 is at 10.00 for a limit there, one of 9.994 is below it.
    for low, filled in ((9.996, 0), (9.994, 1)):
        bars = [*flat(10.05, 1), (10.05, 10.05, low, 10.05), *flat(10.05, 1)]
        assert run(panel(bars, tick=CENT), [(0, 0, 1, 1, 10.0, 1)]).counts["filled"] == filled


@pytest.mark.parametrize(("side", "limit", "paid"), [(1, 10.009, 10.0), (-1, 10.001, 10.01)])
def test_a_limit_between_ticks_goes_to_the_one_that_is_harder_to_reach(side, limit, paid):
    middle = 10.005 + side * 0.995
    bars = [*flat(middle, 1), (middle, max(middle, 10.02), min(middle, 9.99), middle), *flat(middle, 1)]
    trade = run(panel(bars, tick=CENT), [(0, 0, side, 1, limit, 1)]).trades.row(0, named=True)
    assert trade["entry_price"] == paid


@pytest.mark.parametrize(("side", "taken", "stopped"), [(1, 101.01, 98.99), (-1, 98.99, 101.01)])
def test_stops_and_targets_between_ticks_lie_away_from_the_price(side, taken, stopped):
    """1.004 from 100: neither 101.00 nor 99.00 reaches them."""
    near = [*flat(100, 2), (100, 101.0, 99.0, 100)]
    for end, reason, level in ((100 + 1.05 * side, "take", taken), (100 - 1.05 * side, "stop", stopped)):
        bars = [*near, (100, max(100, end), min(100, end), 100), *flat(100, 1)]
        trade = run(panel(bars, tick=CENT), [(0, 0, side, 1.004, None, 0)], EXITS).trades.row(0, named=True)
        assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == (reason, level, date(2024, 1, 4))


def test_levels_that_were_moved_are_on_the_grid():
    """A stop of 98.00 after a dividend of 0.333 is at 97.66 and not 97.667; one trailing 2.006 below 104 is at 101.99.

    A level between ticks would be sold a part of a tick below it, which would count as slippage.
    """
    dividend = np.zeros((5, 1))
    dividend[2] = 0.333
    paid = [*flat(100, 2), (100, 100, 97.67, 99), (99, 99, 97.66, 98), *flat(98, 1)]
    trade = run(panel(paid, dividend=dividend, tick=CENT), [(0, 0, 1, 2, None, 0)], EXITS).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("stop", 97.66, date(2024, 1, 4))
    assert trade["slippage"] == 0.0
    trails = [*flat(100, 2), (104, 104, 104, 104), (104, 104, 102, 103), (103, 103, 101.99, 102), *flat(102, 1)]
    wide = EXITS.model_copy(update={"take_multiple": 10.0, "trail_atr": 1.0})
    trade = run(panel(trails, tick=CENT), [(0, 0, 1, 2.006, None, 0)], wide).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("stop", 101.99, date(2024, 1, 5))
    assert trade["slippage"] == 0.0


def test_a_limit_that_rests_over_a_dividend_is_on_the_grid():
    """A limit to buy at 99.00 is at 98.66 after 0.333: it fills at that where the bar goes below."""
    dividend = np.zeros((4, 1))
    dividend[2] = 0.333
    bars = [*flat(100, 2), (100, 100, 98.65, 100), *flat(100, 1)]
    trade = run(panel(bars, dividend=dividend, tick=CENT), [(0, 0, 1, 2, 99.0, 3)]).trades.row(0, named=True)
    assert (trade["entry_price"], trade["entry_session"]) == (98.66, date(2024, 1, 3))


def test_money_is_ticks_times_tick():
    """5 shares at 100 and 10 bps: 0.10 each way, 1.00 in all."""
    config = FREE.model_copy(update={"slippage_bps": 10.0})
    result = run(panel(flat(100, 3), tick=CENT), [(0, 0, 1, 1, None, 0)], config)
    trade = result.trades.row(0, named=True)
    assert (trade["shares"], trade["entry_price"], trade["exit_price"]) == (pytest.approx(5.0), 100.1, 99.9)
    assert trade["slippage"] == pytest.approx(1.0) and result.ledger["equity"][-1] == pytest.approx(999.0)


def test_a_level_that_lies_on_the_tick_is_not_moved_off_it():
    """0.28 and 0.07 are a little more than 28 and 7 cents in floats: 0.02 + 0.28 is 0.30 all the same, 0.10 - 0.07 is 0.03."""
    assert 2 + 0.28 * 100 > 30 and 10 - 0.07 * 100 < 3
    for start, width, end, reason in ((0.02, 0.28, 0.3, "take"), (0.10, 0.07, 0.03, "stop")):
        bars = [*flat(start, 2), (start, max(start, end), min(start, end), start), *flat(start, 2)]
        trade = run(panel(bars, tick=CENT), [(0, 0, 1, width, None, 0)], EXITS).trades.row(0, named=True)
        assert (trade["exit_reason"], trade["exit_price"]) == (reason, end)


def test_what_is_sold_brings_one_tick_at_least():
    config = FREE.model_copy(update={"slippage_bps": 10.0})
    trade = run(panel(flat(0.01, 3), tick=CENT), [(0, 0, -1, 1, None, 0)], config).trades.row(0, named=True)
    assert (trade["entry_price"], trade["exit_price"]) == (0.01, 0.02)


@pytest.mark.parametrize(("price", "what"), [(0.004, "less than half a tick"), (1e14, "too many ticks")])
def test_a_tick_that_cannot_be_is_refused(price, what):
    with pytest.raises(ValueError, match=f"A 2024-01-01: the open of .* is {what} of 0.01; declare its tick_size"):
        run(panel(flat(price, 3), tick=CENT), [])


def test_ticks_of_one_symbol_change_nothing_of_another():
    bars = [(100, 101.003, 98.997, 100.0017), (100.1, 107.07, 99.9, 103.3), *flat(97.7773, 3)]
    said = [(0, 0, 1, 2.2222, None, 0), (2, 0, -1, 1.1111, 97.77, 2)]
    costs = EXITS.model_copy(update={"slippage_bps": 7.0, "trail_atr": 0.7})
    alone, beside = (run(panel([bars, bars], tick=np.array([0.0, tick])), said, costs) for tick in (0.0, 0.05))
    assert alone.trades.equals(beside.trades) and alone.ledger.equals(beside.ledger)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TICKS), st.integers(3, 10**6), st.integers(-2, 2), st.sampled_from([-1, 1]), st.integers(0, 2))
def test_a_limit_fills_where_whole_ticks_say_so(tick, level, off, side, how):
    """The end of the bar is `off` ticks beyond the limit, each computed in floats in a way of its own."""
    written = float(level * Decimal(repr(tick)))
    limit = (written, level * tick, (level - 1) * tick + tick)[how]
    end, away = (level - side * off) * tick, (level + side * 2.0) * tick
    bars = [*flat(away, 1), (away, max(away, end), min(away, end), away), *flat(away, 1)]
    config = FREE.model_copy(update={"initial_cash": 1e9})
    result = run(panel(bars, tick=np.array([tick])), [(0, 0, side, 1, limit, 1)], config)
    assert result.counts["filled"] == int(off > 0)
    if off > 0:
        assert result.trades["entry_price"].to_list() == [written] == [tick_one(limit, tick)]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.sampled_from(TICKS), st.booleans())
def test_what_is_paid_is_on_the_tick(seed, tick, on_grid):
    """Every price but that of a delisting, with moving stops, dividends, splits and holes; and the ledger holds."""
    rng = np.random.default_rng(seed)
    shape = (60, 2)
    close = 300 * tick * np.exp(np.cumsum(0.02 * rng.standard_normal(shape), axis=0))
    opened = close * np.exp(0.01 * rng.standard_normal(shape))
    grids = [opened, np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99, close]
    if on_grid:
        grids = [np.rint(grid / tick) * tick for grid in grids]
    for grid in grids:
        grid[5::9] = NONE
    ratio = np.where(rng.random(shape) < 0.03, 1.5, 1.0)
    ratio[0] = 1.0
    opened, high, low, close = (grid / np.cumprod(ratio, axis=0) for grid in grids)
    market = replace(
        panel([flat(1, 60)] * 2, tick=np.array([tick, tick])),
        open=opened,
        high=high,
        low=low,
        close=close,
        ratio=ratio,
        dividend=np.where((rng.random(shape) < 0.03) & (np.arange(60) > 0)[:, None], 1.3 * tick, 0.0),
        fx=np.exp(np.cumsum(0.005 * rng.standard_normal(shape), axis=0)),
    )
    said = [
        (t, s, int(rng.choice([-1, 1])), 7.7 * tick, None if rng.random() < 0.5 else close[t, s] * 1.002, 3)
        for t, s in zip(*np.nonzero((rng.random(shape) < 0.5) & ~np.isnan(close)), strict=True)
    ]
    config = BacktestConfig(
        half_spread_bps=3, break_even_at=1.0, trail_atr=1.0, trail_from=0.5, take_multiple=2.0, gross_limit=1.5
    )
    result = run(market, said, config)  # which looks at the ledger
    assert result.trades.height
    for column in ("entry_price", "exit_price"):
        assert all(on_tick(price, tick) for price in result.trades[column]), result.trades[column]
