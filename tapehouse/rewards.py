"""What an answer earns: rewards that anyone can verify from a row of `datasets.rl_prompts` and the answer's text.

Three parts, never added up here, one for each stage of a curriculum:

- `format`, 0 to 1: how much of the answer's form is there; 1 only for what the strict parser accepts.
- `evidence`, 0 to 1: whether what the answer states of its prompt is so. A thesis: the share of the eight claims that are right
  and cite what they rest on, as it stands in the prompt, unknown ones left out; less `MADE_UP` for each number that the prompt
  does not show. An order: half for the reason that the prompt bears out, half for the confidence that it does.
- `decision`: what the decision was worth in hindsight. A thesis: `DECISIONS`, by the fold's class of what followed. An order of
  the side that was asked for: its objective's reward over the deviation of the price in its window, at most `BOUND` either way;
  HOLD is an order that never fills. Without a decision it is the worst there is: `MISSING`, or `MISSING_ORDER`, which an order
  of the other side earns too.

Beside them, unused by the stages: `ret`, the volatility-aware return of a thesis' stance, and `reward_bps` of an order.

The matrix is asymmetric, as the decision rewards of Trading-R1 are (Xiao et al., arXiv:2509.11420, 2025), with numbers of our
own: a strong call on the wrong side, or where nothing happened, costs more than any right call earns, the stronger the call the
more; of two right sides the one of the right strength earns more. With the classes' shares of 3, 12, 38, 32 and 15 % an answer
that is always the same earns, from strong_sell to strong_buy: -1.19, -0.51, 0.03, 0.07 and -0.38.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from tapehouse.errors import TapehouseError
from tapehouse.labels.signal import CLASSES, WEIGHTS
from tapehouse.order_kernels import BPS, paid_orders
from tapehouse.orders import NUMBERS
from tapehouse.prompts.answers import NOT_TEXT, UNPARSEABLE, Rejection
from tapehouse.prompts.orders import PriceForm, parse_order, shown_text
from tapehouse.prompts.thesis import CLAIMS, LONGEST, SECTIONS, Thesis, cited, numbers_not_shown, parse_thesis

# Rows: what followed, columns: what was said; both from strong_sell to strong_buy.
DECISIONS: Final = np.array(
    [
        [1.00, 0.60, -0.40, -1.25, -2.00],
        [0.50, 0.80, -0.20, -1.00, -1.75],
        [-1.10, -0.30, 0.50, -0.30, -1.10],
        [-1.75, -1.00, -0.20, 0.80, 0.50],
        [-2.00, -1.25, -0.40, 0.60, 1.00],
    ]
)
MISSING: Final = -2.50
STANCES: Final = dict(zip(CLASSES, (-1.0, -0.5, 0.0, 0.5, 1.0), strict=True))
ROUND_TRIP_BPS: Final = 30.0  # twice commission 5 and slippage 10, as backtests pay by default
BOUND: Final = 3.0  # deviations: no single fill or gap outweighs a batch
MISSING_ORDER: Final = -4.0
MADE_UP: Final = 0.1
HALF_FORM: Final = 0.5  # of an order of the right form that cannot be placed, or was not asked for
WRONG_SIDE: Final = "wrong_side"  # a state beside those of the parser
MOST_OF_FORM: Final = 0.9  # of a thesis that the parser refuses, whatever of it is there

_SECTION = {name: re.compile(rf"<{name}>[^<>&]*[^<>&\s][^<>&]*</{name}>") for name in SECTIONS}
_CLAIM = {name: re.compile(rf"<claim>{name} (?:unknown|(?:yes|no): [^<>&]+)</claim>") for name in CLAIMS}
_FIRST = np.zeros(1, np.int64)  # row and column of the one order in its own grid
_ACTION = re.compile(rf"<action>(?:{'|'.join(CLASSES)})</action>")


@dataclass(frozen=True, slots=True)
class Reward:
    """The parts of a reward. `state` is 'ok' or that of the rejection; `ret` is a thesis', `reward_bps` an order's alone."""

    state: str
    format: float
    evidence: float
    decision: float
    ret: float | None = None
    reward_bps: float | None = None

    def of_stage(self, stage: str) -> float:
        """The part that a stage of the curriculum trains. Raises KeyError for an unknown stage."""
        return {"structure": self.format, "claims": self.evidence, "decision": self.decision}[stage]


def reward_of(row: Mapping[str, Any], text: object) -> Reward:
    """What an answer to a row's prompt earns. Total over any text.

    Args:
        row: of `datasets.rl_prompts`; of the family thesis with the fold's `signal_class` (`tapehouse.rl_prompts.of_fold`).
        text: the answer; what is no text, or states nothing, earns the least.

    Raises:
        TapehouseError: a row of another family, or a thesis without its class.
    """
    if row["family"] == "order":
        return order_reward(row, text)
    if row["family"] == "thesis":
        return thesis_reward(row, text)
    raise TapehouseError(f"datasets.rl_prompts: no reward is declared for the family {row['family']!r}; add it to rewards.py")


def order_reward(row: Mapping[str, Any], text: object) -> Reward:
    """What an order earns: see the module's docstring."""
    shown = shown_text(row["prompt"])
    parsed = parse_order(text, float(shown), PriceForm.of(shown))
    if isinstance(parsed, Rejection):
        part = 0.0 if parsed.state in (NOT_TEXT, UNPARSEABLE) else HALF_FORM
        return Reward(parsed.state, part, 0.0, MISSING_ORDER)
    if parsed.action not in ("HOLD", row["side"]):
        return Reward(WRONG_SIDE, HALF_FORM, 0.0, MISSING_ORDER)
    earned = paid(row, parsed.limit_price)
    deviation = row["volatility"] * math.sqrt(row["window_sessions"]) * BPS
    decision = min(max(earned / deviation, -BOUND), BOUND)
    evidence = 0.5 * (parsed.reason == row["reason"]) + 0.5 * (parsed.confidence == row["confidence"])
    return Reward("ok", 1.0, evidence, decision, reward_bps=earned)


