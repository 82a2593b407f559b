import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.inference import MAX_ANSWER_TOKENS, SCHEMA, generate, load_model, predict
from tapehouse.tokens import as_transformers, encode_prompts, load_tokenizer, stop_id
from tapehouse.training.__main__ import train
from tapehouse.training.jobs import export_job
from tests.tapehouse.training_jobs import (
    PROVENANCE,
    adapter_recipe,
    dpo_rows,
    make_base,
    make_tokenizer,
    pairs,
    sft_rows,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of a tokenizer, a base and an adapter."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    base = make_base(root, root / "tokenizer")
    export_job(root / "job", adapter_recipe("sft"), sft_rows(root / "tokenizer"), base, root / "tokenizer", 3, PROVENANCE, 1)
    train(root / "job", root / "adapter", lambda facts: None)
    return root / "tokenizer", base, root / "adapter"


def reference_answer(model, tokenizer, prompt: str) -> tuple[list[int], torch.Tensor]:
    """Greedy decoding of one prompt without cache or batch, and the probabilities of the first token."""
    ids = encode_prompts(tokenizer, [prompt])[0]
    first = None
    answer: list[int] = []
    with torch.inference_mode():
        while len(answer) < MAX_ANSWER_TOKENS and stop_id(tokenizer) not in answer:
            logits = model(input_ids=torch.tensor([ids + answer]), use_cache=False).logits[0, -1]
            first = logits.softmax(dim=0) if first is None else first
            answer.append(int(logits.argmax()))
    return answer, first


def test_batches_and_cache_answer_as_one_prompt_alone_does(world):
    tokenizer, model = load_tokenizer(world[0]), load_model(world[1], world[2])
    prompts = [*pairs()["prompt"][:6], "price 0117.45\n"]
    texts, chances = generate(model, tokenizer, prompts, batch=4)
    for prompt, text, chance in zip(prompts, texts, chances, strict=True):
        answer, first = reference_answer(model, tokenizer, prompt)
        stopped = answer[-1] == stop_id(tokenizer)
        assert text == (tokenizer.decode(answer[:-1], skip_special_tokens=False) if stopped else None)
        actions = first[[encode_prompts(tokenizer, [name])[0][0] for name in ("SELL", "HOLD", "BUY")]]
        assert chance == pytest.approx((actions / actions.sum()).tolist(), abs=1e-5)


def test_predictions_have_the_contracts_columns_and_an_unfit_answer_acts_as_hold(world):
    prompts = pairs()["prompt"].to_list()
    rows = predict(world[1], None, world[0], prompts, batch=8)
    assert dict(rows.schema) == SCHEMA and rows.height == len(prompts)
    assert rows.equals(predict(world[1], None, world[0], prompts, batch=8))
    unfit = rows.filter(pl.col("parse_state") != "ok")
    assert unfit.height > 0  # a base of twelve steps cannot answer
    assert set(unfit["action"]) == {"HOLD"} and unfit["limit_price"].null_count() == unfit.height
    assert predict(world[1], None, world[0], [], batch=8).schema == rows.schema


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(8)))
def test_an_answer_does_not_depend_on_the_order_of_prompts(world, order):
    prompts = pairs()["prompt"].to_list()[:8]
    straight = predict(world[1], world[2], world[0], prompts, batch=8)
    shuffled = predict(world[1], world[2], world[0], [prompts[row] for row in order], batch=8)
    assert straight["text"].gather(order).equals(shuffled["text"])


def test_the_adapter_changes_what_the_base_says(world):
    prompts = pairs()["prompt"].to_list()
    columns = ["p_sell", "p_hold", "p_buy"]
    base, adapted = (predict(world[1], adapter, world[0], prompts).select(columns) for adapter in (None, world[2]))
    assert not base.equals(adapted)
    for rows in (base, adapted):
        assert rows.sum_horizontal().to_list() == pytest.approx([1.0] * len(prompts))


def test_dataset_evaluation_and_serving_see_the_same_token_ids(world):
    """Golden: the prompt's ids in both datasets, in what the model is fed, and from the transformers tokenizer."""
    tokenizer, model = load_tokenizer(world[0]), load_model(world[1], None)
    prompt = pairs()["prompt"][0]
    supervised, preference = sft_rows(world[0]), dpo_rows(world[0])
    fed: list[list[int]] = []
    model.model.embed_tokens.register_forward_hook(lambda module, inputs, output: fed.append(inputs[0][0].tolist()))
    generate(model, tokenizer, [prompt], batch=1)
    served = as_transformers(world[0])(prompt)["input_ids"]
    dataset = supervised["input_ids"][0][: supervised["prompt_length"][0]].to_list()
    assert dataset == preference["prompt_ids"][0].to_list() == fed[0] == served
    assert [tokenizer.decode([token]) for token in dataset] == [
        *("IBM", " daily", " order", " for", " a", " better", " price", "\n"),
        *("rsi", " ", "4", "0", "\n"),
        *("atr", " ", "0", "0", "0", "2", ".", "3", "1", "\n"),
        *("price", " ", "0", "0", "2", "0", ".", "0", "0", "\n"),
    ]


def test_a_missing_base_is_an_error(world, tmp_path):
    with pytest.raises(OSError, match=str(tmp_path)):
        load_model(tmp_path, None)
