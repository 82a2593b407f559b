import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.inference.asking import SCHEMA, predict
from tapehouse.inference.families import FAMILIES
from tapehouse.inference.generation import generate
from tapehouse.inference.sampling import Sampling
from tapehouse.inference.scoring import score
from tapehouse.tokens import as_transformers, encode_answers, encode_prompts, load_tokenizer, stop_id
from tapehouse.training.__main__ import train
from tapehouse.training.jobs import export_job
from tapehouse.training.lora import load_trained
from tests.tapehouse.training_jobs import (
    PROVENANCE,
    adapter_recipe,
    dpo_rows,
    make_base,
    make_tokenizer,
    pairs,
    sft_rows,
)

CHANCES = ["p_sell", "p_hold", "p_buy"]
WARM = Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.1, seed=5)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Folders of a tokenizer, a base and an adapter."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    base = make_base(root, root / "tokenizer")
    export_job(root / "job", adapter_recipe("sft"), sft_rows(root / "tokenizer"), base, root / "tokenizer", 3, PROVENANCE, 1)
    train(root / "job", root / "adapter", lambda facts: None)
    return root / "tokenizer", base, root / "adapter"


@pytest.fixture(scope="module")
def asked(world):
    """The vocabulary, the base and the adapted model."""
    return load_tokenizer(world[0]), *(load_trained(world[1], adapter, world[0]) for adapter in (None, world[2]))


def prompts() -> list[str]:
    return [*pairs()["prompt"][:6], "price 0117.45\n"]


def reference_answer(model, tokenizer, prompt: str, most: int) -> tuple[list[int], torch.Tensor]:
    """Greedy decoding of one prompt without cache or batch, and the logits of the first token."""
    ids = encode_prompts(tokenizer, [prompt])[0]
    first = None
    answer: list[int] = []
    with torch.inference_mode():
        while len(answer) < most and stop_id(tokenizer) not in answer:
            logits = model(input_ids=torch.tensor([ids + answer]), use_cache=False).logits[0, -1]
            first = logits if first is None else first
            answer.append(int(logits.argmax()))
    return answer, first


@pytest.mark.parametrize("which", [1, 2])
def test_padded_batches_and_cache_write_what_one_prompt_alone_gets(asked, which):
    tokenizer, model = asked[0], asked[which]
    watched = [3, 9, stop_id(tokenizer)]
    written = generate(model, tokenizer, prompts(), most=24, batch=4, watched=watched)
    for prompt, ids, firsts in zip(prompts(), written.ids, written.firsts, strict=True):
        answer, first = reference_answer(model, tokenizer, prompt, most=24)
        assert ids == answer
        assert firsts == pytest.approx(first[watched].tolist(), abs=1e-5)


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(8)), st.sampled_from([1, 3, 8]), st.sampled_from([Sampling(), WARM]))
def test_an_answer_depends_neither_on_the_order_of_prompts_nor_on_the_batch(asked, order, batch, sampling):
    tokenizer, _, model = asked
    straight = pairs()["prompt"].to_list()[:8]
    whole = generate(model, tokenizer, straight, most=12, batch=8, sampling=sampling)
    other = generate(model, tokenizer, [straight[row] for row in order], most=12, batch=batch, sampling=sampling)
    assert [whole.ids[row] for row in order] == other.ids


def test_threads_do_not_change_an_answer(asked):
    tokenizer, _, model = asked
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(predict(model, tokenizer, prompts()[:6], sampling=WARM))
    finally:
        torch.set_num_threads(before)
    first, second = found
    assert first["text"].equals(second["text"]) and first["action"].equals(second["action"])
    assert first.select(CHANCES).to_numpy() == pytest.approx(second.select(CHANCES).to_numpy(), abs=1e-5)


def test_predictions_have_the_contracts_columns_and_an_unfit_answer_acts_as_hold(asked):
    tokenizer, base, _ = asked
    rows = predict(base, tokenizer, prompts()[:6], batch=4)
    assert dict(rows.schema) == SCHEMA and rows.height == 6
    assert rows.equals(predict(base, tokenizer, prompts()[:6], batch=4))
    unfit = rows.filter(pl.col("parse_state") != "ok")
    assert unfit.height > 0  # a base of twelve steps cannot answer
    assert set(unfit["action"]) == {"HOLD"} and unfit["limit_price"].null_count() == unfit.height
    assert predict(base, tokenizer, [], batch=8).schema == rows.schema


