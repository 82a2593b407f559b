from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.inference.sampling import GREEDY, Sampling, choose, nucleus, text_keys

LOGITS = torch.tensor([[2.0, 1.0, -1.0, 0.0]])
NONE_SEEN = torch.zeros(1, 4, dtype=torch.bool)


def one(logits: torch.Tensor, sampling: Sampling, text: str = "a", place: int = 0, seen: torch.Tensor = NONE_SEEN) -> int:
    return int(choose(logits, seen, text_keys([text]), place, sampling)[0])


def test_greedy_takes_the_likeliest_and_a_penalty_can_take_it_away():
    assert one(LOGITS, GREEDY) == 0
    seen = torch.tensor([[True, False, True, False]])
    # 2 / 2.5 < 1, and a negative logit is multiplied: the token that was said falls behind either way.
    assert one(LOGITS, Sampling(repetition_penalty=2.5), seen=seen) == 1
    assert one(-LOGITS.abs(), Sampling(repetition_penalty=2.5), seen=torch.tensor([[False, False, False, True]])) == 3
    assert one(torch.tensor([[-2.0, -3.0]]), Sampling(repetition_penalty=2.0), seen=torch.tensor([[True, False]])) == 1


def test_the_nucleus_is_the_fewest_of_the_likeliest_that_reach_the_share():
    shares = torch.tensor([[0.1, 0.5, 0.15, 0.25]], dtype=torch.float64)
    assert nucleus(shares, 0.5).tolist() == [[0.0, 0.5, 0.0, 0.0]]
    assert nucleus(shares, 0.51).tolist() == [[0.0, 0.5, 0.0, 0.25]]
    assert nucleus(shares, 0.9).tolist() == [[0.0, 0.5, 0.15, 0.25]]
    assert nucleus(shares, 1.0).equal(shares)


def test_drawn_tokens_come_as_often_as_their_shares_say():
    texts = [f"prompt {number}" for number in range(4000)]
    logits = LOGITS.expand(4000, -1)
    drawn = choose(logits, torch.zeros(4000, 4, dtype=torch.bool), text_keys(texts), 0, Sampling(temperature=2.0, seed=1))
    counts = Counter(drawn.tolist())
    for token, share in enumerate((LOGITS[0] / 2.0).softmax(0).tolist()):
        assert counts[token] / 4000 == pytest.approx(share, abs=4 * (share * (1 - share) / 4000) ** 0.5)


def test_what_may_not_follow_is_never_drawn():
    logits = torch.full((2000, 5), float("-inf"))
    logits[:, 1], logits[:, 3] = 0.0, 0.0
    keys = text_keys([str(number) for number in range(2000)])
    drawn = choose(logits, torch.zeros(2000, 5, dtype=torch.bool), keys, 0, Sampling(temperature=1.0))
    assert set(drawn.tolist()) == {1, 3}


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 9), st.integers(0, 2**31))
def test_a_draw_is_of_its_prompt_seed_and_place_alone(order, place, seed):
    texts = [f"prompt {number}" for number in range(6)]
    logits = torch.linspace(-2, 2, 60).reshape(6, 10)
    seen = torch.zeros(6, 10, dtype=torch.bool)
    sampling = Sampling(temperature=1.3, top_p=0.95, seed=seed)
    whole = choose(logits, seen, text_keys(texts), place, sampling)
    shuffled = choose(logits[order], seen, text_keys([texts[row] for row in order]), place, sampling)
    assert whole[order].equal(shuffled)


def test_other_seeds_places_and_prompts_draw_anew():
    drawn = {
        what: [one(torch.zeros(1, 1000), Sampling(temperature=1.0, seed=seed), text, place) for text in "abcd"]
        for what, seed, place in (("first", 0, 0), ("seed", 1, 0), ("place", 0, 1))
    }
    assert len({tuple(tokens) for tokens in drawn.values()}) == 3 and len(set(drawn["first"])) == 4
    assert np.unique(text_keys(["a", "b", "a"])).size == 2
