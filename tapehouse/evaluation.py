"""How good the answers were, apart from any account: predictions against the triple-barrier labels of their decisions.

The unsided label (side 0) is the truth for classes: upper barrier = BUY, lower = SELL, neither in the horizon = HOLD. The
sided labels (1, -1) say what the taken direction earned, gross of costs. Nothing that was predicted is left out: an
answer that did not parse acts as HOLD and counts as such.
"""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from tapehouse.bootstrap import ratio_interval, statistic_interval
from tapehouse.metrics import metric_rows
from tapehouse.predictions import ACTIONS
from tapehouse.statistics.ranks import spearman_draws

KEYS = ["symbol", "interval", "decision_at"]
SIDE = {"BUY": 1, "SELL": -1}
SMALLEST_PROBABILITY = 1e-15  # keeps the log loss finite
# What each metric of reports.evaluations means. Also the tooltips of the report.
MEANING = {
    "n": "Predictions.",
    "coverage": "Share of the block's decision points that have a prediction.",
    "unparseable": "Share of answers that did not parse and so act as HOLD.",
    "share_sell": "Share of SELL among the predictions.",
    "share_hold": "Share of HOLD.",
    "share_buy": "Share of BUY.",
    "share_limit": "Share of BUY and SELL with a limit price.",
    "n_labelled": "Predictions whose decision has an unambiguous, settled label.",
    "base_rate_sell": "Share of those whose lower barrier was reached first.",
    "base_rate_hold": "Share with neither barrier reached.",
    "base_rate_buy": "Share whose upper barrier was reached first.",
    "accuracy": "Share of labelled predictions whose action is the label's.",
    "accuracy_low": "Lower end of its 95 % interval; blocks of ten sessions or more, all symbols together.",
    "accuracy_high": "Upper end.",
    "balanced_accuracy": "Mean over the classes that occur of the share that was recognised; 1/3 is chance for three.",
    "mcc": "Matthews correlation over three classes (Gorodkin 2004): 0 is chance; null where one side is constant.",
    "log_loss": "Mean negative log probability of the label's class [nats]; ln 3 = 1.0986 is no knowledge.",
    "log_loss_base_rate": "Log loss of the block's own base rates, which no forecaster could have known.",
    "n_taken": "BUY and SELL predictions with a settled label of their side.",
    "hit_rate": "Share of those whose direction earned a positive return by its barriers, gross of costs.",
    "hit_rate_low": "Lower end of its 95 % interval.",
    "hit_rate_high": "Upper end.",
    "mean_ret": "Mean return of the taken direction by its barriers, gross of costs [fraction].",
    "mean_ret_low": "Lower end of its 95 % interval.",
    "mean_ret_high": "Upper end.",
    "rank_ic": "Spearman correlation of p_buy - p_sell with the long return by the barriers, pooled; null for rules.",
    "rank_ic_low": "Lower end of its 95 % interval.",
    "rank_ic_high": "Upper end.",
}


def evaluation_rows(
    subject: str, fold: str, predictions: pl.DataFrame, decisions: pl.DataFrame, labels: pl.DataFrame
) -> pl.DataFrame:
    """Rows of `reports.evaluations`: subject, fold, metric, value."""
    return metric_rows(subject, fold, evaluate(predictions, decisions, labels))


def evaluate(predictions: pl.DataFrame, decisions: pl.DataFrame, labels: pl.DataFrame) -> dict[str, float | None]:
    """The metrics of `MEANING` for one subject and test block, in that order; null where not defined.

    Args:
        predictions: rows of `models.predictions` of one subject and fold, one a decision.
        decisions: the keys of every decision point of the block, rows of `features.decision_points`.
        labels: rows of `labels.triple_barrier`, all sides; those of other decisions are ignored.

    Raises:
        ValueError: no predictions, two for one decision, or a duplicated label.
    """
    if predictions.is_empty():
        raise ValueError("no predictions to evaluate: a subject answers every decision point of its test block")
    unsided = labels.filter(pl.col("side") == 0).select(*KEYS, "label", "ret")
    sided = labels.filter(pl.col("side") != 0).select(*KEYS, "side", pl.col("ret").alias("taken_ret"))
    try:
        rows = (
            predictions.with_columns(side=pl.col("action").replace_strict(SIDE, default=None, return_dtype=pl.Int32))
            .join(unsided, on=KEYS, how="left", validate="1:1", maintain_order="left")
            .join(sided, on=[*KEYS, "side"], how="left", validate="1:1", maintain_order="left")
            .sort("decision_at", "symbol")
        )
    except pl.exceptions.ComputeError as error:
        raise ValueError("predictions and labels need one row a decision (and side); keep one objective") from error
    dates = rows.select(pl.col("decision_at").rle_id()).to_series().to_numpy()
    figures = {**_counts(rows, decisions), **_classes(rows, dates), **_direction(rows, dates), **_ranking(rows, dates)}
    return {name: figures[name] for name in MEANING}


