"""Rank correlations of resamples against ranking each of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from tapehouse.statistics.ranks import spearman_draws


def test_on_paper():
    # Ranks 1, 2, 3 against 1, 3, 2: 1 - 6 * 2 / (3 * 8). Twice the first and never the last: -0.5 -0.5 1 against the same.
    a, b, dates = np.array([0.1, 0.2, 0.3]), np.array([5.0, 9.0, 7.0]), np.arange(3)
    found = spearman_draws(a, b, dates, np.array([[0, 1, 2], [0, 0, 1], [1, 1, 1]]), 3)
    assert found[:2].tolist() == [0.5, 1.0] and np.isnan(found[2])


@given(st.integers(0, 2**31), st.integers(3, 40), st.integers(1, 12))
def test_equals_ranking_each_draw(seed, rows, sessions):
    rng = np.random.default_rng(seed)
    dates = np.sort(rng.integers(0, sessions, rows))
    a, b = rng.integers(0, 6, rows) / 3, rng.normal(size=rows)
    drawn = rng.integers(0, sessions, (5, sessions))
    for found, draw in zip(spearman_draws(a, b, dates, drawn, sessions), drawn, strict=True):
        picked = np.concatenate([np.flatnonzero(dates == day) for day in draw])
        if picked.size < 3 or len(set(a[picked])) < 2 or len(set(b[picked])) < 2:
            assert np.isnan(found)
        else:
            assert found == pytest.approx(spearmanr(a[picked], b[picked]).statistic, abs=1e-12)


def test_of_nothing_there_is_no_correlation():
    assert np.isnan(spearman_draws(np.array([]), np.array([]), np.array([], int), np.zeros((2, 3), int), 3)).all()
