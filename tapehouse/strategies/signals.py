"""Several predictors become one stream of signals: at each decision an action, and how confident it is.

What a predictor says is a point of the probability simplex: its calibrated probabilities; or, of a rule, its action with
certainty; or, of a text that states a confidence, that share on its action and the rest on HOLD. An average then is an action
only where that action has more than either other: a tie is HOLD.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import polars as pl

from tapehouse.predictions import ACTIONS, BUY, CHANCES, HOLD, KEYS, SELL
from tapehouse.strategies.sections import FusionSection, SignalsSection

SIGNALS: Final = {
    "symbol": pl.String,
    "interval": pl.String,
    "decision_at": pl.Datetime("us", "UTC"),
    "split": pl.String,
    "action": pl.String,
    "confidence": pl.Float64,
    "p_sell": pl.Float64,
    "p_hold": pl.Float64,
    "p_buy": pl.Float64,
    "limit_price": pl.Float64,
    "limit_valid_sessions": pl.Int32,
    "disagreement": pl.Boolean,
    "said": pl.String,
}
PLACE: Final = {action: place for place, action in enumerate(ACTIONS)}


def signals_of(section: SignalsSection, predictions: Mapping[str, pl.DataFrame], states: pl.DataFrame | None) -> pl.DataFrame:
    """One row a decision, in the columns of `SIGNALS`, sorted by `KEYS`.

    Args:
        predictions: rows of models.predictions of one fold, both splits, by the names of `section`. A decision that one of them
            has no answer for is HOLD to it.
        states: `KEYS` and `regime`, for the weights by regime.

    Returns:
        `disagreement` where one predictor buys what another sells; `said` what each of several wanted. `confidence` is the
        probability of the action, the share of votes for it, or what a text states. A limit is that of the first predictor that
        wants the same.
    """
    names = section.names
    frames = [predictions[name] for name in names]
    rows = pl.concat([frame.select(*KEYS, "split") for frame in frames]).unique(KEYS).sort(KEYS)
    own = [rows.select(KEYS).join(frame, on=KEYS, how="left", maintain_order="left") for frame in frames]
    actions = [frame["action"].fill_null(HOLD) for frame in own]
    points = [chances_of(frame) for frame in own]
    if len(names) == 1:
        chosen, chances = actions[0], points[0]
        confidence = _single_confidence(own[0], chances)
    else:
        if section.fusion is not None:
            chances = _fused(section.fusion, rows, points, own[1])
        else:
            chances = _averaged(section, rows, points, actions, states)
        chosen = _most(chances)
        confidence = _of_action(chances, chosen)
    wanted = np.array([PLACE[action] for action in chosen])
    limit = np.full(rows.height, np.nan)
    valid = np.zeros(rows.height, np.int32)
    open_ = wanted != PLACE[HOLD]
    for action, frame in zip(actions, own, strict=True):
        agrees = open_ & (np.array([PLACE[a] for a in action]) == wanted)
        limit[agrees] = frame["limit_price"].fill_null(np.nan).to_numpy()[agrees]
        valid[agrees] = frame["limit_valid_sessions"].fill_null(0).to_numpy()[agrees]
        open_ &= ~agrees
    buys, sells = (np.any([(a == side).to_numpy() for a in actions], axis=0) for side in (BUY, SELL))
    said = [" ".join(f"{n}={a}" for n, a in zip(names, row, strict=True)) for row in zip(*actions, strict=True)]
    return rows.with_columns(
        action=chosen,
        confidence=pl.Series(confidence),
        **{name: pl.Series(chances[:, place]) for place, name in enumerate(CHANCES)},
        limit_price=pl.Series(limit).fill_nan(None),
        limit_valid_sessions=pl.Series(valid),
        disagreement=pl.Series(buys & sells),
        said=pl.Series(said, dtype=pl.String),
    ).select(pl.col(name).cast(kind) for name, kind in SIGNALS.items())


def chances_of(answers: pl.DataFrame) -> np.ndarray:
    """(rows, 3) in the order of `ACTIONS`: probabilities, or the action with its stated confidence and the rest on HOLD."""
    stated = answers["confidence"].fill_null(1.0).to_numpy()
    actions = np.array([PLACE[action] for action in answers["action"].fill_null(HOLD)])
    found = np.zeros((len(actions), 3))
    found[:, PLACE[HOLD]] = 1.0 - stated
    found[np.arange(len(actions)), actions] = stated
    found[actions == PLACE[HOLD]] = np.eye(3)[PLACE[HOLD]]
    told = answers.select(pl.all_horizontal(pl.col(name).is_not_null() for name in CHANCES)).to_series().to_numpy()
    found[told] = answers.select(CHANCES).to_numpy()[told]
    return found


def _single_confidence(answers: pl.DataFrame, chances: np.ndarray) -> np.ndarray:
    told = answers["p_buy"].is_not_null().to_numpy()
    own = _of_action(chances, answers["action"].fill_null(HOLD))
    return np.where(told, own, answers["confidence"].fill_null(1.0).to_numpy())


def _of_action(chances: np.ndarray, actions: pl.Series) -> np.ndarray:
    return chances[np.arange(len(chances)), [PLACE[action] for action in actions]]


def _most(chances: np.ndarray) -> pl.Series:
    sell, hold, buy = chances.T
    most = np.where(buy > np.maximum(sell, hold), BUY, np.where(sell > np.maximum(buy, hold), SELL, HOLD))
    return pl.Series(most.tolist(), dtype=pl.String)


def _averaged(
    section: SignalsSection, rows: pl.DataFrame, points: list[np.ndarray], actions: list[pl.Series], states: pl.DataFrame | None
) -> np.ndarray:
    """Weighted means of probabilities, or of actions where they are votes; by the weights of each row's regime."""
    if section.combine == "vote":
        points = [np.eye(3)[[PLACE[action] for action in chosen]] for chosen in actions]
    names = section.names
    by_regime = {regime: [weights.get(n, 0.0) for n in names] for regime, weights in section.by_regime.items()}
    usual = list(section.predictors.values())
    if section.combine == "regime":
        assert states is not None
        regimes = rows.select(KEYS).join(states, on=KEYS, how="left", maintain_order="left")["regime"]
        weights = np.array([by_regime.get(regime, usual) for regime in regimes])
    else:
        weights = np.tile(usual, (rows.height, 1))
    weights /= weights.sum(axis=1, keepdims=True)
    total = np.zeros((rows.height, 3))
    for place, said in enumerate(points):
        total += weights[:, place : place + 1] * said
    return total


def _fused(section: FusionSection, rows: pl.DataFrame, points: list[np.ndarray], language: pl.DataFrame) -> np.ndarray:
    """The policy's probabilities with the remembered answer of the language model mixed in.

    Bars are counted by symbol from the first decision of each split, so that what is asked when follows from the calendar.
    """
    bar = rows.select(pl.int_range(pl.len()).over("symbol", "split")).to_series().to_numpy()
    age = bar % section.every
    asked = np.arange(rows.height) - age  # rows are sorted by symbol and time: the row of the last question
    policy, answer = points[0], points[1][asked]
    sure = _single_confidence(language, points[1])[asked] >= section.confidence
    share = np.where(sure, section.weight * section.decay**age, 0.0)[:, None]
    return (1.0 - share) * policy + share * answer
