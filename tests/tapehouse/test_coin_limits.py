"""A coin that no feature moves, at limits on paper, and the same toss whoever asks."""

import numpy as np
import polars as pl
import pytest

from tapehouse.errors import TapehouseError
from tapehouse.predictions import PREDICTIONS
from tests.tapehouse.classical import KEYS, POINTS, answers, fit, make_fold, make_inputs, recipe


def test_a_coin_at_limits_on_paper(tmp_path):
    fold, inputs = make_fold(), make_inputs()
    of = recipe("coin_limits", params={"limit_atr": 0.5, "valid_sessions": 2}, seed=7)
    assert fit(of, inputs, fold, tmp_path) == {"rows": 0}
    rows = answers(of, inputs, fold, tmp_path)
    assert dict(rows.schema) == PREDICTIONS and set(rows["action"]) == {"BUY", "SELL"}
    # The closes are 100, the ATR 2: a buyer waits at 99, a seller at 101.
    assert rows.filter(action="BUY")["limit_price"].unique().to_list() == [99.0]
    assert rows.filter(action="SELL")["limit_price"].unique().to_list() == [101.0]
    assert rows["limit_valid_sessions"].unique().to_list() == [2] and rows["p_buy"].null_count() == rows.height


def test_the_toss_is_of_the_decision_and_the_seed_alone(tmp_path):
    fold, inputs = make_fold(), make_inputs()
    of = recipe("coin_limits", seed=7)
    rows = answers(of, inputs, fold, tmp_path)
    noise = pl.col("close") * 3.0, pl.col("momentum_30d") * -1.0, pl.col("atr_14") + 1.0
    other = (
        inputs[POINTS]
        .filter(pl.col("decision_at") >= fold.test_start)
        .with_columns(*noise)
        .sample(fraction=1.0, shuffle=True, seed=1)
    )
    again = answers(of, inputs | {POINTS: other}, fold, tmp_path).sort(KEYS)
    assert again["action"].equals(rows.filter(split="test").sort(KEYS)["action"])
    assert not answers(recipe("coin_limits", seed=8), inputs, fold, tmp_path)["action"].equals(rows["action"])


def test_the_coin_is_fair(tmp_path):
    """The shares of 4,000 tosses by 40 seeds lie within four deviations of a half, and a toss says nothing of the next."""
    fold, inputs = make_fold(), make_inputs()
    bought = np.array([answers(recipe("coin_limits", seed=s), inputs, fold, tmp_path)["action"] == "BUY" for s in range(40)])
    assert abs(bought.mean() - 0.5) < 4 * 0.5 / np.sqrt(bought.size)
    follows = bought[:, 1:] == bought[:, :-1]
    assert abs(follows.mean() - 0.5) < 4 * 0.5 / np.sqrt(follows.size)


def test_a_limit_on_the_worse_side_is_refused():
    with pytest.raises(TapehouseError, match="limit_atr"):
        recipe("coin_limits", params={"limit_atr": -0.1})
