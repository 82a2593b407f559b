"""The trading agent's prompts and answers, and what is taught in each state of its account."""

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.instructions import COLUMNS, instructions
from tapehouse.prompts.agent import (
    ACTIONS,
    AgentAnswer,
    agent_answer,
    parse_agent,
    parse_agents,
    render_agents,
    shown_confidences,
    shown_reasons,
)
from tapehouse.prompts.answers import STATES, Rejection
from tapehouse.prompts.templates import selection, shortened

STAMP = pl.Datetime("us", "UTC")
AT = datetime(2008, 9, 15, 20, 5, tzinfo=UTC)
POINT = {
    "symbol": "IBM",
    "interval": "1d",
    "decision_at": AT,
    "regime": "bearish",
    "adx_14": 31.4,
    "plus_di_14": 12.2,
    "minus_di_14": 27.8,
    "rsi_14": 38.6,
    "vwap_distance_20d": -0.0213,
    "ret_1d": -0.0301,
    "ret_20d": -0.0714,
    "realised_vol_20d": 0.241,
    "atr_14": 2.345,
    "close": 117.449,
    "drift_score_20d": -1.0,
}
SHORT = {
    "position": -1,
    "entry_price": 120.0,
    "stop_price": 123.5,
    "trailing": False,
    "bars_held": 4,
    "unrealised_ret": 0.02126,
    "unrealised_atr": 1.09,
    "unrealised_pnl": 606.7,
    "trades": 12,
    "win_rate": 0.4167,
    "consecutive_losses": 2,
    "balance": 98_765.432,
    "drawdown": 0.0312,
}
TYPES = {"decision_at": STAMP, "win_rate": pl.Float64, "entry_price": pl.Float64, "stop_price": pl.Float64}
PROMPT = """\
IBM 1d trading agent answers action | confidence | reason
time 2008-09-15 20:05 utc
regime bearish
trend adx 31 plus 12 minus 28 rsi 39 vwap -2.1%
return day -3.0% month -7.1% volatility 24.1%
position short
entry 0120.00 stop 0123.50 trail off bars 4
unrealised +2.1% pnl +606.70 atr +1.1
win rate 42%
trades 12 losses in a row 2
balance 98765.43 drawdown 3.1%
atr 0002.35
price 0117.45
"""


def flat(**changes):
    nothing = ["entry_price", "stop_price", "trailing", "bars_held", "unrealised_ret", "unrealised_atr", "unrealised_pnl"]
    return SHORT | dict.fromkeys(nothing) | {"position": 0} | changes


def frame(*rows) -> pl.DataFrame:
    floats = dict.fromkeys(("unrealised_ret", "unrealised_atr", "unrealised_pnl"), pl.Float64)
    kinds = TYPES | floats | {"trailing": pl.Boolean, "bars_held": pl.Int32}
    return pl.DataFrame(list(rows), schema_overrides=kinds)


def test_a_prompt_tells_market_and_account():
    assert render_agents(frame(POINT | SHORT), "agent_v1").item() == PROMPT


def test_what_is_not_there_is_not_told():
    told = render_agents(frame(POINT | flat(win_rate=None, trades=0)), "agent_v1").item().splitlines()
    gone = ("entry ", "unrealised ", "win rate ")
    assert told == [line.replace("short", "flat").replace("12 losses", "0 losses") if line.startswith(("position", "trades"))
                    else line for line in PROMPT.splitlines() if not line.startswith(gone)]  # fmt: skip


def test_a_masked_prompt_has_neither_name_nor_time():
    masked = render_agents(frame(POINT | SHORT), "agent_v1", ("names", "dates")).item()
    assert "IBM" not in masked and "2008" not in masked and "time hidden utc" in masked
    assert masked.splitlines()[2:] == PROMPT.splitlines()[2:]


