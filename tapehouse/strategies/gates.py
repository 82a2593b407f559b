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
    where its input was never known; not_applicable, where it says nothing about such bars. threshold: that it compared with.
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
            of the validation tail.
        states: `KEYS` and `regime`, of the gate's source. predictions: the auditor's among them.
    """
    nothing = np.zeros(rows.height, bool)
    found = []
    if section.confidence is not None:
        least: float | None = section.confidence.least
        if section.confidence.of == "rank":
            least = _quantile(signals, section.confidence.least)
        # A threshold that cannot be set lets nothing through: everything is not what was asked for.
        known = least is not None
        passes = (rows["confidence"].fill_null(0.0) >= least).to_numpy() if known else nothing
        found.append(Judgement(CONFIDENCE, "gate", ~passes, nothing | (not known), ACTIVE if known else UNAVAILABLE, least))
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


def _quantile(signals: pl.DataFrame, share: float) -> float | None:
    """The confidence that `share` of the validation tail's buys and sells do not have; None below `FEWEST` of them."""
    tail = signals.filter((pl.col("split") == VALIDATION) & (pl.col("action") != HOLD))["confidence"].drop_nulls()
    return float(np.quantile(np.sort(tail.to_numpy()), share, method="higher")) if len(tail) >= FEWEST else None
