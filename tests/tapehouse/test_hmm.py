"""The hidden states: the forward pass by hand and against hmmlearn, names that outlive a permutation, fits that repeat."""

import itertools
import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hmmlearn.hmm import GaussianHMM
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse import hmm
from tapehouse.errors import TapehouseError
from tapehouse.features.price import price_features
from tapehouse.fits import fit_rows, values_of
from tapehouse.folds import Fold
from tests.tapehouse.market_records import real_market

TRUTH = hmm.States(
    np.array([[0.97, 0.02, 0.01], [0.02, 0.96, 0.02], [0.01, 0.03, 0.96]]),
    np.array([[0.0, -2.4], [0.04, -1.9], [-0.02, -1.0]]),
    np.array([[[4e-4, 0.0], [0.0, 0.02]], [[4e-4, 0.0], [0.0, 0.02]], [[4e-3, 0.0], [0.0, 0.05]]]),
    0.0,
    0,
    0,
)
FOLD = Fold("2019-06-03", *(datetime(2019, month, 1, tzinfo=UTC) for month in (1, 5, 6, 9, 10)), 0, None, None)


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations of `TRUTH` and the states that they came from."""
    rng = np.random.default_rng(seed)
    states = np.empty(count, int)
    state = 0
    for t in range(count):
        state = rng.choice(3, p=TRUTH.transition[state])
        states[t] = state
    noise = rng.normal(size=(count, 2)) * np.sqrt(TRUTH.covariances[states][:, [0, 1], [0, 1]])
    return TRUTH.means[states] + noise, states


def test_the_forward_pass_by_hand():
    # Unit variances, means 0, 1 and 2 in the return alone: after one observation of 0 the odds are 1 : e^-1/2 : e^-2.
    eye = np.eye(2)
    states = hmm.States(np.eye(3), np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]), np.array([eye, eye, eye]), 0.0, 0, 0)
    odds = np.array([1.0, math.exp(-0.5), math.exp(-2.0)])
    found = hmm.filtered(states, np.zeros((2, 2)))
    assert found[0] == pytest.approx(odds / odds.sum())
    assert found[1] == pytest.approx(odds**2 / (odds**2).sum())  # who never moves is told twice
    # Who always moves on has been in the state before.
    moving = hmm.States(np.roll(np.eye(3), 1, axis=1), states.means, states.covariances, 0.0, 0, 0)
    assert hmm.filtered(moving, np.zeros((2, 2)))[1] == pytest.approx(np.roll(odds, 1) * odds / (np.roll(odds, 1) * odds).sum())


def test_the_forward_pass_is_that_of_hmmlearn():
    rows, _ = draw(300, 1)
    peer = GaussianHMM(3, covariance_type="full", init_params="")
    peer.n_features = 2
    peer.startprob_, peer.transmat_ = np.full(3, 1 / 3), TRUTH.transition
    peer.means_, peer.covars_ = TRUTH.means, TRUTH.covariances
    ours = hmm.filtered(TRUTH, rows)
    for t in (0, 1, 7, 150, 299):
        # At the last row of a sequence, smoothed and filtered are the same.
        assert ours[t] == pytest.approx(peer.predict_proba(rows[: t + 1])[-1], abs=1e-10)
    assert np.abs(ours - peer.predict_proba(rows)).max() > 0.1  # before it they are not


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 199))
def test_a_filtered_row_knows_nothing_of_later_ones(seed, cut):
    rows, _ = draw(200, seed)
    changed = rows.copy()
    changed[cut:] = rows[cut:] * 3 + 1
    assert np.array_equal(hmm.filtered(TRUTH, rows)[:cut], hmm.filtered(TRUTH, changed)[:cut])
    assert np.array_equal(hmm.filtered(TRUTH, rows)[:cut], hmm.filtered(TRUTH, rows[:cut]))


def test_400_rows_of_warm_up_forget_where_the_filter_began():
    rows, _ = draw(900, 4)
    from_start, restarted = hmm.filtered(TRUTH, rows), hmm.filtered(TRUTH, rows[450:])
    assert np.abs(from_start[850:] - restarted[400:]).max() < 1e-12


def test_values_that_no_state_expects_leave_probabilities():
    found = hmm.filtered(TRUTH, np.array([[0.0, -2.4], [50.0, 40.0], [-50.0, -40.0], [0.0, -2.4]]))
    assert np.isfinite(found).all()
    assert found.sum(axis=1) == pytest.approx(np.ones(4))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_names_do_not_depend_on_the_order_in_which_states_were_found(order):
    p = list(order)
    found = hmm.named(TRUTH.transition[np.ix_(p, p)], TRUTH.means[p], TRUTH.covariances[p], 1.5, 7, 100)
    assert np.array_equal(found.means, TRUTH.means)
    assert np.array_equal(found.transition, TRUTH.transition)
    assert np.array_equal(found.covariances, TRUTH.covariances)
    assert (found.log_likelihood, found.iterations, found.rows) == (1.5, 7, 100)


def test_a_trend_may_go_down_and_may_be_the_calmest():
    means = np.array([[-0.05, -2.5], [0.001, -2.0], [0.2, -1.0]])
    found = hmm.named(TRUTH.transition, means, TRUTH.covariances, 0.0, 0, 0)
    assert dict(zip(hmm.STATES, found.means[:, 0], strict=True)) == {hmm.RANGE: 0.001, hmm.TREND: -0.05, hmm.HIGH: 0.2}


def test_consecutive_folds_call_the_same_days_by_the_same_names():
    """Each window is fitted on its own; what they have in common is the world that their rows come from."""
    rows, truth = draw(2600, 9)
    for start in range(0, 1401, 200):
        window = slice(start, start + 1200)
        found = hmm.filtered(hmm.fit(rows[window]), rows[window]).argmax(axis=1)
        assert (found == truth[window]).mean() > 0.95


def test_on_the_real_market_consecutive_folds_agree_on_the_days_they_share():
    """Expanding windows from four years on: the S&P 500 from 2000-03 to 2013-03, refitted every 120 sessions."""
    versions, actions = real_market()
    forever = datetime(1990, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
    rows = hmm.inputs(price_features(versions.filter(symbol="^GSPC"), actions.clear(), *forever)).select(hmm.INPUTS).to_numpy()
    before = None
    for end in range(1040, len(rows), 120):
        states = hmm.fit(rows[:end])
        assert states.means[2, 1] == states.means[:, 1].max()
        called = hmm.filtered(states, rows[:end]).argmax(axis=1)
        if before is not None:
            assert (called[: len(before)] == before).mean() > 0.95
        before = called


def test_a_fit_finds_the_planted_moments_and_repeats_its_bits():
    rows, _ = draw(3000, 2)
    found = hmm.fit(rows)
    assert found.means == pytest.approx(TRUTH.means, abs=0.03)
    assert found.transition == pytest.approx(TRUTH.transition, abs=0.02)
    again = hmm.fit(rows.copy(order="F"))
    assert hmm.to_rows(again) == hmm.to_rows(found)
    assert found.rows == 3000


def test_no_state_is_without_a_way_out():
    rows = np.concatenate(
        [draw(150, 5)[0] * 0 + np.random.default_rng(1).normal(0, 1, (150, 2)) * 0.01 + shift for shift in (0, 2, 4)]
    )
    assert hmm.fit(rows).transition.min() > 0.001  # these never return


def test_too_few_rows_are_not_fitted():
    assert hmm.fit(draw(99, 1)[0]) is None
    few = pl.DataFrame({"decision_at": [], "known_at": [], "ret_20d": [], "realised_vol_20d": []}).cast(
        {
            "decision_at": pl.Datetime("us", "UTC"),
            "known_at": pl.Datetime("us", "UTC"),
            "ret_20d": pl.Float64,
            "realised_vol_20d": pl.Float64,
        }
    )
    assert hmm.fitted(few).values == {}


def test_days_without_a_value_or_without_volatility_are_no_observations():
    stamps = [datetime(2019, 1, d, tzinfo=UTC) for d in (3, 1, 2, 4)]
    rows = pl.DataFrame(
        {"decision_at": stamps, "known_at": stamps, "ret_20d": [0.1, None, 0.2, 0.3], "realised_vol_20d": [0.2, 0.2, 1.0, 0.0]}
    )
    found = hmm.inputs(rows)
    assert found["ret_20d"].to_list() == [0.2, 0.1]
    assert found["log_vol_20d"].to_list() == [0.0, pytest.approx(math.log(0.2))]


def test_the_model_comes_back_from_its_rows_to_the_bit():
    states = hmm.fit(draw(400, 3)[0])
    fits = fit_rows(FOLD, [hmm.Fitted(hmm.KIND, hmm.to_rows(states), states.rows)])
    assert fits["known_at"].unique().to_list() == [FOLD.train_end]
    found = hmm.from_rows(values_of(fits, FOLD, hmm.KIND), 400)
    for name in ("transition", "means", "covariances"):
        assert np.array_equal(getattr(found, name), getattr(states, name))
    assert (found.log_likelihood, found.iterations) == (states.log_likelihood, states.iterations)
    with pytest.raises(TapehouseError, match=r"models\.fits: no rows of fold 2019-06-03"):
        values_of(fits.clear(), FOLD, hmm.KIND)
