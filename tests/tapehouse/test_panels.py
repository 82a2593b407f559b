"""t-statistics of overlapping returns: by hand, against statsmodels, without skill, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.statistics.panels import overlapping_t
from tapehouse.statistics.ratios import mean_t_statistic


def column(values) -> np.ndarray:
    return np.asarray(values, float)[:, None]


def test_thirty_sessions_on_paper():
    """Thirty observations, alternately 3 and 1: the mean is 2, every distance 1, so sum of squares 30 and of neighbours -29."""
    sums, counts = column([3, 1] * 15), column([1] * 30)
    assert overlapping_t(sums, counts, 1)[0] == pytest.approx(60 / np.sqrt(30))
    # One lag at half its weight: 30 - 2 * 29 / 2 = 1.
    assert overlapping_t(sums, counts, 2)[0] == pytest.approx(60.0)


def test_two_names_that_move_as_one_are_one():
    rng = np.random.default_rng(3)
    ret = rng.normal(0.001, 0.02, 80)
    once = overlapping_t(column(ret), column(np.ones(80)), 1)[0]
    assert overlapping_t(column(2 * ret), column(np.full(80, 2.0)), 1)[0] == pytest.approx(once)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(30, 90), st.integers(1, 12))
def test_with_one_observation_a_session_it_is_newey_and_wests(seed, sessions, overlap):
    import statsmodels.api as sm

    ret = np.random.default_rng(seed).standard_t(4, sessions) * 0.01 + 0.002
    fit = sm.OLS(ret, np.ones(sessions)).fit(cov_type="HAC", cov_kwds={"maxlags": overlap - 1, "use_correction": False})
    found = overlapping_t(column(ret), column(np.ones(sessions)), overlap)[0]
    assert found == pytest.approx(float(fit.tvalues[0]), rel=1e-9)
    assert found == pytest.approx(mean_t_statistic(ret, overlap), rel=1e-9)


def test_overlap_that_is_not_allowed_for_looks_like_skill():
    """200 worlds without skill: sums of ten following returns. Of the naive |t| a half is above 2, of ours a tenth or so."""
    rng = np.random.default_rng(11)
    ret = rng.normal(0, 0.01, (709, 200))
    sums = np.apply_along_axis(lambda r: np.convolve(r, np.ones(10), "valid"), 0, ret)
    counts = np.ones_like(sums)
    naive, ours = (np.abs(overlapping_t(sums, counts, overlap)) > 1.96 for overlap in (1, 10))
    assert naive.mean() > 0.4
    assert ours.mean() < 0.15


def test_sessions_without_an_observation_keep_their_place():
    sums, counts = column([1, 0, -1] * 40), column([1, 0, 1] * 40)
    squeezed = overlapping_t(sums[counts > 0][:, None] + 0.5, column(np.ones(80)), 2)[0]
    apart = overlapping_t(sums + 0.5 * counts, counts, 2)[0]
    assert apart != pytest.approx(squeezed)  # neighbours in time are others


def test_what_says_nothing_has_no_statistic():
    assert np.isnan(overlapping_t(column([1, 2] * 14), column([1] * 28), 1)[0])  # 28 observations
    assert np.isnan(overlapping_t(column([0.1] * 40), column([1] * 40), 5)[0])  # no variation
    assert np.isnan(overlapping_t(column([0.0] * 40), column([0] * 40), 5)[0])  # no observation
    with pytest.raises(ValueError, match="overlap 0"):
        overlapping_t(column([1] * 40), column([1] * 40), 0)
