"""How often, and by how much, an adapter holds the better paid of two answers for the likelier one."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from tapehouse.evaluations.core import Part, Ratio, Term, measure, slice_of
from tapehouse.evaluations.rows import Rows
from tapehouse.predictions import KEYS

MEANING = {
    "preference_accuracy": "Share of pairs whose better paid answer is the likelier one; one half is chance, and a tie a half.",
    "preference_margin": "Mean log-probability of the better paid answer less that of the other [nats].",
    "preference_accuracy_normalised": "As preference_accuracy, by the mean log-probability of a token.",
    "preference_margin_normalised": "As preference_margin, of a token [nats a token].",
    "preference_accuracy_gained": "Share of pairs in which training raised the better paid answer more than the other, against "
    "what it started from: the parent's adapter, or the base.",
    "preference_margin_gained": "By how much more, on average [nats]; times beta, the margin of DPO's implicit rewards.",
    "preference_accuracy_before": "preference_accuracy of what training started from.",
    "preference_margin_before": "preference_margin of what training started from [nats].",
}
SIDES: Final = ("chosen", "rejected")
SLICES: Final = ("regime", "symbol", "objective")
MAIN: Final = "raw_right"  # the daily number of right pairs sets the length of blocks


def preference_figures(preferences: pl.DataFrame, points: pl.DataFrame) -> pl.DataFrame:
    """`FIGURES` of `MEANING`, whole and by regime, symbol and objective; null without pairs.

    Args:
        preferences: rows of `models.preferences` of one adapter and fold.
        points: `KEYS` and `regime` of their decisions, rows of `features.decision_points`.
    """
    pairs = preferences.join(points.select(*KEYS, "regime"), on=list(KEYS), how="left", validate="m:1")
    pairs = pairs.sort("decision_at", "symbol", "interval", "objective", "placement")
    rows = _rows(pairs)
    return measure(rows, (PREFERENCES,), [slice_of(name, pairs[name]) for name in SLICES], MAIN)


def _rows(pairs: pl.DataFrame) -> Rows:
    """The differences, chosen less rejected, one row a pair."""
    of = {side: {"": pl.col(f"{side}_logp"), "_before": pl.col(f"{side}_logp_before")} for side in SIDES}
    each = {side: pl.col(f"{side}_logp") / pl.col(f"{side}_tokens") for side in SIDES}
    differences = pairs.select(
        raw=of["chosen"][""] - of["rejected"][""],
        normalised=each["chosen"] - each["rejected"],
        gained=(of["chosen"][""] - of["chosen"]["_before"]) - (of["rejected"][""] - of["rejected"]["_before"]),
        before=of["chosen"]["_before"] - of["rejected"]["_before"],
    )
    dates = pairs.select(pl.col("decision_at").rle_id()).to_series().to_numpy().astype(np.int64)
    columns = {name: differences[name].to_numpy() for name in differences.columns}
    return Rows(columns, dates, int(dates.max(initial=0)) + 1)


def _terms(rows: Rows) -> list[Term]:
    found = []
    for kind in ("raw", "normalised", "gained", "before"):
        found += [Term(f"{kind}_right", (np.sign(rows[kind]) + 1) / 2), Term(kind, rows[kind])]
    return found


# Which answer was better paid is permuted by exchanging the two: half of the pairs are right then, and the mean margin is 0.
PREFERENCES = Part(
    _terms,
    tuple(
        Ratio(f"preference_{figure}{'' if kind == 'raw' else f'_{kind}'}", term, chance=chance)
        for kind in ("raw", "normalised", "gained", "before")
        for figure, term, chance in (("accuracy", f"{kind}_right", 0.5), ("margin", kind, 0.0))
    ),
)