def test_a_long_prompt_never_loses_what_its_answer_rests_on():
    versions = shortened(PROMPT, "agent_v1")
    gone = [sorted(set(PROMPT.splitlines()) - set(version.splitlines())) for version in versions]
    assert [[line.split()[0] for line in lines] for lines in gone] == [
        ["regime"],
        ["regime", "return"],
        ["regime", "return", "win"],
    ]


def test_reason_and_confidence_follow_from_what_is_printed():
    rows = frame(
        POINT | SHORT,  # 0.50 + 0.155 + 0.05 - 0.06
        POINT | flat(consecutive_losses=0),  # 0.50 + 0.155 + 0.05
        POINT | SHORT | {"adx_14": 24.4, "drawdown": 0.0496},  # no trend; 5.0 % is printed: 0.50 + 0.12 - 0.06 - 0.05
        POINT | SHORT | {"position": 1, "unrealised_ret": -0.01, "consecutive_losses": 9},  # 0.50 + 0.155 + 0.05 - 0.15
        POINT | SHORT | {"adx_14": 60.0, "vwap_distance_20d": -0.0004},  # -0.0 % has no sign: 0.50 + 0.25 - 0.06
    )
    assert shown_confidences(rows).to_list() == pytest.approx([0.64, 0.70, 0.51, 0.55, 0.69])
    assert shown_reasons(rows).to_list() == [
        "in profit with the trend", "trend down", "in profit without a trend", "at a loss against the trend",
        "in profit with the trend",
    ]  # fmt: skip


def test_a_null_feature_is_refused():
    with pytest.raises(ValueError, match="adx_14 is null"):
        render_agents(frame(POINT | SHORT | {"adx_14": None}, POINT | SHORT), "agent_v1")


# position, entry, stop, trailing, return: the five states of an account.
ACCOUNTS = {
    "flat": flat(),
    "loss": SHORT | {"unrealised_ret": -0.01},
    "profit": SHORT,
    "even": SHORT | {"stop_price": 120.0},
    "trailing": SHORT | {"stop_price": 119.0, "trailing": True},
}
# label and sessions held; a label of 1 is the profit of the position's own side.
WITH, NOWHERE, SOON, LATER = (1, 3), (0, 10), (-1, 5), (-1, 6)


@pytest.mark.parametrize(
    ("state", "taught"),
    [
        ("flat", ["BUY", "HOLD", "SELL", "SELL"]),
        ("loss", ["HOLD", "HOLD", "BUY", "BUY"]),
        ("profit", ["ENABLE_TRAIL", "MOVE_TO_BE", "BUY", "MOVE_TO_BE"]),
        ("even", ["ENABLE_TRAIL", "HOLD", "BUY", "BUY"]),
        ("trailing", ["HOLD", "DISABLE_TRAIL", "BUY", "HOLD"]),
    ],
)
def test_the_table_of_actions(state, taught):
    account = ACCOUNTS[state]
    for (label, held), action in zip((WITH, NOWHERE, SOON, LATER), taught, strict=True):
        row = taught_by(account, label, held).row(0, named=True)
        assert (row["state"], row["action"]) == (state, action)
        assert row["answer"].startswith(f"{action} | ")


def taught_by(account: dict, label: int | None, held: int) -> pl.DataFrame:
    """The example of one decision; the labels of the other two sides say the opposite."""
    key = {name: POINT[name] for name in ("symbol", "interval", "decision_at")}
    side = account["position"]
    labels = [
        key | {"side": s, "label": label if s == side else 1, "sessions_held": held, "label_end_at": AT, "label_known_at": AT}
        for s in (-1, 0, 1)
    ]
    states = frame(key | account).with_columns(session=pl.lit(AT.date()), known_at=pl.lit(AT))
    kinds = {"side": pl.Int32, "label": pl.Int32, "decision_at": STAMP}
    labelled = pl.DataFrame(labels, schema_overrides=kinds)
    points = pl.DataFrame([POINT], schema_overrides=TYPES)
    states = states.with_columns(pl.col("position").cast(pl.Int32))
    return instructions(points, states, labelled, AT, AT + timedelta(minutes=1), selection("agent_v1"))


