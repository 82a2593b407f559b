"""Changes of the input whose effect on the features is known without any reference: they change that and nothing else."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tapehouse.features.fractional import fractional_features
from tapehouse.features.normalised import rolling_zscores
from tapehouse.features.price import price_features
from tests.tapehouse.market_records import random_market, real_market

FOREVER = datetime(1990, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
PRICES = ("open", "high", "low", "close")
IN_PRICE_UNITS = (*PRICES, "atr_14", "macd", "macd_signal", "macd_hist")
RECURSIVE = ("atr_14", "rsi_14", "macd", "macd_signal", "macd_hist", "plus_di_14", "minus_di_14", "adx_14", "bars_of_history")
TIMES = ("event_at", "known_at")


def features(versions: pl.DataFrame, actions: pl.DataFrame, market="^GSPC") -> tuple[pl.DataFrame, pl.DataFrame]:
    """`features.price` and `features.fractional`."""
    return price_features(versions, actions, *FOREVER, market=market), fractional_features(versions, actions, *FOREVER)


def scaled(versions: pl.DataFrame, actions: pl.DataFrame, factor: float, volume: int = 1):
    prices = (pl.col(name) * factor for name in PRICES)
    return versions.with_columns(*prices, pl.col("volume") * volume), actions.with_columns(pl.col("amount") * factor)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), power=st.integers(-6, 6))
def test_all_prices_by_a_power_of_two_scale_what_is_in_their_unit_and_leave_every_other_bit(seed, power):
    versions, actions = random_market(seed, 130, late=8)
    (price, fractional), (new_price, new_fractional) = (
        features(versions, actions),
        features(*scaled(versions, actions, 2.0**power, volume=4)),
    )
    expected = price.with_columns(*(pl.col(name) * 2.0**power for name in IN_PRICE_UNITS), pl.col("volume") * 4)
    assert_frame_equal(new_price, expected, check_exact=True)
    assert_frame_equal(new_fractional, fractional, check_exact=True)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.01, 100))
def test_all_prices_by_any_constant_scale_what_is_in_their_unit(seed, factor):
    versions, actions = random_market(seed, 130, late=8)
    (price, fractional), (new_price, new_fractional) = (
        features(versions, actions),
        features(*scaled(versions, actions, factor)),
    )
    restored = new_price.with_columns(pl.col(name) / factor for name in IN_PRICE_UNITS)
    assert_frame_equal(restored, price, rel_tol=1e-9, abs_tol=1e-9)
    assert_frame_equal(new_fractional, fractional, rel_tol=1e-9, abs_tol=1e-12)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000), weeks=st.integers(-30, 9))
def test_whole_weeks_later_everything_is_whole_weeks_later(seed, weeks):
    # From 2019 on, both before and after the shift within what the anchors of their years reach back to: no bit changes.
    versions, actions = random_market(seed, 130, late=8)
    shift = timedelta(weeks=weeks)
    later = (
        versions.with_columns(pl.col("session", *TIMES) + shift),
        actions.with_columns(pl.col("ex_date", *TIMES) + shift),
    )
    for old, new in zip(features(versions, actions), features(*later), strict=True):
        assert_frame_equal(new, old.with_columns(pl.col("session", "decision_at", "known_at") + shift), check_exact=True)


def test_weeks_that_move_the_anchors_change_recursions_by_rounding_alone():
    versions, actions = real_market()
    shift = timedelta(weeks=100)
    later = (
        versions.with_columns(pl.col("session", *TIMES) + shift),
        actions.with_columns(pl.col("ex_date", *TIMES) + shift),
    )
    old, new = price_features(versions, actions, *FOREVER), price_features(*later, *FOREVER)
    new = new.with_columns(pl.col("session", "decision_at", "known_at") - shift)
    warm = (old["bars_of_history"] >= 400) & (new["bars_of_history"] >= 400)
    exact = [name for name in old.columns if name not in RECURSIVE]
    assert_frame_equal(new.select(exact).filter(warm), old.select(exact).filter(warm), check_exact=True)
    for name in RECURSIVE[:-1]:
        scale = old["close"] if name in IN_PRICE_UNITS else pl.repeat(100.0, old.height, eager=True)
        assert ((new[name] - old[name]).abs() / scale).filter(warm).max() <= 1e-6, name


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000), names=st.permutations(["AAA", "BBB", "^GSPC"]))
def test_symbols_by_other_names_say_the_same(seed, names):
    versions, actions = random_market(seed, 120, late=8)
    renamed = dict(zip(("AAA", "BBB", "^GSPC"), (f"{name}.X" for name in names), strict=True))
    rename = pl.col("symbol").replace(renamed)
    other = features(versions.with_columns(rename), actions.with_columns(rename), market=renamed["^GSPC"])
    for old, new in zip(features(versions, actions), other, strict=True):
        expected = old.with_columns(rename).sort("symbol", "interval", "decision_at")
        assert_frame_equal(new, expected, check_exact=True)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_the_rows_changes_nothing(seed):
    versions, actions = random_market(seed, 120, late=8)
    shuffled = (frame.sample(fraction=1, shuffle=True, seed=seed) for frame in (versions, actions))
    for old, new in zip(features(versions, actions), features(*shuffled), strict=True):
        assert_frame_equal(new, old, check_exact=True)


@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_z_scores_have_no_unit(factor):
    versions, actions = real_market()
    span = datetime(2004, 1, 1, tzinfo=UTC), datetime(2006, 1, 1, tzinfo=UTC)
    rows = price_features(versions, actions, *span)
    larger = price_features(*scaled(versions, actions, factor), *span)
    assert_frame_equal(rolling_zscores(larger, *span), rolling_zscores(rows, *span), check_exact=True)
