import math
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.errors import TapehouseError
from tapehouse.features.price import price_features
from tests.tapehouse.market_records import (
    STAMP,
    action,
    action_frame,
    another_future,
    at,
    bar,
    bars,
    day,
    decided,
    frame,
    random_market,
    real_market,
    within,
)

FOREVER = datetime(1990, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


def of(versions, actions=None, start=FOREVER[0], end=FOREVER[1]) -> pl.DataFrame:
    return price_features(versions, action_frame() if actions is None else actions, start, end)


def test_returns_see_neither_a_split_nor_a_dividend_as_a_fall():
    prices = frame(bars("AAA", [100, 102, 51, 50]))
    actions = action_frame([action("AAA", "split", 2, 2), action("AAA", "dividend", 3, 1)])
    rows = of(prices, actions)
    assert rows["ret_1d"].to_list() == [None, pytest.approx(math.log(1.02)), 0.0, 0.0]
    assert rows["decision_at"].to_list() == [decided(i) for i in range(4)]
    assert rows["bars_of_history"].to_list() == [1, 2, 3, 4]


def test_a_split_and_a_dividend_of_one_day_are_taken_in_the_old_share():
    prices = frame(bars("AAA", [100, 49]))  # 100 less 2 of dividend, then two for one
    actions = action_frame([action("AAA", "split", 1, 2), action("AAA", "dividend", 1, 2)])
    assert of(prices, actions)["ret_1d"][1] == 0.0


def test_atr_follows_the_price_basis_of_its_day():
    prices = frame(bars("AAA", [(100, 101, 99, 100)] * 20 + [(50, 50.5, 49.5, 50)] * 3))
    atr = of(prices, action_frame([action("AAA", "split", 20, 2)]))["atr_14"].to_list()
    assert atr[13] is None  # the first true range needs a close before it
    assert atr[14:20] == [2.0] * 6
    assert atr[20:] == [1.0] * 3


def test_rsi_of_wilder_by_hand():
    # Fourteen changes: seven of +1, seven of -1; then +7. Averages 0.5 and 0.5, then 13/14 of them and 7/14 more up.
    closes = [100 + i % 2 for i in range(15)] + [107]
    rsi = of(frame(bars("AAA", closes)))["rsi_14"].to_list()
    assert rsi[13] is None
    assert rsi[14] == pytest.approx(50.0)
    gain, loss = 0.5 * 13 / 14 + 0.5, 0.5 * 13 / 14
    assert rsi[15] == pytest.approx(100 * gain / (gain + loss))


def test_rsi_of_a_price_that_never_moved_is_null():
    assert of(frame(bars("AAA", [10] * 30)))["rsi_14"].null_count() == 30


def test_volume_zscore_restates_earlier_volumes_by_splits():
    volumes = [900, 1100] * 10
    records = [bar("AAA", i, 10, 10, 10, 10, volume) for i, volume in enumerate(volumes)]
    records.append(bar("AAA", 20, 5, 5, 5, 5, 2410))
    score = of(frame(records), action_frame([action("AAA", "split", 20, 2)]))["volume_zscore_20d"]
    deviation = math.sqrt(20 * 200**2 / 19)  # volumes of 1800 and 2200 in new shares, their mean 2000
    assert score[19] is None
    assert score[20] == pytest.approx((2410 - 2000) / deviation)


def test_vwap_distance_weighs_typical_prices_by_volume():
    records = [bar("AAA", i, 10, 11, 9, 10, 100) for i in range(19)] + [bar("AAA", 19, 12, 13, 11, 12, 1900)]
    distance = of(frame(records))["vwap_distance_20d"]
    assert distance[18] is None
    assert distance[19] == pytest.approx(12 / 11 - 1)  # 1900 shares at 10 and 1900 at 12


def test_relative_strength_is_over_the_same_sessions_and_null_without_them():
    own, index = [100.0] * 25, [100.0 + i for i in range(25)]
    index[2] = None
    rows = of(frame(bars("AAA", own) + bars("^GSPC", index)))
    mine = rows.filter(pl.col("symbol") == "AAA")["relative_strength_20d"].to_list()
    assert mine[20] == pytest.approx(-math.log(120 / 100))
    assert mine[22] is None  # the index has no bar on session 2
    assert rows.filter(pl.col("symbol") == "^GSPC")["relative_strength_20d"].drop_nulls().to_list() == [0.0] * 4


def test_volatility_and_momentum_by_hand():
    closes = [100 * math.exp(0.01 * (i % 2)) for i in range(31)]
    row = of(frame(bars("AAA", closes))).row(30, named=True)
    assert row["momentum_30d"] == pytest.approx(0.0)
    assert row["momentum_10d"] == pytest.approx(0.0)
    assert row["realised_vol_20d"] == pytest.approx(0.01 * math.sqrt(20 / 19) * math.sqrt(252))


def test_directional_movement_of_a_steady_climb_by_hand():
    # Each bar one higher, half a point around its close: the true range is 1.5, the upward movement 1, the downward none.
    climb = [(100 + i, 100.5 + i, 99.5 + i, 100 + i) for i in range(30)]
    rows = of(frame(bars("AAA", climb)))
    plus, minus, adx = (rows[name].to_list() for name in ("plus_di_14", "minus_di_14", "adx_14"))
    assert plus[13] is None and adx[26] is None
    assert plus[14:] == [pytest.approx(100 / 1.5)] * 16
    assert minus[14:] == [0.0] * 16
    assert adx[27:] == [100.0] * 3
    split = [*climb[:20], *(tuple(price / 2 for price in row) for row in climb[20:])]
    halved = of(frame(bars("AAA", split)), action_frame([action("AAA", "split", 20, 2)]))
    assert halved["adx_14"].to_list() == adx
    assert halved["plus_di_14"].to_list() == plus


def test_directional_movement_of_a_price_that_never_moved_is_null():
    rows = of(frame(bars("AAA", [10] * 40)))
    assert rows.select("plus_di_14", "minus_di_14", "adx_14", "bollinger_position_20d").null_count().row(0) == (40,) * 4


@pytest.mark.parametrize("price", [10.1, 0.3, 33.33])
def test_what_has_not_moved_has_no_place_between_bands_of_rounding(price):
    """Twenty times 10.1 over twenty is not 10.1 in doubles, and a tenth more of 777 shares is 854.7."""
    lots = [bar("AAA", i, *[price] * 4, volume=777) for i in range(30)] + [bar("AAA", 30, *[price] * 4, volume=855)]
    still = of(frame(lots)).select("bollinger_position_20d", "volume_zscore_20d")
    assert still.null_count().row(0) == (31, 31)
    tenth = action_frame([action("AAA", "split", 30, 1.1)])
    assert of(frame(lots), tenth)["volume_zscore_20d"][30] is None


def test_gap_and_range_by_hand():
    prices = frame(bars("AAA", [(10, 10, 10, 10), (11, 12, 9, 10), (4.8, 6, 4.5, 5)]))
    rows = of(prices, action_frame([action("AAA", "split", 2, 2)]))
    assert rows["gap_1d"].to_list() == [None, pytest.approx(math.log(1.1)), pytest.approx(math.log(4.8 / 5))]
    assert rows["range_1d"].to_list() == [0.0, 0.3, 0.3]


def test_volatilities_of_ranges_by_hand():
    # Every bar: high over low is e^0.02, close over open e^0.01.
    bar_ = (100.0, 100 * math.exp(0.015), 100 * math.exp(-0.005), 100 * math.exp(0.01))
    row = of(frame(bars("AAA", [bar_] * 20)))
    assert row["parkinson_vol_20d"].null_count() == row["garman_klass_vol_20d"].null_count() == 19
    parkinson = math.sqrt(0.02**2 / (4 * math.log(2)) * 252)
    garman_klass = math.sqrt((0.5 * 0.02**2 - (2 * math.log(2) - 1) * 0.01**2) * 252)
    assert row["parkinson_vol_20d"][19] == pytest.approx(parkinson)
    assert row["garman_klass_vol_20d"][19] == pytest.approx(garman_klass)


def test_bands_support_and_resistance_are_restated_by_splits():
    # Closes of 98 and 102 in turn, in old shares; the last ten bars are in halves.
    old = [(100, 105, 95, 98 + 4 * (i % 2)) for i in range(20)]
    new = [tuple(price / 2 for price in row) for row in old]
    rows = of(frame(bars("AAA", [*old[:10], *new[10:]])), action_frame([action("AAA", "split", 10, 2)]))
    whole = of(frame(bars("AAA", old)))
    assert whole["bollinger_position_20d"][19] == pytest.approx((102 - 96) / 8)  # bands at 100 -+ 2 * 2
    assert whole["support_distance_20d"][19] == pytest.approx(102 / 95 - 1)
    assert whole["resistance_distance_20d"][19] == pytest.approx(102 / 105 - 1)
    for name in ("bollinger_position_20d", "support_distance_20d", "resistance_distance_20d"):
        assert rows[name].null_count() == 19
        assert rows[name][19] == whole[name][19]


def test_divergence_from_the_market_needs_only_the_ends_of_its_own_window():
    own, index = [100.0] * 30, [100.0 * 1.01**i for i in range(30)]
    index[3] = None
    mine = of(frame(bars("AAA", own) + bars("^GSPC", index))).filter(pl.col("symbol") == "AAA")
    one, five, twenty = (
        mine[f"{name}d"].to_list() for name in ("market_divergence_1", "market_divergence_5", "relative_strength_20")
    )
    assert [i for i in range(30) if one[i] is None] == [0, 3, 4]
    assert [i for i in range(30) if five[i] is None] == [0, 1, 2, 3, 4, 8]
    assert [i for i in range(30) if twenty[i] is None] == [*range(20), 23]
    assert one[10] == pytest.approx(-math.log(1.01))
    assert five[10] == pytest.approx(-5 * math.log(1.01))
    assert twenty[25] == pytest.approx(-20 * math.log(1.01))


def test_a_correction_changes_only_decisions_after_it():
    prices = bars("AAA", [100, 110, 121, 133.1])
    corrected = bar("AAA", 1, 100, 100, 100, 100, known_at=at(2, 12), version=2)
    before, after = of(frame(prices)), of(frame([*prices, corrected]))
    assert_frame_equal(after[:2], before[:2])  # decisions of sessions 0 and 1
    assert after["ret_1d"][2] == pytest.approx(math.log(1.21))
    assert after["close"].to_list() == before["close"].to_list()  # each row shows its own bar as known then
    assert after["known_at"].to_list() == before["known_at"].to_list()


def test_a_row_is_known_with_the_latest_record_of_its_windows():
    """What comes between a close and its decision counts, of whatever day it is: a bar of the index, a split, an own bar."""
    own, index = bars("AAA", [100.0 + i for i in range(30)]), bars("^GSPC", [100.0 + i for i in range(30)])
    between = at(29, 21.05)  # three minutes after the close, two before the decision

    def known(extra, actions=None) -> datetime:
        rows = of(frame([*own, *index, *extra]), actions)
        return rows.filter(symbol="AAA", session=day(29))["known_at"].item()

    assert known([]) == at(29, 21)
    for place, seen in ((9, between), (20, between), (8, at(29, 21))):  # the longest window of the index has 21 closes
        assert known([bar("^GSPC", place, 90, 90, 90, 90, known_at=between, version=2)]) == seen
    assert known([bar("AAA", 1, 90, 90, 90, 90, known_at=between, version=2)]) == between
    assert known([], action_frame([action("AAA", "split", 25, 2, known_at=between)])) == between


def test_a_late_bar_has_no_row_but_is_part_of_the_past_once_known():
    prices = bars("AAA", [100, 110, 120, 130])
    prices[1]["known_at"] = at(2, 23)
    rows = of(frame(prices))
    assert rows["session"].to_list() == [day(0), day(2), day(3)]
    assert rows["ret_1d"].to_list() == [None, pytest.approx(math.log(1.2)), pytest.approx(math.log(130 / 120))]
    assert rows["bars_of_history"].to_list() == [1, 2, 4]


def test_a_split_known_late_restates_only_from_then_on():
    prices = frame(bars("AAA", [100, 50, 50]))
    rows = of(prices, action_frame([action("AAA", "split", 1, 2, known_at=at(2, 1))]))
    assert rows["ret_1d"].to_list() == [None, pytest.approx(math.log(0.5)), 0.0]
    assert rows["known_at"].to_list()[2] == at(2, 21)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), probe=st.integers(0, 54))
