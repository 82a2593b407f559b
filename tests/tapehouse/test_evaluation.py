"""Metrics of answers by hand, against scikit-learn and scipy, and inputs that must be refused."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.evaluation import MEANING, evaluate, evaluation_rows, matthews

STAMP = pl.Datetime("us", "UTC")


def at(i: int) -> datetime:
    return datetime(2024, 1, 1, 21, 5, tzinfo=UTC) + timedelta(days=i)


def frames(rows: list[tuple]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Predictions, decisions and labels from (day, symbol, action, label, long return, p_sell, p_hold, p_buy)."""
    keys = {"symbol": pl.String, "interval": pl.String, "decision_at": STAMP}
    predictions = pl.DataFrame(
        [(s, "1d", at(d), a, None, x, y, z, "ok" if a else "unparseable") for d, s, a, _, _, x, y, z in rows],
        schema={
            **keys,
            "action": pl.String,
            "limit_price": pl.Float64,
            "p_sell": pl.Float64,
            "p_hold": pl.Float64,
            "p_buy": pl.Float64,
            "parse_state": pl.String,
        },
        orient="row",
    )
    labels = pl.DataFrame(
        [(s, "1d", at(d), side, None if label is None else (label if side >= 0 else -label), ret if side >= 0 else -ret)
         for d, s, _, label, ret, *_ in rows for side in (-1, 0, 1)],
        schema={**keys, "side": pl.Int32, "label": pl.Int32, "ret": pl.Float64},
        orient="row",
    )  # fmt: skip
    return predictions, predictions.select(*keys), labels


def test_answers_on_paper():
    """Four answers: BUY right (+2 %), BUY wrong (-1 %), SELL right (+3 % for the short), HOLD where up was right."""
    predictions, decisions, labels = frames(
        [
            (0, "A", "BUY", 1, 0.02, 0.1, 0.1, 0.8),
            (0, "B", "BUY", -1, -0.01, 0.2, 0.2, 0.6),
            (1, "A", "SELL", -1, -0.03, 0.7, 0.2, 0.1),
            (1, "B", "HOLD", 1, 0.01, 0.3, 0.4, 0.3),
        ]
    )
    more = pl.concat([decisions, decisions.head(1).with_columns(symbol=pl.lit("C"))])
    figures = evaluate(predictions, more, labels)
    assert list(figures) == list(MEANING)
    assert (figures["n"], figures["coverage"], figures["unparseable"]) == (4.0, 0.8, 0.0)
    assert (figures["share_sell"], figures["share_hold"], figures["share_buy"]) == (0.25, 0.25, 0.5)
    assert (figures["base_rate_sell"], figures["base_rate_hold"], figures["base_rate_buy"]) == (0.5, 0.0, 0.5)
    assert figures["accuracy"] == 0.5 and figures["balanced_accuracy"] == 0.5
    assert figures["n_taken"] == 3 and figures["hit_rate"] == pytest.approx(2 / 3)
    assert figures["mean_ret"] == pytest.approx((0.02 - 0.01 + 0.03) / 3)
    assert figures["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.2) + math.log(0.7) + math.log(0.3)) / 4)
    assert figures["log_loss_base_rate"] == pytest.approx(math.log(2))
    # Scores .7, .4, -.6, 0 have the ranks 4, 3, 1, 2; returns .02, -.01, -.03, .01 have 4, 2, 1, 3: 1 - 6 * 2 / 60.
    assert figures["rank_ic"] == pytest.approx(0.8)
    assert figures["hit_rate_low"] is None and figures["accuracy_high"] is None
    rows = evaluation_rows("us", "2024-01-01", predictions, more, labels)
    assert rows.columns == ["subject", "fold", "metric", "value"] and rows.height == len(MEANING)


def test_a_rule_has_no_probabilities_and_one_class_no_correlation():
    predictions, decisions, labels = frames([(i, "A", "HOLD", 1, 0.01, None, None, None) for i in range(3)])
    figures = evaluate(predictions, decisions, labels)
    nulls = ("log_loss", "rank_ic", "hit_rate", "mean_ret", "mcc", "share_limit")
    assert all(figures[name] is None for name in nulls) and figures["n_taken"] == 0


def test_unlabelled_decisions_count_as_answers_and_not_as_truth():
    predictions, decisions, labels = frames([(0, "A", "BUY", None, 0.01, 0.2, 0.2, 0.6)])
    figures = evaluate(predictions, decisions, labels)
    assert (figures["n"], figures["n_labelled"], figures["n_taken"]) == (1.0, 0.0, 1.0)
    assert figures["accuracy"] is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=60))
def test_matthews_is_scikit_learns(pairs):
    from sklearn.metrics import matthews_corrcoef

    confusion = np.zeros((3, 3))
    for truth, said in pairs:
        confusion[truth, said] += 1
    ours = matthews(confusion)
    theirs = matthews_corrcoef(*zip(*pairs, strict=True)) if len(set(sum(pairs, ()))) > 1 else 0.0
    assert theirs == pytest.approx(0.0 if ours is None else ours, abs=1e-12)


def test_intervals_on_many_answers():
    rng = np.random.default_rng(5)
    rows = []
    for day in range(60):
        for symbol in "ABC":
            ret = float(rng.normal(0, 0.02))
            action, label = ("BUY", "SELL")[int(rng.random() < 0.5)], 1 if ret > 0 else -1
            p = float(np.clip(0.5 + 5 * ret, 0.05, 0.95))
            rows.append((day, symbol, action, label, ret, 0.95 - p + 0.05, 0.0, p))
    figures = evaluate(*frames(rows))
    for name in ("accuracy", "hit_rate", "mean_ret", "rank_ic"):
        assert figures[f"{name}_low"] < figures[name] < figures[f"{name}_high"] or name == "rank_ic"
    assert figures["hit_rate_low"] < 0.5 < figures["hit_rate_high"]
    assert figures["rank_ic"] > 0.99
    assert evaluate(*frames(rows)) == figures


def test_what_cannot_be_judged_is_refused():
    predictions, decisions, labels = frames([(0, "A", "BUY", 1, 0.01, 0.2, 0.2, 0.6)])
    with pytest.raises(ValueError, match="no predictions"):
        evaluate(predictions.clear(), decisions, labels)
    with pytest.raises(ValueError, match="one row a decision"):
        evaluate(pl.concat([predictions, predictions]), decisions, labels)
    with pytest.raises(ValueError, match="one row a decision"):
        evaluate(predictions, decisions, pl.concat([labels, labels]))
