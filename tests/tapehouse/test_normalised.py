import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.errors import TapehouseError
from tapehouse.features.normalised import IN_PRICE_UNITS, LEAST_ROWS, WINDOW_ROWS, fit_scaler, moments, rolling_zscores, scale
from tapehouse.features.price import SCHEMA, price_features
from tests.tapehouse.market_records import FIRST, real_market

FOREVER = datetime(1990, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


def priced(values, symbol="AAA", every=1, **columns) -> pl.DataFrame:
    """Rows of `features.price`, one in so many days; `ret_1d` as given, every other feature 0.5."""
    count = len(values)
    decided = [datetime.combine(FIRST, datetime.min.time(), UTC) + timedelta(days=every * i, hours=21) for i in range(count)]
    filled = {name: pl.lit(0.5, kind) for name, kind in SCHEMA.items() if kind == pl.Float64}
    return pl.DataFrame({"ret_1d": values}, schema={"ret_1d": pl.Float64}).with_columns(
        symbol=pl.lit(symbol),
        interval=pl.lit("1d"),
        decision_at=pl.Series(decided),
        known_at=pl.Series(decided) - timedelta(minutes=5),
        **{name: value for name, value in filled.items() if name != "ret_1d"} | columns,
    )


def test_a_z_score_by_hand():
    values = [1.0, 3.0] * (LEAST_ROWS // 2) + [10.0]
    rows = rolling_zscores(priced(values), *FOREVER)
    assert rows["ret_1d_z"][: LEAST_ROWS - 1].null_count() == LEAST_ROWS - 1
    mean = (4.0 * 63 + 10.0) / 127
    deviation = math.sqrt((63 * (1 - mean) ** 2 + 63 * (3 - mean) ** 2 + (10 - mean) ** 2) / 126)
    assert rows["ret_1d_z"][126] == pytest.approx((10 - mean) / deviation)
    assert rows["ret_1d_z"][125] == pytest.approx(1 / math.sqrt(126 / 125))
    assert rows["rsi_14_z"].null_count() == rows.height  # all equal
    assert rows["rows_in_window"].to_list() == list(range(1, 128))
    assert rows["known_at"].to_list() == priced(values)["known_at"].to_list()


def test_the_window_ends_after_252_rows_and_after_400_days():
    values = np.random.default_rng(0).normal(size=600)
    rows = rolling_zscores(priced(values), *FOREVER)
    window = values[600 - WINDOW_ROWS :]
    assert rows["ret_1d_z"][599] == pytest.approx((values[599] - window.mean()) / window.std(ddof=1), rel=1e-12)
    sparse = rolling_zscores(priced(values[:400], every=2), *FOREVER)
    window = values[200:400]
    assert sparse["rows_in_window"][399] == 200
    assert sparse["ret_1d_z"][399] == pytest.approx((values[399] - window.mean()) / window.std(ddof=1), rel=1e-12)
    assert rolling_zscores(priced(values[:400], every=4), *FOREVER)["ret_1d_z"].null_count() == 400  # 100 in 400 days


def test_missing_values_are_left_out_and_stay_missing():
    values = [None if i % 3 == 0 else float(i % 5) for i in range(240)]
    rows = rolling_zscores(priced(values), *FOREVER)
    there = np.array([value for value in values if value is not None])
    assert rows["ret_1d_z"][237] is None
    assert rows["ret_1d_z"][239] == pytest.approx((values[239] - there.mean()) / there.std(ddof=1))


def test_a_split_is_no_step_of_what_is_in_price_units():
    noise = np.random.default_rng(1).uniform(1, 2, 200)
    halved = np.where(np.arange(200) < 150, 1.0, 0.5)
    steady = priced(noise, **{name: pl.Series(noise) for name in IN_PRICE_UNITS}, close=pl.lit(100.0))
    split = priced(noise, **{name: pl.Series(noise * halved) for name in IN_PRICE_UNITS}, close=pl.Series(100.0 * halved))
    assert_frame_equal(rolling_zscores(split, *FOREVER), rolling_zscores(steady, *FOREVER), check_exact=True)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), start=st.integers(0, 500), length=st.integers(0, 60))
def test_any_range_read_with_its_look_back_gives_the_bits_of_the_whole(seed, start, length):
    rng = np.random.default_rng(seed)
    rows = pl.concat([priced(rng.normal(size=520), symbol) for symbol in ("AAA", "BBB")])
    rows = rows.filter(pl.Series(rng.random(rows.height) > 0.1))
    span = (rows["decision_at"].min() + timedelta(days=start), rows["decision_at"].min() + timedelta(days=start + length))
    seen = rows.filter(pl.col("decision_at").is_between(span[0] - timedelta(days=400), span[1], closed="left"))
    alone = rolling_zscores(seen.sample(fraction=1, shuffle=True, seed=seed), *span)
    whole = rolling_zscores(rows, *FOREVER).filter(pl.col("decision_at").is_between(*span, closed="left"))
    assert_frame_equal(alone, whole, check_exact=True)


def test_real_features_keep_their_units_beside_their_scores():
    rows = price_features(*real_market(), datetime(2003, 1, 1, tzinfo=UTC), datetime(2006, 1, 1, tzinfo=UTC))
    scores = rolling_zscores(rows, datetime(2005, 1, 1, tzinfo=UTC), FOREVER[1])
    assert scores["ret_1d_z"].drop_nulls().abs().max() < 16
    assert abs(scores["adx_14_z"].mean()) < 1.0
    assert not set(scores.columns) & (set(rows.columns) - {"symbol", "interval", "decision_at", "known_at"})


def test_a_scaler_by_hand_and_its_view():
    rows = priced([1.0, 2.0, 6.0, None])
    fit = fit_scaler(rows, ["ret_1d", "rsi_14"])
    assert fit.rows() == [("ret_1d", 3.0, pytest.approx(math.sqrt(7)), 3), ("rsi_14", 0.5, None, 4)]
    view = scale(rows, fit)
    assert view["ret_1d_scaled"].to_list() == [pytest.approx(x / math.sqrt(7)) for x in (-2, -1, 3)] + [None]
    assert view["rsi_14_scaled"].null_count() == 4
    assert view.select(rows.columns).equals(rows)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_a_scaler_has_the_same_bits_in_any_order_of_the_rows(seed):
    rng = np.random.default_rng(seed)
    rows = pl.concat([priced(rng.normal(size=50) * 1e3, symbol) for symbol in ("AAA", "BBB")])
    shuffled = rows.sample(fraction=1, shuffle=True, seed=seed)
    assert fit_scaler(shuffled, ["ret_1d"]).equals(fit_scaler(rows, ["ret_1d"]))
    mean, deviation = moments(rows["ret_1d"].to_numpy().copy())
    assert (mean, deviation) == (pytest.approx(rows["ret_1d"].mean()), pytest.approx(rows["ret_1d"].std()))


def test_without_values_there_is_no_scale():
    assert fit_scaler(priced([None, None]), ["ret_1d"]).rows() == [("ret_1d", None, None, 0)]
    assert fit_scaler(priced([4.0]), ["ret_1d"]).rows() == [("ret_1d", 4.0, None, 1)]


@pytest.mark.parametrize("name", ["symbol", "nothing"])
def test_what_is_no_number_cannot_be_scaled(name):
    with pytest.raises(TapehouseError, match=f"'{name}' is no column of numbers"):
        fit_scaler(priced([1.0]), [name])