def test_each_row_is_what_the_records_known_at_its_decision_say(seed, probe):
    versions, actions = random_market(seed, 55, late=12)
    decision = decided(probe)
    known = pl.col("known_at") <= decision
    alone = of(versions.filter(known), actions.filter(known), start=decision, end=decision + timedelta(hours=1))
    rows = of(versions, actions)
    assert_frame_equal(rows.filter(pl.col("decision_at") == decision), alone, check_exact=True)
    assert rows.filter(pl.col("known_at") > pl.col("decision_at")).is_empty()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(20, 50))
def test_another_future_leaves_every_row_decided_before_it(seed, cut):
    versions, actions = random_market(seed, 55, late=6)
    instant = at(cut, 12)
    before = of(versions, actions, end=instant)
    after = of(*another_future(versions, actions, instant, seed), end=instant)
    assert_frame_equal(after, before, check_exact=True)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 1439), max_size=6, unique=True))
def test_any_cutting_of_a_range_gives_the_same_bits(seed, cuts):
    versions, actions = random_market(seed, 60, late=10)
    edges = [at(0, 0), *[at(0, cut) for cut in sorted(cuts)], at(60, 0)]
    parts = [of(versions, actions, *edge) for edge in pairwise(edges)]
    whole = of(versions, actions)
    joined = pl.concat(parts[::-1]).sort("symbol", "interval", "decision_at")
    assert_frame_equal(joined, whole, check_exact=True)


