"""Statistics of returns: published figures, cases on paper, empyrical's figures, and what must hold of any series."""

import math
from itertools import combinations

import empyrical
import numpy as np
import pytest
from arch.bootstrap import CircularBlockBootstrap
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tapehouse.bootstrap import SEED, block_length, resample, sharpe_draws
from tapehouse.statistics.drawdowns import annual_return, calmar, drawdowns, sortino, tail_ratio
from tapehouse.statistics.overfitting import overfitting
from tapehouse.statistics.ratios import (
    deflated_sharpe,
    effective_trials,
    expected_best_sharpe,
    minimum_track_record,
    moments,
    periods_needed,
    probabilistic_sharpe,
    probability_above,
    standard_error,
)

MILLIONTHS = st.integers(-200_000, 200_000).map(lambda count: count * 1e-6)
RETURNS = arrays(np.float64, st.integers(31, 120), elements=MILLIONTHS)


def drawn(n: int = 500, seed: int = 1) -> np.ndarray:
    return 0.0005 + 0.01 * np.random.default_rng(seed).standard_t(4, n)


def test_the_example_of_the_deflated_ratio():
    # Bailey and López de Prado (2014): 100 trials of variance 1/2 a year, the best 2.5 a year over 1,250 days.
    best = expected_best_sharpe(100, 0.5 / 250)
    assert best == pytest.approx(0.1132, abs=5e-5)
    assert probability_above(2.5 / math.sqrt(250), -3.0, 10.0, 1250, best) == pytest.approx(0.9004, abs=5e-5)


def test_the_example_of_the_track_record():
    # Bailey and López de Prado (2012): 2.73 years of normal daily returns for 2 a year to exceed 1 at 95 %.
    days = periods_needed(2 / math.sqrt(252), 0.0, 3.0, 1 / math.sqrt(252))
    assert days / 252 == pytest.approx(2.73, abs=5e-3)


def test_few_returns_have_no_track_record():
    ret = np.tile([0.02, -0.01], 15)
    assert minimum_track_record(ret) == periods_needed(*moments(ret), 0.0) and minimum_track_record(ret[:29]) is None


@given(st.floats(1.0, 1e4), st.floats(0.0, 1.0))
def test_the_best_of_any_number_is_not_expected_to_lose(trials, variance):
    assert expected_best_sharpe(trials, variance) >= 0.0
    assert expected_best_sharpe(1.1, variance) == 0.0  # an effective number; the formula itself has -0.6 deviations


def test_moments_on_paper():
    ratio, skewness, kurtosis = moments(np.array([0.0, 0.0, 0.0, 0.04]))
    # Mean 0.01; deviations -0.01 three times and 0.03: variance 3e-4 (n), 4e-4 (n - 1).
    assert ratio == pytest.approx(0.5)
    assert skewness == pytest.approx((3 * -1e-6 + 27e-6) / 4 / 3e-4**1.5)
    assert kurtosis == pytest.approx((3 * 1e-8 + 81e-8) / 4 / 9e-8)


def test_the_standard_error_without_lags_is_mertens_and_with_lags_sees_dependence():
    ret = drawn()
    ratio, skewness, kurtosis = moments(ret)
    ratio *= math.sqrt(len(ret) / (len(ret) - 1)) ** 2  # the formula's own n is as good as n - 1
    mertens = math.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / len(ret))
    assert standard_error(ret, lags=0) == pytest.approx(mertens, rel=2e-3)
    trending = np.convolve(ret, np.ones(5) / 5, "valid")
    assert standard_error(trending, lags=8) > 1.5 * standard_error(trending, lags=0)


def test_a_standard_error_is_the_spread_over_many_worlds():
    draws = np.random.default_rng(5)
    worlds = [0.05 + draws.standard_t(6, 400) for _ in range(600)]
    spread = np.std([moments(w)[0] for w in worlds])
    assert np.mean([standard_error(w) for w in worlds]) == pytest.approx(spread, rel=0.1)


def test_no_trials_no_correction_and_more_trials_less_belief():
    ret = drawn()
    ratios = np.random.default_rng(3).normal(0, 0.03, 50).tolist()
    alone = deflated_sharpe(ret, ratios[:1], 1)
    assert alone == probabilistic_sharpe(ret)
    some, many = deflated_sharpe(ret, ratios, 50), deflated_sharpe(ret, ratios, 500)
    assert alone > some > many
    assert deflated_sharpe(ret, ratios[:1], 7) is None  # six trials failed: their spread is not known


def test_effective_trials_of_equal_and_of_independent_trials():
    base = np.random.default_rng(4).normal(size=(2_000, 8))
    assert effective_trials(np.repeat(base[:, :1], 8, axis=1)) == pytest.approx(1.0)
    assert effective_trials(base) == pytest.approx(8.0, abs=0.2)
    assert effective_trials(base, 100) == pytest.approx(100.0, abs=3.0)
    assert effective_trials(base[:, :1], 100) == 100.0  # of one curve no correlation is known
    idle = np.concatenate([base, np.zeros((2_000, 1))], axis=1)
    assert effective_trials(idle) == pytest.approx(9.0, abs=0.3)


