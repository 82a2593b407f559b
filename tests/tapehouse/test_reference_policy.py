"""The reference policy: one account by hand, and no row that knows more than its decision or depends on its range."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash
from tapehouse.reference_policy import MAX_BARS, SCHEMA, STATE, policy_states, trend, walk
from tests.tapehouse.market_records import (
    FIRST,
    LAG,
    action,
    action_frame,
    another_future,
    bar,
    bars,
    decided,
    frame,
    random_market,
)


def account(rows, trends, atr, factors=None):
    """The states over one year of (open, high, low, close) rows, one frame row a bar."""
    opens, highs, lows, closes = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    count = len(rows)
    states = walk(
        np.array([0]), np.array([count]), opens, highs, lows, closes,
        np.array(factors or [1.0] * count), np.array(atr, dtype=float), np.array(trends, dtype=float),
    )  # fmt: skip
    return pl.DataFrame(states.T, schema=list(STATE), orient="row")


def test_a_year_by_hand():
    states = account(
        [
            (100, 101, 99, 100),  # flat; bullish: buys at the next open
            (100, 103, 99, 102),  # long at 100, stop 100 - 1.5 * 2 = 97; one ATR up at the close: stop to the entry
            (103, 105, 101, 104.5),  # 2.25 ATR up: the stop follows, 104.5 - 3 = 101.5
            (52, 52.2, 50.5, 51),  # 2:1 split: entry 50, stop 50.75, reached: out at 50.75; bearish: sells at the next open
            (51, 53, 50, 52),  # short at 51, stop 52.5, reached in the same bar
        ],
        trends=[1, 1, 1, -1, 0],
        atr=[2, 2, 2, 1, 1],
        factors=[1, 1, 1, 0.5, 1],
    )
    assert states["position"].to_list() == [0, 1, 1, 0, 0]
    assert states["entry_price"][1:3].to_list() == [100, 100]
    assert states["stop_price"][1:3].to_list() == [97, 100]
    assert states["trailing"][1:3].to_list() == [0, 0]
    assert states["bars_held"][1:3].to_list() == [1, 2]
    # 1 % of 100,000 is lost at 3 % below the entry: a third of the balance is at stake.
    assert states["stake"][1] == pytest.approx(1 / 3)
    assert states["unrealised_ret"][2] == pytest.approx(0.045)
    assert states["unrealised_atr"][2] == pytest.approx(2.25)
    assert states["unrealised_pnl"][2] == pytest.approx(1500)
    # +1.5 %, less 15 bps of 1 and of 1.015, on a third of 100,000.
    first = 100_000 * (1 + (0.015 - 0.0015 * 2.015) / 3)
    assert states["balance"][3] == pytest.approx(first)
    assert states["drawdown"][3] == pytest.approx(1 - first / 101_500)
    # 34 % of the balance loses 1.5 / 51 and 15 bps on either side.
    second = first * (1 - 0.34 * (1.5 / 51 + 0.0015 * (1 + 52.5 / 51)))
    assert states["balance"][4] == pytest.approx(second)
    assert states["trades"].to_list() == [0, 0, 0, 1, 2]
    assert states["win_rate"][3:].to_list() == [1.0, 0.5]
    assert states["consecutive_losses"].to_list() == [0, 0, 0, 0, 1]


def test_it_leaves_at_the_open_when_the_regime_turns_when_time_is_up_and_through_a_gap():
    calm = (100, 100.5, 99.5, 100)
    turned = account([calm, calm, calm, (101, 101, 100, 100)], [1, 1, -1, 0], [2] * 4)
    assert turned["position"].to_list() == [0, 1, 1, 0]
    assert turned["balance"][3] == pytest.approx(100_000 * (1 + (0.01 - 0.0015 * 2.01) / 3))
    timed = account([calm] * (MAX_BARS + 2), [1] * (MAX_BARS + 2), [2] * (MAX_BARS + 2))
    assert timed["position"].to_list() == [0, *[1] * MAX_BARS, 0]
    gapped = account([calm, calm, (90, 91, 89, 90)], [1, 1, 1], [2] * 3)
    assert gapped["balance"][2] == pytest.approx(100_000 * (1 + (-0.1 - 0.0015 * 1.9) / 3))
    assert gapped["drawdown"][2] == pytest.approx(1 - gapped["balance"][2] / 100_000)


def test_the_trend_is_the_rule_regimes():
    drift = np.array([[0.01, 0.05], [-0.01, 0.05], [0.001, 0.05], [0.0, 0.0], [0.01, 0.0], [np.nan, np.nan]])
    assert trend(drift).tolist() == [1, -1, 0, 0, 1, 0]


@settings(deadline=None, max_examples=12)
@given(seed=st.integers(0, 2**31), place=st.integers(380, 560))
def test_a_row_rests_on_what_was_known_at_its_decision_and_on_no_range(seed, place):
    versions, actions = random_market(seed, 600, symbols=("AAA",), late=40)
    start, end = decided(370), decided(599)
    everything = policy_states(versions, actions, start, end, LAG)
    cut = decided(place)
    one = everything.filter(pl.col("decision_at") == cut)
    known = versions.filter(pl.col("known_at") <= cut), actions.filter(pl.col("known_at") <= cut)
    assert frame_hash(policy_states(*known, cut, cut + timedelta(microseconds=1), LAG)) == frame_hash(one)
    middle = cut + timedelta(days=9)
    parts = [policy_states(versions, actions, *span, LAG) for span in ((start, middle), (middle, end))]
    assert frame_hash(pl.concat(parts)) == frame_hash(everything)
    changed = policy_states(*another_future(versions, actions, cut, seed), start, end, LAG)
    before = pl.col("decision_at") <= cut
    assert frame_hash(changed.filter(before)) == frame_hash(everything.filter(before))
    assert everything.schema == pl.Schema(SCHEMA)
    assert everything.filter(pl.col("known_at") > pl.col("decision_at")).is_empty()


def test_each_year_opens_a_new_account():
    versions, actions = random_market(3, 800, symbols=("AAA",))
    rows = policy_states(versions, actions, decided(0), decided(799), LAG)
    opening = rows.filter(pl.col("session").dt.year() != pl.col("session").dt.year().shift(1))
    assert opening.height == 2
    assert opening.select("position", "trades", "balance", "drawdown", "win_rate").rows() == [(0, 0, 100_000.0, 0.0, None)] * 2
    assert set(rows["position"]) == {-1, 0, 1}
    assert rows.filter(pl.col("position") != 0)["stake"].is_between(0, 1).all()
    assert FIRST.year + 2 == rows["session"].max().year


def test_a_dividend_above_the_price_is_refused():
    versions = frame([*bars("AAA", [100] * 30), bar("AAA", 30, 50, 50, 50, 50)])
    with pytest.raises(TapehouseError, match="not below the close"):
        policy_states(versions, action_frame([action("AAA", "dividend", 30, 120)]), decided(29), decided(31), LAG)