def test_probabilities_are_of_the_action_at_the_first_place(asked):
    tokenizer, _, model = asked
    rows = predict(model, tokenizer, prompts()[:6])
    firsts = [encode_prompts(tokenizer, [name])[0][0] for name in ("SELL", "HOLD", "BUY")]
    for prompt, told in zip(prompts(), rows.select(CHANCES).rows(), strict=False):
        chances = reference_answer(model, tokenizer, prompt, most=1)[1].softmax(dim=0)[firsts]
        assert told == pytest.approx((chances / chances.sum()).tolist(), abs=1e-5)


def test_within_the_grammar_even_an_untrained_model_answers(asked):
    tokenizer, base, _ = asked
    rows = predict(base, tokenizer, prompts()[:6], mode="constrained", sampling=Sampling(temperature=1.5, seed=1))
    assert set(rows["parse_state"]) == {"ok"} and rows["text"].null_count() == 0


def test_scores_are_those_of_passes_of_their_own_and_the_likeliest_class_is_taken(asked):
    tokenizer, _, model = asked
    family, asks = FAMILIES["order"], prompts()[:6]
    points = pl.DataFrame({"rsi_14": [55.0] * 6, "ret_20d": [0.02] * 6, "realised_vol_20d": [0.25] * 6})
    choices = family.choices(points, pl.Series(asks), "order_v2")
    assert choices[0].texts["SELL"].startswith("SELL limit 0020.00 confidence ")
    assert choices[0].texts["HOLD"].startswith("HOLD confidence ")
    ids = [encode_answers(tokenizer, [one.texts[name] for name in ("SELL", "HOLD", "BUY")]) for one in choices]
    heads = encode_prompts(tokenizer, asks)
    found = score(model, heads, ids, tokenizer.pad)
    with torch.inference_mode():
        for row, (head, answers) in enumerate(zip(heads, ids, strict=True)):
            for place, answer in enumerate(answers):
                logits = model(input_ids=torch.tensor([head + answer])).logits[0, len(head) - 1 : -1].log_softmax(-1)
                alone = logits[range(len(answer)), answer].double().sum().item()
                assert found[row, place] == pytest.approx(alone, abs=1e-5)
    rows = predict(model, tokenizer, asks, mode="score", choices=choices)
    assert set(rows["parse_state"]) == {"ok"}
    names = [("SELL", "HOLD", "BUY")[row.index(max(row))] for row in rows.select(CHANCES).rows()]
    assert rows["action"].to_list() == names == [text.split()[0] for text in rows["text"]]
    assert rows.select(pl.sum_horizontal(CHANCES)).to_series().to_list() == pytest.approx([1.0] * 6)
    with pytest.raises(ValueError, match=r"pass those of Family\.choices"):
        predict(model, tokenizer, asks, mode="score")


def test_the_adapter_changes_what_the_base_says(asked):
    tokenizer, *models = asked
    base, adapted = (predict(model, tokenizer, prompts()[:6]).select(CHANCES) for model in models)
    assert not base.equals(adapted)
    for rows in (base, adapted):
        assert rows.sum_horizontal().to_list() == pytest.approx([1.0] * 6)


def test_dataset_evaluation_and_serving_see_the_same_token_ids(world, asked):
    """Golden: the prompt's ids in both datasets, in what the model is fed, and from the transformers tokenizer."""
    tokenizer, model, _ = asked
    prompt = pairs()["prompt"][0]
    supervised, preference = sft_rows(world[0]), dpo_rows(world[0])
    fed: list[list[int]] = []
    hook = model.model.embed_tokens.register_forward_hook(lambda module, inputs, output: fed.append(inputs[0][0].tolist()))
    generate(model, tokenizer, [prompt], most=2)
    hook.remove()
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
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        load_trained(tmp_path, None, world[0])
