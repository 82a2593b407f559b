import math
import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.prompts.answers import STATES, Rejection
from tapehouse.prompts.orders import (
    ACTIONS,
    BAND_EDGE,
    PRICE_BAND,
    Order,
    PriceForm,
    answer,
    confidences,
    hold_instead,
    parse_order,
    parse_orders,
    reason_words,
    render_answers,
    render_orders,
    rescale_prices,
    shown_price,
)
from tapehouse.prompts.templates import load, shortened

POINT = {
    "symbol": "IBM",
    "regime": "bearish",
    "momentum_10d": -0.05,
    "book_spread_bps": None,
    "book_imbalance_1": None,
    "book_trade_flow_60s": None,
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
TEMPLATE = "order_v2"
PROMPT = """You trade IBM. Place one limit order for a fast fill: exact price, confidence, reason.
day -1.2% week +3.0% month -10.0% market +1.0%
volatility 21.0% market 10.5%
flow momentum -5.0% vwap -1.0% rsi 28
regime bearish
atr 0002.31
price 0117.45
"""


def points(**changes) -> pl.DataFrame:
    rows = pl.DataFrame([POINT | changes])
    return rows.with_columns(pl.col(column).cast(pl.Float64) for column in rows.columns if column.startswith("book_"))


def test_a_prompt_shows_raw_units_and_ends_in_the_price():
    assert render_orders(points(), "a fast fill", TEMPLATE).to_list() == [PROMPT]
    assert shown_price(PROMPT) == 117.45


def test_wording_follows_the_objective_of_each_row():
    rows = pl.concat([points(objective="aggressive"), points(objective="patient")])
    prompts = render_orders(rows, {"aggressive": "a fast fill", "patient": "a better price"}, TEMPLATE)
    assert ["for a fast fill:" in prompts[0], "for a better price:" in prompts[1]] == [True, True]
    with pytest.raises(ValueError, match="no wording for the objectives"):
        render_orders(rows, {"patient": "a better price"}, TEMPLATE)


@pytest.mark.parametrize(
    "column", [name for name in load(TEMPLATE).columns if name not in ("symbol", "objective", "regime") and name[:5] != "book_"]
)
@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_missing_value_is_refused_by_name(column, value):
    with pytest.raises(ValueError, match=f"{column} is null or not finite in row 0"):
        render_orders(points(**{column: value}), "a fast fill", TEMPLATE)


@pytest.mark.parametrize("price", [0.0, -3.0, 10_000.0])
def test_a_price_that_the_template_cannot_show_is_refused(price):
    with pytest.raises(ValueError, match="wider price"):
        render_orders(points(close=price), "a fast fill", TEMPLATE)


def test_reasons_follow_what_the_prompt_shows():
    frame = pl.DataFrame({"rsi_14": [29.4, 71.0, 50.0, 50.0, 70.5, 29.5], "ret_20d": [0.1, -0.1, -0.1, 0.1, 0.1, -0.1]})
    assert reason_words(frame).to_list() == ["rsi low", "rsi high", "trend down", "trend up", "trend up", "trend down"]
    assert (f"{70.5:.0f}", f"{29.5:.0f}") == ("70", "30")  # what the prompt prints


def test_the_book_is_shown_where_there_is_one_and_the_regime_where_it_is_known():
    shown = render_orders(
        points(book_spread_bps=1.84, book_imbalance_1=-0.312, book_trade_flow_60s=0.05), "a fast fill", TEMPLATE
    )
    assert "regime bearish\nbook spread 1.8 bps imbalance -0.31 flow +0.05\natr" in shown[0]
    assert "regime" not in render_orders(points(regime=None), "a fast fill", TEMPLATE)[0]
    assert [text.count("\n") for text in shortened(shown[0], TEMPLATE)] == [7, 6]


@pytest.mark.parametrize("mask", [["names"], ["dates"], ["names", "dates"]])
def test_a_masked_prompt_still_shows_its_price(mask):
    shown = render_orders(points(), "a fast fill", TEMPLATE, mask)[0]
    assert ("IBM" in shown) == ("names" not in mask)
    assert shown_price(shown) == 117.45


def test_confidence_is_what_the_prompt_shows():
    """A month of -10.0 % at 21.0 % a year: 10 / (21 · √(20 / 252)) = 1.690 deviations of two; 0.5 + 0.4 · 0.845 = 0.84."""
    assert confidences(points()).to_list() == [0.85]
    frame = pl.DataFrame({"ret_20d": [0.0, 0.5, -0.0004, 0.1], "realised_vol_20d": [0.2, 0.2, 0.2, 0.0001]})
    assert confidences(frame).to_list() == [0.5, 0.9, 0.5, 0.9]


@given(st.floats(-0.9, 3.0), st.floats(0.0, 2.0))
def test_confidence_can_be_read_off_the_prompt_alone(move, volatility):
    rows = points(ret_20d=move, realised_vol_20d=volatility)
    prompt = render_orders(rows, "a fast fill", TEMPLATE)[0]
    month, vol = (float(re.search(rf"{word} (\S+)%", prompt)[1]) / 100 for word in ("month", "volatility"))
    again = points(ret_20d=month, realised_vol_20d=vol)
    assert confidences(rows).to_list() == confidences(again).to_list()
    assert 0.5 <= confidences(rows)[0] <= 0.9


def test_answers_have_one_form_and_hold_its_own():
    rows = pl.Series(["BUY", "SELL", "HOLD"]), pl.Series([116.2, 1118.0, None]), pl.Series([0.5, 0.85, 0.9])
    texts = render_answers(*rows, pl.Series(["trend up"] * 3))
    assert texts.to_list() == [
        "BUY limit 0116.20 confidence 0.50 because trend up",
        "SELL limit 1118.00 confidence 0.85 because trend up",
        "HOLD confidence 0.90 because trend up",
    ]
    assert hold_instead(texts).to_list() == [f"HOLD confidence {c} because trend up" for c in ("0.50", "0.85", "0.90")]


@given(
    st.sampled_from(["BUY", "SELL"]),
    st.floats(0.01, 9999.98),
    st.floats(0, 1),
    st.sampled_from(["trend up", "trend down", "rsi low", "rsi high"]),
)
def test_what_is_rendered_parses_back(action, price, confidence, reason):
    order = parse_order(answer(action, price, confidence, reason))
    assert isinstance(order, Order)
    assert (order.action, order.reason) == (action, reason)
    assert order.limit_price == pytest.approx(price, abs=0.00501)
    assert order.confidence == pytest.approx(confidence, abs=0.00501)


# Answers with one part too many, too few, or odd: what a model that nearly knows the form would write.
PARTS = st.lists(
    st.sampled_from(
        ["BUY", "SELL", "HOLD", "Buy", "WAIT", " ", " limit ", "0117.45", "0017.45", "-0117.45", "٠١١٧.٤٥", " confidence ",
         "0.62", "1.62", "-0.62", "0.6", "nan", "inf", " because ", "trend up", "TREND", "\n", "</s>", "because", "0117,45"]
    ),
    max_size=9,
).map("".join)  # fmt: skip
ANYTHING = st.one_of(st.text(), PARTS, st.none(), st.binary(), st.integers(), st.floats(), st.lists(st.text()), st.booleans())


@settings(max_examples=400)
@given(ANYTHING, st.one_of(st.none(), st.floats(allow_nan=True)), st.builds(PriceForm, st.integers(1, 9), st.integers(1, 8)))
def test_parsing_is_total(text, shown, form):
    parsed = parse_order(text, shown, form)
    assert isinstance(parsed, Order | Rejection)
    if isinstance(parsed, Rejection):
        assert parsed.state in STATES and parsed.why
    else:
        assert parsed.action in ACTIONS and 0 <= parsed.confidence <= 1
        assert (parsed.limit_price is None) == (parsed.action == "HOLD")
        if parsed.limit_price is not None and shown is not None:
            assert parsed.limit_price > 0 and abs(parsed.limit_price - shown) <= BAND_EDGE * shown


@settings(max_examples=200)
@given(st.integers(0, 49), st.characters())
def test_one_changed_character_is_read_as_it_stands_or_not_at_all(place, character):
    text = "BUY limit 0117.45 confidence 0.62 because trend up"
    changed = text[:place] + character + text[place + 1 :]
    parsed = parse_order(changed, 117.45)
    if isinstance(parsed, Order):
        assert answer(parsed.action, parsed.limit_price, parsed.confidence, parsed.reason) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "buy limit 0116.20 confidence 0.62 because trend up",
        "BUY limit 116.20 confidence 0.62 because trend up",
        "BUY limit 0116.2 confidence 0.62 because trend up",
        "BUY limit 0116.20 because trend up",
        "BUY limit 0116.20 confidence 0.62",
        "BUY limit 0116.20 confidence .62 because trend up",
        "BUY limit 0116.20 confidence 62% because trend up",
        "BUY limit 0116.20 confidence 00.62 because trend up",
        "BUY limit 0116.20 confidence 0.62 because trend up ",
        "BUY limit 0116.20 confidence 0.62 because trend  up",
        f"BUY limit 0116.20 confidence 0.62 because {'a' * 41}",
        "BUY confidence 0.62 because trend up",
        "BUY limit 0116.20 confidence 0.62 because trend up\n",
        " BUY limit 0116.20 confidence 0.62 because trend up",
        "BUY limit 0116.20 confidence 0.62 because trend up BUY limit 0116.20 confidence 0.62 because trend up",
        "HOLD limit 0116.20 confidence 0.62 because trend up",
        "BUY limit ٠١١٦.20 confidence 0.62 because trend up",
        "BUY limit 0000.00 confidence 0.62 because trend up",
    ],
)
def test_anything_else_is_unparseable(text):
    parsed = parse_order(text, 117.45)
    assert isinstance(parsed, Rejection)
    assert parsed.state == "unparseable"


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("WAIT limit 0116.20 confidence 0.62 because trend up", "unknown_action"),
        ("MOVE_TO_BE confidence 0.62 because trend up", "unknown_action"),
        ("BUY limit 0316.20 confidence 0.62 because trend up", "price_out_of_band"),
        ("BUY limit 0116.20 confidence 1.01 because trend up", "confidence_out_of_range"),
        ("HOLD confidence -0.10 because trend up", "confidence_out_of_range"),
        ("HOLD confidence -0.00 because trend up", "confidence_out_of_range"),
        (None, "not_text"),
        (b"HOLD confidence 0.62 because trend up", "not_text"),
    ],
)
def test_a_rejection_says_why(text, state):
    parsed = parse_order(text, 117.45)
    assert isinstance(parsed, Rejection) and parsed.state == state


