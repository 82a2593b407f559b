"""Whether a base model knows the form of an order: prompts that it has never seen, and what its answers are like.

A base knows form and nothing else, so that its actions are no news; shares of them are given for the eye alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import polars as pl

from tapehouse.keyed import keyed_uniform
from tapehouse.prompts.orders import render_orders, shown_price
from tapehouse.prompts.templates import Selection

MOST_PROMPTS: Final = 1_500  # a share of 1 % then has a standard error of a quarter of a per cent
NEAR_PRICE: Final = 0.01  # the corpus moves limits by half a per cent at most; a slipped digit moves them by more than this
FIGURES: Final = {
    "prompts": pl.Int64,
    **dict.fromkeys(("parsed", "price_within_1pct", "share_buy", "share_sell", "share_hold"), pl.Float64),
}


def unseen_prompts(
    points: pl.DataFrame, words: Mapping[str, str], since: datetime, shown: Selection, most: int = MOST_PROMPTS
) -> pl.Series:
    """Prompts of decisions at or after `since`, for every objective; at most `most`, drawn by a keyed hash.

    Args:
        points: rows of `features.decision_points`.
        words: wording of each objective, by its name.
        since: the end of what the base was trained on, UTC.
        shown: the template and what is hidden in it.
    """
    later = points.filter(pl.col("decision_at") >= since)
    asked = [
        later.with_columns(objective=pl.lit(name), drawn=pl.Series(keyed_uniform(later, f"{name}|form"), dtype=pl.Float64))
        for name in words
    ]
    chosen = pl.concat(asked).sort("drawn", "symbol", "interval", "decision_at", "objective").head(most)
    return render_orders(chosen, words, shown.template, shown.mask)


def form_figures(prompts: pl.Series, answers: pl.DataFrame) -> pl.DataFrame:
    """One row with the columns of `FIGURES`: how many answers are orders, and how many of their limits keep to the price.

    A share without anything to be a share of is null: a base that never says BUY or SELL has not shown that it can copy
    a price.

    Args:
        prompts: what was asked; the last line of each shows the price, in currency.
        answers: `parse_state`, `action` and `limit_price` (currency) of each, as `tapehouse.inference.predict` returns.

    Raises:
        ValueError: prompts and answers differ in number, or a prompt shows no price.
    """
    if len(prompts) != answers.height:
        raise ValueError(f"base_form: {len(prompts)} prompts have {answers.height} answers; there must be one each")
    shown = pl.Series("shown", [shown_price(prompt) for prompt in prompts], dtype=pl.Float64)
    answers = answers.with_columns(shown)
    parsed = answers.filter(pl.col("parse_state") == "ok")
    orders = parsed.filter(pl.col("action") != "HOLD")
    near = ((orders["limit_price"] - orders["shown"]).abs() <= NEAR_PRICE * orders["shown"]).mean()
    shares = {f"share_{action.lower()}": (parsed["action"] == action).mean() for action in ("BUY", "SELL", "HOLD")}
    figures = {"prompts": answers.height, "parsed": (answers["parse_state"] == "ok").mean(), "price_within_1pct": near}
    return pl.DataFrame([figures | shares], schema=FIGURES)
