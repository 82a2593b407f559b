"""Prompts for reinforcement learning: any order is paid as the pairs are, and nothing of a reward stands in a prompt."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash
from tapehouse.orders import load_objectives, order_outcomes
from tapehouse.paths import settled_paths
from tapehouse.prompts.templates import load, selection
from tapehouse.prompts.thesis import CLAIMS
from tapehouse.rewards import paid, reward_of
from tapehouse.rl_prompts import POINT, SCHEMA, STAGES, of_fold, rl_prompts
from tests.tapehouse.market_records import LAG, SETTLEMENT, STAMP, at, calendar, day, random_market

COUNT = 60
DECLARED = load_objectives(Path("objectives.yaml"))
ORDER_TEMPLATE, THESIS_TEMPLATE = selection("order_v2"), selection("thesis_v1")
VERSIONS, ACTIONS = random_market(5, COUNT, symbols=("AAA", "BBB"))
SHOWN = sorted({*load("order_v2").columns, *load("thesis_v1").columns, "ret_20d", "rsi_14"} - {"symbol", "objective", "close"})


def decided(versions: pl.DataFrame) -> pl.DataFrame:
    """Decision points at every bar; what else is shown is a number without meaning."""
    rng = np.random.default_rng(1)
    rows = versions.select("symbol", "interval", "session", "close", decision_at=pl.col("event_at") + LAG)
    for name in SHOWN:
        values = rng.uniform(0.1, 0.9, rows.height)
        whole = name.endswith("0d") and name.startswith(("news", "filings", "insider")) and "sentiment" not in name
        rows = rows.with_columns(pl.Series(name, np.rint(values).astype(np.int64) if whole else values))
    return rows.with_columns(regime=pl.lit("bullish"))


POINTS = decided(VERSIONS)
COMPANY = POINTS.select(*POINT, known_at="decision_at")


def scored(points: pl.DataFrame) -> pl.DataFrame:
    """Scores of all but the last 15 sessions."""
    late = pl.col("session") > day(COUNT - 16)
    numbers = {
        name: pl.when(~late).then(value) for name, value in {"z_3": 1.0, "z_7": -2.0, "z_15": 0.5, "score": -0.6}.items()
    }
    times = {
        "label_end_at": pl.col("decision_at") + timedelta(days=15),
        "label_known_at": pl.col("decision_at") + timedelta(days=16),
    }
    return points.select(*POINT, entry_at="decision_at", volatility=pl.lit(0.01), **numbers, **times)


def made(start=0, end=COUNT, versions=VERSIONS, points=POINTS):
    return rl_prompts(
        points, COMPANY, scored(POINTS), versions, ACTIONS, DECLARED,
        at(start, 0), at(end, 0), calendar(COUNT + 20), ORDER_TEMPLATE, THESIS_TEMPLATE, SETTLEMENT,
    )  # fmt: skip


EVERYTHING = made()
ORDERS = EVERYTHING.rows.filter(family="order")


@settings(deadline=None, max_examples=40)
@given(place=st.integers(0, ORDERS.height - 1), offset=st.floats(-0.15, 0.15))
def test_any_limit_is_paid_as_order_outcomes_pays_it(place, offset):
    row = ORDERS.row(place, named=True)
    objective, buys = DECLARED.objectives[row["objective"]], row["side"] == "BUY"
    limit = round(row["arrival"] * (1 - offset if buys else 1 + offset), 2)
    point = POINTS.join(ORDERS[place].select(POINT), on=POINT, how="semi")
    asked = point.select("symbol", "session", side=pl.lit(1 if buys else -1), limit=pl.lit(limit), arrival="close")
    outcome = order_outcomes(PATHS, asked, objective.window_sessions, DECLARED.costs, objective.weights, SETTLEMENT)
    assert paid(row, limit) == outcome["reward_bps"].item()
    assert f", to {'buy' if buys else 'sell'}:" in row["prompt"]
    assert (row["label_end_at"], row["label_known_at"]) == outcome.select("reward_end_at", "reward_known_at").row(0)


PATHS = settled_paths(VERSIONS, ACTIONS, calendar(COUNT + 20), ["AAA", "BBB"], SETTLEMENT)


def test_each_point_has_a_prompt_for_each_objective_and_a_thesis():
    rows = EVERYTHING.rows
    assert rows.schema == pl.Schema(SCHEMA)
    assert rows.select(*POINT, "family", "objective").is_unique().all()
    assert rows.equals(rows.sort(*POINT, "family", "objective"))
    assert ORDERS.height + EVERYTHING.incomplete == POINTS.height * len(DECLARED.objectives)
    assert rows.height - ORDERS.height + EVERYTHING.without_score == POINTS.height
    assert EVERYTHING.incomplete > 0 and EVERYTHING.without_score > 0
    # A missing bar within a window is null in it, the last one is there.
    assert ORDERS.select(pl.col("window_open").list.eval(pl.element().is_null()).list.any().any()).item()
    assert ORDERS.select(pl.col("window_close").list.last().is_not_null().all()).item()
    assert ORDERS.select((pl.col("window_close").list.len() == pl.col("window_sessions")).all()).item()
    assert (ORDERS["window_shares"].list.max() == 2).any() and (ORDERS["window_cash"].list.max() > 0).any()


def test_returns_are_those_that_the_score_is_made_of():
    thesis = EVERYTHING.rows.filter(family="thesis").row(0, named=True)
    volatility = thesis["volatility"]
    found = [thesis[f"ret_{h}d"] for h in (3, 7, 15)]
    assert found == pytest.approx([volatility * 3**0.5, -2 * volatility * 7**0.5, 0.5 * volatility * 15**0.5])
    assert thesis["difficulty"] == pytest.approx(1 / 1.6)
    assert {name: thesis[f"claim_{name}"] for name in ("momentum_10d", "volatility")} == {
        "momentum_10d": True,
        "volatility": True,
    }


def test_difficulty_of_an_order_is_how_little_its_window_moved():
    row = ORDERS.filter((pl.col("window_shares").list.max() == 1) & (pl.col("window_cash").list.max() == 0)).row(7, named=True)
    move = abs(row["window_close"][-1] / row["arrival"] - 1) / (row["volatility"] * row["window_sessions"] ** 0.5)
    assert row["difficulty"] == pytest.approx(1 / (1 + move))


def test_stages_are_drawn_by_the_key_in_their_shares():
    rows = EVERYTHING.rows
    shares = dict(rows["stage"].value_counts(normalize=True).iter_rows())
    assert {stage: pytest.approx(share, abs=0.08) for stage, share in STAGES.items()} == shares
    sides = dict(ORDERS["side"].value_counts(normalize=True).iter_rows())
    assert sides == {"BUY": pytest.approx(0.5, abs=0.08), "SELL": pytest.approx(0.5, abs=0.08)}
    again = made(10, 20).rows
    assert frame_hash(again) == frame_hash(rows.filter(pl.col("decision_at").is_between(at(10, 0), at(20, 0), closed="left")))


def test_another_future_changes_no_prompt():
    later = VERSIONS.filter(pl.col("session") <= day(30))
    shown = [
        "prompt",
        "side",
        "reason",
        "confidence",
        "arrival",
        "volatility",
        "stage",
        "template",
        *(f"claim_{c}" for c in CLAIMS),
    ]
    key = [*POINT, "family", "objective"]
    before = EVERYTHING.rows.filter(family="order").select(*key, *shown)
    changed = made(versions=later).rows.filter(family="order").select(*key, *shown)
    both = changed.join(before, on=key, how="inner").select(key)
    assert both.height > 100
    assert frame_hash(changed.join(both, on=key, how="semi")) == frame_hash(before.join(both, on=key, how="semi"))


def test_a_folds_classes_are_joined_at_export():
    rows = EVERYTHING.rows
    theses = rows.filter(family="thesis")
    classes = theses.head(5).select(*POINT, fold=pl.lit("2008"), signal_class=pl.lit("buy"))
    classes = classes.with_columns(signal_class=pl.when(pl.int_range(5) < 4).then("signal_class"))
    cut = of_fold(rows, classes)
    assert cut.filter(family="thesis")["signal_class"].to_list() == ["buy"] * 4
    assert cut.filter(family="order")["signal_class"].null_count() == ORDERS.height
    assert reward_of(cut.filter(family="thesis").row(0, named=True), "").state == "unparseable"
    with pytest.raises(TapehouseError, match="give those of one"):
        of_fold(rows, pl.concat([classes, classes.with_columns(fold=pl.lit("2009"))]))


def test_what_has_not_moved_gives_no_prompt_and_is_counted():
    still = pl.col("session") == day(3)
    some = POINTS.with_columns(realised_vol_20d=pl.when(still).then(0.0).otherwise("realised_vol_20d"))
    found = made(points=some)
    assert found.still == POINTS.filter(still).height == 2
    assert found.rows.filter(pl.col("decision_at") == at(3, 21) + LAG).height == 0
    assert EVERYTHING.still == 0


def test_without_points_there_are_no_rows():
    none = made(COUNT + 1, COUNT + 2)
    assert none.rows.height == 0
    assert none.rows.schema == pl.Schema(SCHEMA)
    assert SCHEMA["decision_at"] == STAMP
