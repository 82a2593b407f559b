"""Whether answers that are surer earn more: rewards that were realised, against the confidence that was stated for them.

The reward of an answer is that of `tapehouse.rewards`, in deviations of the price over the order's window and at most `BOUND`
either way: of an order what its objective pays for it; of a side without a placement its return over ten sessions, after a
round trip's costs. HOLD is paid nothing and is left out: of orders that were not placed nobody knows the price.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import polars as pl

from tapehouse.evaluations.answers import FORWARD
from tapehouse.evaluations.barriers import correlation, correlation_of, correlation_terms
from tapehouse.evaluations.core import Derived, Part, Ratio, Slice, Term
from tapehouse.evaluations.orders import SIDE, OrderFates
from tapehouse.evaluations.rows import Rows
from tapehouse.labels.triple_barrier import SESSIONS_PER_YEAR
from tapehouse.order_kernels import BPS
from tapehouse.rewards import BOUND, ROUND_TRIP_BPS

HORIZON: Final = 10  # sessions that a side without a placement is paid over, those of a label
BINS: Final = 20  # of margins from 0 to 1
MARGIN: Final = "margin"
MEANING: Final = {
    "mean_reward": "Mean realised reward of BUY and SELL answers: of an order what its objective pays, of a side its return "
    "over 10 sessions after a round trip's costs; in deviations of the price over the window, at most 3 either way. "
    "Not comparable between objectives.",
    "margin": "Mean of what the answered side is more probable than the other; in slice `margin` of a bin.",
    "reward_by_confidence": "Spearman correlation of stated confidence and realised reward of BUY and SELL answers; null where "
    "none is stated.",
    "reward_by_margin": "Spearman correlation of the same reward with the margin, of calibrated probabilities; null for rules.",
}


def realised_rewards(answers: pl.DataFrame, fates: OrderFates) -> np.ndarray:
    """Reward of each answer, (rows,); NaN for HOLD, and where the outcome or the volatility is not known.

    Args:
        answers: `action`, `objective`, `limit_valid_sessions`, `realised_vol_20d` (a fraction per year) and `forward_10`.
        fates: of the same rows (`tapehouse.evaluations.orders.order_fates`).
    """
    frame = answers.select(
        side=pl.col("action").replace_strict(SIDE, default=None, return_dtype=pl.Float64),
        window=pl.when(pl.col("limit_price").is_null()).then(1).otherwise("limit_valid_sessions").cast(pl.Float64),
        volatility=pl.col("realised_vol_20d") / math.sqrt(SESSIONS_PER_YEAR),
        ret=pl.col(FORWARD.format(HORIZON)),
    ).with_columns(pl.all().cast(pl.Float64).fill_null(np.nan))
    side, window, volatility, ret = (frame[name].to_numpy() for name in frame.columns)
    volatility = np.where(volatility > 0, volatility, np.nan)
    of_order = fates.reward_bps / BPS / (volatility * np.sqrt(window))
    of_side = (side * ret - ROUND_TRIP_BPS / BPS) / (volatility * math.sqrt(HORIZON))
    paid = np.where(fates.has_objective, of_order, of_side)
    return np.clip(np.where(side == 0, np.nan, paid), -BOUND, BOUND)


def margins(rows: Rows) -> np.ndarray:
    """By how much the answered side is more probable than the other one, (rows,) -1 to 1; NaN for HOLD and for a rule."""
    side = np.where(rows["action"] == 1, np.nan, rows["action"] - 1)
    return side * (rows["p_buy"] - rows["p_sell"])


def margin_slice(rows: Rows) -> Slice:
    """BUY and SELL answers by bins of their margin; those whose side was the less probable one are a bin of their own."""
    found = margins(rows)
    place = np.where(found < 0, 0, 1 + np.minimum(np.nan_to_num(found) * BINS, BINS - 1).astype(np.int64))
    levels = ("below 0", *(f"{i / BINS:.2f}-{(i + 1) / BINS:.2f}" for i in range(BINS)))
    return Slice(MARGIN, levels, np.where(np.isnan(found), -1, place).astype(np.int64), own=True)


def _paid(rows: Rows) -> list[Term]:
    reward = rows["reward"]
    return [Term("reward", reward), Term("margin", np.where(np.isnan(reward), np.nan, margins(rows)))]


def _sure(rows: Rows) -> list[Term]:
    return [
        *correlation_terms(rows, rows["confidence"], rows["reward"], "sure_"),
        *correlation_terms(rows, margins(rows), rows["reward"], "margin_"),
    ]


# An order's reward is that of its own limit: permuted among orders it would be nobody's, so that its mean has no such twin.
_PAID = (Ratio("mean_reward", "reward", chance=None), Ratio("margin", "margin", chance=None))
REWARDS: Final = (
    Part(_paid, _PAID),
    Part(_paid, _PAID, frozenset({"confidence", MARGIN})),
    Part(
        _sure,
        (
            Derived("reward_by_confidence", correlation_of("sure_"), correlation, chance=0.0),
            Derived("reward_by_margin", correlation_of("margin_"), correlation, chance=0.0),
        ),
    ),
)