def paid(row: Mapping[str, Any], limit: float | None) -> float:
    """The reward of a row's order at a limit, in bps of the arrival price, by the kernel that pays the pairs.

    None is no order: it never fills, and so pays at the window's end what waiting has cost.
    """
    side, arrival = (1.0 if row["side"] == "BUY" else -1.0), float(row["arrival"])
    if limit is None:
        limit = 0.0 if side > 0 else math.inf
    costs = row["half_spread_bps"] / BPS, row["maker_fee_bps"], row["taker_fee_bps"], row["unfilled_penalty_bps"]
    weights = [row[f"weight_{part}"] for part in ("price", "certainty", "risk", "fees")]
    _, _, numbers = paid_orders(
        _FIRST, _FIRST, np.array([side]), np.array([limit]), np.array([arrival]), int(row["window_sessions"]),
        np.array(costs), np.array(weights),
        *(_path(row[f"window_{name}"]) for name in ("open", "high", "low", "close", "shares", "cash")),
    )  # fmt: skip
    return float(numbers[NUMBERS.index("reward_bps"), 0])


def thesis_reward(row: Mapping[str, Any], text: object) -> Reward:
    """What a thesis earns: see the module's docstring."""
    followed = row.get("signal_class")
    if followed not in CLASSES:
        raise TapehouseError(
            f"datasets.rl_prompts: {row['symbol']} at {row['decision_at']} has the signal_class {followed!r}; join the fold's "
            "classes first (tapehouse.rl_prompts.of_fold)"
        )
    parsed = parse_thesis(text)
    if isinstance(parsed, Rejection):
        return Reward(parsed.state, thesis_form(text), 0.0, MISSING, ret=-BOUND)
    return Reward(
        "ok",
        1.0,
        thesis_evidence(parsed, row),
        decision_reward(followed, parsed.action),
        ret=return_reward(parsed.action, row["score"], row["volatility"]),
    )


def decision_reward(followed: str, said: str | None) -> float:
    """The entry of `DECISIONS` for two of the five classes; `MISSING` where nothing was said."""
    return MISSING if said is None else float(DECISIONS[CLASSES.index(followed), CLASSES.index(said)])


def decision_rewards(followed: np.ndarray, said: np.ndarray) -> np.ndarray:
    """The same for arrays of class numbers, 0 strong_sell to 4 strong_buy; a negative `said` is a missing decision."""
    return np.where(said < 0, MISSING, DECISIONS[followed, np.maximum(said, 0)])


def return_reward(said: str, score: float, volatility: float) -> float:
    """Return of a stance in units of volatility, after costs, at most `BOUND` either way.

    The stance (-1, -0.5, 0, 0.5, 1) times the score of `labels.signal`, less what a round trip costs in the same units: a cost
    c lowers each forward return by c, and so the score by c / volatility times the sum of its weights over the roots of
    their horizons.

    Args:
        said: one of the five classes. score: of `labels.signal`. volatility: of one session's return, a fraction.
    """
    stance = STANCES[said]
    cost = ROUND_TRIP_BPS / BPS / volatility * sum(weight / math.sqrt(h) for h, weight in WEIGHTS.items())
    return min(max(stance * score - abs(stance) * cost, -BOUND), BOUND)


def share_right(said: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Share of yes-or-no heads (claims, or sections that are written) that are right, of those that are known.

    Args:
        said, true: (..., k) 1 or 0; a negative `true` is unknown and left out.

    Returns:
        (...): 0 to 1, and 1 where nothing is known.
    """
    known = true >= 0
    count = known.sum(axis=-1)
    return np.where(count > 0, ((said == true) & known).sum(axis=-1) / np.maximum(count, 1), 1.0)


def thesis_evidence(thesis: Thesis, row: Mapping[str, Any]) -> float:
    """Share of a row's known claims that a thesis has right and cites, less `MADE_UP` for each number that is made up."""
    stands = cited(thesis, row["prompt"])
    right = []
    for name, rests_on in zip(CLAIMS, row["evidence"], strict=True):
        true, said = row[f"claim_{name}"], thesis.claims[name]
        if true is not None:
            right.append(said.holds == true and stands[name] and set(rests_on.split("; ")) <= set(said.evidence))
    share = sum(right) / len(right) if right else 1.0
    return max(share - MADE_UP * len(numbers_not_shown(thesis, row["prompt"])), 0.0)


def thesis_form(text: object) -> float:
    """How much of a thesis that the parser refuses is there: sections, claims and action, each once; below 1."""
    if not isinstance(text, str) or len(text) > LONGEST:
        return 0.0
    patterns = (*_SECTION.values(), *_CLAIM.values(), _ACTION)
    there = sum(len(pattern.findall(text)) == 1 for pattern in patterns)
    return MOST_OF_FORM * there / len(patterns)


def _path(values: list[float | None]) -> np.ndarray:
    """(1, window + 1): the decision's own session, which is never looked at, and those of the window; NaN where null."""
    path = np.full((1, len(values) + 1), np.nan)
    path[0, 1:] = [np.nan if value is None else value for value in values]
    return path
