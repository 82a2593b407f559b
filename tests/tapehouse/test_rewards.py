"""Rewards by hand, orders paid as the pairs are, and a reward for any text whatever."""

import math
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.labels.signal import CLASSES, QUANTILES
from tapehouse.prompts.orders import answer
from tapehouse.prompts.shown import shown
from tapehouse.prompts.thesis import CLAIMS, Thesis, render_theses, thesis_text
from tapehouse.rewards import (
    BOUND,
    DECISIONS,
    MISSING,
    MISSING_ORDER,
    decision_reward,
    decision_rewards,
    paid,
    return_reward,
    reward_of,
    share_right,
)
from tapehouse.teacher import claims_of, sections_of

AT = datetime(2008, 9, 15, 20, 5, tzinfo=UTC)
ORDER = {
    "symbol": "IBM",
    "decision_at": AT,
    "family": "order",
    "prompt": "IBM\nprice 0100.00\n",
    "volatility": 0.01,
    "side": "BUY",
    "arrival": 100.0,
    "window_sessions": 2,
    "weight_price": 1.0,
    "weight_certainty": 0.5,
    "weight_risk": 0.5,
    "weight_fees": 1.0,
    "half_spread_bps": 2.0,
    "maker_fee_bps": 0.5,
    "taker_fee_bps": 3.0,
    "unfilled_penalty_bps": 20.0,
    "window_open": [100.0, 100.0],
    "window_high": [101.0, 100.2],
    "window_low": [99.5, 98.9],
    "window_close": [100.5, 99.5],
    "window_shares": [1.0, 1.0],
    "window_cash": [0.0, 0.0],
    "reason": "trend up",
    "confidence": 0.65,
}
POINT = {
    "symbol": "IBM",
    "close": 117.45,
    "ret_1d": -0.031,
    "ret_5d": -0.042,
    "ret_20d": -0.071,
    "momentum_10d": -0.052,
    "momentum_30d": 0.083,
    "ret_63d": None,
    "rsi_14": 38.6,
    "macd_hist": -0.31,
    "vwap_distance_20d": -0.021,
    "ret_deviation_20d": 0.0213,
    "realised_vol_20d": 0.338,
    "market_vol_20d": 0.2,
    "market_ret_20d": -0.03,
    "relative_strength_20d": -0.041,
    "regime": "bearish",
    "vix": 31.7,
    "vix_change_28d": 9.1,
    "credit_spread": None,
    "credit_spread_change_28d": None,
    "oil_usd": None,
    "oil_change_28d": None,
    "core_cpi": None,
    "core_cpi_change_1p": None,
    "return_on_assets": 0.085,
    "net_margin": None,
    "insider_buys_90d": 0,
    "insider_sells_90d": 4,
    "news_30d": 3,
    "filings_90d": 1,
    "news_sentiment_30d": None,
    "filing_sentiment_90d": None,
}


def order(action="BUY", limit=99.0, confidence=0.65, reason="trend up", **row):
    return reward_of(ORDER | {"side": "BUY" if action == "HOLD" else action} | row, answer(action, limit, confidence, reason))


# ---------------------------------------------------------------------- decisions


def test_the_matrix_is_asymmetric_and_a_missing_decision_is_worst():
    assert decision_reward("strong_sell", "strong_buy") == -2.0
    assert decision_reward("buy", "strong_buy") == 0.5
    assert decision_reward("hold", "strong_sell") == -1.1
    assert decision_reward("hold", None) == MISSING == -2.5
    assert DECISIONS.shape == (5, 5)
    assert DECISIONS.min() > MISSING
    # The right class earns most, whatever followed, and both sides are paid alike.
    assert (DECISIONS.argmax(axis=1) == np.arange(5)).all()
    assert (DECISIONS[::-1, ::-1] == DECISIONS).all()
    most = DECISIONS.max()
    for strong, wrong in ((0, (2, 3, 4)), (4, (0, 1, 2))):
        # A strong call that is wrong costs more than any call earns, and more than the mild one of the same side.
        assert all(DECISIONS[followed, strong] < -most for followed in wrong)
        mild = 1 if strong == 0 else 3
        assert all(DECISIONS[followed, strong] < DECISIONS[followed, mild] for followed in wrong)
    assert (DECISIONS != DECISIONS.T).any()


def test_what_an_answer_that_never_changes_earns():
    shares = np.diff([0.0, *QUANTILES, 1.0])
    assert np.round(shares @ DECISIONS, 2).tolist() == [-1.19, -0.51, 0.03, 0.07, -0.38]


def test_many_decisions_at_once_are_the_same():
    followed, said = np.array([0, 4, 2, 3]), np.array([4, 4, -1, 1])
    assert decision_rewards(followed, said).tolist() == [-2.0, 1.0, -2.5, -1.0]


