"""Preference pairs: two limit orders of one decision, each paid for what happened after, the better one chosen.

For a decision point and an objective k placements are drawn, each a side (bullish regimes buy more often, bearish ones sell), a
near and a far offset of one stratum. Everything drawn comes from a keyed hash of (symbol, interval, decision_at), objective and
placement, so a pair depends neither on what else is drawn with it nor on the order. Which pairs are kept is drawn in the same
way, at the declared rates that balance regimes, objectives, sides and symbols in expectation (`tapehouse.balance`).

The strata are declared in `objectives.yaml` so that the farther offset wins about half of the pairs; the share is a number to
be reported, `farther_wins`, and never assumed.
"""

from dataclasses import dataclass, fields
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tapehouse.keyed import mixed_uniform, row_keys
from tapehouse.orders import BPS, Objective, Objectives, pay
from tapehouse.paths import SETTLEMENT_LAG, Paths, settled_paths
from tapehouse.prompts.orders import PRICE_BAND

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
            limits were not two prices within 20 % of the close. incomplete: a window's last bar is missing or still to come.
            near_ties: the margin was below the declared one.
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

    Returns:
        `Pairs`; rewards, markouts and margin in bps, limits in currency and the decision's price basis, on the tick of 0.01,
        offsets in ATR of the decision, difficulty 1 / (1 + margin / ATR).
    """
    points = points.select("symbol", "interval", "decision_at", "session", "close", "atr_14", "regime")
    points = points.filter((pl.col("decision_at") >= start) & (pl.col("decision_at") < end))
    points = points.sort("symbol", "interval", "decision_at")
    symbols = points["symbol"].unique().sort().to_list()
    paths = settled_paths(versions, actions, sessions, symbols, settlement_lag)
    close, atr = (points[name].to_numpy(writable=True) for name in ("close", "atr_14"))
    decisions = _Decisions(points, row_keys(points), close, atr, *paths.places(points))
    parts = [
        _of_placement(name, objective, placement, objectives, decisions, paths, settlement_lag)
        for name, objective in objectives.objectives.items()
        for placement in range(1, objectives.placements + 1)
    ]
    rows = pl.concat([rows for rows, _ in parts]).sort(GRAIN)
    return Pairs(rows, sum((counts for _, counts in parts), Counts()))


def _of_placement(
    name: str,
    objective: Objective,
    placement: int,
    declared: Objectives,
    decisions: _Decisions,
    paths: Paths,
    settlement_lag: timedelta,
) -> tuple[pl.DataFrame, Counts]:
    side, near_offset, far_offset, kept = draw_placements(decisions.frame, decisions.keys, name, placement, declared)
    limits = [on_tick(decisions.close - side * offset * decisions.atr) for offset in (near_offset, far_offset)]
    near, far = limits
    sane = (np.abs(far / decisions.close - 1.0) <= PRICE_BAND) & (side * (near - far) > 0) & (far > 0)
    at = np.flatnonzero(kept & sane)
    where, of_close = (decisions.row[at], decisions.column[at]), decisions.close[at]
    terms = objective.window_sessions, declared.costs, objective.weights
    paid = [pay(paths, *where, side[at], limit[at], of_close, *terms) for limit in limits]
    margin = paid[1]["reward_bps"] - paid[0]["reward_bps"]
    done = paid[0]["filled"] >= 0
    told = done & (np.abs(margin) >= declared.near_tie_bps)
    far_wins = margin[told] > 0
    rows = at[told]

    def better(values: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Of two orders' values those of the better paid and those of the other."""
        return np.where(far_wins, values[1], values[0]), np.where(far_wins, values[0], values[1])

    columns: dict[str, pl.Series | np.ndarray] = {"margin_bps": np.abs(margin[told])}
    shown = {
        "reward": [p["reward_bps"][told] for p in paid],
        "limit": [limit[rows] for limit in limits],
        "filled": [p["filled"][told] == 1 for p in paid],
        "markout_bps": [p["markout_bps"][told] for p in paid],
        "offset_atr": [near_offset[rows], far_offset[rows]],
    }
    for what, values in shown.items():
        columns[f"chosen_{what}"], columns[f"rejected_{what}"] = better(values)
    of_atr = BPS * decisions.atr[rows] / decisions.close[rows]
    frame = decisions.frame.select("symbol", "interval", "decision_at", "regime")[rows].with_columns(
        pl.lit(name).alias("objective"),
        pl.lit(placement).alias("placement"),
        pl.lit(STAGE).alias("stage"),
        pl.when(pl.Series(side[rows] > 0)).then(pl.lit("BUY")).otherwise(pl.lit("SELL")).alias("side"),
        pl.Series("difficulty", 1.0 / (1.0 + columns["margin_bps"] / of_atr)),
        paths.times("close_at", decisions.column[rows] + objective.window_sessions).alias("reward_end_at"),
        *(pl.Series(column, values) for column, values in columns.items()),
    )
    frame = frame.with_columns(
        pl.col("chosen_markout_bps", "rejected_markout_bps").fill_nan(None),
        reward_known_at=pl.col("reward_end_at") + settlement_lag,
    )
    counts = Counts(
        drawn=kept.size,
        left_out=int(kept.size - kept.sum()),
        out_of_band=int(kept.sum() - at.size),
        incomplete=int(at.size - done.sum()),
        near_ties=int(done.sum() - told.sum()),
    )
    return frame.select(pl.col(column).cast(kind) for column, kind in SCHEMA.items()), counts


def draw_placements(
    points: pl.DataFrame, keys: np.ndarray, name: str, placement: int, declared: Objectives
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What is drawn for one placement of each decision point, four arrays.

    Returns:
        side (1.0 or -1.0, a buy by the share of the decision's regime), near and far offset (ATR, in hundredths), and whether
        the rates of balance keep the pair.
    """
    objective = declared.objectives[name]

    def drawn(what: str) -> np.ndarray:
        return mixed_uniform(keys, f"{name}|{placement}|{what}")

    def by(column: str, rates: dict[str, float], default: float) -> np.ndarray:
        known = points[column].replace_strict(rates, default=default, return_dtype=pl.Float64) if rates else None
        return np.full(points.height, default) if known is None else known.fill_null(default).to_numpy()

    side = np.where(drawn("side") < by("regime", declared.buy_share, EVEN), 1.0, -1.0)
    which = (drawn("stratum") * len(objective.strata)).astype(np.int64)
    offsets = []
    for part in ("near", "far"):
        low, high = np.array([getattr(stratum, part) for stratum in objective.strata]).T
        offsets.append(np.round(low[which] + drawn(part) * (high[which] - low[which]), 2))
    keep = declared.keep
    rate = by("regime", keep.regime, 1.0) * by("symbol", keep.symbol, 1.0) * keep.objective.get(name, 1.0)
    rate *= np.where(side > 0, keep.side.get("BUY", 1.0), keep.side.get("SELL", 1.0))
    return side, *offsets, drawn("keep") < rate


def on_tick(prices: np.ndarray, tick_size: float = TICK_SIZE) -> np.ndarray:
    """Prices rounded to the nearest tick, each the double that prints with the tick's decimals."""
    return np.round(np.rint(prices / tick_size) * tick_size, 10)
