"""Prompts for reinforcement learning, with all that a verifiable reward needs and nothing of it in the prompt.

Two families. An *order* row carries what the order's kernel reads: arrival price, window, costs, weights of the objective,
and the settled bars of the window with what a share of the session before becomes in each, so that any limit that a model
may state is paid as `tapehouse.orders.order_outcomes` would pay it, bit for bit (`tapehouse.rewards`). Its side is asked
for in the words of the objective: shortfall is what an execution costs whoever has decided to trade, and with the side free
it would pay for selling what rises. A *thesis* row carries the score of the five-class signal, the returns that it is made
of and what is true of its claims; the class is the fold's, and is joined when a fold is exported (`of_fold`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from tapehouse.errors import TapehouseError
from tapehouse.keyed import keyed_uniform
from tapehouse.labels.signal import WEIGHTS
from tapehouse.orders import Costs, Objective, Objectives
from tapehouse.paths import SETTLEMENT_LAG, Paths, settled_paths
from tapehouse.prompts.orders import confidences, reason_words, render_orders
from tapehouse.prompts.shown import shown
from tapehouse.prompts.templates import Selection
from tapehouse.prompts.thesis import CLAIMS, Claim, render_theses
from tapehouse.teacher import claims_of

POINT: Final = ("symbol", "interval", "decision_at")
SESSIONS_PER_YEAR: Final = 252  # of the annualised volatility in features.price
SIDES: Final = ("BUY", "SELL")
SIGNAL: Final = "signal"  # what a thesis is asked for, in the column of objectives
# Of each family's prompts so many serve each stage; drawn by the row's key, so that no prompt serves two.
STAGES: Final = {"structure": 0.2, "claims": 0.3, "decision": 0.5}
UTC_DATETIME = pl.Datetime("us", "UTC")
WINDOW: Final = ("open", "high", "low", "close", "shares", "cash")
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "family": pl.String,
    "objective": pl.String,
    "prompt": pl.String,
    "stage": pl.String,
    "difficulty": pl.Float64,
    "volatility": pl.Float64,
    "side": pl.String,
    "arrival": pl.Float64,
    "window_sessions": pl.Int32,
    **{f"weight_{part}": pl.Float64 for part in ("price", "certainty", "risk", "fees")},
    **dict.fromkeys(Costs.model_fields, pl.Float64),
    **{f"window_{name}": pl.List(pl.Float64) for name in WINDOW},
    "reason": pl.String,
    "confidence": pl.Float64,
    "score": pl.Float64,
    **{f"ret_{horizon}d": pl.Float64 for horizon in WEIGHTS},
    **{f"claim_{name}": pl.Boolean for name in CLAIMS},
    "evidence": pl.List(pl.String),
    "label_end_at": UTC_DATETIME,
    "label_known_at": UTC_DATETIME,
    "template": pl.String,
}


@dataclass(frozen=True)
class RlPrompts:
    """Rows, sorted by the table's grain, and what gave none.

    Attributes:
        still: decision points of a price that had not moved, which have no deviation to measure a reward by.
        incomplete: prompts of orders without a complete window. without_score: of theses whose score is not known.
    """

    rows: pl.DataFrame
    still: int
    incomplete: int
    without_score: int


def rl_prompts(
    points: pl.DataFrame,
    company: pl.DataFrame,
    scores: pl.DataFrame,
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    objectives: Objectives,
    start: datetime,
    end: datetime,
    sessions: pl.DataFrame,
    order: Selection,
    thesis: Selection,
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> RlPrompts:
    """One row for each decision point in [start, end) and objective, and one for its thesis.

    Args:
        points: `features.decision_points`. company: `features.company` of the same decisions.
        scores: `labels.signal` of the same decisions.
        versions: `staging.bars` of one interval, to at least the longest window after `end`.
        actions: `raw.corporate_actions` of the same span.
        objectives: `objectives.yaml`.
        start, end: UTC bounds of `decision_at`.
        sessions: `session, open_at, close_at` of the exchange, over the decisions and their windows.
        order, thesis: template and mask of each family.
        settlement_lag: how long after a session's close its records still count.
    """
    points = points.filter((pl.col("decision_at") >= start) & (pl.col("decision_at") < end)).sort(POINT)
    points = points.with_columns(volatility=pl.col("realised_vol_20d") / math.sqrt(SESSIONS_PER_YEAR))
    moved = points.filter(pl.col("volatility") > 0)
    still, points = points.height - moved.height, moved
    paths = settled_paths(versions, actions, sessions, points["symbol"].unique().sort().to_list(), settlement_lag)
    parts = [
        _orders(points, name, objective, objectives.costs, paths, settlement_lag)
        for name, objective in objectives.objectives.items()
    ]
    orders = pl.concat(parts).sort(*POINT, "objective")
    asked = orders.with_columns(objective=pl.concat_str("objective", "side", separator=" "))
    words = {f"{name} {side}": f"{said}, to {side.lower()}" for name, said in objectives.words.items() for side in SIDES}
    orders = orders.with_columns(
        prompt=render_orders(asked, words, order.template, order.mask),
        reason=reason_words(orders),
        confidence=confidences(orders),
        template=pl.lit(order.version),
    )
    theses = _theses(points.join(company.drop("known_at"), on=POINT, how="left", maintain_order="left"), scores, thesis)
    rows = pl.concat([_complete(orders), _complete(theses)]).sort(*POINT, "family", "objective")
    return RlPrompts(
        rows=rows,
        still=still,
        incomplete=points.height * len(objectives.objectives) - orders.height,
        without_score=points.height - theses.height,
    )


def of_fold(rows: pl.DataFrame, classes: pl.DataFrame) -> pl.DataFrame:
    """Rows of `datasets.rl_prompts` with the `signal_class` of a fold; orders have none, theses without one are left out.

    Args:
        classes: rows of `models.signal_classes` of one fold.

    Raises:
        TapehouseError: the classes are of several folds.
    """
    if classes["fold"].n_unique() > 1:
        raise TapehouseError(f"datasets.rl_prompts: classes of the folds {sorted(classes['fold'].unique())}; give those of one")
    joined = rows.join(classes.select(*POINT, "signal_class"), on=POINT, how="left", maintain_order="left")
    is_thesis = pl.col("family") == "thesis"
    cut = joined.with_columns(signal_class=pl.when(is_thesis).then("signal_class"))
    return cut.filter(~is_thesis | pl.col("signal_class").is_not_null())


def _orders(
    points: pl.DataFrame, name: str, objective: Objective, costs: Costs, paths: Paths, settlement_lag: timedelta
) -> pl.DataFrame:
    """Points whose window is complete, with what its order needs, of one objective."""
    row, column = paths.places(points)
    last = column + objective.window_sessions
    inside = last < paths.close.shape[1]
    kept = inside & ~np.isnan(paths.close[row, np.where(inside, last, 0)])
    points, row, column = points.filter(pl.Series(kept)), row[kept], column[kept]
    window = row[:, None], column[:, None] + 1 + np.arange(objective.window_sessions)
    bars = {part: getattr(paths, part)[window] for part in WINDOW}
    move = np.abs(_last_close(bars) / points["close"].to_numpy() - 1.0)
    deviation = points["volatility"].to_numpy() * math.sqrt(objective.window_sessions)
    return points.with_columns(
        family=pl.lit("order"),
        objective=pl.lit(name),
        side=pl.Series(np.where(keyed_uniform(points, f"rl_prompts|{name}|side") < 0.5, *SIDES)),
        stage=_stages(points, name),
        difficulty=pl.Series(1.0 / (1.0 + move / deviation)),
        arrival=pl.col("close"),
        window_sessions=pl.lit(objective.window_sessions),
        **{f"weight_{part}": pl.lit(weight) for part, weight in objective.weights.model_dump().items()},
        **{part: pl.lit(cost) for part, cost in costs.model_dump().items()},
        **{f"window_{part}": _lists(values) for part, values in bars.items()},
        label_end_at=paths.times("close_at", column + objective.window_sessions),
    ).with_columns(label_known_at=pl.col("label_end_at") + settlement_lag)


def _theses(points: pl.DataFrame, scores: pl.DataFrame, thesis: Selection) -> pl.DataFrame:
    """Points whose score is known, with what a thesis is judged by."""
    known = scores.drop_nulls("score").drop("entry_at", "volatility")
    rows = points.join(known, on=POINT, how="inner", maintain_order="left")
    prompts = render_theses(rows, thesis.template, thesis.mask)
    true = [claims_of(shown(prompt, thesis.template)) for prompt in prompts]
    return rows.with_columns(
        family=pl.lit("thesis"),
        objective=pl.lit(SIGNAL),
        prompt=prompts,
        stage=_stages(rows, SIGNAL),
        difficulty=1.0 / (1.0 + pl.col("score").abs()),
        **{f"ret_{h}d": pl.col(f"z_{h}") * (pl.col("volatility") * math.sqrt(h)) for h in WEIGHTS},
        **{f"claim_{name}": pl.Series([claims[name].holds for claims in true], dtype=pl.Boolean) for name in CLAIMS},
        evidence=pl.Series([_evidence(claims) for claims in true], dtype=pl.List(pl.String)),
        template=pl.lit(thesis.version),
    )


def _evidence(claims: Mapping[str, Claim]) -> list[str | None]:
    """What each claim rests on, in the order of `CLAIMS`, several pieces set apart as in a thesis; null for an unknown one."""
    return [None if claims[name].holds is None else "; ".join(claims[name].evidence) for name in CLAIMS]


def _complete(rows: pl.DataFrame) -> pl.DataFrame:
    """The table's columns; null what the family does not have."""
    rows = rows.with_columns(pl.lit(None).alias(name) for name in SCHEMA if name not in rows.columns)
    return rows.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def _stages(points: pl.DataFrame, objective: str) -> pl.Series:
    bounds = np.cumsum(list(STAGES.values()))[:-1]
    place = np.searchsorted(bounds, keyed_uniform(points, f"rl_prompts|{objective}|stage"), side="right")
    return pl.Series(np.array(list(STAGES), dtype=object)[place], dtype=pl.String)


def _lists(values: np.ndarray) -> pl.Series:
    """(k, w) doubles as a list a row, null for NaN."""
    flat = pl.Series(values.ravel()).fill_nan(None)
    return flat.reshape(values.shape).arr.to_list() if values.size else pl.Series([], dtype=pl.List(pl.Float64))


def _last_close(bars: dict[str, np.ndarray]) -> np.ndarray:
    """(k,) close of each window's last session in the decision's basis."""
    count, window = bars["close"].shape
    shares, cash = np.ones(count), np.zeros(count)
    for t in range(window):
        cash = cash + shares * bars["cash"][:, t]
        shares = shares * bars["shares"][:, t]
    return bars["close"][:, -1] * shares + cash