def test_a_long_position_is_left_by_selling_and_an_unknown_label_teaches_nothing():
    assert taught_by(SHORT | {"position": 1, "stop_price": 117.0}, *SOON)["action"].to_list() == ["SELL"]
    unknown = taught_by(flat(), None, 0)
    assert unknown.height == 0
    assert unknown.columns == list(COLUMNS)


def test_difficulty_is_how_far_the_drift_points_away():
    # The drift of -1 is half a trend, downwards.
    assert taught_by(flat(), *SOON)["difficulty"].item() == 0.25
    assert taught_by(flat(), *WITH)["difficulty"].item() == 0.75
    assert taught_by(SHORT, *WITH)["difficulty"].item() == 0.25
    assert taught_by(SHORT, *NOWHERE)["difficulty"].item() == 0.5


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (None, "not_text"),
        (7, "not_text"),
        ("", "unparseable"),
        ("HOLD", "unparseable"),
        ("hold | 0.50 | no trend", "unparseable"),
        ("HOLD | 0.5 | no trend", "unparseable"),
        ("HOLD | 0.50 | No trend", "unparseable"),
        ("HOLD | 0.50 | ", "unparseable"),
        ("HOLD | 0.50 | no trend\n", "unparseable"),
        ("HOLD | 0.50 | no trend ", "unparseable"),
        ("HOLD | 0.50 | no  trend", "unparseable"),
        ("HOLD | 00.50 | no trend", "unparseable"),
        (" HOLD | 0.50 | no trend", "unparseable"),
        ("HOLD | nan | no trend", "unparseable"),
        ("CLOSE | 0.50 | no trend", "unknown_action"),
        ("HOLD | 1.01 | no trend", "confidence_out_of_range"),
        ("HOLD | -0.10 | no trend", "confidence_out_of_range"),
    ],
)
def test_what_is_no_answer_is_rejected_with_its_reason(text, state):
    parsed = parse_agent(text)
    assert isinstance(parsed, Rejection)
    assert parsed.state == state


def test_rejections_act_as_hold():
    rows = parse_agents(pl.Series(["SELL | 0.61 | trend down", "SELL | 1.61 | trend down", None]))
    assert rows.rows() == [("ok", "SELL", 0.61), ("confidence_out_of_range", "HOLD", None), ("not_text", "HOLD", None)]


ALMOST = st.builds(
    lambda action, confidence, reason, junk: f"{action}{junk}| {confidence} | {reason}",
    st.sampled_from([*ACTIONS, "CLOSE", "hold", ""]),
    st.one_of(st.floats().map(str), st.floats(-2, 2).map("{:.2f}".format)),
    st.text("abc xyz", max_size=45),
    st.sampled_from([" ", "", "  ", "\n"]),
)


@given(st.one_of(st.text(), ALMOST, st.none(), st.integers(), st.binary(), st.lists(st.text())))
def test_any_text_gives_an_answer_that_prints_the_same_or_a_typed_rejection(text):
    parsed = parse_agent(text)
    if isinstance(parsed, Rejection):
        assert parsed.state in STATES and parsed.why
    else:
        assert parsed.action in ACTIONS and 0 <= parsed.confidence <= 1
        assert agent_answer(parsed.action, parsed.confidence, parsed.reason) == text


def test_an_answer_is_made_of_known_parts():
    assert parse_agent(agent_answer("MOVE_TO_BE", 0.5, "no trend")) == AgentAnswer("MOVE_TO_BE", 0.5, "no trend")
    for bad in (("CLOSE", 0.5, "no trend"), ("HOLD", 1.5, "no trend"), ("HOLD", 0.5, "No")):
        with pytest.raises(ValueError):
            agent_answer(*bad)
    # One character more or less than an answer is none.
    text = agent_answer("BUY", 0.7, "trend up")
    shuffled = random.Random(1)
    for _ in range(50):
        place = shuffled.randrange(text.rindex("|"))
        assert isinstance(parse_agent(text[:place] + text[place + 1 :]), Rejection)
