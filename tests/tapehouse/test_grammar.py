import random
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.inference.grammar import Grammars, agent_grammar, order_grammar, price_pattern, thesis_grammar
from tapehouse.prompts.agent import AgentAnswer, agent_answer, parse_agent
from tapehouse.prompts.orders import PRICE_BAND, Order, PriceForm, answer, parse_order
from tapehouse.prompts.thesis import SECTIONS, Claim, Thesis, parse_thesis, thesis_text
from tapehouse.tokens import decode_answer, encode_answers, load_tokenizer
from tapehouse.vocabularies import TokenizerRecipe, make_tokenizer

MARKS = [f"<{slash}{name}>" for name in ("thesis", "reasoning", *SECTIONS, "support", "claim") for slash in ("", "/")]
ELEMENTS = [f"<action>{name}</action>" for name in ("strong_sell", "sell", "hold", "buy", "strong_buy")]
PROMPT = "IBM daily order\nprice 0117.45\n"
CLAIMS = {
    "quality": Claim(None),
    "sentiment": Claim(True, ("tone of articles +0.12",)),
    "momentum": Claim(False, ("quarter -4.1%",)),
    "insider_buying": Claim(None),
    "volatility": Claim(True, ("daily volatility 2.31%",)),
    "momentum_10d": Claim(True, ("ten days +3.2%",)),
    "momentum_30d": Claim(False, ("thirty days -0.4%",)),
    "divergence": Claim(True, ("thirty days -0.4%", "tone of articles +0.12")),
}
THESIS = thesis_text(Thesis(dict.fromkeys(SECTIONS) | {"trend": "A rise of 4.1%; ça va."}, CLAIMS, "strong_buy"))


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """One with markers for theses, and one that spells them."""
    texts = [PROMPT + "BUY limit 0117.40 confidence 0.62 because trend up", "HOLD | 0.58 | in profit", THESIS] * 2
    found = []
    for markers in ((*MARKS, *ELEMENTS), ()):
        fields = {"description": "x", "train": {"vocabulary": 600}, "stop": "<stop>", "pad": "<pad>", "max_length": 2048}
        folder, _ = make_tokenizer(
            TokenizerRecipe(**fields, markers=markers), texts, None, tmp_path_factory.mktemp("tokenizer")
        )
        found.append(load_tokenizer(folder))
    return found


def walked(vocabulary, grammar: str, seed: int, most: int = 4000) -> str | None:
    """An answer of tokens drawn from those that may follow; markers and the stop, which end a text, are preferred."""
    rules, draw = Grammars(vocabulary), random.Random(seed)
    rules.begin([grammar])
    ids: list[int] = []
    one = np.array([0])
    endings = {vocabulary.stop, *vocabulary.markers.values()}
    while len(ids) < most and vocabulary.stop not in ids:
        logits = rules.masked(torch.zeros(1, vocabulary.get_vocab_size() + 3), one, np.array([True]))[0]
        allowed = torch.isfinite(logits).nonzero()[:, 0].tolist()
        assert allowed, "a place that nothing may follow"
        ends = sorted(endings & set(allowed))
        ids.append(draw.choice(ends if ends and draw.random() < 0.3 else allowed))
        if ids[-1] != vocabulary.stop:
            rules.advance(one, ids[-1:])
    return decode_answer(vocabulary, ids)


def accepts(vocabulary, grammar: str, text: str, marked: bool = False) -> bool:
    rules = Grammars(vocabulary)
    rules.begin([grammar])
    (ids,) = encode_answers(vocabulary, [text], marked)
    try:
        rules.advance(np.zeros(len(ids), int), ids)
    except ValueError:
        return False
    return True


@given(st.integers(1, 99999), st.integers(1, 99999))
def test_a_price_pattern_holds_the_prices_between_its_bounds_and_no_others(first, second):
    low, high = sorted((first, second))
    pattern = re.compile(price_pattern(*(f"{cents / 100:07.2f}" for cents in (low, high))))
    near = {low, low - 1, low + 1, high, high - 1, high + 1, (low + high) // 2, 0, 99999, 1}
    for cents in near & set(range(100000)):
        assert bool(pattern.fullmatch(f"{cents / 100:07.2f}")) == (low <= cents <= high), cents


def test_what_the_parsers_of_orders_take_is_in_their_grammar_and_a_slip_is_not(vocabularies):
    vocabulary, grammar = vocabularies[0], order_grammar(PROMPT)
    edge = 117.45 * (1 + PRICE_BAND)
    for text in (
        answer("BUY", 117.40, 0.62, "trend up"),
        answer("SELL", 140.94, 1.0, "rsi high"),
        answer("HOLD", None, 0.5, "a"),
    ):
        assert accepts(vocabulary, grammar, text), text
    for text in (
        f"BUY limit {edge + 0.01:07.2f} confidence 0.62 because trend up",
        "BUY limit 117.40 confidence 0.62 because trend up",
        "HOLD limit 0117.40 confidence 0.62 because trend up",
        "BUY limit 0117.40 confidence 1.01 because trend up",
        "BUY limit 0117.40 confidence 0.62 because trend  up",
        "BUY limit 0117.40 confidence 0.62 because trend up and no end of what there is to be said",
        "CLOSE limit 0117.40 confidence 0.62 because trend up",
    ):
        assert not accepts(vocabulary, grammar, text), text


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["0000.01", "0000.04", "0117.45", "9999.99", "000512.3"]))
def test_whatever_the_grammar_lets_an_order_say_parses(vocabularies, seed, price):
    text = walked(vocabularies[0], order_grammar(f"an order\nprice {price}\n"), seed)
    assert isinstance(parse_order(text, float(price), PriceForm.of(price)), Order), text


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_the_grammar_lets_an_agent_say_parses(vocabularies, seed):
    assert isinstance(parse_agent(walked(vocabularies[0], agent_grammar(), seed)), AgentAnswer)


def test_answers_of_the_datasets_are_in_their_grammars(vocabularies):
    for vocabulary in vocabularies:
        assert accepts(vocabulary, agent_grammar(), agent_answer("MOVE_TO_BE", 0.47, "in profit without a trend"))
        assert accepts(vocabulary, thesis_grammar(vocabulary), THESIS, marked=True)
        for slip in (
            ("strong_buy", "hold fast"),
            ("thirty days -0.4%; tone", "thirty days -0.4%;  tone"),
            ("<risk>unknown", "<risk>"),
        ):
            assert not accepts(vocabulary, thesis_grammar(vocabulary), THESIS.replace(*slip), marked=True), slip


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_the_grammar_lets_a_thesis_say_parses(vocabularies, seed):
    text = walked(vocabularies[0], thesis_grammar(vocabularies[0]), seed)
    assert isinstance(parse_thesis(text), Thesis), text


def test_a_grammar_that_is_not_well_formed_is_an_error(vocabularies):
    with pytest.raises(ValueError, match="grammar: "):
        Grammars(vocabularies[0]).begin(["start: nothing"])


def test_a_token_that_may_not_follow_is_an_error(vocabularies):
    rules = Grammars(vocabularies[0])
    rules.begin([agent_grammar()])
    with pytest.raises(ValueError, match="may not follow"):
        rules.advance(np.array([0]), [vocabularies[0].stop])
