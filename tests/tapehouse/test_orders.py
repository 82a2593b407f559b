from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.orders import Costs, Weights, load_objectives, order_outcomes
from tapehouse.paths import settled_paths
from tests.tapehouse.market_records import action, action_frame, at, bar, bars, calendar, day, frame, random_market

COSTS = Costs(half_spread_bps=10, maker_fee_bps=1, taker_fee_bps=3, unfilled_penalty_bps=20)
PRICE = Weights(price=1, certainty=0, risk=0, fees=0)
FLAT = (100, 101, 99, 100)


def outcome(path: list, side=1, limit=98.0, window=3, weights=PRICE, actions=(), extra=(), arrival=100.0) -> dict:
    """What becomes of one order placed at the close of session 0; `path` begins with session 1."""
    prices = frame([*bars("AAA", [FLAT, *path]), *extra])
    paths = settled_paths(prices, action_frame(actions), calendar(20), ["AAA"])
    order = pl.DataFrame({"symbol": ["AAA"], "session": [day(0)], "side": [side], "limit": [limit], "arrival": [arrival]})
    return order_outcomes(paths, order, window, COSTS, weights).row(0, named=True)


def test_a_touch_is_no_fill_and_a_trade_through_is():
    touched = outcome([(100, 101, 98, 100)] * 3)
    assert (touched["filled"], touched["sessions_waited"]) == (False, 3)
    through = outcome([(100, 101, 98, 100), (100, 101, 97.99, 100), FLAT])
    assert (through["filled"], through["exec_price"], through["sessions_waited"]) == (True, 98.0, 1)
    assert through["shortfall_bps"] == pytest.approx(200.0)
    assert (through["reward_end_at"], through["reward_known_at"]) == (at(3, 21), at(4, 21))


def test_a_sell_fills_above_its_limit():
    sold = outcome([(100, 102.01, 99, 100), FLAT, FLAT], side=-1, limit=102.0)
    assert (sold["filled"], sold["exec_price"]) == (True, 102.0)
    assert sold["shortfall_bps"] == pytest.approx(200.0)


def test_an_order_that_the_first_open_finds_through_the_market_takes_liquidity():
    fees = Weights(price=1, certainty=1, risk=1, fees=1)
    taken = outcome([(95, 96, 94, 95), FLAT, (100, 101, 99, 96)], weights=fees)
    assert (taken["filled"], taken["sessions_waited"], taken["fees_bps"], taken["certainty_bps"]) == (True, 0, 3.0, 0.0)
    assert taken["exec_price"] == pytest.approx(95 * 1.001)  # half the spread of 20 bps
    assert taken["reward_bps"] == pytest.approx((1 - 95 * 1.001 / 100) * 1e4 - 3)
    assert taken["markout_bps"] == pytest.approx((96 / (95 * 1.001) - 1) * 1e4)
    sold = outcome([(105, 106, 104, 105), FLAT, FLAT], side=-1, limit=102.0)
    assert (sold["exec_price"], sold["fees_bps"]) == (pytest.approx(105 * 0.999), 3.0)
    # Never beyond its limit, whatever the spread.
    assert outcome([(97.95, 98.5, 97, 98), FLAT, FLAT])["exec_price"] == 98.0
    assert outcome([(102.05, 103, 102, 103), FLAT, FLAT], side=-1, limit=102.0)["exec_price"] == 102.0
    # The first open that there is, and the spread of the traded price, not of the one restated by a split.
    assert outcome([None, (95, 96, 94, 95), FLAT])["exec_price"] == pytest.approx(95 * 1.001)
    halved = outcome([(45, 46, 44, 45), FLAT, FLAT], actions=[action("AAA", "split", 1, 2), action("AAA", "dividend", 1, 2)])
    assert halved["exec_price"] == pytest.approx(2 * 45 * 1.001 + 2)


def test_a_resting_order_that_a_later_open_passes_fills_at_that_open_as_a_maker():
    gap = outcome([FLAT, (95, 96, 94, 95), FLAT])
    assert (gap["filled"], gap["exec_price"], gap["fees_bps"], gap["sessions_waited"]) == (True, 95.0, 1.0, 1)
    assert gap["shortfall_bps"] == pytest.approx(500.0)


def test_the_bar_of_the_decision_fills_nothing():
    assert outcome([FLAT] * 3, limit=99.5)["sessions_waited"] == 0  # the low of 99 of session 1, not of session 0
    assert outcome([(100, 101, 99.9, 100)] * 3, limit=99.5)["filled"] is False


def test_an_unfilled_order_is_executed_at_the_end_across_the_spread():
    missed = outcome([FLAT, FLAT, (104, 106, 103, 105)])
    assert missed["filled"] is False
    assert missed["exec_price"] == pytest.approx(105 * 1.001)
    assert missed["shortfall_bps"] == pytest.approx(-(105 * 1.001 / 100 - 1) * 1e4)
    assert missed["fees_bps"] == 3.0


def test_the_reward_is_the_weighted_sum_of_its_parts():
    weights = Weights(price=1, certainty=0.5, risk=0.25, fees=2)
    missed = outcome([FLAT, (100, 104, 99, 100), FLAT], limit=90, weights=weights)
    assert (missed["certainty_bps"], missed["risk_bps"]) == (-20.0, pytest.approx(-400.0))
    assert missed["reward_bps"] == pytest.approx(-10 - 2 * 3 - 0.5 * 20 - 0.25 * 400)
    filled = outcome([(100, 102, 99, 100), (100, 110, 97, 100), FLAT], weights=weights)
    assert (filled["certainty_bps"], filled["risk_bps"]) == (0.0, pytest.approx(-200.0))  # the fill's own session not
    assert filled["reward_bps"] == pytest.approx(200 - 2 * 1 - 0.25 * 200)


