"""Baselines by hand, trees that repeat and that never see a label of the test block, recipes that must be refused."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tapehouse import baselines
from tapehouse.folds import Fold, FoldSpec, walk_forward
from tapehouse.recipes import load_recipes, parse_recipe

STAMP = pl.Datetime("us", "UTC")
FIRST = date(2024, 1, 1)
SESSIONS = 90


def stamp(index: int, hour: int) -> datetime:
    return datetime(2024, 1, 1, hour, tzinfo=UTC) + timedelta(days=index)


@pytest.fixture(scope="module")
def fold() -> Fold:
    """60 sessions to train, 30 to test."""
    calendar = pl.DataFrame(
        {
            "session": [FIRST + timedelta(days=i) for i in range(SESSIONS)],
            "open_at": [stamp(i, 14) for i in range(SESSIONS)],
            "close_at": [stamp(i, 21) for i in range(SESSIONS)],
        }
    )
    return walk_forward(calendar, FoldSpec(test_sessions=30, min_train_sessions=60, min_test_sessions=30))[0]


@pytest.fixture(scope="module")
def tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Decisions of two symbols and labels that a feature foretells."""
    rng = np.random.default_rng(1)
    rows = [
        (s, "1d", stamp(i, 22), 100.0, float(rng.normal()), float(rng.normal()), 2.0)
        for i in range(SESSIONS)
        for s in ("A", "B")
    ]
    names = ["symbol", "interval", "decision_at", "close", "momentum_30d", "noise", "atr_14"]
    decisions = pl.DataFrame(rows, schema=names, orient="row").with_columns(pl.col("decision_at").cast(STAMP))
    labels = decisions.select(
        *baselines.KEYS,
        pl.lit(0, pl.Int32).alias("side"),
        pl.when(pl.col("momentum_30d") > 0.4).then(1).when(pl.col("momentum_30d") < -0.4).then(-1).otherwise(0).alias("label"),
        (pl.col("decision_at") + timedelta(days=5)).alias("label_known_at"),
    ).with_columns(pl.col("label").cast(pl.Int32))
    return decisions, labels


def recipe(method: str, **fields):
    return parse_recipe({"method": method, "name": method, "description": "for a test", **fields}, "test")


def test_rules_on_paper(fold, tables, tmp_path):
    decisions, labels = tables
    for method in ("always_hold", "buy_and_hold", "momentum"):
        of = recipe(method)
        assert baselines.fit(of, decisions, labels, fold, tmp_path / method)["rows"] == 0
        rows = baselines.predict(of, decisions, fold, tmp_path / method)
        assert dict(rows.schema) == baselines.PREDICTIONS
        assert rows.height == 60 and rows["decision_at"].min() == stamp(60, 22)
        assert rows["p_buy"].null_count() == 60 and rows["limit_price"].null_count() == 60
        actions = rows["action"].to_list()
        if method == "always_hold":
            assert set(actions) == {"HOLD"}
        elif method == "buy_and_hold":
            assert [i for i, a in enumerate(actions) if a == "BUY"] == [0, 30] and "SELL" not in actions
        else:
            signal = rows.join(decisions, on=list(baselines.KEYS), maintain_order="left")["momentum_30d"].to_list()
            assert actions == ["BUY" if x > 0 else "SELL" for x in signal]
    assert baselines.exit_rule("buy_and_hold") == "hold" and baselines.exit_rule("gbm") == "barrier"


def test_momentum_holds_where_it_is_flat(fold, tables, tmp_path):
    flat = tables[0].with_columns(momentum_30d=pl.lit(0.0))
    rows = baselines.predict(recipe("momentum"), flat, fold, tmp_path)
    assert set(rows["action"]) == {"HOLD"}


def test_tree_learns_what_is_there_and_repeats(fold, tables, tmp_path):
    decisions, labels = tables
    of = recipe("gbm", params={"n_estimators": 30, "max_depth": 2}, seed=3)
    made = baselines.fit(of, decisions, labels, fold, tmp_path / "a")
    assert made["features"] == ["momentum_30d", "noise", "atr_14"]
    # Decided before train_end, 12 sessions before the block: 48 sessions of two symbols.
    assert made["rows"] == 96 and sum(made["base_rates"].values()) == pytest.approx(1.0)
    rows = baselines.predict(of, decisions, fold, tmp_path / "a")
    truth = rows.join(labels, on=list(baselines.KEYS), maintain_order="left")["label"].to_list()
    said = [{"SELL": -1, "HOLD": 0, "BUY": 1}[a] for a in rows["action"]]
    assert np.mean([t == s for t, s in zip(truth, said, strict=True)]) > 0.8
    assert np.allclose(rows.select(pl.sum_horizontal("p_sell", "p_hold", "p_buy")).to_series(), 1.0)
    again = baselines.fit(of, decisions, labels, fold, tmp_path / "b")
    assert again == made
    assert baselines.predict(of, decisions, fold, tmp_path / "b").equals(rows)


def test_tree_never_sees_what_was_known_after_the_block_began(fold, tables, tmp_path):
    decisions, labels = tables
    of = recipe("gbm", params={"n_estimators": 5})
    made = baselines.fit(of, decisions, labels, fold, tmp_path / "a")
    late = pl.col("label_known_at") > fold.test_start
    other = labels.with_columns(label=pl.when(late).then(-pl.col("label")).otherwise(pl.col("label")))
    later = pl.col("decision_at") >= fold.train_end
    changed = decisions.with_columns(noise=pl.when(later).then(99.0).otherwise(pl.col("noise")))
    assert baselines.fit(of, changed, other, fold, tmp_path / "b")["digest"] == made["digest"]


def test_what_cannot_be_fitted_is_refused(fold, tables, tmp_path):
    decisions, labels = tables
    with pytest.raises(ValueError, match=r"params.features: no feature \['momentum_3d'\]"):
        baselines.fit(recipe("gbm", params={"features": ["momentum_3d"]}), decisions, labels, fold, tmp_path)
    with pytest.raises(ValueError, match="no decision before"):
        baselines.fit(recipe("gbm"), decisions, labels.with_columns(label=pl.lit(None, pl.Int32)), fold, tmp_path)


def test_shipped_recipes_have_every_baseline():
    folder = Path(__file__).parents[2] / "models_registry" / "adapters"
    shipped = {r.method for r in load_recipes(folder).values() if r.kind == "baseline"}
    assert shipped == set(baselines.METHODS)
