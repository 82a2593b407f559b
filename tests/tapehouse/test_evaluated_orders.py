"""What became of orders: by hand, held together with labels and rewards, and orders that must be refused."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.evaluations.orders import order_fates
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
SCHEMA = {
    "symbol": pl.String, "session": pl.Date, "close": pl.Float64, "action": pl.String, "limit_price": pl.Float64,
    "limit_valid_sessions": pl.Int32, "objective": pl.String,
}  # fmt: skip


def answered(*rows: tuple) -> pl.DataFrame:
    """Answers of session 0 at a close of 100, from (action, limit, valid sessions)."""
    said = [("AAA", day(0), 100.0, what, limit, valid, "fast" if limit else "direction") for what, limit, valid in rows]
    return pl.DataFrame(said, schema=SCHEMA, orient="row")


def fates(path: list, *rows: tuple, actions=()):
    """What becomes of orders when `path` follows, from session 1 on."""
    paths = settled_paths(frame(bars("AAA", [FLAT, *path])), action_frame(actions), calendar(60), ["AAA"])
    return order_fates(answered(*rows), paths, OBJECTIVES)


def test_orders_on_paper():
    """A limit that fills on the second day, one that misses, an order at market on either side, and none."""
    path = [(102, 103, 98.5, 101), (100, 104, 97, 103), (104, 106, 103, 105), (105, 106, 104, 104), (104, 109, 103, 108)]
    found = fates(path, ("BUY", 98.0, 3), ("BUY", 90.0, 3), ("BUY", None, None), ("SELL", None, None), ("HOLD", None, None))
    assert found.filled[:4].tolist() == [1.0, 0.0, 1.0, 1.0] and math.isnan(found.filled[4])
    assert found.at_market[:4].tolist() == [0.0, 0.0, 1.0, 1.0]
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
    assert np.isnan(fates([None, FLAT], ("BUY", None, None)).filled).all()  # no bar, so no price at market


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_limit_is_paid_as_its_label_and_a_market_order_earns_the_forward_return(seed):
    (prices, actions), sessions = random_market(seed, 60, late=20), calendar(60)
    symbols = sorted(prices["symbol"].unique())
    paths = settled_paths(prices, actions, sessions, symbols, SETTLEMENT)
    rng = np.random.default_rng(seed)
    known = [(r, c) for r in range(len(symbols)) for c in range(20) if not math.isnan(paths.close[r, c])]
    rows = pl.DataFrame(
        [
            (symbols[r], sessions["session"][c], paths.close[r, c], ("BUY", "SELL")[rng.integers(2)],
             paths.close[r, c] * rng.uniform(0.97, 1.03), 3, "fast")
            for r, c in known
        ],
        schema=SCHEMA, orient="row",
    )  # fmt: skip
    found = order_fates(rows, paths, OBJECTIVES)
    side = np.where(rows["action"] == "BUY", 1, -1)
    labels = order_outcomes(
        paths, rows.select("symbol", "session", side=pl.Series(side), limit="limit_price", arrival="close"), 3, COSTS, WEIGHTS
    )
    assert np.array_equal(found.reward_bps, labels["reward_bps"].to_numpy(), equal_nan=True)
    cost = (labels["fees_bps"] - labels["shortfall_bps"]).to_numpy()
    assert np.array_equal(found.shortfall_bps, cost, equal_nan=True)
    market = order_fates(rows.with_columns(limit_price=None, objective=pl.lit("direction")), paths, OBJECTIVES)
    row, column = np.array(known).T
    paid = 1 + side * COSTS.half_spread_bps / 1e4
    for k, horizon in enumerate(HORIZONS):
        entered = np.where(np.isnan(paths.open[row, column + 1]), -1, column + 1)
        ret = returns_after(paths, row, entered, horizon)
        filled = ~np.isnan(market.filled)
        assert market.markout_bps[filled, k] == pytest.approx((side * ((1 + ret) / paid - 1) * 1e4)[filled], nan_ok=True)


def test_a_limit_that_no_account_could_rest_is_refused():
    with pytest.raises(ValueError, match=r"limit_valid_sessions of at least 1, got 98\.0 and 0"):
        fates([FLAT], ("BUY", 98.0, None))
    with pytest.raises(ValueError, match="AAA on 2019-01-01"):
        fates([FLAT], ("SELL", -1.0, 3))
