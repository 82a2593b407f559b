"""The regime as it is printed decides the side, and nothing else does."""

import polars as pl
import pytest

from tapehouse.errors import TapehouseError
from tapehouse.predictions import PREDICTIONS
from tests.tapehouse.classical import KEYS, POINTS, answers, fit, make_fold, make_inputs, recipe

SIDES = {"bullish": "BUY", "bearish": "SELL", "sideways": "HOLD", None: "HOLD"}


def with_regimes() -> dict[str, pl.DataFrame]:
    """Bullish, bearish, sideways and unknown in turn."""
    inputs = make_inputs()
    turn = [list(SIDES)[i % 4] for i in range(inputs[POINTS].height)]
    return inputs | {POINTS: inputs[POINTS].with_columns(regime=pl.Series(turn, dtype=pl.String))}


def test_a_side_for_each_regime_at_limits_on_paper(tmp_path):
    fold, inputs = make_fold(), with_regimes()
    of = recipe("regime_limits", params={"limit_atr": 0.5, "valid_sessions": 2})
    assert fit(of, inputs, fold, tmp_path) == {"rows": 0}
    rows = answers(of, inputs, fold, tmp_path)
    assert dict(rows.schema) == PREDICTIONS
    read = rows.join(inputs[POINTS], on=KEYS, maintain_order="left")["regime"]
    assert rows["action"].to_list() == [SIDES[word] for word in read] and set(rows["action"]) == {"BUY", "SELL", "HOLD"}
    # The closes are 100, the ATR 2: a buyer waits at 99, a seller at 101, and who holds sends nothing.
    found = rows.select("action", "limit_price", "limit_valid_sessions").unique().sort("action").rows()
    assert found == [("BUY", 99.0, 2), ("HOLD", None, None), ("SELL", 101.0, 2)]


def test_no_other_feature_is_read(tmp_path):
    fold, inputs = make_fold(), with_regimes()
    of = recipe("regime_limits")
    other = inputs[POINTS].with_columns(pl.col("close") * 3.0, pl.col("momentum_30d") * -1.0)
    again = answers(of, inputs | {POINTS: other}, fold, tmp_path)
    assert again["action"].equals(answers(of, inputs, fold, tmp_path)["action"])


def test_a_limit_on_the_worse_side_is_refused():
    with pytest.raises(TapehouseError, match="limit_atr"):
        recipe("regime_limits", params={"limit_atr": -0.1})
