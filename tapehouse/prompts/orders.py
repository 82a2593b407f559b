"""The order family: prompts that ask for one limit order, and the answers that state it.

The template is what `prompts.yaml` selects. It shows raw prices in their currency, returns in per cent, and neither date nor
normalised value. The price comes last and zero-padded to the width it has in the answer, which is what lets a small model
copy it.

An answer is one line::

    BUY limit 0117.45 confidence 0.65 because trend up
    SELL limit 0117.45 confidence 0.50 because rsi high
    HOLD confidence 0.70 because trend down

Reason and confidence depend on the prompt alone, never on the offset or on what happened after: the two answers of a
preference pair differ in the digits of their limits only, so that the form cannot give the better one away.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from tapehouse.prompts import templates
from tapehouse.prompts.answers import (
    CONFIDENCE,
    PRICE_OUT_OF_BAND,
    REASON,
    UNKNOWN_ACTION,
    UNPARSEABLE,
    Rejection,
    confidence_text,
    no_text,
    parse_confidence,
)

ACTIONS: Final = ("SELL", "HOLD", "BUY")
PRICE_BAND: Final = 0.20  # a limit farther than this from the price shown is a slip of a digit, not an order
BAND_EDGE: Final = PRICE_BAND * (1 + 1e-9)  # what is compared: a limit on the very edge is within, whatever its double

RSI_LOW: Final = 30.0  # Wilder (1978), New Concepts in Technical Trading Systems: oversold and overbought
RSI_HIGH: Final = 70.0

# A month's move of two deviations is as clear as a trend gets here; steps are coarse, since more would be pretence.
SESSIONS_OF_A_MONTH, SESSIONS_OF_A_YEAR = 20, 252
CLEAREST: Final = 2.0
LEAST_CONFIDENCE, MOST_CONFIDENCE, CONFIDENCE_STEP = 0.50, 0.90, 0.05


@dataclass(frozen=True, slots=True)
class PriceForm:
    """How a template writes prices: zero-padded to `digits` before the point, `decimals` after it."""

    digits: int = 4
    decimals: int = 2

    @classmethod
    def of(cls, shown: str) -> PriceForm:
        """The form of a price as a prompt shows it, such as 0117.45."""
        digits, _, decimals = shown.partition(".")
        return cls(len(digits), len(decimals))

    @property
    def largest(self) -> float:
        """The largest price that has the form."""
        return 10.0**self.digits - 10.0**-self.decimals

    def text(self, price: float) -> str:
        """A price in the form."""
        return f"{price:0{self.digits + 1 + self.decimals}.{self.decimals}f}"

    def matches(self, text: str) -> bool:
        """Whether a text is a price of the form."""
        digits, _, decimals = text.partition(".")
        return len(digits) == self.digits and len(decimals) == self.decimals


CENTS: Final = PriceForm()
MAX_PRICE: Final = CENTS.largest

_PRICE = re.compile(r"(?<![0-9.])[0-9]{4,7}\.[0-9]{1,8}(?![0-9%])")
_ANSWER = re.compile(rf"([A-Z_]{{1,20}})(?: limit ([0-9]{{1,9}}\.[0-9]{{1,8}}))? confidence ({CONFIDENCE}) because ({REASON})")
_SHOWN = re.compile(r"(?:^|\n)price ([0-9]{4,9}\.[0-9]{1,8})\n?\Z")


@dataclass(frozen=True, slots=True)
class Order:
    """A parsed answer. `limit_price` is in the currency of the price shown, None where the action is HOLD."""

    action: Literal["BUY", "SELL", "HOLD"]
    limit_price: float | None
    confidence: float
    reason: str


def render_orders(
    points: pl.DataFrame, objective_words: str | Mapping[str, str], template: str, mask: Collection[str] = ()
) -> pl.Series:
    """Prompts of decision points, one string a row, each ending in the price and a newline.

    `points` has the columns of `features.decision_points` in raw units (returns as fractions, prices in currency).
    `objective_words` is the wording for all rows, or a mapping from the values of column `objective` to wordings.
    Raises ValueError where a column is missing, a value that is not optional is null or not finite, or a price of the last
    line does not fit its width.
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
    price, form = templates.load(template).columns[-1], price_form(template)
    fits = points[price].is_between(10.0**-form.decimals, form.largest)
    if not fits.all():
        row = fits.not_().arg_true()[0]
        raise ValueError(
            f"prompts: {price} {points[price][row]} in row {row} does not fit the price of template {template!r} "
            f"({10.0**-form.decimals} to {form.largest}); declare a template with a wider price"
        )
    return prompts


