import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.tokens import (
    CONFIG,
    as_transformers,
    decode_answer,
    encode_answers,
    encode_prompts,
    load_tokenizer,
    pad_id,
    stop_id,
    stored_tokenizer,
    stored_tokenizers,
    tokenizer_digest,
    write_tokenizer,
)
from tapehouse.vocabularies import PAD, STOP, read_tokenizer, train_tokenizer

TEXTS = [f"price {price:07.2f}\nBUY limit {price:07.2f} because trend up" for price in range(10, 60)]
MARKERS = ("<thesis>", "</thesis>", "<action>", "</action>", "<action>buy</action>", "<action>sell</action>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(TEXTS, folder, MARKERS)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


def test_every_digit_is_a_token_and_words_are_whole(tokenizer):
    ids = encode_answers(tokenizer, ["BUY limit 0117.45 because trend up"])[0]
    assert [tokenizer.decode([token]) for token in ids] == [
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


def test_a_marker_is_one_token_in_an_answer_that_has_them(tokenizer):
    answer = "<thesis>trend up<action>buy</action></thesis>"
    ids = encode_answers(tokenizer, [answer, "trend up", ""], marked=True)
    assert ids[0] == [
        tokenizer.markers["<thesis>"],
        *encode_prompts(tokenizer, ["trend up"])[0],
        tokenizer.markers["<action>buy</action>"],
        tokenizer.markers["</thesis>"],
        tokenizer.stop,
    ]
    assert ids[1:] == encode_answers(tokenizer, ["trend up", ""])
    assert decode_answer(tokenizer, ids[0]) == answer
    # An action that is no marker is spelled between its tags.
    other = encode_answers(tokenizer, ["<action>wait</action>"], marked=True)[0]
    assert (other[0], other[-2]) == (tokenizer.markers["<action>"], tokenizer.markers["</action>"])


@settings(deadline=None)
@given(st.lists(st.sampled_from([*MARKERS, STOP, PAD, "trend up", " 12", "<", "é"]), max_size=8).map("".join))
def test_no_text_makes_a_special_token_and_only_a_marked_answer_makes_a_marker(tokenizer, text):
    special = {tokenizer.stop, tokenizer.pad}
    prompt = encode_prompts(tokenizer, [text])[0]
    assert not set(prompt) & (special | set(tokenizer.markers.values()))
    assert tokenizer.decode(prompt) == text
    *ids, stop = encode_answers(tokenizer, [text], marked=True)[0]
    assert stop == tokenizer.stop and not set(ids) & special
    assert tokenizer.decode(ids) == text


def test_training_is_a_function_of_the_set_of_texts(tmp_path):
    again = train_tokenizer([*reversed(TEXTS), TEXTS[0]], tmp_path / "one")
    assert again == train_tokenizer(TEXTS, tmp_path / "other")


def test_the_digest_is_of_both_files(tmp_path):
    train_tokenizer(TEXTS, tmp_path)
    before = tokenizer_digest(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(json.dumps(config | {"model_max_length": 7}))
    assert tokenizer_digest(tmp_path) != before
    assert load_tokenizer(tmp_path).max_length == 7


def test_the_transformers_form_gives_the_same_ids(folder, tokenizer):
    other = as_transformers(folder)
    spelled = [*TEXTS, f"price {STOP} <action>buy</action> {PAD}"]
    assert [other(text)["input_ids"] for text in spelled] == encode_prompts(tokenizer, spelled)
    assert (other.pad_token, other.eos_token) == (PAD, STOP)
    assert (other.pad_token_id, other.eos_token_id) == (tokenizer.pad, tokenizer.stop)
    answer = "<thesis>trend up<action>buy</action></thesis>"
    assert other.decode(encode_answers(tokenizer, [answer], marked=True)[0][:-1]) == answer


def test_an_answer_without_its_stop_is_no_text(tokenizer):
    ids = encode_answers(tokenizer, ["HOLD because trend up"])[0]
    assert decode_answer(tokenizer, [*ids, 5, 6]) == "HOLD because trend up"
    assert decode_answer(tokenizer, ids[:-1]) is None
    lone_byte = tokenizer.token_to_id("Ã")  # the first byte of a two-byte character, alone
    assert decode_answer(tokenizer, [lone_byte, stop_id(tokenizer)]) is None


def test_the_stored_files_are_named_and_checked_by_their_digest(tmp_path):
    digest = train_tokenizer(TEXTS, tmp_path / "tk")
    rows = pl.DataFrame({"tokenizer": [digest], "base": ["nano"], "path": ["tk"]})
    assert stored_tokenizer(rows, tmp_path)[1] == digest
    assert list(stored_tokenizers(rows, tmp_path)) == [digest]
    with pytest.raises(TapehouseError, match="materialise models/tokenizer again"):
        stored_tokenizer(rows.with_columns(tokenizer=pl.lit("0" * 16)), tmp_path)
    with pytest.raises(TapehouseError, match=r"0 rows for the base 'other'.*models_registry/tokenizers/other.yaml"):
        stored_tokenizer(rows, tmp_path, "other")
    with pytest.raises(TapehouseError, match="has no row; materialise models/tokenizer"):
        stored_tokenizers(rows.clear(), tmp_path)


def test_what_cannot_be_a_tokenizer_is_an_error_with_a_remedy(tmp_path, folder):
    with pytest.raises(TapehouseError, match="materialise the pairs"):
        train_tokenizer([], tmp_path)
    with pytest.raises(TapehouseError, match="materialise models/tokenizer"):
        load_tokenizer(tmp_path)
    own = read_tokenizer(folder / "tokenizer.json")
    with pytest.raises(TapehouseError, match="'<eos>' is no token of it"):
        write_tokenizer(own, tmp_path, "<eos>", PAD, (), 64)
    with pytest.raises(TapehouseError, match="both stops and pads"):
        write_tokenizer(own, tmp_path, STOP, STOP, (), 64)
    with pytest.raises(TapehouseError, match=r"markers \['BUY'\] are words of its vocabulary"):
        write_tokenizer(own, tmp_path, STOP, PAD, ("BUY",), 64)
