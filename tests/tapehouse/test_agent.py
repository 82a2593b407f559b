"""Agents of one idea: their scores by hand, and that a missing feature is HOLD."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.methods.agent import predict
from tapehouse.predictions import CHANCES
from tapehouse.recipes import parse_recipe


def asked(idea: str, **columns: list[float | None]) -> list[tuple[float, float, float]]:
    count = len(next(iter(columns.values())))
    keys = {"symbol": ["A"] * count, "interval": ["1d"] * count, "decision_at": [datetime(2024, 1, 2, 21, tzinfo=UTC)] * count}
    points = pl.DataFrame({**keys, **columns}, schema_overrides=dict.fromkeys(columns, pl.Float64))
    fields = {"name": "x", "method": "agent", "description": "x", "params": {"idea": idea, "target_volatility": 0.2}}
    return predict(parse_recipe(fields, "x.yaml"), {"features.decision_points": points}, None, None).select(CHANCES).rows()


def test_each_idea_by_hand():
    # SELL, HOLD, BUY. A drift of one deviation is half sure; a close at the upper band is sure of the other side.
    assert asked("trend", drift_score_20d=[1.0, -4.0, None]) == [(0.0, 0.5, 0.5), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)]
    assert asked("reversion", bollinger_position_20d=[1.0, 0.25, None]) == [(1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.0, 1.0, 0.0)]
    assert asked("volatility", realised_vol_20d=[0.4, 0.1, None]) == [(0.0, 0.5, 0.5), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)]


@given(st.sampled_from(["trend", "reversion", "volatility"]), st.floats(0.0, 1e6))
def test_probabilities_add_up(idea, value):
    column = {"trend": "drift_score_20d", "reversion": "bollinger_position_20d", "volatility": "realised_vol_20d"}[idea]
    (row,) = asked(idea, **{column: [value]})
    assert sum(row) == pytest.approx(1.0) and min(row) >= 0.0


def test_another_idea_is_refused():
    with pytest.raises(TapehouseError, match="idea"):
        asked("astrology", drift_score_20d=[1.0])