@settings(max_examples=60, deadline=None)
@given(RETURNS)
def test_figures_are_empyricals(ret):
    depth = drawdowns(ret).deepest
    assert depth == pytest.approx(empyrical.max_drawdown(ret), abs=1e-12)
    assert annual_return(ret) == pytest.approx(empyrical.annual_return(ret), rel=1e-12)
    if calmar(ret) is not None:
        assert calmar(ret) == pytest.approx(empyrical.calmar_ratio(ret), rel=1e-10, abs=1e-12)
    if tail_ratio(ret) is not None:
        assert tail_ratio(ret) == pytest.approx(empyrical.tail_ratio(ret), rel=1e-12)
    if sortino(ret) is not None:
        assert sortino(ret) == pytest.approx(empyrical.sortino_ratio(ret), rel=1e-12, abs=1e-12)


def test_drawdowns_on_paper():
    # Equity 1, 1.1, 0.99, 1.1, 1.21, 1.089, 1.03455.
    found = drawdowns(np.array([0.1, -0.1, 1.1 / 0.99 - 1, 0.1, -0.1, -0.05]))
    assert found.deepest == pytest.approx(-0.145)
    assert found.mean == pytest.approx((-0.1 - 0.145) / 2)
    assert (found.longest, found.mean_length, found.count) == (2, 1.5, 2)


def test_a_fall_from_the_opening_is_a_drawdown():
    assert drawdowns(np.array([-0.5, 0.1])).deepest == pytest.approx(-0.5)
    assert annual_return(np.array([-1.0, 0.1])) is None


@settings(max_examples=40, deadline=None)
@given(RETURNS, st.integers(1, 40))
def test_sums_over_blocks_are_sums_over_indices(ret, block):
    draws = resample(len(ret), block, 50)
    np.testing.assert_allclose(draws.sums(ret), ret[draws.indices].sum(axis=1), atol=1e-12)
    assert draws.indices.shape == (50, len(ret))


def test_resampled_ratios_are_archs():
    ret = drawn(300)
    peer = CircularBlockBootstrap(7, ret, seed=np.random.Generator(np.random.PCG64(SEED)))
    theirs = peer.apply(lambda r: r.mean() / r.std(ddof=1), 200)[:, 0]
    np.testing.assert_allclose(sharpe_draws(ret, resample(300, 7, 200)), theirs, rtol=1e-10)


def test_a_draw_without_trades_has_a_ratio_of_zero():
    ret = np.zeros(60)
    ret[5] = 0.01
    ratios = sharpe_draws(ret, resample(60, 10, 200))
    assert np.isfinite(ratios).all()
    assert (ratios == 0.0).any()


def test_the_length_of_blocks_follows_dependence_and_has_a_floor():
    noise = np.random.default_rng(6).normal(size=1_000)
    smooth = np.convolve(noise, np.ones(60), "valid")
    assert block_length(noise, floor=10) == 10
    assert block_length(smooth, floor=10) > 30
    assert block_length(np.zeros(100)) == 10
    assert block_length(noise[:24], floor=10) == 8  # three blocks at least


def loop(ret: np.ndarray, blocks: int) -> float:
    """The definition, one choice after the other."""
    parts, below = np.split(ret, blocks), []
    for picked in combinations(range(blocks), blocks // 2):
        inner = np.concatenate([parts[b] for b in picked])
        outer = np.concatenate([parts[b] for b in range(blocks) if b not in picked])
        best = int(np.argmax(inner.mean(axis=0) / inner.std(axis=0, ddof=1)))
        outside = outer.mean(axis=0) / outer.std(axis=0, ddof=1)
        rank = (outside < outside[best]).sum() + 1
        below.append(rank / (ret.shape[1] + 1) <= 0.5)
    return float(np.mean(below))


def test_overfitting_is_the_definition():
    ret = np.random.default_rng(8).normal(0, 0.01, (180, 12))
    assert overfitting(ret, 6).probability == loop(ret, 6)


def test_overfitting_of_skill_and_of_noise():
    noise = np.random.default_rng(9).normal(0, 0.01, (960, 40))
    assert 0.2 < overfitting(noise).probability < 0.8
    skilled = noise.copy()
    skilled[:, 3] += 0.003
    found = overfitting(skilled)
    assert found.probability < 0.01
    assert (found.chosen == 3).mean() > 0.99


def test_overfitting_says_nothing_of_too_little():
    ret = np.random.default_rng(10).normal(size=(960, 9))
    assert overfitting(ret) is None
    assert overfitting(np.tile(ret, 2)[:479]) is None
    with pytest.raises(ValueError, match="even"):
        overfitting(ret, 3)
    with pytest.raises(ValueError, match="not a number"):
        overfitting(np.where(ret > 2, np.nan, ret))


def test_trials_that_never_trade_share_their_rank():
    ret = np.zeros((480, 12))
    found = overfitting(ret)
    assert found.probability == 1.0  # the middle rank of all is the median, which is not above it
