"""Realised rewards against confidence: by hand, one and the same as in training, with and without skill."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.evaluations.core import measure
from tapehouse.evaluations.orders import OrderFates
from tapehouse.evaluations.rewards import MEANING, REWARDS, margin_slice, margins, realised_rewards
from tapehouse.evaluations.rows import Rows

YEARLY = 0.01 * math.sqrt(252)  # 1 % a session
SCHEMA = {
    "action": pl.String, "limit_price": pl.Float64, "limit_valid_sessions": pl.Int32, "realised_vol_20d": pl.Float64,
    "forward_10": pl.Float64,
}  # fmt: skip


def rewards(rows: list[tuple], objective: list[bool], paid: list[float]) -> np.ndarray:
    """Of (action, limit, valid sessions, volatility, return over ten sessions), and what objectives pay in bps."""
    nothing = np.full(len(rows), np.nan)
    fates = OrderFates(np.array(objective), nothing, nothing, np.array(paid, float), np.full((len(rows), 4), np.nan))
    return realised_rewards(pl.DataFrame(rows, schema=SCHEMA, orient="row"), fates)


def rows_of(action, p_buy, p_sell, reward, confidence=None) -> Rows:
    columns = {"action": action, "p_buy": p_buy, "p_sell": p_sell, "reward": reward}
    columns["confidence"] = np.full(len(action), np.nan) if confidence is None else confidence
    arrays = {name: np.asarray(values, float) for name, values in columns.items()}
    return Rows(arrays, np.arange(len(action)), len(action), frozenset({"reward"}))


def measured(rows: Rows, *slices) -> dict[tuple[str, str], dict]:
    return {(row["level"], row["metric"]): row for row in measure(rows, REWARDS, slices).iter_rows(named=True)}


def test_rewards_on_paper():
    orders = [("BUY", 98.0, 4, YEARLY, 0.5), ("SELL", 98.0, 4, YEARLY, 0.5), ("HOLD", None, 4, YEARLY, 0.5)]
    # Two deviations of 1 % a session over four sessions, and a loss beyond the bound; HOLD is paid nothing.
    found = rewards(orders, [True] * 3, [200, -9_000, math.nan])
    assert found[:2] == pytest.approx([1.0, -3.0]) and math.isnan(found[2])
    sides = [("BUY", None, None, YEARLY, 0.033), ("SELL", None, None, YEARLY, 0.033), ("BUY", None, None, YEARLY, None)]
    found = rewards([*sides, ("BUY", None, None, 0.0, 0.033), (None, None, None, None, None)], [False] * 5, [math.nan] * 5)
    deviation = 0.01 * math.sqrt(10)
    assert found[:2] == pytest.approx([0.03 / deviation, -0.036 / deviation])  # after the 30 bps of a round trip
    assert np.isnan(found[2:]).all()
    # An order whose window is not over yet is not paid as a side would be.
    assert np.isnan(rewards([orders[0]], [True], [math.nan])).all()


@settings(max_examples=20, deadline=None)
@given(st.floats(80, 120), st.sampled_from(["BUY", "SELL"]), st.integers(0, 2**32 - 1))
def test_an_order_is_paid_as_in_training(limit, side, seed):
    from tapehouse.evaluations.orders import order_fates
    from tapehouse.orders import Costs, Objective, Objectives, Stratum, Weights
    from tapehouse.paths import settled_paths
    from tapehouse.rewards import BOUND, paid
    from tests.tapehouse.market_records import action_frame, bars, calendar, day, frame

    weights = Weights(price=1, certainty=0.5, risk=0.5, fees=1)
    costs = Costs(half_spread_bps=2, maker_fee_bps=0.5, taker_fee_bps=3, unfilled_penalty_bps=20)
    strata = (Stratum(near=(0.1, 0.2), far=(0.5, 1.0)),)
    one = Objective(words="a low risk", share=1.0, window_sessions=3, weights=weights, strata=strata)
    rng = np.random.default_rng(seed)
    mids = 100 * np.exp(np.cumsum(rng.normal(0, 0.03, 4)))
    path = [(m, m * 1.02, m * 0.98, m * float(rng.uniform(0.985, 1.015))) for m in mids.tolist()]
    paths = settled_paths(frame(bars("AAA", path)), action_frame([]), calendar(60), ["AAA"])
    arrival = path[0][3]
    answer = pl.DataFrame(
        {"symbol": ["AAA"], "session": [day(0)], "close": [arrival], "action": [side], "limit_price": [limit],
         "limit_valid_sessions": [3], "objective": ["risk"], "realised_vol_20d": [YEARLY], "forward_10": [None]}
    )  # fmt: skip
    fates = order_fates(answer, paths, Objectives(costs=costs, near_tie_bps=1, objectives={"risk": one}))
    window = list(zip(*path[1:], strict=True))
    row = {f"weight_{name}": value for name, value in weights.model_dump().items()} | costs.model_dump()
    row |= {f"window_{name}": list(values) for name, values in zip(("open", "high", "low", "close"), window, strict=True)}
    row |= {"window_shares": [1.0] * 3, "window_cash": [0.0] * 3, "side": side, "arrival": arrival, "window_sessions": 3}
    expected = paid(row, limit) / (0.01 * math.sqrt(3) * 1e4)
    assert realised_rewards(answer, fates)[0] == pytest.approx(min(max(expected, -BOUND), BOUND), rel=1e-12)


def test_the_margin_is_that_of_the_answered_side():
    rows = rows_of([2, 0, 1, 2, 2], [0.52, 0.3, 0.2, 0.05, np.nan], [0.2, 0.37, 0.2, 0.3, np.nan], [1, 2, np.nan, -1, 1])
    assert margins(rows) == pytest.approx([0.32, 0.07, math.nan, -0.25, math.nan], nan_ok=True)
    found = measured(rows, margin_slice(rows))
    assert {level for level, _ in found if level} == {"below 0", "0.05-0.10", "0.30-0.35"}
    assert found["below 0", "mean_reward"]["value"] == -1 and found["0.05-0.10", "mean_reward"]["value"] == 2
    assert found["", "mean_reward"]["value"] == 0.75 and {metric for _, metric in found} == set(MEANING)
    # Margins .32, .07, -.25 rank 3, 2, 1 and rewards 2, 3, 1.
    assert found["", "reward_by_margin"]["value"] == pytest.approx(0.5)
    assert found["", "reward_by_confidence"]["value"] is None


def test_confidence_that_means_something_and_one_that_does_not():
    rng = np.random.default_rng(4)
    sure = rng.uniform(0.5, 0.9, 400)
    knows = rng.random(400) < sure
    reward = np.where(knows, 1.0, -1.0) * rng.exponential(1, 400)
    p_buy = np.where(np.arange(400) % 2, 0.6, 0.2) + rng.uniform(0, 0.1, 400)
    rows = rows_of(np.where(p_buy > 0.4, 2, 0), p_buy, 0.8 - p_buy, reward, sure)
    found = measured(rows)
    assert found["", "reward_by_confidence"]["low"] > 0
    assert found["", "reward_by_margin"]["low"] < 0 < found["", "reward_by_margin"]["high"]
    assert found["", "mean_reward"]["value"] == pytest.approx(reward.mean()) and found["", "mean_reward"]["shuffled"] is None


def test_a_column_that_is_missing_is_named():
    with pytest.raises(pl.exceptions.ColumnNotFoundError, match="realised_vol_20d"):
        realised_rewards(pl.DataFrame(schema={k: v for k, v in SCHEMA.items() if k != "realised_vol_20d"}), None)