def test_prices_are_read_in_the_form_of_the_prompt():
    form = PriceForm.of("064250.1")
    text = answer("BUY", 64_200.0, 0.5, "trend up", form)
    assert text.startswith("BUY limit 064200.0 ")
    assert parse_order(text, 64_250.1, form).limit_price == 64_200.0
    assert isinstance(parse_order(text, 64_250.1), Rejection)
    read = parse_orders(pl.Series([text]), pl.Series(["mid\nprice 064250.1\n"]))
    assert read.rows() == [("ok", "BUY", 64_200.0, 0.5)]


def test_a_limit_far_from_the_price_is_a_rejection():
    inside, outside = 100 * (1 + PRICE_BAND), 100 * (1 + PRICE_BAND) + 0.01
    assert isinstance(parse_order(answer("SELL", inside, 0.5, "trend up"), 100.0), Order)
    assert isinstance(parse_order(answer("SELL", outside, 0.5, "trend up"), 100.0), Rejection)


@given(st.integers(1, 1666), st.sampled_from([1, -1]))
def test_the_edge_of_the_band_is_within_whatever_its_double(fives, side):
    """Prices of whole cents whose fifth is whole cents too: 20 % away is in, a cent more is not."""
    cents = 5 * fives * 100
    for apart, kind in ((cents // 5, Order), (cents // 5 + 1, Rejection)):
        text = answer("BUY", (cents + side * apart) / 100, 0.5, "trend up")
        assert isinstance(parse_order(text, cents / 100), kind)
    cents = 5 * fives
    for apart, kind in ((fives, Order), (fives + 1, Rejection)):
        text = answer("SELL", (cents + side * apart) / 100, 0.5, "trend up")
        assert isinstance(parse_order(text, cents / 100), kind)


def test_what_is_no_order_acts_as_hold():
    texts = pl.Series([f"BUY limit {price} confidence 0.62 because trend up" for price in ("0117.00", "0017.00")] + [None])
    assert parse_orders(texts, pl.Series([PROMPT] * 3)).rows() == [
        ("ok", "BUY", 117.0, 0.62),
        ("price_out_of_band", "HOLD", None, None),
        ("not_text", "HOLD", None, None),
    ]


@pytest.mark.parametrize(
    ("action", "price"), [("HOLD", 10.0), ("BUY", None), ("BUY", math.nan), ("WAIT", 10.0), ("BUY", 0.001)]
)
def test_an_answer_that_would_not_parse_is_not_rendered(action, price):
    with pytest.raises(ValueError, match="prompts:"):
        answer(action, price, 0.5, "trend up")


def test_rescaling_touches_prices_alone():
    scaled = rescale_prices(PROMPT, 2.0)
    assert scaled == PROMPT.replace("0002.31", "0004.62").replace("0117.45", "0234.90")
    with pytest.raises(ValueError, match="does not fit"):
        rescale_prices(PROMPT, 100.0)
