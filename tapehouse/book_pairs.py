"""Preference pairs on order books: two limit orders of one decision, each paid for what happened after.

At every declared step a book's decision asks for one objective, drawn by its share; then the side, by the regime's share of
buys, and a near and a far offset of one stratum. All is drawn by keyed hashes of (symbol, market, source, decision_at), so
that a pair depends on no other and on no partition.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from tapehouse.book_fills import KEY, SECOND_US, SETTLEMENT, book_outcomes
from tapehouse.book_orders import BookObjectives, paid
from tapehouse.keyed import mixed_uniform, row_keys
from tapehouse.orders import BPS
from tapehouse.prompts.book import book_answers, render_book_orders
from tapehouse.prompts.orders import BAND_EDGE
from tapehouse.prompts.templates import Selection
from tapehouse.versions import microseconds

REGIME_SECONDS = 60
GRAIN = (*KEY, "decision_at", "objective")
STAGE = "decision"
UTC_DATETIME = pl.Datetime("us", "UTC")
SIDES = {1: "BUY", -1: "SELL"}
ANSWERED = ("reward", "offset_bps", "limit", "outcome", "markout_bps")


@dataclass(frozen=True)
class BookPairs:
    """Pairs, one row per `GRAIN` and sorted by it, and what became of all decisions: what is none of the five is a row.

    Attributes:
        decisions: instants of the declared step with a usable book, whose minute before was usable too.
        no_tick: of symbols without a declared tick. left_out: not kept, by the rates of balance. out_of_band: the limits were
            not two prices within 20 % of the mid. incomplete: the book was not usable throughout, or the data end before the
            window does. near_ties: the margin was below the declared one.
    """

    rows: pl.DataFrame
    decisions: int = 0
    no_tick: int = 0
    left_out: int = 0
    out_of_band: int = 0
    incomplete: int = 0
    near_ties: int = 0

    @property
    def farther_wins(self) -> float | None:
        """Share of rows whose chosen offset is the larger one: what a rule that knows offsets alone would score."""
        return self.rows.select((pl.col("chosen_offset_bps") > pl.col("rejected_offset_bps")).mean()).item()

    def counts(self) -> dict[str, int]:
        """What became of the decisions."""
        names = ("decisions", "no_tick", "left_out", "out_of_band", "incomplete", "near_ties")
        return {name: getattr(self, name) for name in names}


def decision_points(features: pl.DataFrame, every_seconds: int, start: datetime, end: datetime) -> pl.DataFrame:
    """Rows of `features.book` at multiples of `every_seconds` since 1970, in [start, end), with the `regime` of their minute.

    The rule of `features.regime`: sideways where |mean return| * sqrt(W) < half of its deviation, else bullish or bearish by
    its sign; W = 60 returns of a second. Rows whose minute before was not usable throughout are none.

    Args:
        features: `features.book`, from a minute before `start` on.
    """
    before = features.select(*KEY, pl.col("decision_at") + pl.duration(seconds=REGIME_SECONDS), mid_before="mid")
    steps = microseconds(features["decision_at"]) % (every_seconds * SECOND_US) == 0
    points = features.filter(pl.Series(steps) & (pl.col("decision_at") >= start) & (pl.col("decision_at") < end))
    points = points.filter(pl.col("mid_vol_60s_bps").is_not_null()).sort(*KEY, "decision_at")
    points = points.join(before, on=[*KEY, "decision_at"], how="inner", maintain_order="left")
    mean = np.log(points["mid"].to_numpy() / points["mid_before"].to_numpy()) / REGIME_SECONDS
    deviation = np.sqrt(np.maximum((points["mid_vol_60s_bps"].to_numpy() / BPS) ** 2 - mean**2, 0.0))
    sideways = (np.abs(mean) * REGIME_SECONDS**0.5 < 0.5 * deviation) | (mean == 0.0)
    names = np.where(sideways, "sideways", np.where(mean > 0, "bullish", "bearish"))
    return points.with_columns(regime=pl.Series(names, dtype=pl.String)).drop("mid_before")


def draw_orders(points: pl.DataFrame, declared: BookObjectives) -> pl.DataFrame:
    """The points with what is drawn for each: `objective`, `side` (1 or -1), `near_offset`, `far_offset` (bps), `kept`."""
    named = points.select("symbol", "decision_at", interval=pl.concat_str("market", "source", separator="|"))
    keys = row_keys(named)

    def drawn(what: str) -> np.ndarray:
        return mixed_uniform(keys, f"book|{what}")

    def by(column: str, rates: dict[str, float], default: float) -> np.ndarray:
        return np.array([rates.get(value, default) for value in points[column]], np.float64)

    names = list(declared.objectives)
    edges = np.cumsum([declared.objectives[name].share for name in names])
    which = np.minimum(np.searchsorted(edges, drawn("objective"), side="right"), len(names) - 1)
    side = np.where(drawn("side") < by("regime", declared.buy_share, 0.5), 1, -1)
    stratum, offsets = drawn("stratum"), {}
    for part in ("near", "far"):
        uniform, made = drawn(part), np.zeros(len(points))
        for place, name in enumerate(names):
            low, high = np.array([getattr(s, part) for s in declared.objectives[name].strata]).T
            taken = (stratum * low.size).astype(np.int64)
            made = np.where(which == place, low[taken] + uniform * (high[taken] - low[taken]), made)
        offsets[part] = np.round(made, 2)
    keep = declared.keep
    rate = by("regime", keep.regime, 1.0) * by("symbol", keep.symbol, 1.0)
    rate *= np.array([keep.objective.get(name, 1.0) for name in names])[which]
    rate *= np.where(side > 0, keep.side.get("BUY", 1.0), keep.side.get("SELL", 1.0))
    return points.with_columns(
        objective=pl.Series([names[place] for place in which], dtype=pl.String),
        side=pl.Series(side),
        near_offset=offsets["near"],
        far_offset=offsets["far"],
        kept=drawn("keep") < rate,
    )


def book_pairs(
    features: pl.DataFrame,
    messages: Iterable[pl.DataFrame],
    trades: Iterable[pl.DataFrame],
    declared: BookObjectives,
    shown: Selection,
    start: datetime,
    end: datetime,
) -> BookPairs:
    """The pair of each decision in [start, end) whose two orders are told apart.

    Args:
        features: `features.book`, from a minute before `start` on.
        messages, trades: frames of `raw.book_events` and `raw.trades`, from a day before `start` to a day after `end`; all
            trades are taken before the first message.
        declared: `book_objectives.yaml`. shown: the template and what is hidden in it.
        start, end: UTC bounds of `decision_at`; days.

    Returns:
        `BookPairs`; columns and units as in `checks/datasets/book_pairs.yaml`.
    """
    points = draw_orders(decision_points(features, declared.every_seconds, start, end), declared)
    tick = np.array([declared.tick_size.get(symbol, np.nan) for symbol in points["symbol"]], np.float64)
    mid, side = points["mid"].to_numpy(), points["side"].to_numpy()
    limits = {}
    for part in ("near", "far"):
        raw = mid * (1.0 - side * points[f"{part}_offset"].to_numpy() / BPS)
        limits[part] = np.round(np.rint(raw / tick) * tick, 10)
    near, far = limits["near"], limits["far"]
    sane = (np.abs(far / mid - 1.0) <= BAND_EDGE) & (side * (near - far) > 0) & (far > 0)
    kept, ticked = points["kept"].to_numpy(), ~np.isnan(tick)
    # Where the limits lie on the tick, which may be wider than what the offsets differ by.
    offsets = {f"{part}_offset": side * (1.0 - limit / mid) * BPS for part, limit in limits.items()}
    placed = points.with_columns(near_limit=near, far_limit=far, **offsets)
    numbered = placed.filter(pl.Series(sane & kept & ticked)).with_row_index("pair")
    result = _told_apart(numbered, messages, trades, declared)
    rows = _rendered(result.rows, declared, shown)
    dropped = {"no_tick": ~ticked, "left_out": ticked & ~kept, "out_of_band": ticked & kept & ~sane}
    return replace(result, rows=rows, decisions=len(points), **{name: int(which.sum()) for name, which in dropped.items()})


def _told_apart(
    placed: pl.DataFrame, messages: Iterable[pl.DataFrame], trades: Iterable[pl.DataFrame], declared: BookObjectives
) -> BookPairs:
    """Both orders of each pair let live and paid, and those dropped that are not told apart."""
    weights = {
        f"{part}_weight": pl.col("objective").replace_strict(
            {name: getattr(o.weights, part) for name, o in declared.objectives.items()}, return_dtype=pl.Float64
        )
        for part in ("price", "certainty", "risk", "fees")
    }
    window = pl.col("objective").replace_strict(declared.windows, return_dtype=pl.Float64)
    orders = pl.concat(
        placed.select(
            "pair", *KEY, "decision_at", "side", limit=f"{part}_limit", arrival="mid", window_seconds=window, **weights
        )
        for part in ("near", "far")
    )
    outcomes = pl.concat([orders, book_outcomes(messages, trades, orders, declared.fills)], how="horizontal")
    done = paid(outcomes, declared.costs).rename({"reward_bps": "reward"})
    both = (
        placed.join(_named(done[: len(placed)], "near"), on="pair", maintain_order="left")
        .join(_named(done[len(placed) :], "far"), on="pair", maintain_order="left")
        .with_columns(end_at=done["end_at"][: len(placed)])
    )
    complete = both.drop_nulls(["near_reward", "far_reward"])
    margin = pl.col("far_reward") - pl.col("near_reward")
    told = complete.filter(margin.abs() >= declared.near_tie_bps).with_columns(margin_bps=margin.abs(), far_wins=margin > 0)
    near_ties, incomplete = len(complete) - len(told), len(both) - len(complete)
    return BookPairs(told, incomplete=incomplete, near_ties=near_ties)


def _named(done: pl.DataFrame, part: str) -> pl.DataFrame:
    return done.select("pair", **{f"{part}_{what}": what for what in ("reward", "outcome", "markout_bps")})


def _rendered(told: pl.DataFrame, declared: BookObjectives, shown: Selection) -> pl.DataFrame:
    """Rows of the table: which of the two was paid better, and the texts."""
    columns = {}
    told = told.rename({"near_offset": "near_offset_bps", "far_offset": "far_offset_bps"})
    for what in ANSWERED:
        near, far = pl.col(f"near_{what}"), pl.col(f"far_{what}")
        columns[f"chosen_{what}"] = pl.when("far_wins").then(far).otherwise(near)
        columns[f"rejected_{what}"] = pl.when("far_wins").then(near).otherwise(far)
    after = timedelta(seconds=declared.fills.markout_seconds)
    window = pl.col("objective").replace_strict(declared.windows, return_dtype=pl.Float64)
    typical = pl.col("mid_vol_60s_bps") * window.sqrt()
    rows = told.with_columns(
        **columns,
        side=pl.col("side").replace_strict(SIDES, return_dtype=pl.String),
        stage=pl.lit(STAGE),
        # Against a typical move over the window; a minute in which the mid never moved has none, and its pairs are easy.
        difficulty=typical / (typical + pl.col("margin_bps")),
        reward_end_at=(pl.col("end_at") + after).cast(UTC_DATETIME),
        reward_known_at=(pl.col("end_at") + after + timedelta(microseconds=SETTLEMENT)).cast(UTC_DATETIME),
        template=pl.lit(shown.version),
    )
    prompts = render_book_orders(rows, declared.words, shown.template, shown.mask)
    answers = {
        which: book_answers(rows["side"], rows[f"{which}_limit"], rows, prompts).alias(which)
        for which in ("chosen", "rejected")
    }
    order = [f"{which}_{what}" for what in ANSWERED for which in ("chosen", "rejected")]
    texts = rows.with_columns(prompts.alias("prompt"), *answers.values())
    return texts.select(
        *GRAIN, "regime", "side", "prompt", "chosen", "rejected", *order, "margin_bps", "stage", "difficulty",
        "reward_end_at", "reward_known_at", "template",
    ).sort(GRAIN)  # fmt: skip
