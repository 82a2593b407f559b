"""The account's kernel on cases that can be checked on paper, and its ledger with every rule switched on."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapehouse.backtest.config import BacktestConfig, Guard, Guards
from tapehouse.backtest.guards import GUARDED
from tapehouse.backtest.layout import EXIT_NOW, TO_BREAK_EVEN, VETO
from tapehouse.backtest.panel import Orders, Panel
from tapehouse.backtest.run import BacktestResult, simulate_orders

FREE = BacktestConfig(commission_bps=0, slippage_bps=0, initial_cash=1000, weight=0.5, barrier_atr=1000)
NONE = np.nan


def panel(bars: list, step_days: int = 1, **changes) -> Panel:
    """One symbol from bars (open, high, low, close), or several from lists of such lists."""
    series = bars if isinstance(bars[0], list) else [bars]
    grid = np.array([[bar or (NONE,) * 4 for bar in one] for one in series], float).transpose(2, 1, 0)
    shape = grid[0].shape
    made = Panel(
        symbols=tuple("ABCDEFGH"[: shape[1]]),
        sessions=tuple(date(2024, 1, 1) + timedelta(days=i * step_days) for i in range(shape[0])),
        open=grid[0].copy(),
        high=grid[1].copy(),
        low=grid[2].copy(),
        close=grid[3].copy(),
        ratio=np.ones(shape),
        dividend=np.zeros(shape),
        volume=np.full(shape, NONE),
        volatility=np.full(shape, NONE),
        fx=np.ones(shape),
        delisting=np.full(shape, NONE),
        elapsed=np.array([0.0] + [step_days / 365.0] * (shape[0] - 1)),
        rate=np.zeros(shape[0]),
        tick=np.zeros(shape[1]),
        lot=np.zeros(shape[1]),
    )
    return replace(made, **changes)


def orders(market: Panel, said: list[tuple], config: BacktestConfig = FREE, **changes) -> Orders:
    """Decisions (session, symbol, signal, ATR, limit, valid); a signal of 0 with a command in the last place."""
    shape = market.close.shape
    made = Orders(
        signal=np.zeros(shape, np.int64),
        limit=np.full(shape, NONE),
        valid=np.zeros(shape, np.int64),
        atr=np.full(shape, NONE),
        weight=np.full(shape, config.weight or 1.0 / shape[1]),
        command=np.zeros(shape, np.int64),
        blocked_long=np.full(shape, -1),
        blocked_short=np.full(shape, -1),
        decision_at={},
    )
    for t, s, signal, atr, limit, valid in said:
        made.signal[t, s], made.atr[t, s], made.limit[t, s], made.valid[t, s] = signal, atr, limit or NONE, valid
        made.decision_at[t, s] = market.sessions[t]
    return replace(made, **changes)


def run(market: Panel, said: list[tuple], config: BacktestConfig = FREE, **changes) -> BacktestResult:
    result = simulate_orders(market, orders(market, said, config, **changes), config)
    assert_ledger_holds(result)
    return result


def assert_ledger_holds(result: BacktestResult) -> None:
    ledger = result.ledger
    gains = result.config.initial_cash + ledger["realised"] + ledger["unrealised"] + ledger["dividends"] + ledger["interest"]
    parts = (gains - ledger["commission"] - ledger["slippage"] - ledger["borrow"]).to_numpy()
    equity = ledger["equity"].to_numpy()
    assert (np.abs(parts - equity) <= 1e-9 * np.maximum(1.0, np.abs(equity))).all()
    paid = result.trades["pnl"].sum() + float(ledger["interest"][-1])
    assert paid == pytest.approx(equity[-1] - result.config.initial_cash, abs=1e-6)


def flat(price: float, count: int) -> list[tuple]:
    return [(price,) * 4] * count


def test_costs_on_paper():
    # 5 shares short at 100: half-spread 10 bps, slippage 20, impact 2 x 0.01 x sqrt(5 / 500) = 20: 50 bps against us.
    market = panel(flat(100, 4), step_days=73, volume=np.full((4, 1), 500.0), volatility=np.full((4, 1), 0.01))
    config = FREE.model_copy(
        update={"commission_bps": 10.0, "half_spread_bps": 10.0, "slippage_bps": 20.0, "impact": 2.0, "borrow_bps": 100.0}
    )
    result = run(market, [(0, 0, -1, 1, None, 0)], config)
    trade = result.trades.row(0, named=True)
    assert trade["entry_price"] == pytest.approx(99.5)
    assert trade["exit_price"] == pytest.approx(100.5)
    assert trade["slippage"] == pytest.approx(5 * 0.5 * 2)
    assert trade["commission"] == pytest.approx(5 * (99.5 + 100.5) * 0.001)
    assert trade["borrow"] == pytest.approx(2 * 500 * 0.01 * 73 / 365)  # two intervals of 73 days on 500
    assert trade["pnl"] == pytest.approx(-5 - 1 - 2)


def test_turnover_is_of_entries_and_exits_at_what_was_paid():
    bars = [(100, 100, 100, 100), (100, 110, 100, 110), (110, 110, 110, 110)]
    result = run(panel(bars), [(0, 0, 1, 1, None, 0)], FREE.model_copy(update={"commission_bps": 10.0}))
    assert result.ledger["traded"].to_list() == [0.0, 500.0, 550.0]
    assert result.equity["turnover"].to_list() == pytest.approx([0.0, 500 / 1049.5, 550 / 1048.95])


def test_a_limit_of_a_symbol_counts_what_is_held_of_it():
    config = FREE.model_copy(update={"symbol_limit": 0.6, "lots": 2})
    result = run(panel(flat(100, 5)), [(0, 0, 1, 1, None, 0), (1, 0, 1, 1, None, 0)], config)
    assert result.trades["shares"].to_list() == [5.0, 1.0] and result.counts["scaled"] == 1


def test_only_a_short_pays_a_fee_for_what_it_borrows():
    config = FREE.model_copy(update={"borrow_bps": 100.0})
    result = run(panel(flat(100, 4), step_days=73), [(0, 0, 1, 1, None, 0)], config)
    assert result.ledger["borrow"].to_list() == [0.0] * 4 and result.trades["pnl"].to_list() == [0.0]


def test_cash_earns_only_a_declared_rate():
    market = panel(flat(100, 3), step_days=73)
    assert run(market, []).ledger["interest"][-1] == 0.0
    assert run(replace(market, rate=np.full(3, 0.05)), []).ledger["equity"][-1] == pytest.approx(1000 * 1.01**2)


def test_an_order_is_at_most_its_share_of_the_volume():
    config = FREE.model_copy(update={"participation": 0.1})
    market = panel(flat(100, 4), volume=np.full((4, 1), 20.0))
    result = run(market, [(0, 0, 1, 1, None, 0)], config)
    assert result.trades["shares"].to_list() == [2.0]
    assert result.counts["scaled"] == 1


def test_limits_of_net_and_of_a_symbol():
    market = panel([flat(100, 3), flat(100, 3)])
    both = [(0, 0, 1, 1, None, 0), (0, 1, 1, 1, None, 0)]
    net = run(market, both, FREE.model_copy(update={"net_limit": 0.6}))
    assert net.trades["shares"].to_list() == [3.0, 3.0]  # pro rata: 600 of the 1,000 asked for
    hedged = run(market, [both[0], (0, 1, -1, 1, None, 0)], FREE.model_copy(update={"net_limit": 0.6}))
    assert hedged.trades["shares"].to_list() == [5.0, 5.0]
    capped = run(market, both, FREE.model_copy(update={"symbol_limit": 0.2}))
    assert capped.trades["shares"].to_list() == [2.0, 2.0]


def test_whole_lots_and_ticks():
    market = panel(flat(30.0, 3), lot=np.array([10.0]), tick=np.array([0.05]))
    config = FREE.model_copy(update={"slippage_bps": 10.0})
    trade = run(market, [(0, 0, 1, 1, None, 0)], config).trades.row(0, named=True)
    assert trade["shares"] == 10.0  # 16.67 wanted
    assert trade["entry_price"] == pytest.approx(30.05)  # 30.03 on the next tick above
    assert trade["exit_price"] == pytest.approx(29.95)


def test_a_coarse_tick_is_a_cost_that_the_gross_limit_knows():
    market = panel(flat(0.03, 3), tick=np.array([0.01]))
    config = FREE.model_copy(update={"slippage_bps": 1.0, "gross_limit": 1.0})
    order = [(0, 0, 1, 1, None, 0)]
    equity = run(market, order, config).equity
    assert equity["cash"].min() >= 0.0  # at 0.04 and not at 0.03, as much as the money buys
    trade = run(market, order, config).trades.row(0, named=True)
    assert trade["entry_price"] == pytest.approx(0.04)


def test_target_at_a_multiple_of_risk_from_the_fill():
    bars = [(100, 100, 100, 100), (102, 103, 101, 102), (104, 111.9, 103, 105), (105, 112.1, 104, 108), (1, 1, 1, 1)]
    config = FREE.model_copy(update={"barrier_atr": 1.0, "take_multiple": 2.0, "centre": "fill"})
    trade = run(panel(bars), [(0, 0, 1, 5, None, 0)], config).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"]) == ("take", 112.0)  # 102 + 2 x 5


def test_the_stop_moves_to_the_entry_after_a_close_in_gain():
    bars = [(100, 100, 100, 100), (100, 106, 99, 104), (104, 106, 103, 105), (105, 106, 99, 101), (1, 1, 1, 1)]
    config = FREE.model_copy(update={"barrier_atr": 1.0, "take_multiple": 10.0, "break_even_at": 1.0})
    trade = run(panel(bars), [(0, 0, 1, 5, None, 0)], config).trades.row(0, named=True)
    # 104 is not a gain of one risk (5), 105 is; the low of 99 in the second bar touches nothing yet.
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("stop", 100.0, date(2024, 1, 4))


def test_a_command_moves_the_stop_to_the_entry_only_in_gain():
    bars = [(100, 100, 100, 100), (100, 101, 98, 99), (99, 102, 98, 101), (101, 102, 99, 99.5), (1, 1, 1, 1)]
    config = FREE.model_copy(update={"barrier_atr": 1.0, "take_multiple": 10.0})
    command = np.zeros((5, 1), np.int64)
    command[1:3] = TO_BREAK_EVEN  # at 99 it would be an exit at the next open; at 101 it holds
    trade = run(panel(bars), [(0, 0, 1, 5, None, 0)], config, command=command).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("stop", 100.0, date(2024, 1, 4))


def test_a_trailing_stop_follows_the_best_close_of_a_short():
    bars = [(100, 100, 100, 100), (100, 101, 95, 96), (96, 97, 88, 90), (91, 94, 90, 93.5), (1, 1, 1, 1)]
    config = FREE.model_copy(update={"barrier_atr": 1.0, "take_multiple": 10.0, "trail_atr": 0.8, "trail_from": 1.0})
    trade = run(panel(bars), [(0, 0, -1, 5, None, 0)], config).trades.row(0, named=True)
    # From the close of 90 (two risks of gain) the stop lies 4 above it; a close of 96 was not one risk.
    assert (trade["exit_reason"], trade["exit_price"], trade["exit_session"]) == ("stop", 94.0, date(2024, 1, 4))


def test_an_exit_that_was_decided_fills_at_the_next_open():
    bars = [(100, 100, 100, 100), (100, 101, 99, 100), (107, 109, 90, 95), (1, 1, 1, 1)]
    command = np.zeros((4, 1), np.int64)
    command[1] = EXIT_NOW
    trade = run(panel(bars), [(0, 0, 1, 5, None, 0)], command=command).trades.row(0, named=True)
    assert (trade["exit_reason"], trade["exit_price"]) == ("signal", 107.0)


def test_a_delisting_ends_the_position_at_its_value():
    delisting = np.full((4, 1), NONE)
    delisting[2] = -0.3
    market = panel([*flat(100, 2), None, None], delisting=delisting)
    result = run(market, [(0, 0, 1, 5, None, 0)])
    assert result.trades.row(0, named=True)["exit_reason"] == "delisted"
    assert result.ledger["equity"].to_list()[2:] == [850.0, 850.0]


def test_currency_moves_the_account_and_not_the_levels():
    fx = np.array([[2.0], [2.0], [3.0], [3.0]])
    result = run(panel(flat(100, 4), fx=fx), [(0, 0, 1, 5, None, 0)])
    trade = result.trades.row(0, named=True)
    assert trade["shares"] == 2.5  # 500 of 1,000 at 200
    assert (trade["entry_price"], trade["exit_price"], trade["pnl"]) == (100.0, 100.0, 250.0)


def test_several_lots_of_a_symbol():
    config = FREE.model_copy(update={"lots": 2, "weight": 0.25})
    said = [(t, 0, 1, 5, None, 0) for t in range(3)]
    result = run(panel(flat(100, 6)), said, config)
    assert result.trades["shares"].to_list() == [2.5, 2.5]
    assert result.counts["skipped"] == 1


def test_losses_in_a_row_pause_and_do_not_lock():
    # Each trade loses 1 % and ends on the next bar; every close has a signal.
    bars = [(100, 100, 100, 100)] + [(100, 100, 98, 99)] * 19
    guards = Guards(consecutive_losses=Guard(limit=3, cool_down=4))
    config = FREE.model_copy(update={"barrier_atr": 1.0, "vertical_barrier": 1, "guards": guards})
    result = run(panel(bars), [(t, 0, 1, 50, None, 0) for t in range(20)], config)
    entries = [(s - date(2024, 1, 1)).days for s in result.trades["entry_session"]]
    assert entries == [1, 2, 3, 8, 9, 10, 15, 16, 17]  # decided after sessions 0 to 2, then 7 to 9, then 14 to 16
    assert result.counts["vetoed"] == 4 * 2 + 2
    assert set(result.fate[3:7, 0]) == {VETO + GUARDED}


def test_the_share_of_wins_needs_its_sample():
    bars = [(100, 100, 100, 100)] + [(100, 100, 98, 99)] * 11
    guards = Guards(win_rate=Guard(limit=0.4, window=5, least=4, cool_down=2))
    config = FREE.model_copy(update={"barrier_atr": 1.0, "vertical_barrier": 1, "guards": guards})
    result = run(panel(bars), [(t, 0, 1, 50, None, 0) for t in range(12)], config)
    assert [(s - date(2024, 1, 1)).days for s in result.trades["entry_session"]] == [1, 2, 3, 4, 7, 8, 9, 10]


def test_a_fall_from_a_recent_high_pauses_entries_but_no_exit():
    bars = [(100, 100, 100, 100), (100, 100, 100, 100), (60, 60, 60, 60), *flat(60, 6)]
    guards = Guards(drawdown=Guard(limit=0.15, window=5, least=2, cool_down=3))
    config = FREE.model_copy(update={"vertical_barrier": 2, "guards": guards})
    result = run(panel(bars), [(t, 0, 1, 1, None, 0) for t in range(9)], config)
    assert [(s - date(2024, 1, 1)).days for s in result.trades["entry_session"]] == [1, 6, 8]
    assert result.trades["exit_reason"][0] == "vertical"


def test_a_veto_of_the_decision_holds_for_its_side_alone():
    market = panel([flat(100, 3), flat(100, 3)])
    blocked = np.full((3, 2), -1)
    blocked[0] = 7
    result = run(market, [(0, 0, 1, 5, None, 0), (0, 1, -1, 5, None, 0)], blocked_short=blocked)
    assert result.trades["side"].to_list() == ["BUY"]
    assert result.fate[0].tolist()[1] == VETO + 7


def test_rules_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="no stop that"):
        BacktestConfig(exit_rule="hold", trail_atr=1.0)
    with pytest.raises(ValueError, match="could never hold"):
        Guard(limit=0.4, window=5, least=6)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6), st.integers(1, 3), st.booleans())
def test_the_ledger_holds_with_every_rule(seed, lots, on_fill):
    rng = np.random.default_rng(seed)
    shape = (60, 3)
    close = 50 * np.exp(np.cumsum(0.02 * rng.standard_normal(shape), axis=0))
    opened = close * np.exp(0.01 * rng.standard_normal(shape))
    high, low = np.maximum(opened, close) * 1.01, np.minimum(opened, close) * 0.99
    holes = rng.random(shape) < 0.03
    holes[0] = False
    for grid in (opened, high, low, close):
        grid[holes] = NONE
    delisting = np.full(shape, NONE)
    if seed % 2:
        delisting[40, 2] = -0.2
        for grid in (opened, high, low, close):
            grid[40:, 2] = NONE
    ratio = np.where(rng.random(shape) < 0.02, 2.0, 1.0)
    ratio[0] = 1.0
    market = replace(
        panel([flat(1, 60)] * 3),
        open=opened / np.cumprod(ratio, axis=0),
        high=high / np.cumprod(ratio, axis=0),
        low=low / np.cumprod(ratio, axis=0),
        close=close / np.cumprod(ratio, axis=0),
        ratio=ratio,
        delisting=delisting,
        dividend=np.where((rng.random(shape) < 0.02) & (np.arange(60) > 0)[:, None], 0.05, 0.0),
        volume=rng.uniform(500, 5_000, shape),
        volatility=np.full(shape, 0.02),
        fx=np.exp(np.cumsum(0.005 * rng.standard_normal(shape), axis=0)),
        rate=np.full(60, 0.03),
        tick=np.array([0.0, 0.01, 0.05]),
        lot=np.array([1.0, 0.0, 10.0]),
    )
    said = [
        (t, s, int(rng.choice([-1, 1])), 1.0, None if rng.random() < 0.5 else market.close[t, s] * 1.002, 3)
        for t, s in zip(*np.nonzero((rng.random(shape) < 0.5) & ~np.isnan(market.close)), strict=True)
    ]
    guard = Guard(limit=2, cool_down=3)
    config = BacktestConfig(
        initial_cash=100_000,
        half_spread_bps=3,
        impact=0.5,
        borrow_bps=200,
        participation=0.2,
        net_limit=0.5,
        symbol_limit=0.4,
        lots=lots,
        barrier_atr=1.5,
        take_multiple=2.0,
        break_even_at=1.0,
        trail_atr=1.0,
        trail_from=0.5,
        centre="fill" if on_fill else "first_open",
        guards=Guards(consecutive_losses=guard, win_rate=Guard(limit=0.4), drawdown=Guard(limit=0.05)),
    )
    command = rng.integers(0, 16, shape)
    result = run(market, said, config, command=command)
    counts = result.counts
    assert counts["filled"] == result.trades.height
    ended = ("filled", "skipped", "expired", "unexecuted", "refused", "vetoed")
    assert sum(counts[name] for name in ended) == counts["signals"]
    again = run(market, said, config, command=command)
    assert again.trades.equals(result.trades) and again.ledger.equals(result.ledger)
