"""A block's evaluation with a market behind it: figures that belong together, what is after the block, and what is refused."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from tapehouse.evaluations.outcomes import Market, longest_horizon, paths_after
from tapehouse.evaluations.table import evaluation_rows
from tapehouse.folds import Fold
from tapehouse.labels.forward import forward_returns
from tapehouse.labels.triple_barrier import triple_barrier
from tapehouse.orders import Costs, Objective, Objectives, Stratum, Weights
from tapehouse.predictions import PREDICTIONS
from tests.tapehouse.market_records import at, calendar, day, decided, random_market

SESSIONS, FIRST, LAST = 130, 20, 90  # of the market; of the test block, the last excluded
WEIGHTS = Weights(price=1, certainty=0, risk=0, fees=0)
OBJECTIVES = Objectives(
    costs=Costs(half_spread_bps=2, maker_fee_bps=0.5, taker_fee_bps=3, unfilled_penalty_bps=20), near_tie_bps=1,
    objectives={
        "patient": Objective(
            words="a better price", share=1.0, window_sessions=5, weights=WEIGHTS,
            strata=(Stratum(near=(0.1, 0.2), far=(0.5, 1.0)),),
        )
    },
)  # fmt: skip
FOLD = Fold(
    "f", at(0, 0), at(FIRST - 12, 0), at(FIRST, 0), at(LAST, 0), at(LAST + 12, 0), 12, day(FIRST), day(LAST - 1), at(4, 0)
)


@pytest.fixture(scope="module")
def world():
    """Bars, actions, decisions with what is known at them, labels and returns."""
    bars, actions = random_market(3, SESSIONS)
    settled = bars.filter(~pl.col("symbol").str.starts_with("^"))
    points = settled.select("symbol", "interval", "session", "close").filter(pl.col("session") < day(LAST))
    points = points.with_columns(
        decision_at=pl.col("session").replace_strict({day(i): decided(i) for i in range(LAST)}),
        atr_14=pl.col("close") * 0.02, realised_vol_20d=pl.lit(0.02 * 252**0.5), regime=pl.lit("sideways"),
    )  # fmt: skip
    sessions, span = calendar(SESSIONS), (at(0, 0), at(LAST, 0))
    labels = triple_barrier(bars, actions, points, *span, sessions)
    forward = forward_returns(bars, actions, points, *span, sessions, "^GSPC")
    return bars, actions, points, labels, forward


def answers(points: pl.DataFrame, **columns) -> pl.DataFrame:
    """Predictions of every decision: BUY at market unless said otherwise."""
    split = pl.when(pl.col("decision_at") < FOLD.test_start).then(pl.lit("validation")).otherwise(pl.lit("test"))
    said = {
        "adapter": "us",
        "fold": "f",
        "split": split,
        "objective": "direction",
        "action": "BUY",
        "parse_state": "ok",
    } | columns
    judged = pl.col("decision_at").is_between(FOLD.validation_start, FOLD.train_end) | (
        pl.col("decision_at") >= FOLD.test_start
    )
    rows = points.filter(judged)
    given = {name: value if isinstance(value, pl.Expr) else pl.lit(value) for name, value in said.items()}
    rows = rows.with_columns(**{name: pl.lit(None, kind) for name, kind in PREDICTIONS.items() if name not in rows.columns})
    return rows.with_columns(**given).select(pl.col(name).cast(kind) for name, kind in PREDICTIONS.items())


def evaluated(world, predictions: pl.DataFrame, policy: pl.DataFrame | None = None, until: int = SESSIONS) -> pl.DataFrame:
    bars, actions, points, labels, forward = world
    seen = bars.filter(pl.col("session") < day(until))
    paths = paths_after(points, seen, actions, calendar(SESSIONS), longest_horizon(predictions), timedelta(days=1))
    return evaluation_rows("us", FOLD, predictions, points, labels, forward, Market(paths, OBJECTIVES), policy)


def whole(rows: pl.DataFrame, what: str = "value", split: str = "test") -> dict[str, float | None]:
    return dict(rows.filter(slice="all", split=split).select("metric", what).iter_rows())


def test_an_order_at_market_earns_what_its_direction_does(world):
    rows = evaluated(world, answers(world[2]))
    found, n = whole(rows), whole(rows, "n")
    # Some symbols are halted: sent into a session without a bar, an order has no fill, though it has a price later.
    assert found["fill_rate"] == pytest.approx(n["mean_ret_1d"] / n["fill_rate"]) and found["fill_rate"] < 1
    assert found["unsettled"] == 0 and n["fill_rate"] == n["implementation_shortfall_bps"] == n["n"]
    for h in (1, 5, 10, 30):
        # Bought at the ask, 2 bps above the open that returns are measured from.
        assert found[f"markout_{h}d_bps"] == pytest.approx(((1 + found[f"mean_ret_{h}d"]) / 1.0002 - 1) * 1e4)
    assert "policy_agreement" not in found and found["reward_by_confidence"] is None


def test_limits_are_fewer_fills_at_better_prices(world):
    limit = {"limit_price": pl.col("close") * 0.985, "limit_valid_sessions": 3, "objective": "patient"}
    rows = evaluated(world, answers(world[2], **limit), answers(world[2], action="SELL"))
    found, market = whole(rows), whole(evaluated(world, answers(world[2])))
    assert 0.2 < found["fill_rate"] < 0.95 and found["unsettled"] == 0.0
    assert found["mean_ret_10d"] == market["mean_ret_10d"]  # a direction is one whatever its limit
    assert found["implementation_shortfall_bps"] != pytest.approx(market["implementation_shortfall_bps"])
    # The objective pays the price alone, in deviations of 2 % a session over three; the shortfall has fees, too.
    assert found["mean_reward"] * 200 * 3**0.5 == pytest.approx(-found["implementation_shortfall_bps"], abs=4)
    assert (found["policy_agreement"], found["policy_opposed"]) == (0.0, 1.0)
    assert found["disagreement_ret"] == pytest.approx(2 * found["mean_ret_10d"])
    assert whole(rows, split="validation")["fill_rate"] is not None
    assert set(rows.filter(split="validation")["slice"]) == {"all"}


def test_what_comes_after_the_longest_outcome_changes_nothing(world):
    predictions = answers(world[2], limit_price=pl.col("close") * 0.99, limit_valid_sessions=5, objective="patient")
    last = LAST - 1 + longest_horizon(predictions)
    assert longest_horizon(predictions) == 35
    assert evaluated(world, predictions, until=last + 1).equals(evaluated(world, predictions))
    fewer = whole(evaluated(world, predictions, until=LAST), "n")
    assert fewer["markout_30d_bps"] < whole(evaluated(world, predictions), "n")["markout_30d_bps"]


def test_bins_of_the_margin(world):
    sure = pl.when(pl.col("symbol") == "AAA").then(0.62).otherwise(0.4)
    rows = evaluated(world, answers(world[2], p_buy=sure, p_sell=pl.lit(0.3), p_hold=0.7 - sure)).filter(slice="margin")
    assert rows.filter(metric="margin")["level"].to_list() == ["0.10-0.15", "0.30-0.35"]
    assert np.allclose(rows.filter(metric="margin")["value"], [0.1, 0.32])
    assert set(rows["metric"]) == {"mean_reward", "margin"}


def test_an_answer_to_no_decision_is_refused(world):
    stray = answers(world[2]).with_columns(pl.col("symbol").replace("AAA", "ZZZ"))
    with pytest.raises(ValueError, match=r"an answer to no decision point: .*ZZZ"):
        evaluated(world, stray)
