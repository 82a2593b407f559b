"""Figures of answers by hand, against scikit-learn and scipy, and inputs that must be refused."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.evaluations.answers import answered, as_rows, bins, slices_of, sureness
from tapehouse.evaluations.barriers import BARRIERS
from tapehouse.evaluations.barriers import MEANING as OF_BARRIERS
from tapehouse.evaluations.classes import CLASSES
from tapehouse.evaluations.classes import MEANING as OF_CLASSES
from tapehouse.evaluations.core import measure
from tapehouse.labels.forward import HORIZONS

STAMP = pl.Datetime("us", "UTC")
KEYS = {"symbol": pl.String, "interval": pl.String, "decision_at": STAMP}
NONE = (None, None, None)
NAN = float("nan")


def at(i: int) -> datetime:
    return datetime(2024, 1, 1, 21, 5, tzinfo=UTC) + timedelta(days=i)


def frames(rows: list[tuple]) -> tuple[pl.DataFrame, ...]:
    """Predictions, decisions, labels, returns from (day, symbol, action, label, long return, p_sell, p_hold, p_buy)."""
    said = [
        (symbol, "1d", at(day), "direction", action or "HOLD", None, None, *chances, "ok" if action else "not_text")
        for day, symbol, action, _, _, *chances in rows
    ]
    texts, numbers = ("objective", "action"), ("limit_price", "confidence", "p_sell", "p_hold", "p_buy")
    schema = {**KEYS, **dict.fromkeys(texts, pl.String), **dict.fromkeys(numbers, pl.Float64), "parse_state": pl.String}
    predictions = pl.DataFrame(said, schema=schema, orient="row")
    decisions = predictions.select(*KEYS, regime=pl.when(pl.col("symbol") == "A").then(pl.lit("calm")))
    labels = pl.DataFrame(
        [(s, "1d", at(d), side, None if label is None else (label if side >= 0 else -label), ret if side >= 0 else -ret)
         for d, s, _, label, ret, *_ in rows for side in (-1, 0, 1)],
        schema={**KEYS, "side": pl.Int32, "label": pl.Int32, "ret": pl.Float64},
        orient="row",
    )  # fmt: skip
    forward = pl.DataFrame(
        [(s, "1d", at(d), h, ret) for d, s, _, _, ret, *_ in rows for h in HORIZONS],
        schema={**KEYS, "horizon": pl.Int32, "ret": pl.Float64},
        orient="row",
    )
    return predictions, decisions, labels, forward


def measured(predictions, decisions, labels, forward) -> pl.DataFrame:
    frame = answered(predictions, decisions, labels, forward)
    rows = as_rows(frame)
    return measure(rows, (*CLASSES, *BARRIERS), slices_of(frame, rows), "right")


def evaluate(rows: list[tuple], what: str = "value", **where) -> dict[str, float | None]:
    where = {"slice": "all"} | where
    return dict(measured(*frames(rows)).filter(**where).select("metric", what).rows())


FOUR = [
    (0, "A", "BUY", 1, 0.02, 0.1, 0.1, 0.8),
    (0, "B", "BUY", -1, -0.01, 0.2, 0.2, 0.6),
    (1, "A", "SELL", -1, -0.03, 0.7, 0.2, 0.1),
    (1, "B", "HOLD", 1, 0.01, 0.3, 0.4, 0.3),
]


def test_answers_on_paper():
    """Four answers: BUY right (+2 %), BUY wrong (-1 %), SELL right (+3 % for the short), HOLD where up was right."""
    predictions, decisions, *outcomes = frames(FOUR)
    more = pl.concat([decisions, decisions.head(1).with_columns(symbol=pl.lit("C"))])
    figures = dict(measured(predictions, more, *outcomes).filter(slice="all").select("metric", "value").rows())
    assert set(figures) == set(OF_CLASSES) | set(OF_BARRIERS)
    assert (figures["n"], figures["coverage"], figures["unparseable"]) == (4.0, 0.8, 0.0)
    assert (figures["share_sell"], figures["share_hold"], figures["share_buy"]) == (0.25, 0.25, 0.5)
    assert (figures["base_rate_sell"], figures["base_rate_hold"], figures["base_rate_buy"]) == (0.5, 0.0, 0.5)
    assert figures["accuracy"] == 0.5 and figures["balanced_accuracy"] == 0.5
    assert figures["confusion_buy_as_buy"] == figures["confusion_sell_as_buy"] == figures["confusion_buy_as_hold"] == 1
    assert (figures["precision_buy"], figures["recall_buy"], figures["f1_buy"]) == (0.5, 0.5, 0.5)
    # Classes: SELL precision 1, recall 1/2; HOLD 0 and never; BUY 1/2 and 1/2.
    assert (figures["precision_macro"], figures["recall_macro"]) == (0.5, pytest.approx(1 / 3))
    assert figures["f1_macro"] == pytest.approx((2 / 3 + 0 + 1 / 2) / 3)
    assert figures["n_taken"] == 3 and figures["hit_rate"] == pytest.approx(2 / 3)
    assert figures["mean_ret"] == pytest.approx((0.02 - 0.01 + 0.03) / 3)
    assert figures["log_loss"] == pytest.approx(-(math.log(0.8) + math.log(0.2) + math.log(0.7) + math.log(0.3)) / 4)
    assert figures["log_loss_base_rate"] == pytest.approx(math.log(2))
    # (0.2² + 0.1² + 0.1²) + (0.8² + 0.2² + 0.6²) + (0.3² + 0.2² + 0.1²) + (0.3² + 0.4² + 0.7²)
    assert figures["brier"] == pytest.approx((0.06 + 1.04 + 0.14 + 0.74) / 4)
    # Given to what was answered: 0.8, 0.6, 0.7, 0.4, of which the first and third came true; all in bins of their own.
    assert (figures["said"], figures["happened"]) == (pytest.approx(0.625), 0.5)
    assert figures["calibration_error"] == pytest.approx((0.2 + 0.6 + 0.3 + 0.4) / 4)
    # Scores .7, .4, -.6, 0 have the ranks 4, 3, 1, 2; returns .02, -.01, -.03, .01 have 4, 2, 1, 3: 1 - 6 * 2 / 60.
    assert figures["rank_ic"] == pytest.approx(0.8)


def test_slices_on_paper():
    figures = measured(*frames(FOUR))
    assert figures["slice"].unique(maintain_order=True).to_list() == [
        "all", "regime", "symbol", "objective", "action", "confidence",
    ]  # fmt: skip
    found = dict(figures.filter(metric="accuracy").select(pl.concat_str("slice", "level", separator=" "), "value").rows())
    assert found == {
        "all ": 0.5, "regime calm": 1.0, "symbol A": 1.0, "symbol B": 0.0, "objective direction": 0.5,
        "action BUY": 0.5, "action HOLD": 0.0, "action SELL": 1.0,
    }  # fmt: skip
    plot = figures.filter(slice="confidence").select("level", "metric", "value", "n").rows()
    assert plot == [
        (level, metric, pytest.approx(value), 1)
        for level, said, came in (("0.4-0.5", 0.4, 0), ("0.6-0.7", 0.6, 0), ("0.7-0.8", 0.7, 1), ("0.8-0.9", 0.8, 1))
        for metric, value in (("said", said), ("happened", came))
    ]


def test_a_rule_has_no_probabilities_and_one_class_no_correlation():
    figures = evaluate([(i, "A", "HOLD", 1, 0.01, *NONE) for i in range(3)])
    nulls = ("log_loss", "brier", "calibration_error", "rank_ic", "hit_rate", "mean_ret", "mcc", "share_limit", "said")
    assert all(figures[name] is None for name in nulls) and figures["n_taken"] == 0


def test_unlabelled_decisions_count_as_answers_and_not_as_truth():
    figures = evaluate([(0, "A", "BUY", None, 0.01, 0.2, 0.2, 0.6)])
    assert (figures["n"], figures["n_labelled"], figures["n_taken"]) == (1.0, 0.0, 1.0)
    assert figures["accuracy"] is None


def test_what_does_not_parse_holds_and_counts():
    figures = evaluate([(0, "A", None, 1, 0.01, *NONE), (1, "A", "BUY", 1, 0.01, *NONE)])
    assert (figures["unparseable"], figures["share_hold"], figures["accuracy"]) == (0.5, 0.5, 0.5)


def test_what_does_not_parse_is_no_way_around_a_hard_question():
    """Of four answers the two that would be wrong do not parse: they count as three equal probabilities, in every score."""
    rows = [(i, "A", ("BUY", None)[i % 2], (1, -1)[i % 2], 0.01 * (i - 2), *((0.05, 0.05, 0.9), NONE)[i % 2]) for i in range(4)]
    found = measured(*frames(rows)).filter(slice="all")
    figures, n = (dict(found.select("metric", what).rows()) for what in ("value", "n"))
    assert {n[name] for name in ("accuracy", "log_loss", "brier", "calibration_error", "rank_ic", "base_rate_buy")} == {4}
    assert figures["log_loss"] == pytest.approx((-math.log(0.9) + math.log(3)) / 2)
    assert figures["brier"] == pytest.approx((0.015 + 2 / 3) / 2)
    # Said 0.9 and came true; said a third of HOLD, which neither was.
    assert figures["calibration_error"] == pytest.approx((0.1 + 1 / 3) / 2)
    # Scores .85, 0, .85, 0 beside returns -2, -1, 0, 1.
    assert figures["rank_ic"] == pytest.approx(-2 / math.sqrt(4 * 5))
    # Who states no probabilities has none to be replaced.
    rule = evaluate([(day, symbol, action, label, ret, *NONE) for day, symbol, action, label, ret, *_ in rows])
    assert rule["log_loss"] is None and rule["unparseable"] == 0.5
    # Nor does what was asked and not answered.
    predictions, *others = frames(rows)
    fewer = measured(predictions.head(2), *others).filter(slice="all", metric="log_loss")
    assert fewer["n"].item() == 2


def calibrated(rng: np.random.Generator, days: int, together: int) -> list[tuple]:
    """Answers of three symbols whose probabilities are true, with one luck for all of so many days."""
    rows = []
    for day in range(days):
        luck = rng.random() if day % together == 0 else luck  # noqa: F821
        for symbol in "ABC":
            p = float(rng.uniform(0.5, 0.95))
            rows.append((day, symbol, "BUY", 1 if luck < p else -1, 0.01, 1 - p, 0.0, p))
    return rows


def test_chance_of_a_calibrated_forecaster_is_about_its_error():
    """Whose probabilities are true is off by chance alone, the more the longer outcomes hang together."""
    names = ("calibration_error", "calibration_error_by_chance")
    rng = np.random.default_rng(11)
    apart, together = ([[evaluate(calibrated(rng, 120, of))[n] for n in names] for _ in range(8)] for of in (1, 10))
    for worlds in (apart, together):
        error, chance = np.mean(worlds, axis=0)
        assert 0.75 < chance / error < 1.25
    assert np.mean(together, axis=0)[1] > 1.5 * np.mean(apart, axis=0)[1]


def test_chance_does_not_excuse_a_boast():
    """Probabilities of 0.9 that come true in every other case: permuted outcomes would be as bad, and chance is not."""
    rows = [(day, s, "BUY", (1, -1)[(day + i) % 2], 0.01, 0.1, 0.0, 0.9) for day in range(60) for i, s in enumerate("AB")]
    found = evaluate(rows)
    assert found["calibration_error"] == pytest.approx(0.4)
    assert found["calibration_error_by_chance"] < 0.1
    assert evaluate(rows, "shuffled")["calibration_error"] is None
    assert evaluate(rows[:20])["calibration_error_by_chance"] is None  # too few


def test_a_decision_without_an_answer_counts_against_coverage_alone():
    predictions, *others = frames(FOUR)
    figures = dict(measured(predictions.head(3), *others).filter(slice="all").select("metric", "value").rows())
    assert (figures["n"], figures["coverage"], figures["share_hold"], figures["n_labelled"]) == (3, 0.75, 0, 3)


ANSWERED = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.tuples(*[st.integers(1, 8)] * 3)), min_size=2, max_size=60
)


@settings(max_examples=25, deadline=None)
@given(ANSWERED)
def test_figures_are_scikit_learns(answers):
    from sklearn import metrics

    truth, said = ([a[i] for a in answers] for i in (0, 1))
    chances = [[p / sum(weights) for p in weights] for *_, weights in answers]
    each = enumerate(zip(truth, said, chances, strict=True))
    ours = evaluate([(i, "A", ("SELL", "HOLD", "BUY")[s], t - 1, 0.0, *p) for i, (t, s, p) in each])
    assert ours["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said))
    occurs = sorted(set(truth))
    recalls = metrics.recall_score(truth, said, labels=occurs, average="macro", zero_division=0)
    assert ours["balanced_accuracy"] == pytest.approx(recalls)
    theirs = metrics.precision_recall_fscore_support(truth, said, labels=[0, 1, 2], zero_division=0)
    for of, values in zip(("precision", "recall", "f1"), theirs, strict=False):
        for name, value in zip(("sell", "hold", "buy"), values, strict=True):
            assert (ours[f"{of}_{name}"] or 0.0) == pytest.approx(value)
        mean = metrics.precision_recall_fscore_support(truth, said, average="macro", zero_division=0)
        assert [ours[f"{m}_macro"] for m in ("precision", "recall", "f1")] == pytest.approx(list(mean[:3]))
    cells = [ours[f"confusion_{t}_as_{s}"] for t in ("sell", "hold", "buy") for s in ("sell", "hold", "buy")]
    assert cells == metrics.confusion_matrix(truth, said, labels=[0, 1, 2]).ravel().tolist()
    correlation = metrics.matthews_corrcoef(truth, said) if len(set(truth) | set(said)) > 1 else 0.0
    assert (ours["mcc"] or 0.0) == pytest.approx(correlation, abs=1e-12)
    assert ours["log_loss"] == pytest.approx(metrics.log_loss(truth, chances, labels=[0, 1, 2]))
    squares = ((np.array(chances) - np.eye(3)[truth]) ** 2).sum(axis=1)
    assert ours["brier"] == pytest.approx(squares.mean())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(-4, 4)), min_size=3, max_size=40))
def test_rank_ic_is_scipys(scored):
    from scipy.stats import spearmanr

    # Sixteenths, whose differences are exact: what is equal on paper is equal here.
    rows = [(i, "A", "HOLD", 0, r / 100, s / 16, 1 - (s + b) / 16, b / 16) for i, (s, b, r) in enumerate(scored)]
    score, ret = [b - s for s, b, _ in scored], [r for *_, r in scored]
    if len(set(score)) == 1 or len(set(ret)) == 1:
        assert evaluate(rows)["rank_ic"] is None
    else:
        assert evaluate(rows)["rank_ic"] == pytest.approx(spearmanr(score, ret).statistic)


def test_intervals_and_chance_on_many_answers():
    rng = np.random.default_rng(5)
    rows = []
    for day in range(60):
        for symbol in "ABC":
            ret = float(rng.normal(0, 0.02))
            action, label = ("BUY", "SELL")[int(rng.random() < 0.5)], 1 if ret > 0 else -1
            p = float(np.clip(0.5 + 5 * ret, 0.05, 0.95))
            rows.append((day, symbol, action, label, ret, 0.95 - p + 0.05, 0.0, p))
    figures, low, high, chance = (evaluate(rows, what) for what in ("value", "low", "high", "shuffled"))
    for name in ("accuracy", "hit_rate", "mean_ret", "f1_buy", "mcc", "log_loss", "brier", "coverage"):
        assert low[name] <= figures[name] <= high[name]
    assert low["hit_rate"] < 0.5 < high["hit_rate"] and figures["rank_ic"] > 0.99
    assert {low[name] for name in figures if name.startswith(("n", "confusion"))} == {None}
    # Probabilities know the returns, actions do not: permuted labels spoil the one and leave the other as it was.
    assert chance["log_loss"] > figures["log_loss"] + 0.05 and abs(chance["accuracy"] - figures["accuracy"]) < 0.1
    assert chance["rank_ic"] == 0.0 and chance["share_buy"] is None
    assert evaluate(rows) == figures


def test_confidence_is_what_was_given_to_the_answer():
    predictions, *others = frames(FOUR)
    first = pl.int_range(pl.len()) == 0
    stated = predictions.with_columns(
        pl.when(first).then(pl.col("p_sell", "p_hold", "p_buy")),
        confidence=pl.Series([0.55, 0.65, 0.75, 0.85]),
        action=pl.Series(["BUY", "BUY", "HOLD", "BUY"]),
        parse_state=pl.Series(["ok", "ok", "ok", "not_text"]),
    )
    rows = as_rows(answered(stated, *others))
    # A probability comes before a statement; a statement is about a trade, and what did not parse has made none: since
    # probabilities are stated elsewhere, it has three equal ones, of which an upper barrier makes that of BUY come true.
    assert np.array_equal(sureness(rows), [0.8, 0.65, NAN, 1 / 3], equal_nan=True)
    # The probability came true (an upper barrier), the statement did not: that BUY lost 1 %.
    figures = dict(measured(stated, *others).filter(slice="all").select("metric", "value").rows())
    assert (figures["said"], figures["happened"]) == (pytest.approx((0.8 + 0.65 + 1 / 3) / 3), pytest.approx(2 / 3))
    assert figures["calibration_error"] == pytest.approx((0.2 + 0.65 + 2 / 3) / 3)
    assert bins(np.array([0.0, 0.0999, 0.1, 0.95, 1.0, np.nan])).tolist() == [0, 0, 1, 9, 9, -1]


def test_what_cannot_be_judged_is_refused():
    predictions, decisions, labels, forward = frames(FOUR[:1])
    with pytest.raises(ValueError, match="no predictions"):
        answered(predictions.clear(), decisions, labels, forward)
    for doubled in ("predictions", "labels", "forward"):
        given = {"predictions": predictions, "decisions": decisions, "labels": labels, "forward": forward}
        with pytest.raises(ValueError, match="one row a decision"):
            answered(**given | {doubled: pl.concat([given[doubled]] * 2)})
