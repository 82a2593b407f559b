"""What became of orders: by hand, held together with labels and rewards, and orders that must be refused."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.evaluations.core import measure
from tapehouse.evaluations.orders import ORDERS, order_fates
from tapehouse.evaluations.rows import Rows
from tapehouse.labels.forward import HORIZONS, returns_after
from tapehouse.orders import Costs, KeepRates, Objective, Objectives, Stratum, Weights, order_outcomes
from tapehouse.paths import settled_paths
from tests.tapehouse.market_records import SETTLEMENT, action, action_frame, bars, calendar, day, frame, random_market

COSTS = Costs(half_spread_bps=10, maker_fee_bps=1, taker_fee_bps=3, unfilled_penalty_bps=20)
STRATA = (Stratum(near=(0.1, 0.2), far=(0.5, 1.0)),)
WEIGHTS = Weights(price=1, certainty=1, risk=0, fees=1)
OBJECTIVES = Objectives(
    costs=COSTS, near_tie_bps=1, keep=KeepRates(),
    objectives={"fast": Objective(words="a fast fill", share=1.0, window_sessions=2, weights=WEIGHTS, strata=STRATA)},
)  # fmt: skip
FLAT = (100, 101, 99, 100)
NAN = float("nan")
SCHEMA = {
    "symbol": pl.String, "session": pl.Date, "close": pl.Float64, "action": pl.String, "limit_price": pl.Float64,
    "limit_valid_sessions": pl.Int32, "objective": pl.String,
}  # fmt: skip


def answered(*rows: tuple) -> pl.DataFrame:
    """Answers of session 0 at a close of 100, from (action, limit, valid sessions)."""
    said = [("AAA", day(0), 100.0, what, limit, valid, "fast" if limit else "direction") for what, limit, valid in rows]
    return pl.DataFrame(said, schema=SCHEMA, orient="row")


def fates(path: list, *rows: tuple, actions=(), others: int = 0):
    """What becomes of orders when `path` follows, from session 1 on; another symbol has bars over `others` sessions."""
    known = frame([*bars("AAA", [FLAT, *path]), *bars("BBB", [FLAT] * others)])
    paths = settled_paths(known, action_frame(actions), calendar(60), ["AAA", "BBB"])
    return order_fates(answered(*rows), paths, OBJECTIVES)


def test_orders_on_paper():
    """A limit that fills on the second day, one that misses, an order at market on either side, and none."""
    path = [(102, 103, 98.5, 101), (100, 104, 97, 103), (104, 106, 103, 105), (105, 106, 104, 104), (104, 109, 103, 108)]
    found = fates(path, ("BUY", 98.0, 3), ("BUY", 90.0, 3), ("BUY", None, None), ("SELL", None, None), ("HOLD", None, None))
    assert found.filled[:4].tolist() == [1.0, 0.0, 1.0, 1.0] and math.isnan(found.filled[4])
    # At 98 with a maker's fee of 1; at the third close and across the spread of 10, with a taker's 3; at the first open.
    missed = (105 * 1.001 / 100 - 1) * 1e4 + 3
    assert found.shortfall_bps[:3] == pytest.approx([-200 + 1, missed, (102 * 1.001 / 100 - 1) * 1e4 + 3])
    assert found.shortfall_bps[3] == pytest.approx((1 - 102 * 0.999 / 100) * 1e4 + 3)
    # Without a weight of risk the objective pays what is saved, less 20 for the miss.
    assert found.reward_bps[:2] == pytest.approx([200 - 1, -missed - 20]) and np.isnan(found.reward_bps[2:]).all()
    # One session after the fill is its own close: 103 for the limit, 101 for orders at market.
    assert found.markout_bps[0, :2] == pytest.approx([(103 / 98 - 1) * 1e4, math.nan], nan_ok=True)
    assert found.markout_bps[2, :2] == pytest.approx([(101 / 102.102 - 1) * 1e4, (108 / 102.102 - 1) * 1e4])
    assert found.markout_bps[3, 0] == pytest.approx(-(101 / 101.898 - 1) * 1e4)
    assert np.isnan(found.markout_bps[[1, 4]]).all() and np.isnan(found.shortfall_bps[4])


def test_a_split_after_the_fill_is_no_loss_and_its_dividend_counts():
    path = [(100, 100, 97, 98), (49, 50, 48, 50)]
    found = fates([*path, *[(50, 51, 49, 50)] * 40], ("BUY", 98.0, 1), actions=[action("AAA", "split", 2, 2)])
    assert found.markout_bps[0] == pytest.approx([0.0] + [(100 / 98 - 1) * 1e4] * 3)
    paid = fates([*path, *[(50, 51, 49, 50)] * 40], ("SELL", 98.0, 1), actions=[action("AAA", "dividend", 2, 1.5)])
    # It takes liquidity at the first open, never under its limit; a short pays the dividend.
    sold = 100 * 0.999
    assert paid.markout_bps[0] == pytest.approx([-(98 / sold - 1) * 1e4] + [-((50 + 1.5) / sold - 1) * 1e4] * 3)


def test_an_order_whose_end_is_still_to_come_is_not_judged():
    found = fates([FLAT, FLAT], ("BUY", 90.0, 3), ("BUY", 90.0, 2), ("BUY", None, None))
    assert math.isnan(found.filled[0]) and math.isnan(found.shortfall_bps[0])
    assert found.filled[1:].tolist() == [0.0, 1.0]
    # Nor is one that was filled early: its neighbours that missed are not known yet.
    assert math.isnan(fates([(100, 101, 89, 95), FLAT], ("BUY", 90.0, 3)).filled[0])


def test_an_order_at_market_into_a_halt_pays_the_price_after_it():
    """Closed at 100, halted for a session, opened at 120: who wanted to buy pays that, and has not had his fill."""
    found = fates([None, (120, 121, 119, 120)], ("BUY", None, None), ("SELL", None, None), ("BUY", 99.0, 1))
    assert found.filled.tolist() == [0.0, 0.0, 0.0] and np.isnan(found.markout_bps).all()
    bought = (120 * 1.001 / 100 - 1) * 1e4 + 3
    assert found.shortfall_bps == pytest.approx([bought, (1 - 120 * 0.999 / 100) * 1e4 + 3, bought])
    # A halt over a split of two for one and a dividend of 3 to each old share: 120 of then is 2 * 58.5 + 3.
    actions = [action("AAA", "dividend", 2, 3.0), action("AAA", "split", 2, 2)]
    split = fates([None, (58.5, 59, 58, 58)], ("BUY", None, None), actions=actions)
    assert split.shortfall_bps == pytest.approx([(2 * 58.5 * 1.001 + 3 - 100) / 100 * 1e4 + 3], abs=5)


def test_a_halt_at_the_end_of_its_rest_does_not_undo_a_fill():
    """Filled on the first session, halted on the last; and one that missed before the same halt."""
    path = [(100, 101, 97, 98), (98, 99, 96, 97), None, (80, 81, 79, 80)]
    found = fates(path, ("BUY", 98.5, 3), ("BUY", 90.0, 3), ("SELL", 110.0, 3))
    assert found.filled.tolist() == [1.0, 0.0, 0.0]
    missed = (80 * 1.001 / 100 - 1) * 1e4 + 3
    assert found.shortfall_bps == pytest.approx([-150 + 1, missed, (1 - 80 * 0.999 / 100) * 1e4 + 3])
    assert found.reward_bps[:2] == pytest.approx([150 - 1, -missed - 20])


def test_what_is_never_traded_again_is_executed_at_its_last_close():
    path = [(100, 101, 97, 98), (98, 99, 96, 97)]
    found = fates(path, ("BUY", 98.5, 4), ("BUY", 90.0, 4), ("BUY", None, None), others=10)
    assert found.filled.tolist() == [1.0, 0.0, 1.0]
    assert found.shortfall_bps[:2] == pytest.approx([-150 + 1, (97 * 1.001 / 100 - 1) * 1e4 + 3])
    # A split while it is not traded leaves what was paid as it is.
    split = fates(path, ("BUY", 90.0, 4), actions=[action("AAA", "split", 3, 2)], others=10)
    assert split.shortfall_bps == pytest.approx([(97 * 1.001 / 100 - 1) * 1e4 + 3])
    gone = fates([], ("SELL", None, None), others=10)  # not even one session: at the close of the decision
    assert gone.filled.tolist() == [0.0] and gone.shortfall_bps == pytest.approx([10 + 3])
    still = fates(path, ("BUY", 98.5, 4), others=4)  # sessions 1 to 3 are known, the fourth is not
    assert np.isnan(still.filled).all() and np.isnan(still.shortfall_bps).all()


def test_orders_that_cannot_be_settled_are_counted():
    filled = np.array([1.0, 0.0, NAN, NAN, NAN])
    columns = {"action": np.array([2.0, 0.0, 2.0, 1.0, NAN]), "order_filled": filled, "order_shortfall": filled}
    rows = Rows(columns | {f"order_markout_{h}": filled for h in HORIZONS}, np.arange(5), 5)
    found = {row[0]: row[1:] for row in measure(rows, (ORDERS,)).select("metric", "value", "n").rows()}
    assert found["fill_rate"] == (0.5, 2) and found["unsettled"] == (pytest.approx(1 / 3), 3)


def test_a_markouts_interval_is_as_wide_as_its_horizon_asks():
    """The same moves, alike for thirty sessions: blocks of ten know too little of that, those of thirty more."""
    rng = np.random.default_rng(3)
    moves = np.repeat(rng.normal(size=8), 30)
    columns = {"action": np.full(240, 2.0), "order_filled": np.ones(240), "order_shortfall": moves}
    rows = Rows(columns | {f"order_markout_{h}": moves for h in HORIZONS}, np.arange(240), 240)
    found = measure(rows, (ORDERS,)).with_columns(width=pl.col("high") - pl.col("low"))
    width = dict(found.select("metric", "width").rows())
    assert width["markout_30d_bps"] > 1.2 * width["markout_10d_bps"]
    assert width["markout_10d_bps"] == width["markout_1d_bps"] == width["implementation_shortfall_bps"]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_limit_is_paid_as_its_label_and_a_market_order_earns_the_forward_return(seed):
    (prices, actions), sessions = random_market(seed, 60, late=20), calendar(60)
    symbols = sorted(prices["symbol"].unique())
    paths = settled_paths(prices, actions, sessions, symbols, SETTLEMENT)
    rng = np.random.default_rng(seed)
    decided = [(r, c) for r in range(len(symbols)) for c in range(20) if not math.isnan(paths.close[r, c])]
    rows = pl.DataFrame(
        [
            (symbols[r], sessions["session"][c], paths.close[r, c], ("BUY", "SELL")[rng.integers(2)],
             paths.close[r, c] * rng.uniform(0.97, 1.03), 3, "fast")
            for r, c in decided
        ],
        schema=SCHEMA, orient="row",
    )  # fmt: skip
    found = order_fates(rows, paths, OBJECTIVES)
    side = np.where(rows["action"] == "BUY", 1, -1)
    labels = order_outcomes(
        paths, rows.select("symbol", "session", side=pl.Series(side), limit="limit_price", arrival="close"), 3, COSTS, WEIGHTS
    )
    known = labels["filled"].is_not_null().to_numpy()
    assert np.array_equal(found.reward_bps[known], labels["reward_bps"].to_numpy()[known])
    cost = (labels["fees_bps"] - labels["shortfall_bps"]).to_numpy()
    assert np.array_equal(found.shortfall_bps[known], cost[known])
    assert not np.isnan(found.shortfall_bps).any()  # the sixty sessions end long after these orders do
    market = order_fates(rows.with_columns(limit_price=None, objective=pl.lit("direction")), paths, OBJECTIVES)
    row, column = np.array(decided).T
    paid = 1 + side * COSTS.half_spread_bps / 1e4
    for k, horizon in enumerate(HORIZONS):
        entered = np.where(np.isnan(paths.open[row, column + 1]), -1, column + 1)
        ret = returns_after(paths, row, entered, horizon)
        filled = market.filled == 1
        assert market.markout_bps[filled, k] == pytest.approx((side * ((1 + ret) / paid - 1) * 1e4)[filled], nan_ok=True)


def test_a_limit_that_no_account_could_rest_is_refused():
    with pytest.raises(ValueError, match=r"limit_valid_sessions of at least 1, got 98\.0 and 0"):
        fates([FLAT], ("BUY", 98.0, None))
    with pytest.raises(ValueError, match="AAA on 2019-01-01"):
        fates([FLAT], ("SELL", -1.0, 3))