def price_form(template: str) -> PriceForm:
    """How a template writes the price on its last line. Raises ValueError where the last line shows none."""
    loaded = templates.load(template)
    return PriceForm.of(shown_text(loaded.lines[-1].format_map({loaded.columns[-1]: 1.0})))


def reason_words(points: pl.DataFrame) -> pl.Series:
    """Reason of each decision point, from `rsi_14` and `ret_20d` as the prompt shows them."""
    _require(points, ("rsi_14", "ret_20d"))
    # The printed values decide, so that the reason is a function of the prompt.
    rsi = pl.col("rsi_14").round(0, mode="half_to_even")
    return points.select(
        reason=pl.when(rsi < RSI_LOW)
        .then(pl.lit("rsi low"))
        .when(rsi > RSI_HIGH)
        .then(pl.lit("rsi high"))
        .when(pl.col("ret_20d") < 0)
        .then(pl.lit("trend down"))
        .otherwise(pl.lit("trend up"))
    )["reason"]


def confidences(points: pl.DataFrame) -> pl.Series:
    """Confidence of each decision point: how far the month's return stands out of its volatility, both as printed.

    From 0.50 for a return of none to 0.90 for two deviations and more, in steps of 0.05: clarity = |ret_20d| /
    (realised_vol_20d · √(20 / 252)). It says how clear the trend is, not how likely an order is to pay.
    """
    _require(points, ("ret_20d", "realised_vol_20d"))
    month = math.sqrt(SESSIONS_OF_A_MONTH / SESSIONS_OF_A_YEAR)
    rows = zip(points["ret_20d"], points["realised_vol_20d"], strict=True)
    return pl.Series("confidence", [_confidence(_printed(move), _printed(vol) * month) for move, vol in rows], dtype=pl.Float64)


def _printed(fraction: float) -> float:
    """A fraction as the prompt prints it, in per cent with one decimal."""
    return float(f"{fraction:.1%}"[:-1])


def _confidence(move: float, deviation: float) -> float:
    clarity = min(abs(move) / deviation, CLEAREST) if deviation > 0 else CLEAREST
    steps = round(clarity / CLEAREST * (MOST_CONFIDENCE - LEAST_CONFIDENCE) / CONFIDENCE_STEP)
    return round(LEAST_CONFIDENCE + steps * CONFIDENCE_STEP, 2)


def answer(action: str, limit_price: float | None, confidence: float, reason: str, form: PriceForm = CENTS) -> str:
    """One answer. `limit_price` is in currency and rounded to the form; it must be None for HOLD, and only for HOLD."""
    said = f"confidence {confidence_text(confidence)} because {reason}"
    if action == "HOLD":
        if limit_price is not None:
            raise ValueError(f"prompts: HOLD takes no limit price, got {limit_price}")
        text = f"HOLD {said}"
    else:
        least = 0.5 * 10.0**-form.decimals
        if limit_price is None or not math.isfinite(limit_price) or not least < limit_price <= form.largest:
            raise ValueError(f"prompts: {action} needs a limit price within (0, {form.largest}], got {limit_price}")
        text = f"{action} limit {form.text(limit_price)} {said}"
    if not isinstance(parse_order(text, form=form), Order):
        raise ValueError(f"prompts: {text!r} is not an answer; actions are {ACTIONS}, a reason is 1 to 40 small letters")
    return text


def render_answers(
    actions: pl.Series, limit_prices: pl.Series, confidence: pl.Series, reasons: pl.Series, form: PriceForm = CENTS
) -> pl.Series:
    """Answers, one string a row; the series have one length, `limit_prices` null where the action is HOLD."""
    texts = [answer(*row, form) for row in zip(actions, limit_prices, confidence, reasons, strict=True)]
    return pl.Series("answer", texts, dtype=pl.String)


