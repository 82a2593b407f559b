import polars as pl
import pytest

from tapehouse.prompts.book import book_answers, book_confidences, book_reasons, render_book_orders
from tapehouse.prompts.orders import Order, PriceForm, parse_order
from tapehouse.prompts.templates import load, shortened

TEMPLATE = "book_order_v1"
WORDS = {"patient": "a better price"}


def points(**changed) -> pl.DataFrame:
    row = {
        "symbol": "BTCUSDT-PERP",
        "objective": "patient",
        "spread_bps": 0.0162,
        "imbalance_1": 0.5,
        "imbalance_5": -0.254,
        "mid_vol_60s_bps": 0.4,
        "trade_flow_60s": 0.196,
        "trades_60s": 12,
        "regime": "bullish",
        "mid": 61714.45,
    }
    kinds = {"trade_flow_60s": pl.Float64, "mid": pl.Float64}
    return pl.DataFrame([row | changed], schema_overrides=kinds)


def test_a_prompt_shows_raw_units_and_the_mid_last():
    (text,) = render_book_orders(points(), WORDS, TEMPLATE)
    assert text == (
        "You trade BTCUSDT-PERP. Place one limit order for a better price: exact price, confidence, reason.\n"
        "spread 0.02 bps imbalance +0.50 five levels -0.25\n"
        "volatility 0.40 bps a second\n"
        "flow momentum +0.20 trades 12\n"
        "regime bullish\n"
        "price 061714.450\n"
    )
    assert shortened(text, TEMPLATE) == [text.replace("flow momentum +0.20 trades 12\n", "")]
    assert load(TEMPLATE).columns[-1] == "mid"


def test_a_minute_without_a_trade_has_no_line_of_flow():
    (text,) = render_book_orders(points(trade_flow_60s=None, trades_60s=0), WORDS, TEMPLATE)
    assert "flow" not in text and "trades" not in text


def test_names_can_be_masked():
    (text,) = render_book_orders(points(), WORDS, TEMPLATE, ["names"])
    assert "BTC" not in text and text.startswith("You trade ")


@pytest.mark.parametrize(
    ("flow", "book", "reason", "confidence"),
    [
        (0.196, -0.9, "buyers lead", 0.85),  # 0.20 as printed; the book is the larger of the two
        (-0.6, 0.1, "sellers lead", 0.75),
        (0.19, 0.0, "bids heavier", 0.60),
        (None, -0.004, "bids heavier", 0.50),
        (None, -1.0, "asks heavier", 0.90),
    ],
)
def test_reason_and_confidence_follow_what_is_printed(flow, book, reason, confidence):
    own = points(trade_flow_60s=flow, imbalance_5=book)
    assert book_reasons(own).to_list() == [reason]
    assert book_confidences(own).to_list() == [confidence]


def test_an_answer_writes_its_limit_as_the_prompt_writes_its_price():
    own = points()
    prompts = render_book_orders(own, WORDS, TEMPLATE)
    (text,) = book_answers(pl.Series(["BUY"]), pl.Series([61700.1]), own, prompts)
    assert text == "BUY limit 061700.100 confidence 0.60 because buyers lead"
    assert parse_order(text, 61714.45, PriceForm(6, 3)) == Order("BUY", 61700.1, 0.60, "buyers lead")


def test_a_mid_that_the_template_cannot_show_is_refused():
    with pytest.raises(ValueError, match="does not fit the price of template 'book_order_v1'"):
        render_book_orders(points(mid=1_234_567.0), WORDS, TEMPLATE)
    with pytest.raises(ValueError, match="mid_vol_60s_bps is null"):
        render_book_orders(
            points(mid_vol_60s_bps=None).with_columns(pl.col("mid_vol_60s_bps").cast(pl.Float64)), WORDS, TEMPLATE
        )
