import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.tokens import (
    PAD,
    STOP,
    as_transformers,
    decode_answer,
    encode_answers,
    encode_prompts,
    load_tokenizer,
    pad_id,
    stop_id,
    store_tokenizer,
    stored_tokenizer,
    train_tokenizer,
)

TEXTS = [f"price {price:07.2f}\nBUY limit {price:07.2f} because trend up" for price in range(10, 60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def test_every_digit_is_a_token_and_words_are_whole(tokenizer):
    ids = encode_answers(tokenizer, ["BUY limit 0117.45 because trend up"])[0]
    assert [tokenizer.decode([token], skip_special_tokens=False) for token in ids] == [
        *("BUY", " limit", " ", "0", "1", "1", "7", ".", "4", "5", " because", " trend", " up"),
        STOP,
    ]


def test_the_stop_token_is_not_the_padding(tokenizer):
    assert pad_id(tokenizer) != stop_id(tokenizer)
    assert encode_answers(tokenizer, ["HOLD"])[0].count(stop_id(tokenizer)) == 1


@given(st.text(max_size=60), st.sampled_from(["BUY limit 0117.45 because trend up", "HOLD because trend up"]))
def test_any_text_comes_back_and_the_answer_does_not_merge_with_the_prompt(tokenizer, text, answer):
    prompt = f"{text}\nprice 0117.45\n"
    ids = encode_prompts(tokenizer, [prompt])[0]
    assert tokenizer.decode(ids) == prompt
    whole = encode_prompts(tokenizer, [prompt + answer])[0]
    assert [*whole, stop_id(tokenizer)] == ids + encode_answers(tokenizer, [answer])[0]


def test_training_is_a_function_of_the_set_of_texts(folder, tmp_path):
    again = train_tokenizer([*reversed(TEXTS), TEXTS[0]], tmp_path)
    assert again == train_tokenizer(TEXTS, tmp_path / "other")


def test_the_transformers_form_gives_the_same_ids(folder, tokenizer):
    other = as_transformers(folder)
    assert [other(text)["input_ids"] for text in TEXTS] == encode_prompts(tokenizer, TEXTS)
    assert (other.pad_token, other.eos_token) == (PAD, STOP)


def test_an_answer_without_its_stop_is_no_text(tokenizer):
    ids = encode_answers(tokenizer, ["HOLD because trend up"])[0]
    assert decode_answer(tokenizer, [*ids, 5, 6]) == "HOLD because trend up"
    assert decode_answer(tokenizer, ids[:-1]) is None
    lone_byte = tokenizer.token_to_id("Ã")  # the first byte of a two-byte character, alone
    assert decode_answer(tokenizer, [lone_byte, stop_id(tokenizer)]) is None


def test_a_text_may_not_spell_a_special_token(tokenizer):
    with pytest.raises(ValueError, match="special token"):
        encode_prompts(tokenizer, [f"price {STOP}"])


def test_the_stored_file_is_named_and_checked_by_its_digest(tmp_path):
    folder, digest = store_tokenizer(TEXTS, tmp_path)
    assert folder == tmp_path / digest
    row = pl.DataFrame({"tokenizer": [digest], "path": [digest]})
    assert stored_tokenizer(row, tmp_path)[1] == digest
    with pytest.raises(TapehouseError, match="materialise models/tokenizer again"):
        stored_tokenizer(row.with_columns(tokenizer=pl.lit("0" * 16)), tmp_path)
    with pytest.raises(TapehouseError, match="materialise models/tokenizer"):
        stored_tokenizer(row.clear(), tmp_path)


def test_no_text_is_an_error_with_a_remedy(tmp_path):
    with pytest.raises(TapehouseError, match="materialise the pairs"):
        train_tokenizer([], tmp_path)
    with pytest.raises(TapehouseError, match="materialise models/tokenizer"):
        load_tokenizer(tmp_path)