def test_a_resting_order_sees_neither_a_split_nor_a_dividend_as_a_fall():
    split = outcome([FLAT, (50, 50.5, 49.5, 50), (50, 50.5, 48.9, 50)], actions=[action("AAA", "split", 2, 2)])
    assert (split["filled"], split["sessions_waited"], split["exec_price"]) == (True, 2, 98.0)  # 48.9 is 97.8
    paid = outcome([(95, 96, 94, 95)] * 3, actions=[action("AAA", "dividend", 1, 5)])
    assert paid["filled"] is False
    assert paid["exec_price"] == pytest.approx(95 * 1.001 + 5)


def test_the_markout_is_the_move_from_the_fill_to_the_windows_last_close():
    bought = outcome([(100, 101, 97, 99), FLAT, (100, 101, 99, 101)])
    assert bought["markout_bps"] == pytest.approx((101 / 98 - 1) * 1e4)
    sold = outcome([(100, 103, 99, 101), FLAT, (100, 101, 99, 101)], side=-1, limit=102.0)
    assert sold["markout_bps"] == pytest.approx(-(101 / 102 - 1) * 1e4)
    assert outcome([FLAT] * 3)["markout_bps"] is None  # unfilled
    # A split and a dividend after the fill are no loss: 2 × 49 + 4 = 102 in the decision's basis.
    later = [action("AAA", "split", 2, 2), action("AAA", "dividend", 3, 2)]
    held = outcome([(100, 101, 97, 99), (50, 50.5, 49.5, 50), (49, 49.5, 48.5, 49)], actions=later)
    assert held["markout_bps"] == pytest.approx((102 / 98 - 1) * 1e4)
    weighed = Weights(price=1, certainty=1, risk=1, fees=1)
    assert held["reward_bps"] == outcome([(100, 101, 97, 99), FLAT, FLAT])["reward_bps"]  # no part of the reward
    assert outcome([(100, 101, 97, 99), FLAT, (100, 101, 99, 120)], weights=weighed)["reward_bps"] == pytest.approx(200 - 1)


def test_a_window_that_the_data_do_not_finish_has_no_outcome():
    assert set(outcome([(90, 91, 89, 90), FLAT]).values()) == {None}


def test_a_bar_first_known_after_its_settlement_is_missing():
    through = {"symbol": "AAA", "index": 2, "open": 100, "high": 101, "low": 90, "close": 100}
    assert outcome([FLAT, None, FLAT], extra=[bar(**through, known_at=at(3, 21))])["filled"] is True
    assert outcome([FLAT, None, FLAT], extra=[bar(**through, known_at=at(3, 22))])["filled"] is False


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), near=st.floats(0.1, 3), more=st.floats(0.1, 5), side=st.sampled_from([1, -1]))
def test_a_farther_limit_fills_no_sooner_and_a_fill_is_never_worse_than_its_limit(seed, near, more, side):
    prices, actions = random_market(seed, 40, symbols=("AAA",))
    paths = settled_paths(prices, actions, calendar(60), ["AAA"])
    decisions = prices.filter(pl.col("close") > 20).select("symbol", "session", arrival="close").with_columns(side=side)

    def of(offset):
        orders = decisions.with_columns(limit=pl.col("arrival") - side * offset)
        return orders.select("limit").hstack(order_outcomes(paths, orders, 4, COSTS, PRICE))

    close, far = of(near), of(near + more)
    known = close["filled"].is_not_null()
    assert (far["filled"].is_not_null() == known).all()
    assert not (far["filled"] & ~close["filled"]).any()
    assert (far["sessions_waited"] >= close["sessions_waited"]).drop_nulls().all()
    filled = far.filter(pl.col("filled"))
    assert (side * (filled["limit"] - filled["exec_price"]) >= -1e-9).all()


def test_a_limit_below_zero_is_refused():
    with pytest.raises(TapehouseError, match="AAA on 2019-01-01: limit -1"):
        outcome([FLAT] * 3, limit=-1.0)


def test_the_declared_objectives_load_and_a_slip_names_file_and_key(tmp_path):
    declared = load_objectives(Path("objectives.yaml"))
    assert set(declared.words) == {"aggressive", "patient", "risk_averse"}
    slip = tmp_path / "objectives.yaml"
    slip.write_text(Path("objectives.yaml").read_text().replace("window_sessions: 5", "window: 5"))
    with pytest.raises(TapehouseError, match=r"objectives\.yaml: objectives\.patient\.window: unknown key; remove it"):
        load_objectives(slip)
    slip.write_text(Path("objectives.yaml").read_text().replace("far: [0.80, 1.10]", "far: [0.20, 1.10]"))
    with pytest.raises(TapehouseError, match=r"strata\.0: .*expected 0 < near"):
        load_objectives(slip)
    slip.write_text(Path("objectives.yaml").read_text().replace("buy_share: {bullish", "buy_share: {bulish"))
    with pytest.raises(TapehouseError, match=r"buy_share\.bulish.*'bullish', 'bearish' or 'sideways'"):
        load_objectives(slip)
    slip.write_text(Path("objectives.yaml").read_text().replace("regime: {bearish: 1.0", "regime: {bear: 1.0"))
    with pytest.raises(TapehouseError, match=r"keep\.regime\.bear"):
        load_objectives(slip)
