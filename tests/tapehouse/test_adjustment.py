"""Adjusted prices as of a time: by hand, against any later knowledge, and on Apple's split and Microsoft's special dividend."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.adjustment import adjusted_prices
from tapehouse.calendars import all_sessions
from tapehouse.chains import receive
from tapehouse.errors import TapehouseError
from tapehouse.features.price import price_features
from tapehouse.labels.triple_barrier import triple_barrier
from tapehouse.orders import BUY, SELL, Costs, Weights, order_outcomes
from tapehouse.paths import settled_paths
from tapehouse.settings import load_settings
from tests.tapehouse.market_records import (
    action,
    action_frame,
    another_future,
    at,
    bar,
    bars,
    frame,
    random_market,
    real_market,
)

SPLIT_DAY, SPECIAL_DAY = date(2005, 2, 28), date(2004, 11, 15)
APPLE_SPLIT = (pl.col("symbol") == "AAPL") & (pl.col("kind") == "split") & (pl.col("ex_date") == SPLIT_DAY)
EX_MIDNIGHT = datetime(2005, 2, 28, 5, tzinfo=UTC)  # 00:00 in New York


def closes(when: datetime, records, actions=(), **options) -> list[float]:
    return adjusted_prices(frame(records), action_frame(actions), when, **options)["adjusted_close"].to_list()


def test_a_split_and_a_dividend_by_hand():
    """100 and 102, then 3 for 1 and 35, then a dividend of 3.5 and 31.5: a dividend of a tenth of the close before it."""
    market, actions = bars("AAA", [100, 102, 35, 31.5]), [action("AAA", "split", 2, 3), action("AAA", "dividend", 3, 3.5)]
    assert closes(at(1, 21), market, actions) == [100.0, 102.0]
    assert closes(at(2, 21), market, actions) == pytest.approx([100 / 3, 34.0, 35.0])
    assert closes(at(3, 21), market, actions) == pytest.approx([30.0, 30.6, 31.5, 31.5])
    assert closes(at(3, 21), market, actions, dividends=False) == pytest.approx([100 / 3, 34.0, 35.0, 31.5])
    whole = adjusted_prices(frame(market), action_frame(actions), at(3, 21))
    assert whole["adjusted_volume"].to_list() == [3000.0, 3000.0, 1000.0, 1000.0]
    assert whole["known_at"].to_list() == [at(3, 5), at(3, 5), at(3, 5), at(3, 21)]


def test_from_the_midnight_of_the_ex_date_the_past_is_in_the_new_basis():
    market, actions = bars("AAA", [100, 102, 51]), [action("AAA", "split", 2, 2)]
    assert closes(at(2, 4.9), market, actions) == [100.0, 102.0]
    assert closes(at(2, 5), market, actions) == [50.0, 51.0]


def test_on_one_day_the_dividend_is_paid_on_the_old_share():
    market = bars("AAA", [100, 45])
    assert closes(at(1, 21), market, [action("AAA", "split", 1, 2), action("AAA", "dividend", 1, 10)]) == [45.0, 45.0]


def test_what_becomes_known_late_restates_only_from_then_on():
    market, late = bars("AAA", [100, 50]), action("AAA", "split", 1, 2, known_at=at(3, 0))
    corrected = bar("AAA", 0, *[90] * 4, known_at=at(2, 0), version=2)
    assert closes(at(1, 22), [*market, corrected], [late]) == [100.0, 50.0]
    assert closes(at(2, 0), [*market, corrected], [late]) == [90.0, 50.0]
    assert closes(at(3, 0), [*market, corrected], [late]) == [45.0, 50.0]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(5, 55))
def test_another_future_changes_no_adjusted_price(seed, cut):
    versions, actions = random_market(seed, 60, late=10)
    other = another_future(versions, actions, at(cut, 22), seed)
    assert_frame_equal(adjusted_prices(*other, at(cut, 22)), adjusted_prices(versions, actions, at(cut, 22)), check_exact=True)


def test_bad_input():
    market = frame(bars("AAA", [100, 50]))
    with pytest.raises(TapehouseError, match="has no time zone"):
        adjusted_prices(market, action_frame(), datetime(2019, 1, 1))
    with pytest.raises(TapehouseError, match=r"dividend of AAA ex 2019-01-02 \(100.0\) is not below the close"):
        adjusted_prices(market, action_frame([action("AAA", "dividend", 1, 100)]), at(3, 0))
    assert adjusted_prices(market.clear(), action_frame(), at(3, 0)).is_empty()


def test_the_split_of_apple_is_in_no_price_of_before_its_ex_date():
    """With and without the row of the split: the same bits as of every instant before it, also at the last microsecond."""
    versions, actions = real_market()
    without = actions.filter(~APPLE_SPLIT)
    for when in (datetime(2003, 6, 2, 21, tzinfo=UTC), EX_MIDNIGHT - timedelta(microseconds=1)):
        assert_frame_equal(adjusted_prices(versions, actions, when), adjusted_prices(versions, without, when), check_exact=True)
    apple = adjusted_prices(versions, actions, EX_MIDNIGHT).filter(symbol="AAPL")
    before = adjusted_prices(versions, without, EX_MIDNIGHT).filter(symbol="AAPL")
    assert apple["close"][-1] == 88.99 and apple["adjusted_close"][-1] == 44.495
    assert (apple["adjusted_close"] * 2 == before["adjusted_close"]).all()


def test_returns_across_the_split_and_the_special_dividend_are_right():
    versions, actions = real_market()
    whole = adjusted_prices(versions, actions, datetime(2013, 4, 1, tzinfo=UTC))

    def around(symbol: str, day: date) -> tuple[float, float]:
        """The return from the close before `day`, of adjusted prices and of raw ones."""
        rows = whole.filter((pl.col("symbol") == symbol) & (pl.col("session") <= day))[-2:]
        assert rows["session"][1] == day
        return tuple(rows[name][1] / rows[name][0] - 1 for name in ("adjusted_close", "close"))

    adjusted, raw = around("AAPL", SPLIT_DAY)
    assert adjusted == pytest.approx(44.86 / (88.99 / 2) - 1, abs=1e-15) and raw < -0.49
    adjusted, raw = around("MSFT", SPECIAL_DAY)
    assert adjusted == pytest.approx(27.39 / (29.97 - 3.08) - 1, abs=1e-12) and raw < -0.08


def test_the_adjusted_returns_agree_with_the_vendors():
    """The vendor's levels know the future; from one day to the next they say the same, but for its form of the dividend."""
    versions, actions = real_market()
    vendor = _vendor()
    ours = adjusted_prices(versions, actions, datetime(2013, 4, 1, tzinfo=UTC)).join(vendor, on=["symbol", "session"])
    assert ours.height > 15_000
    paid = actions.filter(kind="dividend").select("symbol", "ex_date")
    for (symbol,), of_symbol in ours.group_by("symbol"):
        rows = of_symbol.sort("session")
        steps = [np.diff(np.log(rows[name].to_numpy())) for name in ("adjusted_close", "vendor_adj_close")]
        apart = np.abs(steps[0] - steps[1])
        ex_date = rows["session"][1:].is_in(paid.filter(symbol=symbol)["ex_date"].implode()).to_numpy()
        assert apart[~ex_date].max() < 1e-6 and apart.max() < 0.011, symbol


