"""Preference pairs: two limit orders of one decision, each paid for what happened after, the better one chosen.

For a decision point and an objective k placements are drawn, each a side (bullish regimes buy more often, bearish ones sell), a
near and a far offset of one stratum. Everything drawn comes from a keyed hash of (symbol, interval, decision_at), objective and
placement, so a pair depends neither on what else is drawn with it nor on the order. Which pairs are kept is drawn in the same
way, at the declared rates that balance regimes, objectives, sides and symbols in expectation (`tapehouse.balance`).

The strata are declared in `objectives.yaml` so that the farther offset wins about half of the pairs; the share is a number to
be reported, `farther_wins`, and never assumed.
"""

import math
from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tapehouse.keyed import blake, row_keys
from tapehouse.order_kernels import BPS, TOLD, paid_pairs
from tapehouse.orders import Objective, Objectives, terms
from tapehouse.paths import SETTLEMENT_LAG, Paths, settled_paths
from tapehouse.prompts.orders import BAND_EDGE

TICK_SIZE = 0.01
EVEN = 0.5
STAGE = "decision"  # of the curriculum: what is learnt from a pair is a decision, not the form
UTC_DATETIME = pl.Datetime("us", "UTC")
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": UTC_DATETIME,
    "objective": pl.String,
    "placement": pl.Int32,
    "regime": pl.String,
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
    "chosen_markout_bps": pl.Float64,
    "rejected_markout_bps": pl.Float64,
    "stage": pl.String,
    "difficulty": pl.Float64,
    "reward_end_at": UTC_DATETIME,
    "reward_known_at": UTC_DATETIME,
}
GRAIN = ("symbol", "interval", "decision_at", "objective", "placement")


@dataclass(frozen=True)
class Counts:
    """What became of all pairs that could be drawn; what is none of the four is a row.

    Attributes:
        drawn: placements of all decisions and objectives. left_out: not kept, by the rates of balance. out_of_band: their
            limits were not two prices within 20 % of the close that an answer can write. incomplete: a window's last bar is
            missing or still to come. near_ties: the margin was below the declared one.
    """

    drawn: int = 0
    left_out: int = 0
    out_of_band: int = 0
    incomplete: int = 0
    near_ties: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


@dataclass(frozen=True)
class Pairs:
    """Pairs, one row per `GRAIN` and sorted by it, and the counts of what was drawn."""

    rows: pl.DataFrame
    counts: Counts

    @property
    def farther_wins(self) -> float | None:
        """Share of rows whose chosen offset is the larger one: what a rule that knows offsets alone would score."""
        return self.rows.select((pl.col("chosen_offset_atr") > pl.col("rejected_offset_atr")).mean()).item()


@dataclass(frozen=True)
class _Decisions:
    """Decision points as arrays, one place a point: their frame, their keys, and where they lie in the paths."""

    frame: pl.DataFrame
    keys: np.ndarray
    close: np.ndarray
    atr: np.ndarray
    row: np.ndarray
    column: np.ndarray


def preference_pairs(
    points: pl.DataFrame,
    versions: pl.DataFrame,
    actions: pl.DataFrame,
    objectives: Objectives,
    start: datetime,
    end: datetime,
    sessions: pl.DataFrame,
    settlement_lag: timedelta = SETTLEMENT_LAG,
    largest: float = math.inf,
) -> Pairs:
    """The pairs of each decision point in [start, end) and objective whose two orders are told apart.

    Args:
        points: `features.decision_points`: at least `symbol, interval, decision_at, session, close, atr_14, regime`.
        versions: `staging.bars` of one interval, to at least the longest window after `end`.
        actions: `raw.corporate_actions` of the same span.
        objectives: `objectives.yaml`.
        start, end: UTC bounds of `decision_at`.
        sessions: `session, open_at, close_at` of the exchange, over the decisions and their windows.
        settlement_lag: how long after a session's close its records still count.
        largest: limit that an answer can write, in currency (`tapehouse.prompts.orders.price_form`).

    Returns:
        `Pairs`; rewards, markouts and margin in bps, limits in currency and the decision's price basis, on the tick of 0.01,
        offsets in ATR of the decision, difficulty 1 / (1 + margin / ATR).
    """
    points = points.select("symbol", "interval", "decision_at", "session", "close", "atr_14", "regime")
    inside = (points["decision_at"] >= start) & (points["decision_at"] < end)
    points = points if inside.all() else points.filter(inside)
    if not points.select(key=pl.struct(GRAIN[:3])).to_series().is_sorted():
        points = points.sort(GRAIN[:3])
    symbols = points["symbol"].unique().sort().to_list()
    paths = settled_paths(versions, actions, sessions, symbols, settlement_lag)
    close, atr = (points[name].to_numpy(writable=True) for name in ("close", "atr_14"))
    decisions = _Decisions(points, row_keys(points), close, atr, *paths.places(points))
    parts = [
        _of_placement(name, objective, placement, objectives, decisions, paths, settlement_lag, largest)
        for name, objective in sorted(objectives.objectives.items())
        for placement in range(1, objectives.placements + 1)
    ]
    # Each part is in the order of the decisions, and the parts in that of objective and placement.
    places = np.concatenate([part.at for part in parts])
    order = np.argsort(places, kind="stable") if len(parts) > 1 else slice(None)
    return Pairs(pl.concat([part.rows for part in parts])[order], sum((part.counts for part in parts), Counts()))


