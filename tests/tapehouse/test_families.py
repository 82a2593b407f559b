from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from tapehouse.errors import TapehouseError
from tapehouse.inference.asking import action_shares, class_shares, predict
from tapehouse.inference.families import FAMILIES
from tapehouse.inference.questions import family_of, question_reads, questions
from tapehouse.methods.pretrain import ArchitectureSection
from tapehouse.predictions import KEYS
from tapehouse.prompts.agent import render_agents
from tapehouse.prompts.thesis import ACTIONS, parse_thesis, render_theses
from tapehouse.recipes import parse_recipe
from tapehouse.tokens import encode_answers, encode_prompts, load_tokenizer
from tapehouse.training.pretrain import build_model
from tapehouse.vocabularies import load_tokenizer_recipes, make_tokenizer
from tests.tapehouse.test_agent_prompts import POINT as AGENT_POINT
from tests.tapehouse.test_agent_prompts import SHORT
from tests.tapehouse.test_agent_prompts import frame as agent_frame
from tests.tapehouse.test_teacher import POINT, frame

ROOT = Path(__file__).parents[2]
COMPANY = ["return_on_assets", "net_margin", "insider_buys_90d", "insider_sells_90d", "news_30d", "filings_90d"]
COMPANY += ["news_sentiment_30d", "filing_sentiment_90d"]
CHANCES = ["p_sell", "p_hold", "p_buy"]
THESIS, AGENT, ORDER = FAMILIES["thesis"], FAMILIES["agent"], FAMILIES["order"]


@pytest.fixture(scope="module")
def points():
    return frame([POINT, POINT | {"decision_at": datetime(2008, 9, 16, 20, 5, tzinfo=UTC), "ret_1d": 0.011, "vix": None}])


@pytest.fixture(scope="module")
def asked(tmp_path_factory, points):
    """Prompts of theses, a vocabulary as nano's is declared, and an untrained model."""
    prompts = render_theses(points, "thesis_v1")
    told = [choice.common + choice.texts["buy"] for choice in THESIS.choices(points, prompts, "thesis_v1")]
    recipe = load_tokenizer_recipes(ROOT)["nano"]
    folder, _ = make_tokenizer(recipe, [*prompts, *told] * 2, None, tmp_path_factory.mktemp("tokenizer"))
    vocabulary = load_tokenizer(folder)
    torch.manual_seed(3)
    shape = ArchitectureSection(hidden_size=16, intermediate_size=16, layers=2, heads=2, positions=2048)
    model = build_model(shape, vocabulary.get_vocab_size(), vocabulary.pad, vocabulary.stop).eval()
    return prompts, vocabulary, model


def recipe(dataset: str, **prompt):
    fields = {"name": "x", "description": "x", "method": "sft", "data": {"dataset": dataset}, "prompt": prompt}
    return parse_recipe({**fields, "optimiser": {"learning_rate": 0.001}, "budget": {"steps": 1, "batch_size": 1}}, "test")


def test_shares_of_actions_are_summed_by_class_and_the_likeliest_class_decides():
    shares = np.array([[0.1, 0.2, 0.3, 0.25, 0.15]])  # hold is the likeliest action, buying the likeliest class
    assert class_shares(THESIS, shares)[0] == pytest.approx([0.3, 0.3, 0.4])
    of_agent = np.array([[0.1, 0.2, 0.05, 0.3, 0.25, 0.1]])  # HOLD, BUY, SELL, and three that only move a stop
    assert class_shares(AGENT, of_agent)[0] == pytest.approx([0.05, 0.75, 0.2])


