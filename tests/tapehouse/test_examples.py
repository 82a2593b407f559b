from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.examples import render_pairs, supervised_examples
from tapehouse.prompts import templates
from tapehouse.prompts.orders import parse_orders
from tapehouse.prompts.templates import selection

SHOWN = selection("order_v1")
AT = datetime(2012, 1, 3, 21, 5, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = {"symbol": "IBM", "interval": "1d"}
FEATURES = {
    "ret_1d": 0.01,
    "ret_5d": 0.02,
    "ret_20d": 0.03,
    "rsi_14": 50.0,
    "realised_vol_20d": 0.2,
    "vwap_distance_20d": 0.0,
    "relative_strength_20d": 0.0,
    "market_ret_20d": 0.0,
    "market_vol_20d": 0.1,
    "atr_14": 2.0,
    "close": 100.0,
}


def bare_pairs(sides: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            KEY
            | {
                "decision_at": AT + day * DAY,
                "objective": "patient",
                "side": side,
                "chosen_limit": 99.0,
                "rejected_limit": 98.0,
                "placement": 1,
                "chosen_reward": 5.0,
                "margin_bps": 12.0,
                "stage": "decision",
                "difficulty": 0.5,
                "reward_end_at": AT + (day + 5) * DAY,
                "reward_known_at": AT + (day + 6) * DAY,
            }
            for day, side in enumerate(sides)
        ]
    )


def points(days: int) -> pl.DataFrame:
    return pl.DataFrame([KEY | FEATURES | {"decision_at": AT + day * DAY} for day in range(days)])


def labels(values: list[int | None], ends: list[int]) -> pl.DataFrame:
    rows = [
        KEY
        | {
            "decision_at": AT + day * DAY,
            "side": side,
            "label": value if side == 0 else 1,
            "label_end_at": AT + (day + end) * DAY,
            "label_known_at": AT + (day + end + 1) * DAY,
        }
        for day, (value, end) in enumerate(zip(values, ends, strict=True))
        for side in (-1, 0, 1)
    ]
    return pl.DataFrame(rows, schema_overrides={"label": pl.Int32})


def rendered(sides: list[str]) -> pl.DataFrame:
    return render_pairs(bare_pairs(sides), points(len(sides)), {"patient": "a better price"}, SHOWN)


def test_a_template_with_a_wider_price_has_answers_and_examples_of_its_width(tmp_path, monkeypatch):
    text = (templates.FOLDER / "order_v1.txt").read_text().replace("{close:07.2f}", "{close:010.3f}")
    (tmp_path / "order_v9.txt").write_text(text)
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    dear = points(3).with_columns(close=pl.lit(412_345.678))
    limits = bare_pairs(["BUY", "SELL", "BUY"]).with_columns(chosen_limit=pl.lit(411_000.125), rejected_limit=pl.lit(410_000.0))
    pairs = render_pairs(limits, dear, {"patient": "a better price"}, selection("order_v9"))
    assert pairs["prompt"][0].endswith("price 412345.678\n")
    assert pairs["chosen"][0].startswith("BUY limit 411000.125 ") and pairs["rejected"][0].startswith("BUY limit 410000.000 ")
    read = parse_orders(pairs["chosen"], pairs["prompt"])
    assert read["parse_state"].to_list() == ["ok"] * 3
    examples = supervised_examples(pairs, labels([1, 0, 1], ends=[2] * 3))
    assert examples["answer"].to_list() == [pairs["chosen"][0], examples["answer"][1], pairs["chosen"][2]]
    assert examples["answer"][1].startswith("HOLD confidence ")


def test_the_answers_of_a_pair_differ_in_digits_only():
    row = rendered(["SELL"]).row(0, named=True)
    assert row["prompt"].startswith("IBM daily order for a better price\n")
    assert (row["chosen"], row["rejected"]) == (
        "SELL limit 0099.00 confidence 0.60 because trend up",
        "SELL limit 0098.00 confidence 0.60 because trend up",
    )


def test_a_label_that_agrees_teaches_the_order_and_no_label_teaches_nothing():
    pairs = rendered(["BUY", "SELL", "BUY", "SELL", "BUY", "SELL"])
    examples = supervised_examples(pairs, labels([1, -1, -1, 1, 0, None], ends=[2] * 6))
    assert examples.select("decision_at", "action", "answer").rows() == [
        (AT, "BUY", "BUY limit 0099.00 confidence 0.60 because trend up"),
        (AT + DAY, "SELL", "SELL limit 0099.00 confidence 0.60 because trend up"),
        (AT + 4 * DAY, "HOLD", "HOLD confidence 0.60 because trend up"),
    ]


def test_of_several_placements_the_best_paid_is_learnt_and_hold_once():
    first = rendered(["BUY", "BUY", "BUY"])
    second = first.with_columns(placement=pl.lit(2, pl.Int64), chosen=pl.col("chosen").str.replace("0099.00", "0098.50"))
    better = second.with_columns(chosen_reward=pl.Series([9.0, 1.0, 9.0]))
    examples = supervised_examples(pl.concat([first, better]), labels([1, 1, 0], ends=[2] * 3))
    assert [answer[:17] for answer in examples["answer"]] == ["BUY limit 0098.50", "BUY limit 0099.00", "HOLD confidence 0"]


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(1, 10)), min_size=1, max_size=8))
def test_an_example_is_known_when_the_later_of_label_and_reward_is(drawn):
    values, ends = [value for value, _ in drawn], [end for _, end in drawn]
    pairs = rendered(["BUY"] * len(drawn))
    examples = supervised_examples(pairs, labels(values, ends))
    assert examples.height == sum(value >= 0 for value in values)
    for row in examples.iter_rows(named=True):
        end = ends[(row["decision_at"] - AT).days]
        assert row["label_end_at"] == row["decision_at"] + max(end, 5) * DAY
        assert row["label_known_at"] == row["decision_at"] + (max(end, 5) + 1) * DAY


def test_a_pair_without_its_decision_point_is_an_error():
    with pytest.raises(TapehouseError, match=r"IBM at 2012-01-04 .* is not in features.decision_points"):
        render_pairs(bare_pairs(["BUY", "BUY"]), points(1), {"patient": "a better price"}, SHOWN)
