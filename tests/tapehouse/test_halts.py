"""A symbol without bars for some sessions, by hand: what it is worth meanwhile, and at what it is bought and sold again."""

from datetime import date

import numpy as np
import pytest

from tapehouse.backtest.layout import EXIT_NOW
from tests.tapehouse.test_account import FREE, flat, panel, run

HALT = [None] * 3
BUY = (0, 0, 1, 5, None, 0)  # after the first session, ATR 5; 5 shares of 1,000 at 100
TIGHT = FREE.model_copy(update={"barrier_atr": 1.0})  # stop at 95, target at 105


def day(index: int) -> date:
    return date(2024, 1, 1 + index)


def grid(bars: list, **cells: float) -> np.ndarray:
    """(sessions, 1), nothing but what `cells` say: t3=7.0 is the session of index 3."""
    found = np.full((len(bars), 1), cells.pop("usual"))
    for name, value in cells.items():
        found[int(name[1:]), 0] = value
    return found


def test_a_position_is_worth_its_last_close_until_there_is_another():
    bars = [*flat(100, 1), (100, 104, 99, 103), *HALT, (104, 104, 101, 102), (102, 102, 102, 102)]
    result = run(panel(bars), [BUY])
    assert result.ledger["equity"].to_list() == [1000, 1015, 1015, 1015, 1015, 1010, 1010]
    assert result.equity["ret"].to_list()[2:5] == [0.0] * 3
    assert result.trades["exit_reason"].to_list() == ["end"]


@pytest.mark.parametrize(("opening", "reason"), [(80.0, "stop"), (120.0, "take")])
def test_a_gap_over_a_halt_exits_where_it_reopens_and_not_at_the_level(opening, reason):
    bars = [*flat(100, 2), *HALT, (opening, opening + 1, opening - 1, opening), *flat(opening, 1)]
    trade = run(panel(bars), [BUY], TIGHT).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == (reason, opening, day(5))


def test_a_horizon_that_ends_in_a_halt_ends_at_the_first_close_after_it():
    bars = [*flat(100, 2), *HALT, (101, 103, 100, 102), *flat(90, 2)]
    trade = run(panel(bars), [BUY], FREE.model_copy(update={"vertical_barrier": 3})).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("vertical", 102.0, day(5))


def test_an_exit_that_was_decided_waits_for_the_first_open():
    bars = [*flat(100, 2), *HALT, (97, 98, 90, 91), *flat(91, 1)]
    trade = run(panel(bars), [BUY], command=grid(bars, usual=0, t1=EXIT_NOW).astype(np.int64)).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("signal", 97.0, day(5))


def test_a_market_order_waits_and_a_limit_runs_out():
    bars = [*flat(100, 1), *HALT, (96, 97, 95, 96), *flat(96, 1)]
    waited = run(panel(bars), [BUY]).trades.row(0, named=True)
    assert (waited["entry_session"], waited["entry_price"], waited["shares"]) == (day(4), 96.0, 5.0)  # sized at 100
    for valid, fills in ((3, 0), (4, 1)):  # sessions of the halt count: the exchange was open
        result = run(panel(bars), [(0, 0, 1, 5, 99.0, valid)])
        assert (result.trades.height, result.counts["expired"]) == (fills, 1 - fills)


def test_what_a_company_pays_and_splits_while_it_is_halted():
    """2 a share ex on the first session of the halt, two for one on the second: 5 shares at 100 are 10 at 49 and 10 in cash."""
    bars = [*flat(100, 2), *HALT, *flat(49, 2)]
    market = panel(bars, dividend=grid(bars, usual=0.0, t2=2.0), ratio=grid(bars, usual=1.0, t3=2.0))
    result = run(market, [BUY], TIGHT)
    assert result.ledger["equity"].to_list() == [1000.0] * 7
    assert result.ledger["dividends"].to_list()[1:3] == [0.0, 10.0]
    trade = result.trades.row(0, named=True)
    assert (trade["exit_shares"], trade["exit_price"], trade["exit_reason"]) == (10.0, 49.0, "end")  # no fall: no stop
    short = run(market, [(0, 0, -1, 5, None, 0)], TIGHT)
    assert short.ledger["dividends"][-1] == -10.0 and short.ledger["equity"][-1] == 1000.0


def test_a_waiting_order_is_restated_by_a_split_in_the_halt():
    bars = [*flat(100, 1), *HALT, *flat(50, 2)]
    result = run(panel(bars, ratio=grid(bars, usual=1.0, t2=2.0)), [BUY], TIGHT)
    trade = result.trades.row(0, named=True)
    assert (trade["shares"], trade["entry_price"], trade["exit_reason"]) == (10.0, 50.0, "end")


def test_currencies_go_on_while_a_symbol_is_halted():
    bars = [*flat(100, 2), *HALT, *flat(100, 2)]
    result = run(panel(bars, fx=grid(bars, usual=1.0, t3=1.5, t4=1.5, t5=1.5, t6=1.5)), [BUY])
    assert result.ledger["equity"].to_list() == [1000, 1000, 1000, 1250, 1250, 1250, 1250]


def test_a_short_pays_its_fee_through_the_halt():
    bars = [*flat(100, 2), *HALT, *flat(100, 1)]
    config = FREE.model_copy(update={"borrow_bps": 100.0})
    result = run(panel(bars, step_days=73), [(0, 0, -1, 5, None, 0)], config)
    assert result.ledger["borrow"][-1] == pytest.approx(4 * 500 * 0.01 * 73 / 365)