def test_a_return_counts_in_volatilities_after_costs():
    # 30 bps over 2 % a session, times 0.3 / sqrt 3 + 0.5 / sqrt 7 + 0.2 / sqrt 15 = 0.4138.
    cost = 0.15 * (0.3 / math.sqrt(3) + 0.5 / math.sqrt(7) + 0.2 / math.sqrt(15))
    assert cost == pytest.approx(0.062074, abs=1e-6)
    assert return_reward("strong_buy", 1.2, 0.02) == pytest.approx(1.2 - cost)
    assert return_reward("sell", 1.2, 0.02) == pytest.approx(-0.6 - 0.5 * cost)
    assert return_reward("hold", 1.2, 0.02) == 0.0
    assert (return_reward("strong_buy", 9.0, 0.02), return_reward("strong_sell", 9.0, 0.02)) == (BOUND, -BOUND)


def test_claims_that_are_not_known_are_left_out():
    true = np.array([[1, 0, -1, -1], [-1, -1, -1, -1]])
    assert share_right(np.array([[1, 1, 0, 1], [0, 0, 0, 0]]), true).tolist() == [0.5, 1.0]


# ---------------------------------------------------------------------- orders


def test_an_order_that_fills_by_hand():
    # The second session trades through 99: +100 bps, less the maker's 0.5, less half of the first session's rise of 100 bps.
    reward = order()
    assert reward.reward_bps == pytest.approx(100 - 0.5 - 50)
    assert reward.decision == pytest.approx(49.5 / (100 * math.sqrt(2)))
    assert (reward.state, reward.format, reward.evidence, reward.ret) == ("ok", 1.0, 1.0, None)


def test_an_order_that_does_not_fill_by_hand():
    # Sold at the last close less half the spread: 50 - 2 bps below, 3 of fees, half of the penalty of 20, risk 0.5 * 110 bps.
    reward = order("SELL", 101.5)
    executed = 99.5 * (1 - 0.0002)
    assert reward.reward_bps == pytest.approx((executed / 100 - 1) * 1e4 - 3 - 10 - 0.5 * 110)


def test_a_split_and_a_dividend_in_the_window_are_no_fall():
    after = {
        "window_open": [50.0, 49.0],
        "window_high": [50.5, 49.1],
        "window_low": [49.75, 48.45],
        "window_close": [50.25, 48.75],
        "window_shares": [2.0, 1.0],
        "window_cash": [0.0, 1.0],
    }
    # In the decision's basis the lows are 99.5 and 48.45 * 2 + 2 = 98.9: the order above.
    assert order(**after).reward_bps == pytest.approx(order().reward_bps)


def test_a_session_without_a_bar_fills_nothing():
    gone = {name: [None, ORDER[name][1]] for name in ("window_open", "window_high", "window_low", "window_close")}
    assert order(**gone).reward_bps == pytest.approx(100 - 0.5)


def test_hold_is_an_order_that_never_fills():
    # Bought at the last close plus half the spread: 50 - 2 bps saved, 3 of fees, half of the penalty, risk of 0.5 * 100 bps.
    saved = (1 - 99.5 * 1.0002 / 100) * 1e4
    assert order("HOLD", None).reward_bps == pytest.approx(saved - 3 - 10 - 50)
    assert order("HOLD", None).reward_bps == order("BUY", 80.0).reward_bps
    assert order("HOLD", None, side="SELL").reward_bps == order("SELL", 120.0).reward_bps


def test_an_order_of_the_other_side_is_none():
    reward = order("SELL", 101.5, side="BUY")
    assert (reward.state, reward.format, reward.decision, reward.reward_bps) == ("wrong_side", 0.5, MISSING_ORDER, None)


def test_evidence_of_an_order_is_what_its_prompt_bears_out():
    assert order(reason="rsi low").evidence == 0.5
    assert order(confidence=0.9).evidence == 0.5
    assert order(confidence=0.9, reason="rsi low").evidence == 0.0


def test_no_single_order_outweighs_a_batch():
    assert order(volatility=0.0001).decision == BOUND
    assert order("SELL", 101.5, volatility=0.0001).decision == -BOUND
    assert MISSING_ORDER < -BOUND


@pytest.mark.parametrize(
    ("text", "state", "form"),
    [
        (None, "not_text", 0.0),
        ("BUY", "unparseable", 0.0),
        ("BUY limit 0050.00 confidence 0.65 because trend up", "price_out_of_band", 0.5),
        ("BUY limit 0099.00 confidence 1.65 because trend up", "confidence_out_of_range", 0.5),
        ("TAKE limit 0099.00 confidence 0.65 because trend up", "unknown_action", 0.5),
    ],
)
def test_no_order_earns_the_least(text, state, form):
    reward = reward_of(ORDER, text)
    assert (reward.state, reward.format, reward.evidence, reward.decision) == (state, form, 0.0, MISSING_ORDER)


# ---------------------------------------------------------------------- theses


def thesis_row(**changes) -> dict:
    numbers = {name: pl.Float64 for name, value in POINT.items() if value is None}
    prompt = render_theses(pl.DataFrame([POINT], schema_overrides=numbers), "thesis_v1").item()
    claims = claims_of(shown(prompt, "thesis_v1"))
    true = {f"claim_{name}": claim.holds for name, claim in claims.items()}
    true["evidence"] = ["; ".join(claims[name].evidence) or None for name in CLAIMS]
    key = {"symbol": "IBM", "decision_at": AT, "family": "thesis", "prompt": prompt}
    return key | true | {"score": 1.2, "volatility": 0.02, "signal_class": "buy"} | changes


