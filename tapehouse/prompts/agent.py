"""The trading-agent family: prompts that tell of market and account and ask what to do now, and the answers that say it.

The account is that of the reference policy (`tapehouse.reference_policy`). An answer is one line of three parts::

    HOLD | 0.58 | in profit with the trend
    MOVE_TO_BE | 0.47 | in profit without a trend

BUY and SELL open a position where there is none, and leave the one of the other side; MOVE_TO_BE moves the stop to the entry;
ENABLE_TRAIL lets it follow the price, DISABLE_TRAIL leaves it where it is.

Reason and confidence are functions of what the prompt prints, so that neither tells what happened later:

- the trend is up or down by the larger of plus and minus DI where ADX is 25 or more (Wilder's bound of a trend, 1978), else
  there is none;
- confidence is 0.50 + 0.005 times ADX (at most 50), + 0.05 where the distance to VWAP has the trend's sign, - 0.03 for each
  loss in a row (at most 5), - 0.05 in a drawdown of 5 % or more, rounded down to hundredths: between 0.30 and 0.80.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import polars as pl

from tapehouse.prompts import templates
from tapehouse.prompts.answers import (
    CONFIDENCE,
    REASON,
    UNKNOWN_ACTION,
    UNPARSEABLE,
    Rejection,
    confidence_text,
    no_text,
    parse_confidence,
)

ACTIONS: Final = ("HOLD", "BUY", "SELL", "MOVE_TO_BE", "ENABLE_TRAIL", "DISABLE_TRAIL")
TREND_ADX: Final = 25.0
DEEP_DRAWDOWN: Final = 0.05

_ANSWER = re.compile(rf"([A-Z][A-Z_]{{0,19}}) \| ({CONFIDENCE}) \| ({REASON})")


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """A parsed answer: what to do now, how sure in [0, 1], and why."""

    action: str
    confidence: float
    reason: str


def render_agents(points: pl.DataFrame, template: str, mask: Collection[str] = ()) -> pl.Series:
    """Prompts, one string a row.

    Args:
        points: columns of `features.decision_points` and of `features.policy_state`, in raw units.
        template, mask: as `tapehouse.prompts.templates.selected` gives them.

    Raises:
        ValueError: a column is missing, or a value that the template always shows is null or not finite.
    """
    flat = pl.col("position") == 0
    shown = points.with_columns(
        held=pl.col("position").replace_strict({1: "long", 0: "flat", -1: "short"}, return_dtype=pl.String),
        trail=pl.when(flat).then(None).when("trailing").then(pl.lit("on")).otherwise(pl.lit("off")),
    )
    return templates.render(shown, template, mask)


def agent_answer(action: str, confidence: float, reason: str) -> str:
    """One answer. Raises ValueError for an unknown action, a confidence outside [0, 1] or a reason not in small letters."""
    text = f"{action} | {confidence_text(confidence)} | {reason}"
    if isinstance(parsed := parse_agent(text), Rejection):
        raise ValueError(f"prompts: {text!r} is not an answer: {parsed.why}")
    return text


def render_agent_answers(actions: pl.Series, confidences: pl.Series, reasons: pl.Series) -> pl.Series:
    """Answers, one string a row."""
    texts = [agent_answer(*row) for row in zip(actions, confidences, reasons, strict=True)]
    return pl.Series("answer", texts, dtype=pl.String)


def parse_agent(text: object) -> AgentAnswer | Rejection:
    """What an answer states, or why it states nothing. Total and strict: never raises, never guesses."""
    if not isinstance(text, str):
        return no_text(text)
    found = _ANSWER.fullmatch(text)
    if found is None:
        return Rejection(UNPARSEABLE, "not of the form 'ACTION | 0.62 | reason'")
    action, confidence, reason = found[1], parse_confidence(found[2]), found[3]
    if action not in ACTIONS:
        return Rejection(UNKNOWN_ACTION, f"the action {action} is none of {', '.join(ACTIONS)}")
    if isinstance(confidence, Rejection):
        return confidence
    return AgentAnswer(action, confidence, reason)


def parse_agents(texts: pl.Series) -> pl.DataFrame:
    """Frame of `parse_state` ('ok', or that of a rejection), `action`, `confidence`; what states nothing acts as HOLD."""
    rows = []
    for text in texts:
        parsed = parse_agent(text)
        ok = isinstance(parsed, AgentAnswer)
        rows.append(("ok", parsed.action, parsed.confidence) if ok else (parsed.state, "HOLD", None))
    schema = {"parse_state": pl.String, "action": pl.String, "confidence": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def shown_trend() -> pl.Expr:
    """1 up, -1 down, 0 none, as the printed ADX and directional indicators say."""
    adx, plus, minus = (_printed(name) for name in ("adx_14", "plus_di_14", "minus_di_14"))
    return pl.when(adx < TREND_ADX).then(0).otherwise((plus > minus).cast(pl.Int32) - (plus < minus).cast(pl.Int32))


def shown_reasons(points: pl.DataFrame) -> pl.Series:
    """The reason of each point: where the account stands and how the trend lies to it."""
    side, trend, profit = pl.col("position"), shown_trend(), pl.col("unrealised_ret") > 0
    to_position = pl.concat_str(
        pl.when(profit).then(pl.lit("in profit")).otherwise(pl.lit("at a loss")),
        pl.when(trend == 0)
        .then(pl.lit(" without a trend"))
        .when(trend == side)
        .then(pl.lit(" with the trend"))
        .otherwise(pl.lit(" against the trend")),
    )
    of_market = trend.replace_strict({1: "trend up", -1: "trend down", 0: "no trend"}, return_dtype=pl.String)
    return points.select(reason=pl.when(side == 0).then(of_market).otherwise(to_position))["reason"]


def shown_confidences(points: pl.DataFrame) -> pl.Series:
    """The confidence of each point, in whole hundredths; see the module's docstring."""
    vwap, trend = pl.col("vwap_distance_20d") * 100, shown_trend()
    # What is printed as +0.0 % has no sign.
    agrees = (trend != 0) & (vwap.abs() >= 0.05) & (vwap.sign() == trend)
    deep = pl.col("drawdown") * 1000 >= DEEP_DRAWDOWN * 1000 - 0.5
    thousandths = (
        500
        + 5 * _printed("adx_14").clip(upper_bound=50)
        + 50 * agrees.cast(pl.Int32)
        - 30 * pl.col("consecutive_losses").clip(upper_bound=5)
        - 50 * deep.cast(pl.Int32)
    )
    return points.select(confidence=(thousandths / 10).floor() / 100)["confidence"]


def _printed(column: str) -> pl.Expr:
    """The value as the format .0f prints it: the nearest whole number, of two the even one."""
    return pl.col(column).round(0, mode="half_to_even")
