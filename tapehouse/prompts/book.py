"""The book family: prompts that ask for one limit order on an order book. Answers are those of `tapehouse.prompts.orders`.

The template is what `prompts.yaml` selects: mid, spread, imbalance, volatility and trade flow in their own units, the regime in
a word, and neither date nor normalised value. The mid comes last, zero-padded to the width that the limit has in the answer.

Reason and confidence depend on what the prompt prints alone, never on the offset or on what happened after.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import polars as pl

from tapehouse.prompts.orders import PriceForm, answer, render_orders, shown_text

# Of trades of the last minute, three fifths bought and two fifths sold: a flow of 0.2. Below that the book decides.
LEADING_FLOW: Final = 0.2
LEAST_CONFIDENCE, CONFIDENCE_STEP, STEPS = 0.50, 0.05, 8


def render_book_orders(points: pl.DataFrame, words: Mapping[str, str], template: str, mask: Collection[str] = ()) -> pl.Series:
    """Prompts of decisions on a book, one string a row, each ending in the mid and a newline.

    `points` has the columns of `features.book` in raw units, `regime`, and `objective`, a key of `words`. Raises ValueError
    where a value that is not optional is null, or a mid does not fit the template's price.
    """
    return render_orders(points, words, template, mask)


def book_reasons(points: pl.DataFrame) -> pl.Series:
    """Reason of each decision: who leads in the trades of the last minute, else which side of the book is heavier."""
    flow, book = pl.col("trade_flow_60s"), pl.col("imbalance_5")
    return _printed(points).select(
        reason=pl.when(flow >= LEADING_FLOW)
        .then(pl.lit("buyers lead"))
        .when(flow <= -LEADING_FLOW)
        .then(pl.lit("sellers lead"))
        .when(book >= 0)
        .then(pl.lit("bids heavier"))
        .otherwise(pl.lit("asks heavier"))
    )["reason"]


def book_confidences(points: pl.DataFrame) -> pl.Series:
    """Confidence of each decision, 0.50 to 0.90 in steps of 0.05: the larger of |flow| and |imbalance of five levels|.

    It says how one-sided the book is, not how likely an order is to pay.
    """
    flow, book = (pl.col(name).abs().fill_null(0.0) for name in ("trade_flow_60s", "imbalance_5"))
    steps = (pl.max_horizontal(flow, book) * STEPS).round(0)
    return _printed(points).select(confidence=(LEAST_CONFIDENCE + steps * CONFIDENCE_STEP).round(2))["confidence"]


def _printed(points: pl.DataFrame) -> pl.DataFrame:
    """Flow and imbalance as the prompt prints them, with two decimals: what is said of them is a function of the prompt."""
    columns = {
        name: pl.Series(name, [None if value is None else float(f"{value:.2f}") for value in points[name]], dtype=pl.Float64)
        for name in ("trade_flow_60s", "imbalance_5")
    }
    return pl.DataFrame(columns)


def book_answers(sides: pl.Series, limits: pl.Series, points: pl.DataFrame, prompts: pl.Series) -> pl.Series:
    """Answers, one string a row, the limits written as each prompt writes its price; the series and the points have one length.

    Raises ValueError where a limit does not fit the prompt's price.
    """
    said = zip(sides, limits, book_confidences(points), book_reasons(points), prompts, strict=True)
    texts = [answer(side, limit, sure, why, PriceForm.of(shown_text(prompt))) for side, limit, sure, why, prompt in said]
    return pl.Series("answer", texts, dtype=pl.String)