def written(row: dict, action="buy") -> Thesis:
    seen = shown(row["prompt"], "thesis_v1")
    return Thesis(sections_of(seen, dict.fromkeys(seen | dict.fromkeys(SECTION_NAMES), 0.0)), claims_of(seen), action)


SECTION_NAMES = ("trend", "risk", "market", "macro", "company", "news")


def test_the_teachers_thesis_earns_all_of_form_and_evidence():
    row = thesis_row()
    known = [name for name in CLAIMS if row[f"claim_{name}"] is not None]
    assert known == ["quality", "insider_buying", "volatility", "momentum_10d", "momentum_30d"]
    reward = reward_of(row, thesis_text(written(row)))
    assert (reward.state, reward.format, reward.evidence, reward.decision) == ("ok", 1.0, 1.0, 0.8)
    assert reward.ret == pytest.approx(return_reward("buy", 1.2, 0.02))
    assert [reward.of_stage(stage) for stage in ("structure", "claims", "decision")] == [1.0, 1.0, 0.8]
    assert reward_of(row, thesis_text(written(row, "strong_sell"))).decision == -1.75


def test_a_claim_counts_where_it_is_right_and_cites_the_prompt():
    row = thesis_row()
    text = thesis_text(written(row))
    assert "volatility yes: daily volatility 2.13%" in text
    assert reward_of(row, text.replace("volatility yes:", "volatility no:")).evidence == pytest.approx(4 / 5)
    # Cited is a line that is not there, with a number that is not there.
    assert reward_of(row, text.replace("yes: daily volatility 2.13%", "yes: daily volatility 2.14%")).evidence == pytest.approx(
        0.7
    )
    assert reward_of(row, text.replace("volatility yes: daily volatility 2.13%", "volatility unknown")).evidence == 0.8
    # What stands in the prompt but has nothing to do with the claim is no evidence; more than is needed may be cited.
    beside = "volatility yes: close 117.45"
    assert reward_of(row, text.replace("volatility yes: daily volatility 2.13%", beside)).evidence == 0.8
    more = "volatility yes: daily volatility 2.13%; close 117.45"
    assert reward_of(row, text.replace("volatility yes: daily volatility 2.13%", more)).evidence == 1.0


def test_form_is_graded_below_what_the_parser_accepts():
    row = thesis_row()
    text = thesis_text(written(row))
    cut = reward_of(row, text.removesuffix("</thesis>"))
    assert (cut.state, cut.decision, cut.evidence) == ("unparseable", MISSING, 0.0)
    assert cut.format == pytest.approx(0.9)
    less = reward_of(row, text.replace("<action>buy</action>", "<action>all in</action>"))
    assert less.format == pytest.approx(0.9 * 14 / 15)
    assert reward_of(row, "").format == 0.0
    assert reward_of(row, text * 40).format == 0.0


def test_a_row_that_cannot_be_judged_is_refused():
    with pytest.raises(TapehouseError, match="of_fold"):
        reward_of(thesis_row(signal_class=None), "")
    with pytest.raises(TapehouseError, match="'poem'"):
        reward_of({"family": "poem"}, "")


PIECES = st.sampled_from(
    [
        "<thesis>",
        "<reasoning>",
        "<trend>up</trend>",
        "<claim>quality yes: x</claim>",
        "<action>buy</action>",
        "&",
        "<!--",
        "\ud800",
    ]
)
ORDERS = st.builds(
    lambda action, limit, confidence, reason: f"{action} limit {limit} confidence {confidence} because {reason}",
    st.sampled_from(["BUY", "SELL", "HOLD", "buy"]),
    st.floats(0, 300).map("{:07.2f}".format),
    st.floats(-1, 2).map("{:.2f}".format),
    st.sampled_from(["trend up", "rsi low", "Because", ""]),
)


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.text(), st.none(), st.binary(), st.integers(), ORDERS, st.lists(PIECES, max_size=12).map("".join)))
def test_any_text_has_a_reward_within_bounds(text):
    for row, least in ((ORDER, MISSING_ORDER), (THESIS, MISSING)):
        reward = reward_of(row, text)
        assert 0 <= reward.format <= 1 and 0 <= reward.evidence <= 1
        assert least <= reward.decision <= BOUND
        assert (reward.decision == least) == (reward.state != "ok")
        assert (reward.format == 1) == (reward.state == "ok")


THESIS = thesis_row()


@given(st.sampled_from(CLASSES), st.sampled_from(CLASSES), st.floats(-5, 5), st.floats(0.002, 0.2))
def test_returns_are_bounded_and_costs_never_pay(followed, said, score, volatility):
    reward = return_reward(said, score, volatility)
    assert -BOUND <= reward <= BOUND
    assert reward <= max(abs(score), 0.0)
    assert decision_reward(followed, said) <= decision_reward(followed, followed)


def test_paying_needs_no_text():
    assert paid(ORDER, 99.0) == order().reward_bps
