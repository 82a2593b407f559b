"""t-statistics of overlapping returns: by hand, against statsmodels, without skill, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.statistics.panels import critical, overlapping_t, spanned


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


def test_spans_by_hand():
    """From the first observation to the last, a gap as one horizon at most: 1 + 1 + 3 + 1, and less where that is shorter."""
    counts = np.zeros((2, 12, 2))
    counts[0, [2, 3, 9, 10], 0] = 5
    counts[1, [0, 4, 8], 1] = 1
    assert spanned(counts, 3).tolist() == [[6, 0], [0, 7]]
    assert spanned(counts, 1).tolist() == [[4, 0], [0, 3]] and spanned(counts, 20).tolist() == [[9, 0], [0, 9]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 12))
def test_spans_are_what_returns_run_over_together(observed, horizon):
    """All sessions that any of the returns runs over, less what the last one has beyond its first."""
    covered = {session + step for session, there in enumerate(observed) if there for step in range(horizon)}
    expected = max(len(covered) - (horizon - 1), 0)
    assert spanned(np.array(observed, float)[None, :, None], horizon).item() == expected


def test_spells_far_apart_are_no_long_sample():
    """Returns of five names over ten sessions, in worlds without skill: of two spells of eight sessions |t| was above 1.96 in a
    quarter, when the sessions between them counted; of three of 15 it is as rare as of any sample of 45 sessions."""
    rng = np.random.default_rng(7)
    daily = rng.normal(size=(129, 400))
    ret = np.apply_along_axis(lambda r: np.convolve(r, np.ones(10), "valid"), 0, daily)
    two, three = np.zeros((2, 120, 1))
    two[10:18] = two[70:78] = 5
    three[5:20] = three[50:65] = three[100:115] = 5
    assert np.isnan(overlapping_t(ret * two, two + np.zeros(400), 10)).all()
    found = overlapping_t(ret * three, three + np.zeros(400), 10)
    assert not np.isnan(found).any() and (np.abs(found) > 1.96).mean() < 0.13
    # A window of two sessions is 2/45 of what was observed, not 2/120; the spells have no neighbour in each other.
    spells = np.r_[5:20, 50:65, 100:115]
    sums = column(np.where(np.isin(np.arange(120), spells), daily[:120, 0], 0))
    away = np.where(sums != 0, sums - sums.sum() / 45, 0)
    long_run = (away**2).sum() + (away[1:] * away[:-1]).sum()
    by_hand = sums.sum() / np.sqrt(long_run) * 1.96 / critical(2 / 45)
    assert overlapping_t(sums, (sums != 0).astype(float), 1)[0] == pytest.approx(by_hand)
    # Six sessions are too few, whatever they bring.
    ends = np.zeros((120, 1))
    ends[:3] = ends[117:] = 5
    assert np.isnan(overlapping_t(ret * ends, ends + np.zeros(400), 1)).all()


def test_what_says_nothing_has_no_statistic():
    assert np.isnan(overlapping_t(column([1, 2] * 14), column([1] * 28), 1)[0])  # 28 observations
    assert np.isnan(overlapping_t(column([0.1] * 40), column([1] * 40), 5)[0])  # no variation
    assert np.isnan(overlapping_t(column([0.0] * 40), column([0] * 40), 5)[0])  # no observation
    ret, none = np.random.default_rng(0).normal(0, 1, 119), np.zeros(30)
    assert np.isnan(overlapping_t(column([*none, *ret]), column([*none, *np.ones(119)]), 30)[0])  # not four spans of thirty
    assert not np.isnan(overlapping_t(column([*none, *ret, 1]), column([*none, *np.ones(120)]), 30)[0])
    with pytest.raises(ValueError, match="overlap 0"):
        overlapping_t(column([1] * 40), column([1] * 40), 0)