def test_the_special_dividend_of_microsoft_is_no_split():
    _, actions = real_market()
    found = actions.filter((pl.col("symbol") == "MSFT") & (pl.col("ex_date") == SPECIAL_DAY))
    assert found.select("kind", "ratio", "amount").rows() == [("dividend", 1.0, 3.08)]
    # Its step of 1.1124 is far from the nearest ratio of a split, 3 for 2.
    versions, _ = real_market()
    shares = adjusted_prices(versions, actions, datetime(2004, 11, 16, tzinfo=UTC)).filter(symbol="MSFT")
    traded = versions.filter(symbol="MSFT", session=date(2004, 11, 12))["volume"][0]
    assert shares.filter(session=date(2004, 11, 12))["adjusted_volume"][0] == traded


@pytest.fixture(scope="module")
def apple() -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Bars, actions and features of Apple and the market around the split."""
    versions, actions = real_market()
    span = datetime(2002, 5, 1, tzinfo=UTC), datetime(2005, 6, 1, tzinfo=UTC)
    seen = pl.col("event_at").is_between(*span) & pl.col("symbol").is_in(["AAPL", "^GSPC"])
    versions, actions = versions.filter(seen), actions.filter(seen)
    decided = datetime(2005, 1, 1, tzinfo=UTC), span[1]
    return versions, actions, price_features(versions, actions, *decided).filter(symbol="AAPL")


def test_no_barrier_is_touched_by_the_split_of_apple(apple):
    """In the new shares from the start, the path of every label is the same, and so is what it reaches."""
    versions, actions, rows = apple
    span = datetime(2005, 2, 1, tzinfo=UTC), datetime(2005, 2, 26, tzinfo=UTC)
    labels = triple_barrier(versions, actions, rows, *span, all_sessions())
    halved, halves = _in_new_shares(versions), rows.with_columns(pl.col("close", "atr_14") / 2)
    smooth = triple_barrier(halved, actions.clear(), halves, *span, all_sessions())
    # Only in what is decided before and entered before are prices those of the old share.
    same = ["decision_at", "side", "touched", "label", "label_end_at", "sessions_held", "ambiguous"]
    across = labels.filter(pl.col("label_end_at") > EX_MIDNIGHT)
    assert across.height >= 3 * 3
    assert_frame_equal(labels.select(same), smooth.select(same))
    np.testing.assert_allclose(labels["ret"].to_numpy(), smooth["ret"].to_numpy(), rtol=0, atol=1e-12)
    blind = triple_barrier(versions, actions.clear(), rows, *span, all_sessions())
    assert (blind.filter(pl.col("label_end_at") > EX_MIDNIGHT)["touched"] == "lower").sum() > (
        across["touched"] == "lower"
    ).sum()


@pytest.mark.parametrize("side", [BUY, SELL])
def test_no_resting_order_is_filled_by_the_split_of_apple(apple, side):
    """Orders that rest through the ex-date, two ATR away: what becomes of them is what it is in the new shares."""
    versions, actions, rows = apple
    decided = rows.filter(pl.col("session").is_between(date(2005, 2, 18), date(2005, 2, 25)))
    orders = decided.select(
        "symbol", "session", pl.lit(side).alias("side"), limit=pl.col("close") - side * 2 * pl.col("atr_14"), arrival="close"
    )
    costs = Costs(half_spread_bps=2, maker_fee_bps=0, taker_fee_bps=1, unfilled_penalty_bps=10)
    weights = Weights(price=1, certainty=1, risk=0.5, fees=1)

    def outcomes(versions: pl.DataFrame, actions: pl.DataFrame, orders: pl.DataFrame) -> pl.DataFrame:
        paths = settled_paths(versions, actions, all_sessions(), ["AAPL"])
        return order_outcomes(paths, orders, 5, costs, weights)

    found = outcomes(versions, actions, orders)
    smooth = outcomes(_in_new_shares(versions), actions.clear(), orders.with_columns(pl.col("limit", "arrival") / 2))
    assert found["filled"].to_list() == smooth["filled"].to_list() and found["filled"].null_count() == 0
    np.testing.assert_allclose(found["exec_price"].to_numpy(), smooth["exec_price"].to_numpy() * 2, rtol=1e-12)
    for name in ("shortfall_bps", "risk_bps", "reward_bps"):
        np.testing.assert_allclose(found[name].to_numpy(), smooth[name].to_numpy(), rtol=1e-9, atol=1e-8)
    blind = outcomes(versions, actions.clear(), orders)
    if side == BUY:  # unrestated, the split would have filled every one of them
        assert blind["filled"].all() and found["filled"].sum() < len(found) / 2


def test_no_feature_of_before_its_ex_date_has_the_split_in_it(apple):
    versions, actions, rows = apple
    without = price_features(
        versions, actions.filter(~APPLE_SPLIT), datetime(2005, 1, 1, tzinfo=UTC), datetime(2005, 6, 1, tzinfo=UTC)
    ).filter(symbol="AAPL")
    before = pl.col("decision_at") < EX_MIDNIGHT
    assert_frame_equal(rows.filter(before), without.filter(before), check_exact=True)
    assert not rows.filter(~before)["ret_1d"].equals(without.filter(~before)["ret_1d"])


def _in_new_shares(versions: pl.DataFrame) -> pl.DataFrame:
    old = (pl.col("symbol") == "AAPL") & (pl.col("session") < SPLIT_DAY)
    return versions.with_columns(
        pl.when(old).then(pl.col(n) / 2).otherwise(n).alias(n) for n in ("open", "high", "low", "close")
    )


def _vendor() -> pl.DataFrame:
    declared = load_settings(Path(__file__).parents[2])
    received = receive(declared, "bars", declared.universe.start, declared.universe.end).rows
    return received.select("symbol", "session", "vendor_adj_close")
