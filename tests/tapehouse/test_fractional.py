import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.errors import TapehouseError
from tapehouse.features.fractional import GRID, WEIGHTS, column, dickey_fuller, fractional_features, smallest_d, weights
from tapehouse.features.price import price_features
from tests.tapehouse.market_records import (
    action,
    action_frame,
    another_future,
    at,
    bars,
    frame,
    random_market,
    real_market,
    within,
)

FOREVER = datetime(1990, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)


def of(versions, actions=None, start=FOREVER[0], end=FOREVER[1]) -> pl.DataFrame:
    return fractional_features(versions, action_frame() if actions is None else actions, start, end)


def test_weights_by_hand():
    assert weights(0.5, 5).tolist() == [1.0, -0.5, -0.125, -0.0625, -0.0390625]
    assert weights(1.0, 4).tolist() == [1.0, -1.0, 0.0, 0.0]
    assert weights(2.0, 4).tolist() == [1.0, -2.0, 1.0, 0.0]


@given(d=st.floats(0.01, 0.99), k=st.integers(1, WEIGHTS - 1))
def test_weights_are_the_binomial_coefficients(d, k):
    # w_k = (-1)^k C(d, k) = gamma(k - d) / (gamma(-d) gamma(k + 1)), negative for every k > 0 of a d below one
    closed = -math.exp(math.lgamma(k - d) - math.lgamma(-d) - math.lgamma(k + 1))
    assert weights(d, k + 1)[k] == pytest.approx(closed, rel=1e-9)


@given(d=st.floats(0.01, 1.0), j=st.integers(0, WEIGHTS - 1))
def test_sums_of_weights_are_the_weights_of_one_order_less(d, j):
    assert weights(d, j + 1).sum() == pytest.approx(weights(d - 1.0, j + 1)[j], abs=1e-12)


def test_a_value_is_the_weighted_sum_of_log_prices_less_the_oldest():
    rng = np.random.default_rng(1)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.02, 130)))
    rows = of(frame(bars("AAA", closes.tolist())))
    for d in GRID:
        count = 2 if d == 1.0 else WEIGHTS
        values = rows[column(d)].to_list()
        assert values[: count - 1] == [None] * (count - 1)
        for t in (count - 1, 110, 129):
            window = np.log(closes[t - count + 1 : t + 1])[::-1]
            assert values[t] == pytest.approx(float(weights(d, count) @ (window - window[-1])), abs=1e-13)


def test_order_one_is_the_log_return_to_the_bit():
    versions, actions = random_market(3, 80)
    ours, price = of(versions, actions), price_features(versions, actions, *FOREVER)
    assert ours[column(1.0)].equals(price["ret_1d"].alias(column(1.0)))
    assert ours.select("symbol", "decision_at", "known_at").equals(price.select("symbol", "decision_at", "known_at"))


def test_neither_a_split_nor_a_dividend_is_a_step():
    steady = [100.0] * 130
    split = [100.0] * 60 + [50.0] * 60 + [49.0] * 10
    rows = of(frame(bars("AAA", split)), action_frame([action("AAA", "split", 60, 2), action("AAA", "dividend", 120, 1)]))
    assert rows.drop("known_at").equals(of(frame(bars("AAA", steady))).drop("known_at"))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(100, 159), max_size=4, unique=True))
def test_any_cutting_of_a_range_gives_the_same_bits(seed, cuts):
    versions, actions = random_market(seed, 160, symbols=("AAA",), late=8)
    edges = [at(0, 0), *[at(cut, 9) for cut in sorted(cuts)], at(160, 0)]
    parts = [of(versions, actions, *edge) for edge in pairwise(edges)]
    assert_frame_equal(pl.concat(parts), of(versions, actions), check_exact=True)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(105, 135))