def test_the_classes_of_a_thesis_are_those_of_five_whole_texts(asked, points):
    prompts, vocabulary, model = asked
    choices = THESIS.choices(points, prompts, "thesis_v1")
    heads = encode_prompts(vocabulary, prompts)
    alone = np.zeros((2, 5))
    with torch.inference_mode():
        for row, choice in enumerate(choices):
            for place, action in enumerate(ACTIONS):
                (ids,) = encode_answers(vocabulary, [choice.common + choice.texts[action]], marked=True)
                logits = model(input_ids=torch.tensor([heads[row] + ids])).logits[0, len(heads[row]) - 1 : -1].log_softmax(-1)
                alone[row, place] = logits[range(len(ids)), ids].double().sum()
    wanted = np.exp(alone - alone.max(axis=1, keepdims=True))
    wanted /= wanted.sum(axis=1, keepdims=True)
    assert action_shares(model, vocabulary, THESIS, list(prompts), choices) == pytest.approx(wanted, abs=1e-4)
    rows = predict(model, vocabulary, list(prompts), THESIS, "score", choices=choices)
    assert rows.select(CHANCES).to_numpy() == pytest.approx(class_shares(THESIS, wanted), abs=1e-4)
    for text, action in rows.select("text", "action").iter_rows():
        assert THESIS.class_of[parse_thesis(text).action] == action
    assert rows["limit_price"].null_count() == rows["confidence"].null_count() == 2


def test_a_written_thesis_is_compared_with_itself_under_other_actions(asked, points):
    prompts, vocabulary, model = asked
    (choice, _) = THESIS.choices(points, prompts, "thesis_v1")
    whole = choice.common + choice.texts["sell"]
    assert THESIS.exchanged(whole) == choice
    with_none = action_shares(model, vocabulary, THESIS, list(prompts), [choice, None])
    assert with_none[0].sum() == pytest.approx(1.0) and np.isnan(with_none[1]).all()
    # What is cut before its end is no thesis: HOLD, without probabilities.
    cut = predict(model, vocabulary, list(prompts), type("Short", (type(THESIS),), {"most": 3})())
    assert cut.select("parse_state", "action", *CHANCES).rows() == [("not_text", "HOLD", None, None, None)] * 2


def test_an_agents_answer_is_read_and_exchanged():
    choice = AGENT.exchanged("MOVE_TO_BE | 0.47 | in profit")
    assert choice.texts["SELL"] == "SELL | 0.47 | in profit" and choice.common == ""
    read = AGENT.read(pl.Series(["MOVE_TO_BE | 0.47 | in profit", None]), pl.Series(["a", "b"]))
    assert read["action"].to_list() == ["MOVE_TO_BE", "HOLD"] and read["parse_state"].to_list() == ["ok", "not_text"]
    assert AGENT.class_of["MOVE_TO_BE"] == "HOLD" and ORDER.exchanged("HOLD confidence 0.50 because a") is None


def test_a_recipe_asks_in_its_own_family_and_reads_what_that_shows(asked, points):
    _, vocabulary, _ = asked
    theses, agents = recipe("theses", answer="score"), recipe("instructions", answer="score")
    assert [read.table for read in question_reads(theses)] == ["features.company"]
    assert [read.table for read in question_reads(agents)] == ["features.policy_state"]
    assert question_reads(recipe("orders", objective="risk_averse")) == ()

    beside = {"features.company": points.select(*KEYS, *COMPANY, known_at="decision_at")}
    found = questions(theses, points.drop(COMPANY), beside, ROOT, vocabulary)
    assert found.prompts == list(render_theses(points, "thesis_v1"))
    assert found.family is family_of(theses) is THESIS and found.objective == "direction" and len(found.choices) == 2

    account = agent_frame(AGENT_POINT | SHORT)
    state = account.select(*KEYS, *SHORT, session=pl.col("decision_at").dt.date(), known_at="decision_at")
    found = questions(agents, account.drop(list(SHORT)), {"features.policy_state": state}, ROOT, vocabulary)
    assert found.prompts == list(render_agents(account, "agent_v1"))
    assert found.choices[0].texts["BUY"].startswith("BUY | 0.") and list(found.choices[0].texts) == list(AGENT.class_of)


def test_an_order_without_an_objective_and_a_score_with_a_temperature_are_refused():
    with pytest.raises(TapehouseError, match=r"prompt\.objective: missing; .*add it"):
        recipe("orders")
    with pytest.raises(TapehouseError, match=r"prompt\.objective: no prompt of the family 'thesis' has one; remove it"):
        recipe("theses", objective="risk_averse")
    with pytest.raises(TapehouseError, match="'score' draws no token: remove temperature"):
        recipe("theses", answer="score", temperature=0.5)
    with pytest.raises(TapehouseError, match=r"top_p 0\.9 does nothing where temperature 0"):
        recipe("theses", top_p=0.9)
