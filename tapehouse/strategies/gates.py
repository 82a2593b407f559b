"""Gates: a signal that is not confident enough, in a blocked regime, or unwanted by the auditor is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from tapehouse.predictions import HOLD, KEYS, VALIDATION
from tapehouse.strategies.sections import GatesSection

CONFIDENCE, REGIME, AUDITOR = GATES = ("confidence", "regime", "auditor")
ACTIVE, UNAVAILABLE, NOT_APPLICABLE = "active", "unavailable", "not_applicable"
FEWEST: Final = 30  # buys and sells of the validation tail that a rank is taken among


@dataclass(frozen=True)
class Judgement:
    """What one gate or veto said of the signals.

    blocks: for each row whether it is held back. missing: rows at which its input was not known. state: active; unavailable,
    where its input was never known; not_applicable, where it says nothing about such bars. threshold: that it compared with,
    where it is one for all rows.
    """

    name: str
    stage: str
    blocks: np.ndarray
    missing: np.ndarray
    state: str
    threshold: float | None = None


def gate(
    section: GatesSection,
    rows: pl.DataFrame,
    signals: pl.DataFrame,
    states: pl.DataFrame | None,
    predictions: Mapping[str, pl.DataFrame],
) -> list[Judgement]:
    """One judgement of `rows` for each gate that is declared, in the order of `GATES`.

    Args:
        rows: of `signals`, of one split. signals: of `tapehouse.strategies.signals`; ranks are taken among the buys and sells
            of the validation tail: all of it for a test block, and where the tail itself is traded those before each decision.
        states: `KEYS` and `regime`, of the gate's source. predictions: the auditor's among them.
    """
    found = []
    if section.confidence is not None:
        least = np.full(rows.height, section.confidence.least)
        if section.confidence.of == "rank":
            least = _ranked(rows, signals, section.confidence.least)
        # A threshold that cannot be set lets nothing through: everything is not what was asked for.
        missing = np.isnan(least)
        passes = rows["confidence"].fill_null(0.0).to_numpy() >= least
        one = float(least[0]) if len(least) and (least == least[0]).all() else None
        found.append(Judgement(CONFIDENCE, "gate", ~passes, missing, UNAVAILABLE if missing.all() else ACTIVE, one))
    if section.regime is not None:
        assert states is not None
        regime = rows.select(KEYS).join(states, on=KEYS, how="left", maintain_order="left")["regime"]
        missing = regime.is_null().to_numpy()
        blocks = regime.is_in(section.regime.blocked).fill_null(False).to_numpy()
        found.append(Judgement(REGIME, "gate", blocks, missing, UNAVAILABLE if missing.all() else ACTIVE))
    if section.auditor is not None:
        audit = predictions[section.auditor].select(*KEYS, audited="action")
        audited = rows.select(KEYS).join(audit, on=KEYS, how="left", maintain_order="left")["audited"]
        missing = audited.is_null().to_numpy()
        wants = (audited.fill_null(HOLD) == rows["action"]).to_numpy()
        found.append(Judgement(AUDITOR, "gate", ~wants, missing, UNAVAILABLE if missing.all() else ACTIVE))
    return found


def _ranked(rows: pl.DataFrame, signals: pl.DataFrame, share: float) -> np.ndarray:
    """For each row the confidence that `share` of the tail's buys and sells before it do not have; NaN below `FEWEST` of them.

    A test block comes after the whole tail. A row of the tail is held against the decisions before its own time alone.
    """
    tail = signals.filter((pl.col("split") == VALIDATION) & (pl.col("action") != HOLD) & pl.col("confidence").is_not_null())
    tail = tail.sort("decision_at", maintain_order=True)
    values = tail["confidence"].to_numpy()
    seen = tail["decision_at"].search_sorted(rows["decision_at"], side="left").to_numpy()
    counts, places = np.unique(seen, return_inverse=True)
    ranked = [np.quantile(values[:n], share, method="higher") if n >= FEWEST else np.nan for n in counts]
    return np.array(ranked, float)[places]
