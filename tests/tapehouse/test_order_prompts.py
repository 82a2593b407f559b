import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.prompts.answers import Rejection
from tapehouse.prompts.orders import (
    PRICE_BAND,
    Order,
    answer,
    hold_instead,
    parse_order,
    parse_orders,
    reason_words,
    render_answers,
    render_orders,
    rescale_prices,
    shown_price,
)
from tapehouse.prompts.templates import load

POINT = {
    "symbol": "IBM",
    "ret_1d": -0.0123,
    "ret_5d": 0.03,
    "ret_20d": -0.1,
    "rsi_14": 28.4,
    "realised_vol_20d": 0.21,
    "vwap_distance_20d": -0.01,
    "relative_strength_20d": 0.02,
    "market_ret_20d": 0.01,
    "market_vol_20d": 0.105,
    "atr_14": 2.31,
    "close": 117.45,
}
PROMPT = """IBM daily order for a fast fill
day -1.2% week +3.0% month -10.0%
rsi 28 volatility 21.0%
vwap -1.0% relative +2.0%
market +1.0% volatility 10.5%
atr 0002.31
price 0117.45
"""


def points(**changes) -> pl.DataFrame:
    return pl.DataFrame([POINT | changes])


def test_a_prompt_shows_raw_units_and_ends_in_the_price():
    assert render_orders(points(), "a fast fill", "order_v1").to_list() == [PROMPT]
    assert shown_price(PROMPT) == 117.45


def test_wording_follows_the_objective_of_each_row():
    rows = pl.concat([points(objective="aggressive"), points(objective="patient")])
    prompts = render_orders(rows, {"aggressive": "a fast fill", "patient": "a better price"}, "order_v1")
    assert [prompt.split("\n")[0] for prompt in prompts] == [
        "IBM daily order for a fast fill",
        "IBM daily order for a better price",
    ]
    with pytest.raises(ValueError, match="no wording for the objectives"):
        render_orders(rows, {"patient": "a better price"}, "order_v1")


@pytest.mark.parametrize("column", [name for name in load("order_v1").columns if name not in ("symbol", "objective")])
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_missing_value_is_refused_by_name(column, value):
    with pytest.raises(ValueError, match=f"{column} is null or not finite in row 0"):
        render_orders(points(**{column: value}), "a fast fill", "order_v1")


@pytest.mark.parametrize("price", [0.0, -3.0, 10_000.0])
def test_a_price_that_the_template_cannot_show_is_refused(price):
    with pytest.raises(ValueError, match="wider price"):
        render_orders(points(close=price), "a fast fill", "order_v1")


def test_reasons_follow_what_the_prompt_shows():
    frame = pl.DataFrame({"rsi_14": [29.4, 71.0, 50.0, 50.0], "ret_20d": [0.1, -0.1, -0.1, 0.1]})
    assert reason_words(frame).to_list() == ["rsi low", "rsi high", "trend down", "trend up"]


def test_answers_have_one_form_and_hold_its_own():
    texts = render_answers(pl.Series(["BUY", "SELL", "HOLD"]), pl.Series([116.2, 1118.0, None]), pl.Series(["trend up"] * 3))
    assert texts.to_list() == [
        "BUY limit 0116.20 because trend up",
        "SELL limit 1118.00 because trend up",
        "HOLD because trend up",
    ]
    assert hold_instead(texts).to_list() == ["HOLD because trend up"] * 3


@given(
    st.sampled_from(["BUY", "SELL"]),
    st.floats(0.01, 9999.98),
    st.sampled_from(["trend up", "trend down", "rsi low", "rsi high"]),
)
def test_what_is_rendered_parses_back(action, price, reason):
    order = parse_order(answer(action, price, reason))
    assert isinstance(order, Order)
    assert (order.action, order.reason) == (action, reason)
    assert order.limit_price == pytest.approx(price, abs=0.00501)


@given(
    st.one_of(
        st.text(),
        st.none(),
        st.binary(),
        st.integers(),
        st.lists(st.text()),
        st.from_regex(r"(BUY|SELL|HOLD|Buy) (limit )?[0-9.]{0,9}( because [a-z ]*)?\n?"),
    ),
    st.one_of(st.none(), st.floats(allow_nan=True)),
)
def test_parsing_is_total(text, shown):
    parsed = parse_order(text, shown)
    assert isinstance(parsed, Order | Rejection)
    if isinstance(parsed, Order) and parsed.limit_price is not None:
        assert parsed.limit_price > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "buy limit 0116.20 because trend up",
        "BUY limit 116.20 because trend up",
        "BUY limit 0116.2 because trend up",
        "BUY limit 0116.20",
        "BUY limit 0116.20 because trend up\n",
        " BUY limit 0116.20 because trend up",
        "BUY limit 0116.20 because trend up BUY limit 0116.20 because trend up",
        "WAIT because trend up",
        "HOLD limit 0116.20 because trend up",
        "BUY limit ٠١١٦.20 because trend up",
        "BUY limit 0000.00 because trend up",
    ],
)
def test_anything_else_is_unparseable(text):
    parsed = parse_order(text, 117.45)
    assert isinstance(parsed, Rejection)
    assert parsed.state == "unparseable"


def test_a_limit_far_from_the_price_is_a_rejection():
    inside, outside = 100 * (1 + PRICE_BAND), 100 * (1 + PRICE_BAND) + 0.01
    assert isinstance(parse_order(answer("SELL", inside, "trend up"), 100.0), Order)
    assert isinstance(parse_order(answer("SELL", outside, "trend up"), 100.0), Rejection)


def test_what_is_no_order_acts_as_hold():
    texts = pl.Series(["BUY limit 0117.00 because trend up", "BUY limit 0017.00 because trend up", None])
    assert parse_orders(texts, pl.Series([PROMPT] * 3)).rows() == [
        ("ok", "BUY", 117.0),
        ("price_out_of_band", "HOLD", None),
        ("not_text", "HOLD", None),
    ]


@pytest.mark.parametrize(("action", "price"), [("HOLD", 10.0), ("BUY", None), ("BUY", math.nan), ("WAIT", 10.0)])
def test_an_answer_that_would_not_parse_is_not_rendered(action, price):
    with pytest.raises(ValueError, match="prompts:"):
        answer(action, price, "trend up")


def test_rescaling_touches_prices_alone():
    scaled = rescale_prices(PROMPT, 2.0)
    assert scaled == PROMPT.replace("0002.31", "0004.62").replace("0117.45", "0234.90")
    with pytest.raises(ValueError, match="does not fit"):
        rescale_prices(PROMPT, 100.0)
