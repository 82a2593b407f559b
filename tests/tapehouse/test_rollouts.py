"""Answers drawn from one cache, and their log-probabilities in one row, are those of answers that stand alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from tapehouse.training.grouped import grouped
from tapehouse.training.rewarded import RolloutRows
from tapehouse.training.rollouts import draw_groups

SHAPE = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1,
}  # fmt: skip
KINDS = {"llama": (LlamaForCausalLM, LlamaConfig), "qwen3": (Qwen3ForCausalLM, Qwen3Config)}
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [20, 21, 22, 23]]


@pytest.fixture(scope="module", params=sorted(KINDS))
def model(request):
    kind, config = KINDS[request.param]
    torch.manual_seed(11)
    made = kind(config(**SHAPE | ({"head_dim": 8} if request.param == "qwen3" else {})))
    with torch.no_grad():  # sharp enough that the likeliest token is no tie
        made.lm_head.weight.mul_(20)
    return made.eval()


def alone(model, ids):
    """Logits of the token after `ids`, from a row of its own."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -1]


def test_the_likeliest_answers_are_those_of_generate(model):
    found = draw_groups(model, PROMPTS, group=2, most_tokens=9, stop=-1, temperature=0.0)
    for prompt, answers in zip(PROMPTS, found, strict=True):
        expected = model.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=9, min_new_tokens=9, do_sample=False,
        )[0, len(prompt) :].tolist()  # fmt: skip
        # generate() may not end before its time, so it never takes the stop token
        for answer in answers:
            upto = answer.index(1) if 1 in answer else len(answer)
            assert answer[:upto] == expected[:upto]


@pytest.mark.parametrize("stop", [-1, 33])
def test_each_member_is_drawn_as_it_would_be_alone(model, stop):
    """The reference draws from the same noise with a whole forward pass for every member and token."""
    group, most = 3, 7
    found = draw_groups(model, PROMPTS, group, most, stop, 0.8, torch.Generator().manual_seed(5))
    noise, rows = torch.Generator().manual_seed(5), [[[] for _ in range(group)] for _ in PROMPTS]
    while len(rows[0][0]) < most:
        logits = [alone(model, prompt + own) for prompt, members in zip(PROMPTS, rows, strict=True) for own in members]
        drawn = torch.multinomial((torch.stack(logits) / 0.8).softmax(-1), 1, generator=noise).view(-1, group)
        for members, tokens in zip(rows, drawn.tolist(), strict=True):
            for own, token in zip(members, tokens, strict=True):
                own.append(token)
        if all(stop in own for members in rows for own in members):
            break
    cut = [[own[: own.index(stop) + 1] if stop in own else own for own in members] for members in rows]
    assert found == cut
    assert len({tuple(answer) for answer in found[0]}) > 1


def test_a_group_holds_its_prompt_once_in_the_cache(model):
    caches = []
    watch = model.model.register_forward_pre_hook(
        lambda _, __, passed: caches.append(passed["past_key_values"]), with_kwargs=True
    )
    draw_groups(model, [PROMPTS[0]], group=4, most_tokens=3, stop=-1)
    watch.remove()
    assert caches[0].layers[0].keys.shape == (1, 2, len(PROMPTS[0]) + 4 * 2, 8)  # the last tokens are never run


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_prediction_stands_where_its_answer_is(data):
    """Targets gathered back are the answers; each token sees its prompt and its own answer, at the position it has alone."""
    prompts = data.draw(st.lists(st.sampled_from([[3, 4, 5], [6, 7], [8, 9, 10, 11]]), min_size=1, max_size=6))
    answers = [data.draw(st.lists(st.integers(2, 50), min_size=1, max_size=5)) for _ in prompts]
    wide, long = max(map(len, prompts)), max(map(len, answers))
    left = torch.tensor([[0] * (wide - len(p)) + p for p in prompts])
    right = torch.tensor([a + [0] * (long - len(a)) for a in answers])
    masks = [torch.tensor([[0] * (wide - len(p)) + [1] * len(p) for p in prompts])]
    masks.append(torch.tensor([[1] * len(a) + [0] * (long - len(a)) for a in answers]))
    batch = grouped(left, masks[0], right, masks[1], pad=0)
    assert batch.ids.shape[0] == len({tuple(p) for p in prompts})
    told = batch.of_answers(batch.targets)
    places = batch.of_answers(batch.positions)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        assert told[row, : len(answer)].tolist() == answer
        assert places[row, : len(answer)].tolist() == list(range(len(prompt) - 1, len(prompt) - 1 + len(answer)))
        group, last = batch.rows[row, 0], batch.columns[row, len(answer) - 1]
        seen = batch.mask[group, 0, last].nonzero().flatten()
        assert batch.ids[group, seen].tolist() == [*prompt, *answer[:-1]]


def test_a_rollout_is_met_once_for_each_use():
    found = list(RolloutRows(rows=5, rollouts=2, prompts=2, group=3, uses=2, seed=4))
    first, second = found[:12], found[12:]
    assert len(found) == len(RolloutRows(5, 2, 2, 3, 2, 4)) == 24
    for part in (first, second):
        assert part[:6] == part[6:] and part[:3] == [part[0]] * 3 and part[3:6] == [part[3]] * 3 and part[0] != part[3]
    assert found == list(RolloutRows(5, 2, 2, 3, 2, 4)) != list(RolloutRows(5, 2, 2, 3, 2, 5))
