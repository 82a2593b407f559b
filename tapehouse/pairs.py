"""Preference pairs: two limit orders of one decision, each paid for what happened after, the better one chosen.

For a decision point and an objective everything drawn comes from a keyed hash of (symbol, interval, decision_at, objective):
the side, the stratum and the two offsets. So a pair does not depend on what else is drawn with it, nor on the order. The
strata are declared in `objectives.yaml` so that the farther offset wins about half of the pairs; the share is a number to
be reported, `farther_wins`, and never assumed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

import numpy as np
import polars as pl

from tapehouse.orders import Objective, Objectives, order_outcomes
from tapehouse.paths import SETTLEMENT_LAG, Paths, settled_paths
from tapehouse.prompts.orders import PRICE_BAND
from tapehouse.versions import microseconds

HASH_KEY = b"tapehouse.pairs.1"
TICK_SIZE = 0.01
SIDES = {1: "BUY", -1: "SELL"}
UTC_DATETIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "objective": pl.String,
    "side": pl.String,
    "chosen_reward": pl.Float64,
    "rejected_reward": pl.Float64,
    "margin_bps": pl.Float64,
    "chosen_offset_atr": pl.Float64,
    "rejected_offset_atr": pl.Float64,
    "chosen_limit": pl.Float64,
    "rejected_limit": pl.Float64,
    "chosen_filled": pl.Boolean,
    "rejected_filled": pl.Boolean,
    "reward_end_at": UTC_DATETIME,
    "reward_known_at": UTC_DATETIME,
}


@dataclass(frozen=True)
class Pairs:
    """Pairs, and what became of all that were drawn.

    Attributes:
        rows: one row per (symbol, interval, decision_at, objective), sorted by it.
        drawn: pairs that were drawn. out_of_band: dropped because their limits were not two prices within 20 % of the
            close. incomplete: dropped because a window's last bar is missing or still to come. near_ties: dropped
            because the margin was below the declared one. The rest are `rows`.
    """

    rows: pl.DataFrame
    drawn: int
    out_of_band: int
    incomplete: int
    near_ties: int

    @property
    def farther_wins(self) -> float | None:
        """Share of rows whose chosen offset is the larger one: what a rule that knows offsets alone would score."""
        return self.rows.select((pl.col("chosen_offset_atr") > pl.col("rejected_offset_atr")).mean()).item()


def preference_pairs(
    points: pl.DataFrame,
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    objectives: Objectives,
    start: datetime,
    end: datetime,
    sessions: pl.DataFrame,
    settlement_lag: timedelta = SETTLEMENT_LAG,
) -> Pairs:
    """One pair for each decision point in [start, end) and objective, where its two orders are told apart.

    Args:
        points: `features.decision_points`: at least `symbol, interval, decision_at, session, close, atr_14`.
        versions: `staging.bars` of one interval, to at least the longest window after `end`.
        actions: `raw.corporate_actions` of the same span.
        objectives: `objectives.yaml`.
        start, end: UTC bounds of `decision_at`.
        sessions: `session, open_at, close_at` of the exchange, over the decisions and their windows.
        settlement_lag: how long after a session's close its records still count.

    Returns:
        `Pairs`; rewards and margin in bps of the arrival price, limits in currency and the decision's price basis, on the
        tick of 0.01, offsets in ATR of the decision.
    """
    points = points.filter((pl.col("decision_at") >= start) & (pl.col("decision_at") < end))
    points = points.sort("symbol", "interval", "decision_at")
    symbols = points["symbol"].unique().sort().to_list()
    paths = settled_paths(versions, actions, sessions, symbols, settlement_lag)
    parts = [
        _of_objective(name, objective, objectives, points, paths, settlement_lag)
        for name, objective in objectives.objectives.items()
    ]
    rows = pl.concat([part.rows for part in parts]).sort("symbol", "interval", "decision_at", "objective")
    return Pairs(
        rows=rows,
        drawn=sum(part.drawn for part in parts),
        out_of_band=sum(part.out_of_band for part in parts),
        incomplete=sum(part.incomplete for part in parts),
        near_ties=sum(part.near_ties for part in parts),
    )


def _of_objective(
    name: str, objective: Objective, declared: Objectives, points: pl.DataFrame, paths: Paths, settlement_lag: timedelta
) -> Pairs:
    drawn = points.select("symbol", "interval", "decision_at", "session", "close", "atr_14").with_columns(
        draw_placements(points, name, objective)
    )
    side, close = drawn["side"].to_numpy(), drawn["close"].to_numpy()
    limits = {
        which: on_tick(close - side * drawn[f"{which}_offset"].to_numpy() * drawn["atr_14"].to_numpy())
        for which in ("near", "far")
    }
    near_limit, far_limit = limits["near"], limits["far"]
    sane = (np.abs(far_limit / close - 1.0) <= PRICE_BAND) & (side * (near_limit - far_limit) > 0) & (far_limit > 0)
    placed = drawn.with_columns(near_limit=near_limit, far_limit=far_limit).filter(sane)
    paid = {
        which: order_outcomes(
            paths,
            placed.select("symbol", "session", "side", limit=f"{which}_limit", arrival="close"),
            objective.window_sessions,
            declared.costs,
            objective.weights,
            settlement_lag,
        ).select(
            pl.col("reward_bps").alias(f"{which}_reward"),
            pl.col("filled").alias(f"{which}_filled"),
            "reward_end_at",
            "reward_known_at",
        )
        for which in ("near", "far")
    }
    both = pl.concat([placed, paid["near"], paid["far"].select("far_reward", "far_filled")], how="horizontal")
    complete = both.drop_nulls("reward_known_at")
    margin = pl.col("far_reward") - pl.col("near_reward")
    told = complete.filter(margin.abs() >= declared.near_tie_bps)
    far_wins = margin > 0
    columns = {
        "objective": pl.lit(name),
        "side": pl.col("side").replace_strict(SIDES, return_dtype=pl.String),
        "margin_bps": margin.abs(),
    }
    for what in ("reward", "limit", "filled"):
        near, far = pl.col(f"near_{what}"), pl.col(f"far_{what}")
        columns[f"chosen_{what}"] = pl.when(far_wins).then(far).otherwise(near)
        columns[f"rejected_{what}"] = pl.when(far_wins).then(near).otherwise(far)
    near, far = pl.col("near_offset"), pl.col("far_offset")
    columns["chosen_offset_atr"] = pl.when(far_wins).then(far).otherwise(near)
    columns["rejected_offset_atr"] = pl.when(far_wins).then(near).otherwise(far)
    return Pairs(
        rows=told.with_columns(**columns).select(pl.col(column).cast(kind) for column, kind in SCHEMA.items()),
        drawn=len(drawn),
        out_of_band=len(drawn) - len(placed),
        incomplete=len(both) - len(complete),
        near_ties=len(complete) - len(told),
    )


def draw_placements(points: pl.DataFrame, name: str, objective: Objective) -> list[pl.Series]:
    """`side` (1 or -1, even odds), `near_offset` and `far_offset` (ATR, in hundredths) of each decision point."""
    side = np.where(keyed_uniform(points, f"{name}|side") < 0.5, 1, -1)
    which = (keyed_uniform(points, f"{name}|stratum") * len(objective.strata)).astype(np.int64)
    offsets = []
    for part in ("near", "far"):
        low, high = np.array([getattr(stratum, part) for stratum in objective.strata]).T
        drawn = keyed_uniform(points, f"{name}|{part}")
        offsets.append(np.round(low[which] + drawn * (high[which] - low[which]), 2))
    return [pl.Series("side", side), pl.Series("near_offset", offsets[0]), pl.Series("far_offset", offsets[1])]


def keyed_uniform(points: pl.DataFrame, what: str) -> np.ndarray:
    """A number in [0, 1) for each (symbol, interval, decision_at), fixed by these and by `what` alone.

    BLAKE2b under `HASH_KEY` of "symbol|interval" and of `what`, joined with the decision's microseconds by the finaliser of
    SplitMix64 (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators, 2014); the upper 53 bits.
    """
    names = points.select(pl.concat_str("symbol", "interval", separator="|")).to_series()
    keys = {text: _blake(text) for text in names.unique()}
    series = names.replace_strict(keys, return_dtype=pl.UInt64).to_numpy()
    moment = microseconds(points["decision_at"]).astype(np.uint64)
    mixed = _splitmix(_splitmix(series ^ _splitmix(moment)) ^ np.uint64(_blake(what)))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def on_tick(prices: np.ndarray, tick_size: float = TICK_SIZE) -> np.ndarray:
    """Prices rounded to the nearest tick, each the double that prints with the tick's decimals."""
    return np.round(np.rint(prices / tick_size) * tick_size, 10)


def _blake(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8, key=HASH_KEY).digest(), "little")


def _splitmix(state: np.ndarray) -> np.ndarray:
    state = state + np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
