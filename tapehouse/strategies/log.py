"""What became of every signal, and what each gate, veto and guard held back: rows for the reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import polars as pl

from tapehouse.backtest.guards import GUARDED, LOSSES
from tapehouse.backtest.guards import GUARDS as GUARD_NAMES
from tapehouse.backtest.layout import NO_SIZE, ORDERED, PASSED_OVER, TOO_LATE, VETO
from tapehouse.backtest.panel import Orders, Panel
from tapehouse.backtest.run import BacktestResult
from tapehouse.predictions import HOLD, KEYS
from tapehouse.strategies.gates import ACTIVE, Judgement
from tapehouse.strategies.schema import Strategy
from tapehouse.strategies.vetoes import VETOES

# What the figures of a strategy mean that no other account has; units in brackets.
MEANING: Final = {
    "gated": "Signals that a gate took away before the account saw them.",
    "disagreements": "Decisions at which one predictor would buy what another would sell.",
    "tail_loss": "Loss of a session that the tail target is about [fraction of equity].",
    "tail_target": "Share of sessions that may lose more [fraction].",
    "tail_realised": "Share of sessions that did [fraction].",
    "tail_at_full_size": "Share of sessions that would have at full size [fraction].",
    "tail_size": "Mean size that risk control allowed [fraction of full size].",
}
NONE: Final = "none"
FATES: Final = {
    0: NONE,
    ORDERED: "ordered",
    PASSED_OVER: "passed_over",
    TOO_LATE: "too_late",
    NO_SIZE: "no_size",
    **{VETO + number: f"veto.{name}" for number, name in enumerate(VETOES)},
    **{VETO + GUARDED + number: f"guard.{name}" for number, name in enumerate(GUARD_NAMES)},
}
DECISIONS: Final = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": pl.Datetime("us", "UTC"),
    "action": pl.String,
    "confidence": pl.Float64,
    "weight": pl.Float64,
    "fate": pl.String,
    "disagreement": pl.Boolean,
    "said": pl.String,
}
LOG: Final = {
    "veto": pl.String,
    "stage": pl.String,
    "state": pl.String,
    "threshold": pl.Float64,
    "signals": pl.Int64,
    "holds": pl.Int64,
    "held_back": pl.Int64,
    "missing": pl.Int64,
    "window": pl.Int32,
    "least": pl.Int32,
    "cool_down": pl.Int32,
}


def decision_rows(rows: pl.DataFrame, panel: Panel, orders: Orders, result: BacktestResult) -> pl.DataFrame:
    """Rows of `DECISIONS` for every decision that wanted a trade, and those on which predictors disagreed.

    Args:
        rows: signals of the block with `session` and `gated`, the gate that took the signal away.
    """
    session = {day: t for t, day in enumerate(panel.sessions)}
    symbol = {name: s for s, name in enumerate(panel.symbols)}
    fates, weights = [], []
    for name, day, gated in rows.select("symbol", "session", "gated").iter_rows():
        cell = session.get(day), symbol.get(name)
        inside = None not in cell
        fates.append(f"gate.{gated}" if gated else FATES[int(result.fate[cell])] if inside else NONE)
        weights.append(float(orders.weight[cell]) if inside else np.nan)
    held = pl.col("action") == HOLD
    return (
        rows.with_columns(fate=pl.Series(fates, dtype=pl.String), weight=pl.Series(weights, dtype=pl.Float64).fill_nan(None))
        .with_columns(fate=pl.when(held).then(pl.lit(NONE)).otherwise("fate"))
        .filter(~held | pl.col("disagreement"))
        .select(pl.col(name).cast(kind) for name, kind in DECISIONS.items())
        .sort(KEYS)
    )


def veto_rows(strategy: Strategy, decisions: pl.DataFrame, rows: pl.DataFrame, judgements: Sequence[Judgement]) -> pl.DataFrame:
    """Rows of `LOG`, one for each gate, veto and guard that the strategy declares.

    `signals` wanted a trade, `holds` of them met its condition (of a guard only where nothing else held them back first),
    `held_back` are those that it was the first reason for, and `missing` those at which its input was not known.
    """
    wanted = (rows["action"] != HOLD).to_numpy()
    first = dict(decisions.filter(pl.col("action") != HOLD)["fate"].value_counts().iter_rows())
    found = []
    for judgement in judgements:
        paced = getattr(strategy.vetoes, judgement.name, None)
        held = judgement.blocks & _sides(judgement.name, rows)
        found.append(
            (
                judgement.name,
                judgement.stage,
                judgement.state,
                judgement.threshold if paced is None else getattr(paced, "limit", None),
                int(wanted.sum()),
                int((held & wanted).sum()),
                first.get(f"{judgement.stage}.{judgement.name}", 0),
                int((judgement.missing & wanted).sum()),
                *((paced.window, paced.least, paced.cool_down) if paced is not None else (None, None, None)),
            )
        )
    for name in GUARD_NAMES:
        guard = getattr(strategy.vetoes, name)
        if guard is not None:
            held_back = first.get(f"guard.{name}", 0)
            # Losses in a row are their own window and sample.
            seen = (guard.limit, guard.limit) if name == GUARD_NAMES[LOSSES] else (guard.window, guard.least)
            paces = (*seen, guard.cool_down)
            found.append((name, "guard", ACTIVE, guard.limit, int(wanted.sum()), held_back, held_back, 0, *paces))
    return pl.DataFrame(found, schema=LOG, orient="row")


def _sides(name: str, rows: pl.DataFrame) -> np.ndarray:
    """Whether a veto speaks of each row's side: supports of shorts, resistances of longs, all others of both."""
    side = {"support": "SELL", "resistance": "BUY"}.get(name)
    return (rows["action"] == side).to_numpy() if side else np.ones(rows.height, bool)
