"""The order family: prompts that ask for one limit order, and the answers that state it.

The template is what `prompts.yaml` selects. A field is a column of `features.decision_points` with a Python
format specification, so that the file alone says what a model sees: raw prices in their currency, returns in per cent,
and neither date nor normalised value. The price comes last and zero-padded to the width it has in the answer, which is
what lets a small model copy it.

An answer is one line::

    BUY limit 0117.45 because trend up
    SELL limit 0117.45 because rsi high
    HOLD because trend down

The reason depends on the prompt alone, never on the offset or on what happened after: the two answers of a preference
pair differ in their digits only, so that the form cannot give the better one away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from tapehouse.prompts import templates
from tapehouse.prompts.answers import PRICE_OUT_OF_BAND, UNPARSEABLE, Rejection, no_text

ACTIONS: Final = ("SELL", "HOLD", "BUY")
PRICE_BAND: Final = 0.20  # a limit farther than this from the price shown is a slip of a digit, not an order
MAX_PRICE: Final = 9999.99  # the template's width: four digits, a point, two decimals

RSI_LOW: Final = 30.0  # Wilder (1978), New Concepts in Technical Trading Systems: oversold and overbought
RSI_HIGH: Final = 70.0

_PRICE = re.compile(r"(?<![0-9.])[0-9]{4}\.[0-9]{2}(?![0-9])")
_ORDER = re.compile(r"(BUY|SELL) limit ([0-9]{4}\.[0-9]{2}) because ([a-z][a-z ]{0,39})")
_HOLD = re.compile(r"HOLD because ([a-z][a-z ]{0,39})")
_SHOWN = re.compile(r"(?:^|\n)price ([0-9]{4}\.[0-9]{2})\n?\Z")


@dataclass(frozen=True, slots=True)
class Order:
    """A parsed answer. `limit_price` is in the currency of the price shown, None where the action is HOLD."""

    action: Literal["BUY", "SELL", "HOLD"]
    limit_price: float | None
    reason: str


def render_orders(
    points: pl.DataFrame, objective_words: str | Mapping[str, str], template: str, mask: Collection[str] = ()
) -> pl.Series:
    """Prompts of decision points, one string a row, each ending in the price and a newline.

    `points` has the columns of `features.decision_points` in raw units (returns as fractions, prices in currency).
    `objective_words` is the wording for all rows, or a mapping from the values of column `objective` to wordings.
    Raises ValueError where a column is missing, or a value is null, not finite, or a price outside (0, 9999.99].
    """
    if isinstance(objective_words, str):
        worded = points.with_columns(objective=pl.lit(objective_words))
    else:
        if "objective" not in points.columns:
            raise ValueError("prompts: a mapping of objectives needs the column 'objective' in the points")
        unknown = set(points["objective"].unique()) - set(objective_words)
        if unknown:
            raise ValueError(f"prompts: no wording for the objectives {sorted(map(str, unknown))}; add them to the mapping")
        worded = points.with_columns(pl.col("objective").replace_strict(dict(objective_words), return_dtype=pl.String))
    prompts = templates.render(worded, template, mask)
    prices = points["close"]
    if points.height and not prices.is_between(0.01, MAX_PRICE).all():
        row = prices.is_between(0.01, MAX_PRICE).not_().arg_true()[0]
        raise ValueError(
            f"prompts: close {prices[row]} in row {row} does not fit the price of template {template!r} "
            f"(0.01 to {MAX_PRICE}); declare a template with a wider price"
        )
    return prompts


def reason_words(points: pl.DataFrame) -> pl.Series:
    """Reason of each decision point, from `rsi_14` and `ret_20d` as the prompt shows them."""
    _require(points, ("rsi_14", "ret_20d"))
    # The printed values decide, so that the reason is a function of the prompt.
    return points.select(
        reason=pl.when(pl.col("rsi_14").round(0) < RSI_LOW)
        .then(pl.lit("rsi low"))
        .when(pl.col("rsi_14").round(0) > RSI_HIGH)
        .then(pl.lit("rsi high"))
        .when(pl.col("ret_20d") < 0)
        .then(pl.lit("trend down"))
        .otherwise(pl.lit("trend up"))
    )["reason"]


def answer(action: str, limit_price: float | None, reason: str) -> str:
    """One answer. `limit_price` is in currency and rounded to a cent; it must be None for HOLD, and only for HOLD."""
    if action == "HOLD":
        if limit_price is not None:
            raise ValueError(f"prompts: HOLD takes no limit price, got {limit_price}")
        text = f"HOLD because {reason}"
    else:
        if limit_price is None or not math.isfinite(limit_price) or not 0.005 < limit_price <= MAX_PRICE:
            raise ValueError(f"prompts: {action} needs a limit price within (0, {MAX_PRICE}], got {limit_price}")
        text = f"{action} limit {limit_price:07.2f} because {reason}"
    if not isinstance(parse_order(text), Order):
        raise ValueError(f"prompts: {text!r} is not an answer; actions are {ACTIONS}, a reason is 1 to 40 small letters")
    return text


def render_answers(actions: pl.Series, limit_prices: pl.Series, reasons: pl.Series) -> pl.Series:
    """Answers, one string a row; the three series have one length, `limit_prices` null where the action is HOLD."""
    texts = [answer(*row) for row in zip(actions, limit_prices, reasons, strict=True)]
    return pl.Series("answer", texts, dtype=pl.String)


def parse_order(text: object, shown_price: float | None = None) -> Order | Rejection:
    """The order that an answer states, or why it states none. Total and strict: never raises, never guesses.

    With `shown_price` (currency), a limit farther than `PRICE_BAND` from it is rejected.
    """
    if not isinstance(text, str):
        return no_text(text)
    if hold := _HOLD.fullmatch(text):
        return Order("HOLD", None, hold[1])
    order = _ORDER.fullmatch(text)
    if order is None:
        return Rejection(UNPARSEABLE, "neither 'BUY|SELL limit 0000.00 because <reason>' nor 'HOLD because <reason>'")
    limit = float(order[2])
    if limit <= 0.0:
        return Rejection(UNPARSEABLE, "the limit price is zero")
    if shown_price is not None and not abs(limit - shown_price) <= PRICE_BAND * shown_price:
        return Rejection(PRICE_OUT_OF_BAND, f"limit {limit} is farther than {PRICE_BAND:.0%} from the price {shown_price}")
    return Order(order[1], limit, order[3])  # type: ignore[arg-type]


def parse_orders(texts: pl.Series, prompts: pl.Series) -> pl.DataFrame:
    """Frame of `parse_state` ('ok', or that of a rejection), `action`, `limit_price`; one row an answer.

    What is no order acts as HOLD. The price shown is read from the prompt, as in serving.
    """
    rows = []
    for text, prompt in zip(texts, prompts, strict=True):
        parsed = parse_order(text, shown_price(prompt))
        if isinstance(parsed, Order):
            rows.append(("ok", parsed.action, parsed.limit_price))
        else:
            rows.append((parsed.state, "HOLD", None))
    schema = {"parse_state": pl.String, "action": pl.String, "limit_price": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def shown_price(prompt: str) -> float:
    """The price on a prompt's last line, in currency. Raises ValueError where the last line shows none."""
    found = _SHOWN.search(prompt)
    if found is None:
        raise ValueError(f"prompts: the last line shows no price: {prompt[-60:]!r}")
    return float(found[1])


