"""Agreement with the policy of reference: by hand, against scikit-learn, without knowledge, and what is refused."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.evaluations.agreement import AGREEMENT, MEANING, kappa, with_policy
from tapehouse.evaluations.core import measure
from tapehouse.evaluations.rows import Rows

KEYS = {"symbol": pl.String, "interval": pl.String, "decision_at": pl.Datetime("us", "UTC")}


def rows_of(own, policy, returns) -> Rows:
    columns = {"action": own, "policy": policy, "forward_10": returns}
    arrays = {name: np.asarray(values, float) for name, values in columns.items()}
    return Rows(arrays, np.arange(len(own)), len(own), frozenset({"forward_10"}))


def measured(own, policy, returns) -> dict[str, dict]:
    return {row["metric"]: row for row in measure(rows_of(own, policy, returns), [AGREEMENT]).iter_rows(named=True)}


def test_five_answers_on_paper():
    """BUY and BUY, BUY and SELL, HOLD and BUY, SELL and SELL; the policy said nothing of the fifth."""
    found = measured([2, 2, 1, 0, 2], [2, 0, 2, 0, np.nan], [0.01, 0.03, 0.04, 0.05, 0.9])
    assert set(found) == set(MEANING)
    assert (found["policy_agreement"]["value"], found["policy_agreement"]["n"]) == (0.5, 4)
    assert found["policy_opposed"]["value"] == 0.25
    # Own habits: 1 SELL, 1 HOLD, 2 BUY; the policy's: 2, 0, 2. By chance (1 * 2 + 2 * 2) / 16 of answers are equal.
    assert found["policy_kappa"]["value"] == pytest.approx((0.5 - 0.375) / (1 - 0.375))
    # Long instead of short earns twice 3 %, holding instead of buying loses 4 %.
    assert (found["disagreement_ret"]["value"], found["disagreement_ret"]["n"]) == (pytest.approx(0.01), 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=80))
def test_kappa_is_scikit_learns(pairs):
    from sklearn.metrics import cohen_kappa_score

    own, policy = (np.array(side) for side in zip(*pairs, strict=True))
    counts = [np.array([float((side == i).sum())]) for side in (own, policy) for i in range(3)]
    ours = kappa(np.array([float(len(own))]), np.array([float((own == policy).sum())]), *counts)[0]
    if np.unique(np.concatenate([own, policy])).size == 1:
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(cohen_kappa_score(own, policy), abs=1e-9)


def test_whoever_knows_better_earns_where_they_differ():
    rng = np.random.default_rng(2)
    returns = rng.normal(0, 0.02, 300)
    found = measured(np.where(returns > 0, 2, 0), rng.integers(0, 3, 300), returns)
    ahead = found["disagreement_ret"]
    assert 0 < ahead["low"] < ahead["value"] and abs(ahead["shuffled"]) < 0.005
    assert found["policy_kappa"]["low"] < 0 < found["policy_kappa"]["high"]
    assert found["policy_kappa"]["shuffled"] == 0.0 and found["policy_agreement"]["shuffled"] is None


def test_answers_are_joined_by_their_decision():
    at = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2)]
    answers = pl.DataFrame([("A", "1d", at[1]), ("A", "1d", at[0]), ("B", "1d", at[0])], schema=KEYS, orient="row")
    policy = answers.head(2).with_columns(action=pl.Series(["BUY", "HOLD"]))
    assert with_policy(answers, policy)["policy"].to_list() == ["BUY", "HOLD", None]
    with pytest.raises(ValueError, match="twice; read one predictor alone"):
        with_policy(answers, pl.concat([policy, policy]))
