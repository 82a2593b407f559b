"""Rules of the account that meet: limits beside what is held, exits and entries of one session, splits and moving stops."""

from datetime import date

import numpy as np
import pytest

from tapehouse.backtest.layout import EXIT_NOW
from tests.tapehouse.test_account import FREE, flat, panel, run

BUY = (0, 0, 1, 5, None, 0)


@pytest.mark.parametrize(("side", "shares"), [(1, 1.0), (-1, 5.0)])
def test_a_limit_of_net_counts_what_is_held(side, shares):
    """500 of 1,000 are long: of a net limit of 600 there is room for 100 more, and for far more on the other side."""
    market = panel([flat(100, 4), flat(100, 4)])
    result = run(market, [BUY, (1, 1, side, 5, None, 0)], FREE.model_copy(update={"net_limit": 0.6}))
    assert result.trades["shares"].to_list() == [5.0, shares]


def test_what_an_exit_of_the_same_session_frees_is_not_counted_on():
    """The whole account is in A, which leaves at the open at which B would enter; a session later B has its room."""
    market, config = panel([flat(100, 6), flat(100, 6)]), FREE.model_copy(update={"weight": 1.0})
    command = np.zeros((6, 2), np.int64)
    command[1, 0] = EXIT_NOW
    same = run(market, [BUY, (1, 1, 1, 5, None, 0)], config, command=command)
    assert same.trades["symbol"].to_list() == ["A"] and same.counts["refused"] == 1
    later = run(market, [BUY, (2, 1, 1, 5, None, 0)], config, command=command)
    assert later.trades["shares"].to_list() == [10.0, 10.0]


@pytest.mark.parametrize("rule", [{"break_even_at": 1.0}, {"trail_atr": 0.6, "trail_from": 1.0}])
def test_a_moving_stop_knows_a_split(rule):
    """Risk 5 at 100 is 2.5 at 50 after two for one. 53 is a gain of more than that: the stop goes to 50, or to 53 less 1.5."""
    bars = [*flat(100, 2), *flat(50, 1), (52, 53, 52, 53), (53, 53, 49, 49.5), *flat(49.5, 1)]
    ratio = np.ones((6, 1))
    ratio[2] = 2.0
    config = FREE.model_copy(update={"barrier_atr": 1.0, "take_multiple": 10.0, **rule})
    trade = run(panel(bars, ratio=ratio), [BUY], config).trades.row(0, named=True)
    level = 50.0 if "break_even_at" in rule else 51.5
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("stop", level, date(2024, 1, 5))


def test_a_stop_never_moves_away_from_the_price():
    """Trailing 4 below the best close of 110, at 106; a dividend of 1 moves it to 105, a lower close moves it nowhere."""
    bars = [*flat(100, 2), (110, 110, 110, 110), (107, 108, 106, 107), (106, 106, 104, 104), *flat(104, 1)]
    dividend = np.zeros((6, 1))
    dividend[3] = 1.0
    config = FREE.model_copy(update={"barrier_atr": 1.0, "take_multiple": 10.0, "trail_atr": 0.8})
    trade = run(panel(bars, dividend=dividend), [BUY], config).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("stop", 105.0, date(2024, 1, 5))


def test_a_wide_trail_leaves_a_nearer_stop_where_it_is():
    """The stop lies 5 below the entry, the trail 10 below the best close; then the stop at the entry is the nearer one."""
    config = FREE.model_copy(update={"barrier_atr": 1.0, "take_multiple": 10.0, "trail_atr": 2.0})
    falls = [*flat(100, 2), (100, 100, 96, 97), (97, 97, 94, 96), *flat(96, 1)]
    trade = run(panel(falls), [BUY], config).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"]) == ("stop", 95.0)
    rises = [*flat(100, 2), (105, 106, 105, 106), (104, 104, 99, 101), *flat(101, 1)]
    even = config.model_copy(update={"break_even_at": 1.0})
    trade = run(panel(rises), [BUY], even).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"]) == ("stop", 100.0)  # and not 106 less 10