def rescale_prices(prompt: str, factor: float) -> str:
    """The prompt with every price in it multiplied by `factor`; what has no currency stays as it is.

    Raises ValueError where a price would leave the template's width.
    """

    def scaled(found: re.Match[str]) -> str:
        price = float(found[0]) * factor
        if not 0.0 <= price <= MAX_PRICE:
            raise ValueError(f"prompts: {found[0]} times {factor} does not fit the template's prices")
        return f"{price:07.2f}"

    return _PRICE.sub(scaled, prompt)


def hold_instead(answers: pl.Series) -> pl.Series:
    """HOLD answers with the reasons of the orders given. Raises ValueError where one is not an answer."""
    texts = []
    for text in answers:
        parsed = parse_order(text)
        if not isinstance(parsed, Order):
            raise ValueError(f"prompts: {text!r} is not an answer: {parsed.why}")
        texts.append(answer("HOLD", None, parsed.reason))
    return pl.Series("answer", texts, dtype=pl.String)


def _require(points: pl.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in points.columns]
    if missing:
        raise ValueError(f"prompts: the points lack the columns {missing}; pass rows of features.decision_points")
    for name in columns:
        values = points[name]
        bad = values.is_null() | ~values.is_finite() if values.dtype.is_float() else values.is_null()
        if bad.any():
            raise ValueError(f"prompts: {name} is null or not finite in row {bad.arg_true()[0]}; drop such points")