def test_another_future_leaves_every_row_decided_before_it(seed, cut):
    versions, actions = random_market(seed, 140, symbols=("AAA",), late=6)
    instant = at(cut, 12)
    before = of(versions, actions, end=instant)
    assert_frame_equal(of(*another_future(versions, actions, instant, seed), end=instant), before, check_exact=True)
    assert before.filter(pl.col("known_at") > pl.col("decision_at")).is_empty()


@pytest.mark.parametrize("month", [(2001, 1), (2005, 3), (2012, 12)])
def test_a_month_read_with_its_look_back_gives_the_bits_of_the_whole_span(month):
    versions, actions = real_market()
    start = datetime(*month, 1, tzinfo=UTC)
    end, seen = start + timedelta(days=28), datetime(month[0] - 3, month[1] + 3 if month[1] < 10 else 12, 1, tzinfo=UTC)
    alone = of(within(versions, seen, end), within(actions, seen, end), start, end)
    whole = of(versions, actions).filter(pl.col("decision_at").is_between(start, end, closed="left"))
    assert_frame_equal(alone, whole, check_exact=True)


def series(values_of_d: dict[float, np.ndarray], symbol="AAA") -> pl.DataFrame:
    count = len(next(iter(values_of_d.values())))
    return pl.DataFrame({column(d): values for d, values in values_of_d.items()}).with_columns(
        symbol=pl.lit(symbol), interval=pl.lit("1d"), decision_at=pl.Series([at(i, 21) for i in range(count)])
    )


def test_the_smallest_d_is_the_first_that_has_no_unit_root():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    rows = series({0.2: np.cumsum(noise), 0.5: noise, 0.9: noise})
    found = smallest_d(rows.sample(fraction=1, shuffle=True, seed=1), grid=(0.2, 0.5, 0.9)).row(0, named=True)
    assert (found["d"], found["column"], found["observations"]) == (0.5, "fracdiff_50", 400)
    assert found["p_value"] < 1e-6
    none = smallest_d(rows, grid=(0.2,)).row(0, named=True)
    assert none["d"] is None and none["column"] is None and none["p_value"] > 0.05


def test_the_test_is_that_of_an_independent_package():
    from arch.unitroot import ADF

    walk = np.cumsum(np.random.default_rng(5).normal(size=300)) * 0.5
    statistic, p_value = dickey_fuller(walk, lags=2)
    other = ADF(walk, lags=2, trend="c")
    assert (statistic, p_value) == (pytest.approx(other.stat, abs=1e-10), pytest.approx(other.pvalue, abs=1e-10))


def test_too_short_or_flat_series_have_no_test():
    few = smallest_d(series({0.5: np.arange(59.0)}), grid=(0.5,)).row(0, named=True)
    flat = smallest_d(series({0.5: np.zeros(200)}), grid=(0.5,)).row(0, named=True)
    assert (few["d"], few["statistic"], few["observations"]) == (None, None, 59)
    assert (flat["d"], flat["statistic"], flat["observations"]) == (None, None, 200)


def test_on_real_prices_each_symbol_gets_its_own_order():
    rows = of(*real_market(), end=datetime(2008, 1, 1, tzinfo=UTC))
    found = smallest_d(rows)
    assert found["symbol"].to_list() == rows["symbol"].unique().sort().to_list()
    assert found["d"].is_between(0.1, 1.0).all()
    assert (found["p_value"] <= 0.05).all()


@pytest.mark.parametrize("d", [0.0, -0.1, 1.1, 0.123])
def test_an_order_outside_of_the_grid_is_refused(d):
    with pytest.raises(TapehouseError, match=f"d = {d} is no hundredth"):
        fractional_features(frame([]), action_frame(), *FOREVER, grid=(d,))


def test_a_missing_column_and_a_senseless_level_are_refused():
    rows = series({0.5: np.zeros(100)})
    with pytest.raises(TapehouseError, match="no column 'fracdiff_40'"):
        smallest_d(rows, grid=(0.4,))
    with pytest.raises(TapehouseError, match="level 5"):
        smallest_d(rows, grid=(0.5,), level=5)
