"""The five-class signal: a score of what came after a decision, in units of the volatility before it, and its classes.

z_h is the forward return over h sessions from the entry (`tapehouse.labels.forward`), over the trailing 20-session deviation
of one session's log return times the root of h. The score is a weighted sum over three horizons. Classes are cut at
quantiles of the scores that were known by the end of a fold's training, pooled over symbols: the score is a row's own,
the class depends on the fold.
"""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.labels.forward import returns_after
from tapehouse.labels.horizons import sessions_around
from tapehouse.labels.triple_barrier import KEY, SESSIONS_PER_YEAR, UTC_DATETIME, entries
from tapehouse.paths import SETTLEMENT_LAG, settled_paths

# Sessions from the entry, and what each counts.
WEIGHTS = {3: 0.3, 7: 0.5, 15: 0.2}
QUANTILES = (0.03, 0.15, 0.53, 0.85)
CLASSES = ("strong_sell", "sell", "hold", "buy", "strong_buy")
# With fewer scores the 3 % quantile lies between the two lowest.
LEAST_SCORES = 100
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "entry_at": UTC_DATETIME,
    "volatility": pl.Float64,
    **{f"z_{horizon}": pl.Float64 for horizon in WEIGHTS},
    "score": pl.Float64,
    "label_end_at": UTC_DATETIME,
    "label_known_at": UTC_DATETIME,
}


def signal_scores(
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    decisions: pl.DataFrame,
    start: datetime,
    end: datetime,
    sessions: pl.DataFrame,
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> pl.DataFrame:
    """The score of every decision in [start, end).

    Args:
        versions: `staging.bars` of one interval, as far beyond `end` as the longest horizon reaches.
        actions: `raw.corporate_actions` of the same span.
        decisions: rows of `features.price`: `symbol, interval, decision_at, session, realised_vol_20d` (per year). Those
            without a volatility above zero are left out.
        start, end: UTC bounds of `decision_at`.
        sessions: `session, open_at, close_at` of the exchange, over the decisions and their horizons.
        settlement_lag: how long after a session's close its records still count (`tapehouse.paths`).

    Returns:
        One row per (symbol, interval, decision_at), sorted by it. Where one of the horizons' last bars is missing, or still
        to come, all of `z_*`, `score` and the label's times are null.

    Raises:
        TapehouseError: for a decision on a day that is no session.
    """
    rows = decisions.filter(
        (pl.col("decision_at") >= start) & (pl.col("decision_at") < end) & (pl.col("realised_vol_20d") > 0)
    ).sort(KEY)
    sessions = sessions_around(sessions, rows["session"].min(), rows["session"].max(), max(WEIGHTS))
    paths = settled_paths(versions, actions, sessions, rows["symbol"].unique().sort().to_list(), settlement_lag)
    row, decided = paths.places(rows)
    column, _ = entries(paths, row, decided)
    volatility = rows["realised_vol_20d"].to_numpy() / math.sqrt(SESSIONS_PER_YEAR)
    z = {h: returns_after(paths, row, column, h) / (volatility * math.sqrt(h)) for h in WEIGHTS}
    score = np.zeros(len(rows))
    for horizon, weight in WEIGHTS.items():
        score = score + weight * z[horizon]
    complete = ~np.isnan(score)
    last = column + max(WEIGHTS) - 1
    return (
        rows.select(KEY)
        .with_columns(
            entry_at=paths.times("open_at", column),
            volatility=pl.Series(volatility),
            **{f"z_{h}": pl.Series(np.where(complete, values, np.nan)).fill_nan(None) for h, values in z.items()},
            score=pl.Series(score).fill_nan(None),
            label_end_at=paths.times("close_at", np.where(complete, last, -1)),
        )
        .with_columns(label_known_at=pl.col("label_end_at") + settlement_lag)
        .select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    )


def known_scores(rows: pl.DataFrame, train_start: datetime, train_end: datetime) -> pl.Series:
    """Scores decided from `train_start` on and known by `train_end`, pooled over symbols: what quantiles are fitted on."""
    known = (pl.col("decision_at") >= train_start) & (pl.col("label_known_at") <= train_end)
    return rows.filter(known & pl.col("score").is_not_null())["score"]


def fit_quantiles(scores: pl.Series | Sequence[float], levels: Sequence[float] = QUANTILES) -> tuple[float, ...]:
    """The thresholds between the classes: quantiles of the scores, interpolated linearly between order statistics.

    Args:
        scores: (n,) those known by the end of training (`known_scores`), in any order, without nulls.
        levels: ascending shares, the defaults being the design's 3, 15, 53 and 85 %.

    Returns:
        As many thresholds as levels, strictly ascending; `classes` takes them.

    Raises:
        TapehouseError: too few scores, one that is not finite, or so many equal ones that two thresholds coincide.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if values.size < LEAST_SCORES:
        raise TapehouseError(
            f"labels.signal: {values.size} scores are known by the end of training, {LEAST_SCORES} are needed to fit "
            "quantiles; lengthen the training window"
        )
    if not np.isfinite(values).all():
        raise TapehouseError("labels.signal: a score to fit quantiles on is null or not finite; take those of known_scores")
    thresholds = tuple(float(x) for x in np.quantile(values, levels))
    if any(a >= b for a, b in pairwise(thresholds)):
        raise TapehouseError(
            f"labels.signal: the thresholds {thresholds} are not strictly ascending: too many scores are equal to tell "
            "the classes apart"
        )
    return thresholds


def classes(score: pl.Series, thresholds: Sequence[float]) -> pl.Series:
    """The class of each score, from strong_sell to strong_buy; a score at a threshold is of the class above it.

    Raises:
        TapehouseError: not four ascending thresholds.
    """
    cuts = list(thresholds)
    if len(cuts) != len(CLASSES) - 1 or cuts != sorted(cuts):
        raise TapehouseError(f"labels.signal: {len(CLASSES)} classes need {len(CLASSES) - 1} ascending thresholds, got {cuts}")
    place = np.searchsorted(np.asarray(cuts), score.cast(pl.Float64).to_numpy(), side="right")
    names = pl.Series(np.asarray(CLASSES, dtype=object)[place], dtype=pl.String)
    return names.set(score.is_null(), None).alias(score.name)
