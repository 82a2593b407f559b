"""Fits of a fold and what follows from them: only what was known by the end of training is fitted on."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.features.fractional import GRID, column
from tapehouse.features.normalised import IN_PRICE_UNITS
from tapehouse.features.price import FEATURES
from tapehouse.fits import fit_rows, values_of
from tapehouse.fold_views import (
    FRACTIONAL,
    SCALER,
    SIGNAL,
    chosen_fractional,
    fit_fractional,
    fit_scalers,
    fit_signal,
    scaled_features,
    signal_classes,
)
from tapehouse.folds import Fold

STAMP = pl.Datetime("us", "UTC")
START = datetime(2019, 1, 1, 21, tzinfo=UTC)


def day(index: int) -> datetime:
    return START + timedelta(days=index)


FOLD = Fold("2019-07-20", day(0), day(200), day(210), day(260), day(270), 10, None, None)


def scores(values: list[float | None], settled_after: int = 5) -> pl.DataFrame:
    """One score a day; each is known five days later."""
    known = [None if v is None else day(i + settled_after) for i, v in enumerate(values)]
    return pl.DataFrame(
        {
            "symbol": ["AAA"] * len(values),
            "interval": ["1d"] * len(values),
            "decision_at": [day(i) for i in range(len(values))],
            "score": values,
            "label_end_at": known,
            "label_known_at": known,
        },
        schema_overrides={"decision_at": STAMP, "label_end_at": STAMP, "label_known_at": STAMP, "score": pl.Float64},
    )


def test_thresholds_by_hand():
    """Known by the end of training are the scores 0..195; of n + 1 equally spaced values the quantile q is q n."""
    fitted = fit_signal(scores([float(i) for i in range(300)]), FOLD)
    assert fitted.rows == 196
    assert fitted.values == {str(q): pytest.approx(195 * q) for q in (0.03, 0.15, 0.53, 0.85)}
    rows = signal_classes(scores([float(i) for i in range(300)]), dict(fitted.values), FOLD)
    counts = dict(rows["signal_class"].value_counts().iter_rows())
    assert counts == {"strong_sell": 6, "sell": 24, "hold": 74, "buy": 62, "strong_buy": 134}
    assert rows["known_at"].to_list() == [max(day(i + 5), FOLD.train_end) for i in range(300)]


def test_the_validation_tail_is_not_fitted_on():
    fold = replace(FOLD, validation_start=day(150))
    fitted = fit_signal(scores([float(i) for i in range(300)]), fold)
    assert fitted.rows == 146
    assert fit_rows(fold, [fitted])["known_at"].unique().to_list() == [day(150)]
    rows = signal_classes(scores([1.0]), dict(fitted.values), fold)
    assert rows["known_at"].to_list() == [fold.train_end]  # as all that follows from the fits


def test_scores_that_are_few_or_missing_have_no_class():
    few = fit_signal(scores([float(i) for i in range(90)]), FOLD)
    assert (few.values, few.rows) == ({}, 90)
    rows = signal_classes(scores([1.0, None, 3.0]), {}, FOLD)
    assert rows["signal_class"].null_count() == 3
    rows = signal_classes(scores([1.0, None, 3.0]), {"0.03": 0.0, "0.15": 0.5, "0.53": 1.0, "0.85": 2.0}, FOLD)
    assert rows["signal_class"].to_list() == ["buy", None, "strong_buy"]
    assert rows["known_at"].to_list() == [FOLD.train_end, None, FOLD.train_end]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 3))
def test_what_is_known_after_training_moves_no_threshold(seed, change):
    values = np.random.default_rng(seed).normal(size=300).tolist()
    other = [v if i + 5 <= 200 else v * 7 + change for i, v in enumerate(values)]
    assert fit_signal(scores(values), FOLD) == fit_signal(scores(other), FOLD)
    assert fit_signal(scores(values).sample(fraction=1, shuffle=True, seed=seed), FOLD) == fit_signal(scores(values), FOLD)


def price(count: int, seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    features = {name: rng.normal(3, 2, count) for name in FEATURES}
    keys = {"symbol": ["AAA"] * count, "interval": ["1d"] * count, "decision_at": [day(i) for i in range(count)]}
    return pl.DataFrame(
        keys | {"known_at": [day(i) for i in range(count)], "close": rng.uniform(50, 100, count)} | features,
        schema_overrides={"decision_at": STAMP, "known_at": STAMP},
    )


def test_scaled_features_have_no_mean_and_one_deviation_over_training():
    rows = price(250)
    train = rows.filter(pl.col("decision_at") < FOLD.train_end)
    fits = fit_rows(FOLD, fit_scalers(train))
    assert fits.height == 2 * len(FEATURES)
    scaled = scaled_features(rows, values_of(fits, FOLD, SCALER), FOLD)
    inside = scaled.filter(pl.col("decision_at") < FOLD.train_end)
    for name in FEATURES:
        values = inside[f"{name}_scaled"]
        assert values.mean() == pytest.approx(0.0, abs=1e-12)
        assert values.std() == pytest.approx(1.0)
        raw = train[name] / train["close"] if name in IN_PRICE_UNITS else train[name]
        assert values[7] == pytest.approx((raw[7] - raw.mean()) / raw.std())
    assert scaled["known_at"].min() == FOLD.train_end
    assert scaled.height == 250


def test_a_feature_that_never_changes_is_not_scaled():
    rows = price(50).with_columns(rsi_14=pl.lit(50.0))
    fits = fit_rows(FOLD, fit_scalers(rows))
    assert "mean rsi_14" not in values_of(fits, FOLD, SCALER)
    assert scaled_features(rows, values_of(fits, FOLD, SCALER), FOLD)["rsi_14_scaled"].null_count() == 50


def test_each_symbol_gets_the_column_of_its_own_order():
    rng = np.random.default_rng(3)
    walk, noise = np.cumsum(rng.normal(size=200)), rng.normal(size=200)
    parts = []
    for symbol, trending in (("AAA", True), ("BBB", False)):
        # Of the walk only a whole difference is stationary, of noise everything is.
        columns = {column(d): np.diff(walk, prepend=0.0) if d == 1.0 else walk if trending else noise for d in GRID}
        keys = {"symbol": [symbol] * 200, "interval": ["1d"] * 200, "decision_at": [day(i) for i in range(200)]}
        parts.append(pl.DataFrame(keys | {"known_at": keys["decision_at"]} | columns))
    rows = pl.concat(parts).with_columns(pl.col("decision_at", "known_at").cast(STAMP))
    fits = fit_rows(FOLD, fit_fractional(rows))
    orders = values_of(fits, FOLD, FRACTIONAL)
    assert orders == {"AAA 1d": 1.0, "BBB 1d": 0.1}
    assert fits.filter(kind="fractional_p_value")["value"].max() <= 0.05
    chosen = chosen_fractional(rows, orders, FOLD)
    assert np.array_equal(chosen.filter(symbol="AAA")["fracdiff"].to_numpy(), np.diff(walk, prepend=0.0))
    assert np.array_equal(chosen.filter(symbol="BBB")["fracdiff"].to_numpy(), noise)
    none = chosen_fractional(rows, {"BBB 1d": 0.1}, FOLD).filter(symbol="AAA")
    assert none["d"].null_count() == none["fracdiff"].null_count() == 200
    assert chosen_fractional(rows, {}, FOLD)["fracdiff"].null_count() == 400


def test_fits_of_other_folds_and_kinds_are_left_alone():
    fits = fit_rows(FOLD, fit_scalers(price(50)))
    assert values_of(fits, FOLD, SIGNAL) == {}
    assert fits["rows"].unique().to_list() == [50]