@pytest.fixture(scope="module")
def real_features() -> pl.DataFrame:
    versions, actions = real_market()
    return of(versions, actions)


@pytest.mark.parametrize("month", [(2000, 3), (2002, 1), (2005, 2), (2005, 3), (2008, 12), (2012, 6), (2013, 3)])
def test_a_month_read_with_its_look_back_gives_the_bits_of_the_whole_span(real_features, month):
    start, end, seen = (_month(*month, plus) for plus in (0, 1, -33))
    versions, actions = real_market()
    alone = of(within(versions, seen, end), within(actions, seen, end), start, end)
    within_month = (pl.col("decision_at") >= start) & (pl.col("decision_at") < end)
    assert_frame_equal(alone, real_features.filter(within_month), check_exact=True)


def test_the_split_of_apple_changes_no_row_before_its_ex_date(real_features):
    versions, actions = real_market()
    ex_date = date(2005, 2, 28)
    without = of(versions, actions.filter(~((pl.col("kind") == "split") & (pl.col("ex_date") == ex_date))))
    apple = pl.col("symbol") == "AAPL"
    assert_frame_equal(
        real_features.filter(apple & (pl.col("session") < ex_date)), without.filter(apple & (pl.col("session") < ex_date))
    )
    row = real_features.filter(apple & (pl.col("session") == ex_date)).row(0, named=True)
    assert row["close"] == 44.86
    assert row["ret_1d"] == pytest.approx(math.log(44.86 / (88.99 / 2)), abs=1e-15)
    assert 1.0 < row["atr_14"] < 1.6  # half of the 2.56 of the day before


