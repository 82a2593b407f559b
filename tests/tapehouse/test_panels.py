"""t-statistics of overlapping returns: by hand, against statsmodels, without skill, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.statistics.panels import critical, overlapping_t


def column(values) -> np.ndarray:
    return np.asarray(values, float)[:, None]


def test_thirty_two_sessions_on_paper():
    """Pairs of 3, 3 and 1, 1: the mean is 2, every distance 1, and of neighbours 16 pairs agree and 15 do not."""
    sums, counts = column([3, 3, 1, 1] * 8), column([1] * 32)
    # A window of two sessions gives one lag half its weight: 32 + 2 * (16 - 15) / 2 = 33; a sixteenth of the sample.
    wider = 1.96 + 2.9694 / 16 + 0.4160 / 16**2 - 0.5324 / 16**3
    assert critical(1 / 16) == pytest.approx(wider)
    assert overlapping_t(sums, counts, 1)[0] == pytest.approx(64 / np.sqrt(33) * 1.96 / wider)


def test_two_names_that_move_as_one_are_one():
    rng = np.random.default_rng(3)
    ret = rng.normal(0.001, 0.02, 80)
    once = overlapping_t(column(ret), column(np.ones(80)), 5)[0]
    assert overlapping_t(column(2 * ret), column(np.full(80, 2.0)), 5)[0] == pytest.approx(once)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(48, 120), st.integers(1, 12))
def test_with_one_observation_a_session_it_is_newey_and_wests(seed, sessions, overlap):
    import statsmodels.api as sm

    ret = np.random.default_rng(seed).standard_t(4, sessions) * 0.01 + 0.002
    fit = sm.OLS(ret, np.ones(sessions)).fit(cov_type="HAC", cov_kwds={"maxlags": 2 * overlap - 1, "use_correction": False})
    found = overlapping_t(column(ret), column(np.ones(sessions)), overlap)[0]
    assert found == pytest.approx(float(fit.tvalues[0]) * 1.96 / critical(2 * overlap / sessions), rel=1e-9)


def test_overlap_that_is_not_allowed_for_looks_like_skill():
    """400 worlds without skill, sums of thirty following returns, always long, in a block of 120 sessions.

    Of naive |t| most are above 1.96; of ours about a seventh, since four spans are few. Of ten sessions it is one in fourteen.
    """
    rng = np.random.default_rng(11)
    ret = rng.normal(0, 0.01, (149, 400))
    thirty, ten = (np.apply_along_axis(lambda r, h=h: np.convolve(r, np.ones(h), "valid")[:120], 0, ret) for h in (30, 10))
    counts = np.ones((120, 400))
    assert (np.abs(overlapping_t(thirty, counts, 1)) > 1.96).mean() > 0.6
    assert (np.abs(overlapping_t(thirty, counts, 30)) > 1.96).mean() < 0.18
    assert (np.abs(overlapping_t(ten, counts, 10)) > 1.96).mean() < 0.11


def test_sessions_without_an_observation_keep_their_place():
    sums, counts = column([1.5, 0, -0.5] * 40), column([1, 0, 1] * 40)
    squeezed = overlapping_t(sums[counts > 0][:, None], column(np.ones(80)), 2)[0]
    assert overlapping_t(sums, counts, 2)[0] != pytest.approx(squeezed)  # neighbours in time are others


def test_what_says_nothing_has_no_statistic():
    assert np.isnan(overlapping_t(column([1, 2] * 14), column([1] * 28), 1)[0])  # 28 observations
    assert np.isnan(overlapping_t(column([0.1] * 40), column([1] * 40), 5)[0])  # no variation
    assert np.isnan(overlapping_t(column([0.0] * 40), column([0] * 40), 5)[0])  # no observation
    ret, none = np.random.default_rng(0).normal(0, 1, 119), np.zeros(30)
    assert np.isnan(overlapping_t(column([*none, *ret]), column([*none, *np.ones(119)]), 30)[0])  # not four spans of thirty
    assert not np.isnan(overlapping_t(column([*none, *ret, 1]), column([*none, *np.ones(120)]), 30)[0])
    with pytest.raises(ValueError, match="overlap 0"):
        overlapping_t(column([1] * 40), column([1] * 40), 0)
