import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.prompts.templates import selection
from tapehouse.refusals import REFUSED, quarantined
from tapehouse.token_rows import TOO_LONG, asked_prompts, preference_tokens, prompt_tokens, supervised_tokens
from tapehouse.tokens import decode_answer, encode_answers, encode_prompts, load_tokenizer
from tapehouse.vocabularies import train_tokenizer

AT = datetime(2012, 1, 3, 21, 5, tzinfo=UTC)
TEMPLATE = selection("agent_v1").version  # its optional lines: regime, win rate, return, …, dropped in this order
LINES = "IBM agent\nregime bullish\nreturn day +1.0%\nwin rate 50%\nprice 0117.45\n"
ANSWER, OTHER = "HOLD | 0.50 | trend up", "SELL | 0.50 | trend down and weak"


@pytest.fixture(scope="module")
def long_and_short(tmp_path_factory):
    """Tokenizers of the same text: one with room for everything, one with room for the prompt without one optional line."""
    folder = tmp_path_factory.mktemp("tokenizers")
    found = {}
    for name in ("long", "short"):
        texts = [LINES + ANSWER, LINES + OTHER]
        train_tokenizer(texts, folder / name, max_length=2048)
        found[name] = load_tokenizer(folder / name)
    whole = len(encode_prompts(found["long"], [LINES])[0]) + len(encode_answers(found["long"], [ANSWER])[0])
    train_tokenizer(texts, folder / "tight", max_length=whole - 1)
    return {"long": found["long"], "tight": load_tokenizer(folder / "tight")}


def examples(prompts: list[str], **columns: list[str]) -> pl.DataFrame:
    rows = {"symbol": "IBM", "interval": "1d", "template": TEMPLATE}
    stamps = [AT + timedelta(days=day) for day in range(len(prompts))]
    frame = pl.DataFrame({"prompt": prompts, "decision_at": stamps, **columns}, schema_overrides={"prompt": pl.String})
    return frame.with_columns(pl.col("decision_at").cast(pl.Datetime("us", "UTC")), **{k: pl.lit(v) for k, v in rows.items()})


def test_a_row_is_prompt_answer_and_stop_and_the_loss_is_on_the_last_two(long_and_short):
    tokenizer = long_and_short["long"]
    made = supervised_tokens(examples([LINES], answer=[ANSWER]), {"d": tokenizer}, "datasets.sft_tokens", "datasets.x")
    row = made.rows.row(0, named=True)
    prompt, answer = encode_prompts(tokenizer, [LINES])[0], encode_answers(tokenizer, [ANSWER])[0]
    assert row["input_ids"] == prompt + answer
    assert row["loss_mask"] == [False] * len(prompt) + [True] * len(answer)
    assert (row["prompt_length"], row["lines_dropped"], row["tokenizer"]) == (len(prompt), 0, "d")
    assert row["input_ids"][-1] == tokenizer.stop and tokenizer.pad not in row["input_ids"]
    assert made.refused.height == 0


def test_optional_lines_go_in_the_declared_order_and_what_still_does_not_fit_is_refused(long_and_short):
    tokenizer = long_and_short["tight"]
    bare = "IBM agent " + "and more " * 40 + "\nprice 0117.45\n"
    made = supervised_tokens(
        examples([LINES, bare, "price 0117.45\n"], answer=[ANSWER, OTHER, ANSWER]),
        {"d": tokenizer},
        "datasets.sft_tokens",
        "datasets.instructions",
    )
    assert made.rows["lines_dropped"].to_list() == [1, 0]
    ids, length = made.rows.row(0, named=True)["input_ids"], made.rows["prompt_length"][0]
    assert tokenizer.decode(ids[:length]) == LINES.replace("regime bullish\n", "")
    assert decode_answer(tokenizer, ids[length:]) == ANSWER
    refused = made.refused.row(0, named=True)
    assert (refused["table_name"], refused["symbol"], refused["reason"]) == ("datasets.sft_tokens", "IBM", TOO_LONG)
    assert refused["origin"] == "datasets.instructions IBM 1d 2012-01-04T21:05:00+00:00"
    record = json.loads(refused["record"])
    assert record["tokens"] > record["max_length"] == tokenizer.max_length and record["tokenizer"] == "d"
    assert made.facts == {"examples": 2, "shortened": 1, "refused": 1}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["regime bullish\n", "return day +1.0%\n", "free words here\n"]), max_size=6).map("".join),
            st.sampled_from([ANSWER, OTHER]),
        ),
        max_size=6,
    )
)
def test_every_example_is_whole_or_refused_for_each_tokenizer(long_and_short, drawn):
    rows = examples([f"{text}price 0117.45\n" for text, _ in drawn], answer=[answer for _, answer in drawn])
    made = supervised_tokens(rows, long_and_short, "datasets.sft_tokens", "datasets.x")
    for digest, tokenizer in long_and_short.items():
        own = made.rows.filter(tokenizer=digest)
        away = made.refused.filter(pl.col("record").str.contains(f'"tokenizer": "{digest}"', literal=True))
        assert own.height + away.height == rows.height
        for row in own.join(rows, on="decision_at").iter_rows(named=True):
            ids, length = row["input_ids"], row["prompt_length"]
            assert len(ids) <= tokenizer.max_length
            assert decode_answer(tokenizer, ids[length:]) == row["answer"]
            prompt = tokenizer.decode(ids[:length])
            assert prompt == row["prompt"] or (row["lines_dropped"] and prompt.count("free") == row["prompt"].count("free"))
            assert row["loss_mask"] == [place >= length for place in range(len(ids))]


