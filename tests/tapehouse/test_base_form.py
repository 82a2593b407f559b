"""What is said of a base's answers, on answers made by hand; and which prompts it is asked."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.base_form import form_figures, unseen_prompts
from tapehouse.prompts.orders import parse_orders
from tapehouse.prompts.templates import load, selected

SINCE = datetime(2012, 5, 10, tzinfo=UTC)
WORDS = {"aggressive": "a fast fill", "patient": "a better price"}
SHOWN = selected(Path(), "order")
PROMPT = "price 0100.00\n"


def figures(texts: list[str | None], prompt: str = PROMPT) -> dict:
    prompts = pl.Series([prompt] * len(texts), dtype=pl.String)
    return form_figures(prompts, parse_orders(pl.Series(texts, dtype=pl.String), prompts)).row(0, named=True)


def test_by_hand():
    """Eight answers: six are orders, four of them with a limit, three of those within a currency unit of 100."""
    found = figures(
        [
            "BUY limit 0100.00 confidence 0.60 because trend up",
            "BUY limit 0101.00 confidence 0.60 because trend up",
            "SELL limit 0099.00 confidence 0.60 because rsi high",
            "SELL limit 0098.99 confidence 0.60 because rsi high",
            "HOLD confidence 0.60 because trend down",
            "HOLD confidence 0.60 because trend down",
            "BUY limit 1000.00 confidence 0.60 because trend up",
            None,
        ]
    )
    assert found == {
        "prompts": 8,
        "parsed": 6 / 8,
        "price_within_1pct": 3 / 4,
        "share_buy": 2 / 6,
        "share_sell": 2 / 6,
        "share_hold": 2 / 6,
    }


def test_a_base_that_only_holds_has_not_shown_that_it_copies_a_price():
    found = figures(["HOLD confidence 0.60 because trend down"])
    assert found["parsed"] == 1.0 and found["price_within_1pct"] is None


ANSWERS = [
    *(f"{order} confidence 0.60 because x" for order in ("BUY limit 0100.40", "SELL limit 0110.00", "HOLD")),
    *("?", None),
]


@given(st.lists(st.sampled_from(ANSWERS)))
def test_shares_are_shares(texts):
    found = figures(texts)
    assert found["prompts"] == len(texts)
    shares = [found[f"share_{action}"] for action in ("buy", "sell", "hold")]
    if found["parsed"]:
        assert sum(shares) == pytest.approx(1.0)
    else:
        assert shares == [None] * 3


def points(days: int) -> pl.DataFrame:
    rows = [{"symbol": "IBM", "interval": "1d", "decision_at": SINCE + timedelta(days=d)} for d in range(-days, days)]
    frame = pl.DataFrame(rows, schema_overrides={"decision_at": pl.Datetime("us", "UTC")})
    known = [c for c in load(SHOWN.template).columns if c not in (*frame.columns, "objective", "regime")]
    # The price tells the day: 100 at `since`.
    return frame.with_columns(pl.lit(1.0).alias(c) for c in known).with_columns(
        close=pl.Series(range(-days, days)) + 100.0, regime=pl.lit("sideways")
    )


def test_only_what_came_after_the_training_is_asked():
    prompts = unseen_prompts(points(5), WORDS, SINCE, SHOWN)
    asked = sorted(prompt.splitlines()[-1] for prompt in prompts)
    assert asked == [f"price {100 + day:07.2f}" for day in range(5) for _ in WORDS]


def test_a_draw_keeps_to_its_number_and_to_its_rows():
    whole, some = (unseen_prompts(points(20), WORDS, SINCE, SHOWN, most).to_list() for most in (1000, 15))
    assert some == whole[:15] and len(whole) == 40
    assert {word for word in WORDS.values() if any(word in prompt for prompt in some)} == set(WORDS.values())


def test_each_prompt_has_one_answer():
    prompts = pl.Series([PROMPT])
    with pytest.raises(ValueError, match="1 prompts have 0 answers"):
        form_figures(prompts, parse_orders(prompts.clear(), prompts.clear()))
    with pytest.raises(ValueError, match="shows no price"):
        form_figures(pl.Series(["price"]), parse_orders(pl.Series(["HOLD confidence 0.60 because x"]), prompts))