def test_the_special_dividend_of_microsoft_is_part_of_the_return(real_features):
    row = real_features.filter((pl.col("symbol") == "MSFT") & (pl.col("session") == date(2004, 11, 15))).row(0, named=True)
    assert abs(row["ret_1d"]) < 0.02  # the price fell from 29.97 to 27.39, less 3.08 a share


@pytest.mark.parametrize("symbol", ["IBM", "GOOG", "^GSPC"])
def test_indicators_agree_with_talib_after_the_warm_up(symbol):
    talib = pytest.importorskip("talib")
    versions, _ = real_market()
    own = versions.filter(pl.col("symbol") == symbol).sort("session")
    rows = of(own)  # no actions: prices taken as they are, on both sides
    high, low, close = (own[name].to_numpy() for name in ("high", "low", "close"))
    macd, signal, histogram = talib.MACD(close, 12, 26, 9)
    upper, _, lower = talib.BBANDS(close, 20, 2.0, 2.0)
    percent, one, daily = np.full(close.size, 100.0), np.ones(close.size), np.append(np.nan, np.diff(np.log(close)))
    volume = own["volume"].cast(pl.Float64).to_numpy()
    typical, to_sample = (high + low + close) / 3, math.sqrt(20 / 19)
    before = np.append(np.nan, volume[:-1])
    expected = {
        "plus_di_14": (talib.PLUS_DI(high, low, close, 14), percent),
        "minus_di_14": (talib.MINUS_DI(high, low, close, 14), percent),
        "adx_14": (talib.ADX(high, low, close, 14), percent),
        "bollinger_position_20d": ((close - lower) / (upper - lower), one),
        "support_distance_20d": (close / talib.MIN(low, 20) - 1, one),
        "resistance_distance_20d": (close / talib.MAX(high, 20) - 1, one),
        "realised_vol_20d": (talib.STDDEV(daily, 20) * to_sample * math.sqrt(252), one),
        "vwap_distance_20d": (close / (talib.SUM(typical * volume, 20) / talib.SUM(volume, 20)) - 1, one),
        "volume_zscore_20d": ((volume - talib.SMA(before, 20)) / (talib.STDDEV(before, 20) * to_sample), one),
        "momentum_30d": (talib.ROCP(close, 30), one),
        "ret_63d": (np.log1p(talib.ROCP(close, 63)), one),
        "atr_14": (talib.ATR(high, low, close, 14), close),
        "rsi_14": (talib.RSI(close, 14), percent),
        "macd": (macd, close),
        "macd_signal": (signal, close),
        "macd_hist": (histogram, close),
    }
    warm = np.flatnonzero(rows["bars_of_history"].to_numpy() >= 400)
    assert warm.size > 1000
    for name, (reference, scale) in expected.items():
        ours = rows[name].to_numpy()
        assert np.array_equal(np.isnan(ours), np.isnan(reference)), name  # the same first bar
        worst = np.max(np.abs(ours - reference)[warm] / np.maximum(np.abs(reference), scale)[warm])
        assert worst <= 1e-6, (name, worst)