@dataclass(frozen=True)
class _Part:
    """Pairs of one objective and placement; `at` is the place of each row's decision."""

    rows: pl.DataFrame
    at: np.ndarray
    counts: Counts


def _of_placement(
    name: str,
    objective: Objective,
    placement: int,
    declared: Objectives,
    decisions: _Decisions,
    paths: Paths,
    settlement_lag: timedelta,
    largest: float,
) -> _Part:
    buy_share, rate = chances(decisions.frame, name, declared)
    keep = declared.keep
    counts, at, buys, fills, numbers = paid_pairs(
        decisions.keys, draw_hashes(name, placement), buy_share, rate,
        np.array([keep.side.get("SELL", 1.0), keep.side.get("BUY", 1.0)]),
        np.array([[*stratum.near, *stratum.far] for stratum in objective.strata]),
        decisions.close, decisions.atr, decisions.row, decisions.column, objective.window_sessions,
        *terms(declared.costs, objective.weights), declared.near_tie_bps, BAND_EDGE, largest, TICK_SIZE,
        paths.open, paths.high, paths.low, paths.close, paths.shares, paths.cash,
    )  # fmt: skip
    of = {
        f"{which}_{what}": numbers[2 * n + place]
        for n, what in enumerate(("reward", "limit", "offset_atr", "markout_bps"))
        for place, which in enumerate(("chosen", "rejected"))
    }
    margin = of["chosen_reward"] - of["rejected_reward"]
    points = decisions.frame.select("symbol", "interval", "decision_at", "regime")[at]
    ends = paths.times("close_at", decisions.column[at] + objective.window_sessions)
    rows = points.with_columns(
        pl.lit(name).alias("objective"),
        pl.lit(placement, pl.Int32).alias("placement"),
        pl.when(pl.Series(buys)).then(pl.lit("BUY")).otherwise(pl.lit("SELL")).alias("side"),
        *(pl.Series(column, values, nan_to_null=column.endswith("markout_bps")) for column, values in of.items()),
        pl.Series("margin_bps", margin),
        pl.Series("chosen_filled", fills[0]),
        pl.Series("rejected_filled", fills[1]),
        pl.lit(STAGE).alias("stage"),
        # Without a unit: an ATR and the margin are both in bps of the close.
        pl.Series("difficulty", 1.0 / (1.0 + margin / (BPS * decisions.atr[at] / decisions.close[at]))),
        ends.alias("reward_end_at"),
        (ends + settlement_lag).alias("reward_known_at"),
    )
    gone = counts[:TOLD].tolist()
    return _Part(
        rows.select(pl.col(column).cast(kind) for column, kind in SCHEMA.items()), at, Counts(len(at) + sum(gone), *gone)
    )


def draw_hashes(name: str, placement: int) -> np.ndarray:
    """The hashes, (5,), of what is drawn for one placement of an objective: side, stratum, near, far, whether it is kept."""
    return np.array([blake(f"{name}|{placement}|{what}") for what in ("side", "stratum", "near", "far", "keep")], np.uint64)


def chances(points: pl.DataFrame, name: str, declared: Objectives) -> tuple[np.ndarray, np.ndarray]:
    """Of each decision point the chance that a pair is of buys, and the rate that it is kept at, its side's factor apart."""

    def by(column: str, rates: dict[str, float], default: float) -> np.ndarray | float:
        if not rates:
            return default
        known = points[column].replace_strict(rates, default=default, return_dtype=pl.Float64)
        return known.fill_null(default).to_numpy()

    keep, whole = declared.keep, np.ones(points.height)
    rate = by("regime", keep.regime, 1.0) * by("symbol", keep.symbol, 1.0) * keep.objective.get(name, 1.0)
    return by("regime", declared.buy_share, EVEN) * whole, rate * whole