def _counts(rows: pl.DataFrame, decisions: pl.DataFrame) -> dict[str, float | None]:
    answered = decisions.join(rows, on=KEYS, how="semi").height
    taken = rows.filter(pl.col("action") != "HOLD")
    return {
        "n": float(rows.height),
        "coverage": answered / decisions.height if decisions.height else None,
        "unparseable": float((rows["parse_state"] != "ok").mean()),
        **{f"share_{action.lower()}": float((rows["action"] == action).mean()) for action in ACTIONS},
        "share_limit": float(taken["limit_price"].is_not_null().mean()) if taken.height else None,
    }


def _classes(rows: pl.DataFrame, dates: np.ndarray) -> dict[str, float | None]:
    known = rows["label"].is_not_null().to_numpy()
    truth = rows["label"].drop_nulls().to_numpy() + 1
    rows, dates = rows.filter(pl.Series(known)), dates[known]
    said = rows["action"].replace_strict({a: i for i, a in enumerate(ACTIONS)}, return_dtype=pl.Int64).to_numpy()
    confusion = np.zeros((3, 3))
    np.add.at(confusion, (truth, said), 1.0)
    total, actual = confusion.sum(), confusion.sum(axis=1)
    right = (truth == said).astype(float)
    low, high = ratio_interval(_by_date(right, dates), _by_date(np.ones(len(dates)), dates))
    occurs = actual > 0
    return {
        "n_labelled": float(total),
        **{f"base_rate_{a.lower()}": float(actual[i] / total) if total else None for i, a in enumerate(ACTIONS)},
        "accuracy": float(right.mean()) if total else None,
        "accuracy_low": low,
        "accuracy_high": high,
        "balanced_accuracy": float((np.diag(confusion)[occurs] / actual[occurs]).mean()) if total else None,
        "mcc": matthews(confusion),
        "log_loss": _log_loss(rows, truth),
        "log_loss_base_rate": float(-(actual[occurs] / total * np.log(actual[occurs] / total)).sum()) if total else None,
    }


def matthews(confusion: np.ndarray) -> float | None:
    """Multi-class Matthews correlation of a confusion matrix (truth, said); None where either never varies.

    J. Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient (2004).
    """
    total, right = confusion.sum(), np.trace(confusion)
    truth, said = confusion.sum(axis=1), confusion.sum(axis=0)
    spread = (total**2 - (said**2).sum()) * (total**2 - (truth**2).sum())
    return float((right * total - truth @ said) / math.sqrt(spread)) if spread > 0 else None


def _log_loss(rows: pl.DataFrame, truth: np.ndarray) -> float | None:
    chances = rows.select("p_sell", "p_hold", "p_buy").cast(pl.Float64).to_numpy()
    given = ~np.isnan(chances).any(axis=1)
    if not given.any():
        return None
    of_truth = chances[given][np.arange(given.sum()), truth[given]]
    return float(-np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)).mean())


def _direction(rows: pl.DataFrame, dates: np.ndarray) -> dict[str, float | None]:
    known = rows["taken_ret"].is_not_null().to_numpy()
    ret = rows["taken_ret"].drop_nulls().to_numpy()
    taken = dates[known]
    count = _by_date(np.ones(len(ret)), taken, dates)
    hits = _by_date((ret > 0).astype(float), taken, dates)
    hit_low, hit_high = ratio_interval(hits, count)
    low, high = ratio_interval(_by_date(ret, taken, dates), count)
    return {
        "n_taken": float(len(ret)),
        "hit_rate": float((ret > 0).mean()) if len(ret) else None,
        "hit_rate_low": hit_low,
        "hit_rate_high": hit_high,
        "mean_ret": float(ret.mean()) if len(ret) else None,
        "mean_ret_low": low,
        "mean_ret_high": high,
    }


def _ranking(rows: pl.DataFrame, dates: np.ndarray) -> dict[str, float | None]:
    score = rows.select(pl.col("p_buy").cast(pl.Float64) - pl.col("p_sell").cast(pl.Float64)).to_series()
    known = (score.is_not_null() & rows["ret"].is_not_null()).to_numpy()
    value, low, high = rank_correlation(
        score.to_numpy()[known], rows["ret"].cast(pl.Float64).to_numpy()[known], dates[known], int(dates.max()) + 1
    )
    return {"rank_ic": value, "rank_ic_low": low, "rank_ic_high": high}


def rank_correlation(
    a: np.ndarray, b: np.ndarray, dates: np.ndarray, sessions: int
) -> tuple[float | None, float | None, float | None]:
    """Spearman correlation of two series, pooled, and its 95 % interval from blocks of sessions.

    Args:
        a, b: (observations,). dates: (observations,) number of the session of each, from 0. sessions: how many there are.
    """

    def correlations(drawn: np.ndarray) -> np.ndarray:
        return spearman_draws(a, b, dates, drawn, sessions)

    value = float(correlations(np.arange(sessions)[None, :])[0])
    return None if math.isnan(value) else value, *statistic_interval(sessions, len(a), correlations)


def _by_date(values: np.ndarray, dates: np.ndarray, all_dates: np.ndarray | None = None) -> np.ndarray:
    """Totals of `values` for each date number, dates without any included."""
    reach = dates if all_dates is None else all_dates
    return np.bincount(dates, weights=values, minlength=reach.max() + 1 if len(reach) else 0)
