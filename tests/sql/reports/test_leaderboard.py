"""The leaderboard on fixture rows: one row a subject and fold, ranked within the fold, nothing ranked that never traded."""

from pathlib import Path

import duckdb
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

QUERY = (Path(__file__).parents[3] / "sql" / "reports" / "leaderboard.sql").read_text()
LONG = {"subject": pl.String, "fold": pl.String, "metric": pl.String, "value": pl.Float64}
JUDGEMENTS = {"subject": pl.String, "fold": pl.String, "split": pl.String, "slice": pl.String, **dict(list(LONG.items())[2:])}
MODELS = {"adapter": pl.String, "fold": pl.String, "kind": pl.String, "method": pl.String}
JUDGED = {"subject": pl.String, "kind": pl.String, "verdict": pl.String}


def leaderboard(backtests: list[tuple], evaluations: list[tuple], models: list[tuple]) -> pl.DataFrame:
    judged = list({(s, k, "INCONCLUSIVE") for s, _, k, _ in models} | {("mixed", "strategy", "LOSES")})
    con = duckdb.connect()
    con.execute("create schema reports; create schema models")
    tables = {
        "reports.backtests": (backtests, LONG),
        "reports.evaluations": (evaluations, JUDGEMENTS),
        "models.adapters": (models, MODELS),
        "reports.verdicts": (judged, JUDGED),
    }
    for name, (rows, schema) in tables.items():
        con.register("fixture", pl.DataFrame(rows, schema=schema, orient="row"))
        con.execute(f"create table {name} as select * from fixture")
    return con.execute(QUERY).pl().sort("fold", "subject")


def test_by_hand():
    earned = [
        ("ours", "a", "return", 0.1),
        ("ours", "a", "sharpe", 1.5),
        ("ours", "a", "trades", 12.0),
        ("gbm", "a", "return", 0.2),
        ("gbm", "a", "sharpe", 0.5),
        ("gbm", "a", "trades", 3.0),
        ("always_hold", "a", "return", 0.0),
        ("always_hold", "a", "sharpe", None),
        ("always_hold", "a", "trades", 0.0),
        ("ours", "b", "sharpe", -1.0),
        ("mixed", "a", "sharpe", 1.0),
    ]
    ours, hold = ("adapter", "dpo"), ("baseline", "always_hold")
    # A method that nobody has heard of: the kind comes from the model's row, never from its name.
    models = [("ours", "a", *ours), ("gbm", "a", "baseline", "trees_2"), ("always_hold", "a", *hold), ("ours", "b", *ours)]
    foreseen = [
        ("ours", "a", "test", "all", "accuracy", 0.4),
        ("ours", "a", "test", "all", "hit_rate", 0.6),
        # Neither a part of the block nor the tail of the training window is the block.
        ("ours", "a", "test", "symbol", "accuracy", 0.9),
        ("ours", "a", "validation", "all", "accuracy", 0.8),
    ]
    rows = leaderboard(earned, foreseen, models)
    found = rows.select("subject", "fold", "kind", "rank", "return", "sharpe", "trades", "accuracy", "label_hit_rate").rows()
    assert found == [
        ("always_hold", "a", "baseline", None, 0.0, None, 0, None, None),
        ("gbm", "a", "baseline", 3, 0.2, 0.5, 3, None, None),
        ("mixed", "a", "strategy", 2, None, 1.0, None, None, None),  # has no model of its own
        ("ours", "a", "adapter", 1, 0.1, 1.5, 12, 0.4, 0.6),
        ("ours", "b", "adapter", 1, None, -1.0, None, None, None),
    ]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.none() | st.floats(-5, 5), min_size=1, max_size=8))
def test_ranks_follow_the_sharpe_ratio(ratios):
    subjects = [f"s{i}" for i in range(len(ratios))]
    earned = [(s, "a", "sharpe", r) for s, r in zip(subjects, ratios, strict=True)]
    ranks = dict(leaderboard(earned, [], [(s, "a", "adapter", "sft") for s in subjects]).select("subject", "rank").rows())
    for subject, ratio in zip(subjects, ratios, strict=True):
        better = None if ratio is None else 1 + sum(r is not None and r > ratio for r in ratios)
        assert ranks[subject] == better


def test_a_backtest_of_no_known_model_is_left_out():
    assert leaderboard([("stray", "a", "sharpe", 1.0)], [], [("ours", "a", "adapter", "sft")]).is_empty()
