"""Ends of intervals and p-values of few blocks: against Student's distribution, and in worlds without skill."""

import numpy as np
import pytest
from scipy import special

from tapehouse.bootstrap import DRAWS, p_value, quantiles, resample, tail
from tapehouse.metrics import sharpe_interval
from tapehouse.verdicts import ONE_SIDED, draws_for, paired

NORMAL = special.ndtri((np.arange(400_000) + 0.5) / 400_000)  # draws of a normal figure, without chance


def test_an_interval_of_normal_draws_is_students():
    """Blocks vary by (n - 1) / n of what they sample: with that made up for, the ends are those of a mean of n observations."""
    drawn = resample(120, 10)
    ends = special.stdtrit(11, 0.975) * np.sqrt(12 / 11)
    assert quantiles(NORMAL, drawn) == pytest.approx((-ends, ends), rel=1e-3)
    assert quantiles(np.append(NORMAL, np.nan), drawn) == quantiles(NORMAL, drawn)
    assert quantiles(np.full(5, np.nan), drawn) == (None, None)
    fewer = resample(60, 10)
    assert quantiles(NORMAL, drawn, fewer) == quantiles(NORMAL, fewer) and tail(fewer) < tail(drawn)


@pytest.mark.parametrize("sessions", [60, 120, 360, 6000])
def test_the_p_value_is_two_and_a_half_per_cent_where_the_interval_begins_at_zero(sessions):
    drawn = resample(sessions, 10, 1)
    low, high = quantiles(NORMAL, drawn)
    assert p_value(NORMAL - low, drawn) == pytest.approx(0.025, rel=2e-3)
    assert p_value(NORMAL - high, drawn) == pytest.approx(0.975, rel=2e-3)
    assert p_value(NORMAL, drawn) == pytest.approx(0.5, abs=1e-5)
    assert p_value(np.append(NORMAL - low, np.nan), drawn) == p_value(NORMAL - low, drawn)


def test_p_values_of_few_blocks_on_paper():
    """None of 99 draws at or below 0: a share of 1 %, 2.326 deviations; over √(n / (n - 1)) in Student's with n - 1."""
    above = np.ones(99)
    assert p_value(above, resample(30, 10)) == pytest.approx(special.stdtr(2, -2.3263479 * np.sqrt(2 / 3)))
    assert p_value(above, resample(10**6, 1, 1)) == pytest.approx(0.01, rel=1e-4)
    assert p_value(-above, resample(30, 10)) == 1.0
    assert p_value(np.ones(DRAWS), resample(30, 10)) > 0.025  # three blocks prove nothing, whatever they say


def test_one_block_of_a_fold_is_too_few_among_fifty_subjects_and_three_are_enough():
    """The smallest p-value that there can be, with as many draws as the verdicts take, times the number of subjects."""
    least = {sessions: 50 * p_value(np.ones(draws_for(50)), resample(sessions, 10, 1)) for sessions in (119, 307)}
    assert least[307] < ONE_SIDED < least[119]


def test_short_curves_without_skill_are_covered_and_seldom_judged():
    """Six blocks: plain percentiles cover 0 in 85 of 100 worlds, and call one in nine better or worse than its equal."""
    rng = np.random.default_rng(7)
    covered = sum(low <= 0 <= high for low, high in (sharpe_interval(rng.normal(0, 0.01, 60)) for _ in range(300)))
    assert covered >= 276
    pairs = [paired(rng.normal(0, 0.01, 60), rng.normal(0, 0.01, 60), "other") for _ in range(300)]
    assert sum(pair.low > 0 or pair.high < 0 for pair in pairs) <= 24
    assert sum(pair.p_value <= 0.025 for pair in pairs) <= 14
    assert 15 <= sum(pair.p_value <= 0.1 for pair in pairs) <= 48