def test_a_pair_sees_one_prompt_short_enough_for_the_longer_answer(long_and_short):
    rows = examples([LINES], chosen=[ANSWER], rejected=[OTHER])
    tight = preference_tokens(rows, {"d": long_and_short["tight"]}, "datasets.preference_tokens", "datasets.x").rows
    assert tight["lines_dropped"][0] >= 1
    room = len(tight["prompt_ids"][0]) + len(tight["rejected_ids"][0])
    assert room <= long_and_short["tight"].max_length
    whole = preference_tokens(rows, {"d": long_and_short["long"]}, "t", "s").rows.row(0, named=True)
    assert long_and_short["long"].decode(whole["prompt_ids"]) == LINES
    assert decode_answer(long_and_short["long"], whole["chosen_ids"]) == ANSWER
    assert decode_answer(long_and_short["long"], whole["rejected_ids"]) == OTHER


def test_a_prompt_leaves_room_for_its_answer(long_and_short):
    tokenizer = long_and_short["tight"]
    made = prompt_tokens(examples([LINES]), {"d": tokenizer}, "t", "s", room=12).rows
    assert len(made["prompt_ids"][0]) <= tokenizer.max_length - 12
    assert prompt_tokens(examples([LINES]), {"d": tokenizer}, "t", "s", room=tokenizer.max_length).refused.height == 1


def test_evaluation_asks_the_prompts_that_training_saw(long_and_short):
    """Also where lines had to go: the room is that of the family, not that of the answer at hand."""
    tokenizer, longer = long_and_short["tight"], LINES.replace("bullish", "sideways and bullish")
    prompts = [LINES, longer, "price 0117.45\n"]
    room = tokenizer.max_length - len(encode_prompts(tokenizer, [LINES.replace("regime bullish\n", "")])[0])
    asked = asked_prompts(tokenizer, prompts, "agent_v1", room)
    assert asked == [LINES.replace("regime bullish\n", ""), LINES.replace("regime bullish\n", ""), prompts[2]]
    of_pairs = preference_tokens(
        examples(prompts, chosen=["HOLD"] * 3, rejected=["SELL"] * 3), {"d": tokenizer}, "t", "s", room=room
    ).rows
    learnt = supervised_tokens(examples(prompts, answer=["HOLD"] * 3), {"d": tokenizer}, "t", "s", room=room).rows
    of_rewarded = prompt_tokens(examples(prompts), {"d": tokenizer}, "t", "s", room=room).rows
    ids = encode_prompts(tokenizer, asked)
    assert of_pairs["prompt_ids"].to_list() == of_rewarded["prompt_ids"].to_list() == ids
    assert [row[:n] for row, n in learnt.select("input_ids", "prompt_length").iter_rows()] == ids
    bare = "IBM agent " + "and more " * 400 + "\nregime bullish\nprice 0117.45\n"
    assert asked_prompts(tokenizer, [bare], "agent_v1", room) == [bare.replace("regime bullish\n", "")]


def test_no_rows_give_no_rows_of_the_same_types(long_and_short):
    some = examples([LINES], answer=[ANSWER], chosen=[ANSWER], rejected=[OTHER])
    for made in (
        lambda rows: supervised_tokens(rows.drop("chosen", "rejected"), long_and_short, "t", "s"),
        lambda rows: preference_tokens(rows.drop("answer"), long_and_short, "t", "s"),
        lambda rows: prompt_tokens(rows.drop("answer", "chosen", "rejected"), long_and_short, "t", "s", 8),
    ):
        assert made(some.clear()).rows.schema == made(some).rows.schema and made(some.clear()).rows.height == 0
        assert made(some).refused.schema == pl.Schema(REFUSED)


def test_a_record_keeps_the_time_it_was_first_refused_at(long_and_short):
    made = prompt_tokens(examples([LINES, LINES]), {"d": long_and_short["tight"]}, "t", "s", room=2000)
    first = quarantined([made.refused.head(1)], pl.DataFrame(schema=REFUSED), AT)
    again = quarantined([made.refused], first, AT + timedelta(days=9))
    assert again["ingested_at"].to_list() == [AT, AT + timedelta(days=9)]
