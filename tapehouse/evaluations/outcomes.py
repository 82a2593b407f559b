"""What came of answers beyond their labels: the fates of their orders and the rewards that these were paid, on settled bars."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from tapehouse.evaluations.answers import KEYS
from tapehouse.evaluations.orders import order_columns, order_fates
from tapehouse.evaluations.rewards import realised_rewards
from tapehouse.labels.forward import HORIZONS
from tapehouse.labels.horizons import sessions_around
from tapehouse.orders import Objectives
from tapehouse.paths import SETTLEMENT_LAG, Paths, settled_paths

MONTHS_AHEAD = 3  # that bars are read beyond the last decision: an order's rest, and thirty sessions after its fill


@dataclass(frozen=True)
class Market:
    """What orders meet: settled `paths` around the decisions (`paths_after`), and the `objectives` that pay for them."""

    paths: Paths
    objectives: Objectives


def longest_horizon(predictions: pl.DataFrame) -> int:
    """Sessions after a decision that something is measured on: the longest rest of an order, and the longest markout."""
    return int(predictions["limit_valid_sessions"].max() or 1) + max(HORIZONS)


def paths_after(
    decisions: pl.DataFrame,
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: pl.DataFrame,
    horizon: int,
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> Paths:
    """Settled bars from the first of the decisions' sessions to `horizon` sessions after the last.

    Args:
        decisions: `symbol` and `session` of each. bars: rows of `staging.bars`. actions: of `raw.corporate_actions`.
        sessions: `session, open_at, close_at` of the exchange. settlement_lag: see `tapehouse.paths`.
    """
    around = sessions_around(sessions, decisions["session"].min(), decisions["session"].max(), horizon)
    return settled_paths(bars, actions, around, sorted(decisions["symbol"].unique()), settlement_lag)


def with_outcomes(answers: pl.DataFrame, decisions: pl.DataFrame, market: Market) -> pl.DataFrame:
    """`answers` with the columns `order_*` that `orders.ORDERS` measures, and `reward`; null where not known.

    Args:
        answers: of `tapehouse.evaluations.answers.answered`, with forward returns.
        decisions: rows of `features.decision_points`, of at least these answers. market: around them.

    Raises:
        ValueError: an answer to no decision point, or an order that could not rest (see `order_fates`).
    """
    known = answers.join(
        decisions.select(*KEYS, "session", "close", "realised_vol_20d"), on=KEYS, how="left", maintain_order="left"
    )
    strays = known.filter(pl.col("session").is_null())
    if strays.height:
        raise ValueError(f"an answer to no decision point: {strays.select(KEYS).row(0)}; predict decision points only")
    fates = order_fates(known, market.paths, market.objectives)
    numbers: dict[str, np.ndarray] = order_columns(fates) | {"reward": realised_rewards(known, fates)}
    return answers.with_columns(pl.Series(name, values).fill_nan(None) for name, values in numbers.items())