@pytest.mark.parametrize(
    ("symbol", "decision"), [("AAPL", date(2005, 3, 4)), ("MSFT", date(2004, 11, 16)), ("AAPL", date(2013, 2, 8))]
)
def test_features_agree_with_talib_on_the_history_restated_to_the_decision(real_features, symbol, decision):
    talib = pytest.importorskip("talib")
    versions, actions = real_market()
    own = versions.filter((pl.col("symbol") == symbol) & (pl.col("session") <= decision)).sort("session")
    of_symbol = actions.filter(pl.col("symbol") == symbol)
    sessions, closes = own["session"].to_list(), own["close"].to_list()
    price, volume = np.ones(len(own)), np.ones(len(own))
    for split in of_symbol.filter(pl.col("kind") == "split").iter_rows(named=True):
        earlier = np.array([session < split["ex_date"] for session in sessions])
        if split["ex_date"] <= decision:
            price[earlier] /= split["ratio"]
            volume[earlier] *= split["ratio"]
    for paid in of_symbol.filter(pl.col("kind") == "dividend").iter_rows(named=True):
        if sessions[0] < paid["ex_date"] <= decision:
            before = max(i for i, session in enumerate(sessions) if session < paid["ex_date"])
            price[: before + 1] *= 1 - paid["amount"] / closes[before]
    high, low, close = (own[name].to_numpy() * price for name in ("high", "low", "close"))
    row = real_features.filter((pl.col("symbol") == symbol) & (pl.col("session") == decision)).row(0, named=True)
    macd, signal, _ = (series[-1] for series in talib.MACD(close, 12, 26, 9))
    assert row["atr_14"] == pytest.approx(talib.ATR(high, low, close, 14)[-1], rel=1e-6)
    assert row["rsi_14"] == pytest.approx(talib.RSI(close, 14)[-1], abs=1e-4)
    assert row["macd"] == pytest.approx(macd, abs=1e-6 * close[-1])
    assert row["macd_signal"] == pytest.approx(signal, abs=1e-6 * close[-1])
    for name, function in (("plus_di_14", talib.PLUS_DI), ("minus_di_14", talib.MINUS_DI), ("adx_14", talib.ADX)):
        assert row[name] == pytest.approx(function(high, low, close, 14)[-1], abs=1e-4), name
    upper, _, lower = (series[-1] for series in talib.BBANDS(close, 20, 2.0, 2.0))
    assert row["bollinger_position_20d"] == pytest.approx((close[-1] - lower) / (upper - lower), abs=1e-6)
    assert row["support_distance_20d"] == pytest.approx(close[-1] / low[-20:].min() - 1, abs=1e-12)
    assert row["resistance_distance_20d"] == pytest.approx(close[-1] / high[-20:].max() - 1, abs=1e-12)
    opened = own["open"].to_numpy() * price
    assert row["gap_1d"] == pytest.approx(math.log(opened[-1] / close[-2]), abs=1e-12)
    parkinson = np.log(high / low)[-20:] ** 2 / (4 * math.log(2))
    garman_klass = 0.5 * np.log(high / low)[-20:] ** 2 - (2 * math.log(2) - 1) * np.log(close / opened)[-20:] ** 2
    assert row["parkinson_vol_20d"] == pytest.approx(math.sqrt(parkinson.mean() * 252), rel=1e-12)
    assert row["garman_klass_vol_20d"] == pytest.approx(math.sqrt(garman_klass.mean() * 252), rel=1e-12)
    assert row["ret_63d"] == pytest.approx(math.log(close[-1] / close[-64]), abs=1e-12)
    assert row["ret_20d"] == pytest.approx(math.log(close[-1] / close[-21]), abs=1e-12)
    assert row["momentum_30d"] == pytest.approx(close[-1] / close[-31] - 1, abs=1e-12)
    daily = np.diff(np.log(close[-21:]))
    assert row["realised_vol_20d"] == pytest.approx(daily.std(ddof=1) * math.sqrt(252), rel=1e-12)
    traded = own["volume"].to_numpy() * volume
    vwap = np.average(((high + low + close) / 3)[-20:], weights=traded[-20:])
    assert row["vwap_distance_20d"] == pytest.approx(close[-1] / vwap - 1, abs=1e-12)
    past = traded[-21:-1]
    assert row["volume_zscore_20d"] == pytest.approx((traded[-1] - past.mean()) / past.std(ddof=1), rel=1e-12)


def test_an_interval_without_anchor_is_refused():
    hourly = frame(bars("AAA", [1, 2])).with_columns(interval=pl.lit("1h"))
    with pytest.raises(TapehouseError, match=r"features.price: AAA has a bar of interval '1h' on 2019-01-01, .* sources.yaml"):
        of(hourly)


def test_a_dividend_above_the_price_is_refused_by_name():
    with pytest.raises(TapehouseError, match="AAA ex 2019-01-02"):
        of(frame(bars("AAA", [10, 10])), action_frame([action("AAA", "dividend", 1, 11)]))


def test_no_bars_give_no_rows_with_the_columns_of_the_table():
    rows = of(frame([]))
    assert rows.is_empty()
    assert rows.schema["decision_at"] == STAMP


def _month(year: int, month: int, plus: int) -> datetime:
    number = year * 12 + month - 1 + plus
    return datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC)