def parse_order(text: object, shown_price: float | None = None, form: PriceForm = CENTS) -> Order | Rejection:
    """The order that an answer states, or why it states none. Total and strict: never raises, never guesses.

    `form` is how the prompt writes prices. With `shown_price` (currency), a limit farther than `PRICE_BAND` from it is
    rejected.
    """
    if not isinstance(text, str):
        return no_text(text)
    found = _ANSWER.fullmatch(text)
    if found is None:
        return Rejection(UNPARSEABLE, "not 'BUY|SELL limit 0000.00 confidence 0.00 because <reason>', nor HOLD without a limit")
    action, written, stated, reason = found.groups()
    if action not in ACTIONS:
        return Rejection(UNKNOWN_ACTION, f"the action {action} is none of {ACTIONS}")
    if (written is None) != (action == "HOLD"):
        return Rejection(UNPARSEABLE, "HOLD takes no limit, BUY and SELL need one")
    limit = None
    if written is not None:
        limit = float(written)
        if not form.matches(written):
            return Rejection(UNPARSEABLE, f"the limit {written} is not written as the prompt writes prices")
        if limit <= 0.0:
            return Rejection(UNPARSEABLE, "the limit price is zero")
        if shown_price is not None and not abs(limit - shown_price) <= BAND_EDGE * shown_price:
            why = f"limit {limit} is farther than {PRICE_BAND:.0%} from the price {shown_price}"
            return Rejection(PRICE_OUT_OF_BAND, why)
    confidence = parse_confidence(stated)
    if isinstance(confidence, Rejection):
        return confidence
    return Order(action, limit, confidence, reason)  # type: ignore[arg-type]


def parse_orders(texts: pl.Series, prompts: pl.Series) -> pl.DataFrame:
    """Frame of `parse_state` ('ok', or that of a rejection), `action`, `limit_price`, `confidence`; one row an answer.

    What is no order acts as HOLD. The price shown, and the form of prices, are read from the prompt, as in serving.
    """
    rows = []
    for text, prompt in zip(texts, prompts, strict=True):
        price = shown_text(prompt)
        parsed = parse_order(text, float(price), PriceForm.of(price))
        if isinstance(parsed, Order):
            rows.append(("ok", parsed.action, parsed.limit_price, parsed.confidence))
        else:
            rows.append((parsed.state, "HOLD", None, None))
    schema = {"parse_state": pl.String, "action": pl.String, "limit_price": pl.Float64, "confidence": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def shown_text(prompt: str) -> str:
    """The price on a prompt's last line, as it is written. Raises ValueError where the last line shows none."""
    found = _SHOWN.search(prompt)
    if found is None:
        raise ValueError(f"prompts: the last line shows no price: {prompt[-60:]!r}")
    return found[1]


def shown_price(prompt: str) -> float:
    """The price on a prompt's last line, in currency. Raises ValueError where the last line shows none."""
    return float(shown_text(prompt))


def rescale_prices(prompt: str, factor: float) -> str:
    """The prompt with every price in it multiplied by `factor`; what has no currency stays as it is.

    Raises ValueError where a price would leave the template's width.
    """

    def scaled(found: re.Match[str]) -> str:
        form, price = PriceForm.of(found[0]), float(found[0]) * factor
        if not 0.0 <= price <= form.largest:
            raise ValueError(f"prompts: {found[0]} times {factor} does not fit the template's prices")
        return form.text(price)

    return _PRICE.sub(scaled, prompt)


def hold_instead(answers: pl.Series) -> pl.Series:
    """HOLD answers with the confidence and the reason of the orders given. Raises ValueError where one is not an answer."""
    texts = []
    for text in answers:
        written = _ANSWER.fullmatch(text)
        parsed = parse_order(text, form=PriceForm.of(written[2]) if written and written[2] else CENTS)
        if not isinstance(parsed, Order):
            raise ValueError(f"prompts: {text!r} is not an answer: {parsed.why}")
        texts.append(answer("HOLD", None, parsed.confidence, parsed.reason))
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
