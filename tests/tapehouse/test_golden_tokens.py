"""Golden: token for token the same ids from a dataset, in what a model is fed for evaluation, and from the serving path.

For a tokenizer as nano's is declared, and for SmolLM2's own, where `make smollm2` has fetched it: in the folder that
TAPEHOUSE_SMOLLM2 names, or in warehouse/models/bases/smollm2.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import torch

from tapehouse.inference.generation import generate
from tapehouse.methods.pretrain import ArchitectureSection
from tapehouse.prompts.templates import selection
from tapehouse.prompts.thesis import ACTIONS, TAGS, parse_thesis
from tapehouse.token_rows import preference_tokens, prompt_tokens, supervised_tokens
from tapehouse.tokens import as_transformers, decode_answer, encode_prompts, load_tokenizer
from tapehouse.training.lora import load_base
from tapehouse.training.pretrain import build_model
from tapehouse.vocabularies import load_tokenizer_recipes, make_tokenizer

ROOT = Path(__file__).parents[2]
SMOLLM2 = Path(os.environ.get("TAPEHOUSE_SMOLLM2", ROOT / "warehouse/models/bases/smollm2"))
RECIPE = load_tokenizer_recipes(ROOT)["nano"]

ORDER = "order for IBM of a patient buyer\nregime bullish\nreturn day -0.3% month +4.1%\natr 0002.31\nprice 0117.45\n"
AGENT = "IBM 1d trading agent answers action | confidence | reason\ntime 2012-01-03 21:05 utc\nposition flat\nprice 0117.45\n"
# A prompt may quote what somebody wrote; none of it is a special token.
THESIS = "thesis on IBM\nclose 117.45 day -0.3%\narticles 3 <action>buy</action> <stop><pad><|im_end|><thesis>\n"
PROMPTS = [ORDER, AGENT, THESIS, ORDER.replace("0117.45", "0999.99")]
SECTIONS = "".join(f"<{name}>up 4.1%.</{name}>" for name in ("trend", "risk", "market", "macro", "company", "news"))
CLAIMS = ("quality", "sentiment", "momentum", "insider_buying", "volatility", "momentum_10d", "momentum_30d", "divergence")
SUPPORT = "".join(f"<claim>{name} unknown</claim>" for name in CLAIMS)
THESIS_ANSWER = f"<thesis><reasoning>{SECTIONS}</reasoning><support>{SUPPORT}</support><action>strong_buy</action></thesis>"
ANSWERS = [
    "BUY limit 0117.40 confidence 0.62 because trend up",
    "MOVE_TO_BE | 0.71 | in profit",
    THESIS_ANSWER,
    "HOLD confidence 0.50 because trend down",
]


@pytest.fixture(scope="module")
def nano(tmp_path_factory):
    """Folder of a tokenizer as models_registry declares nano's, and an untrained model of its size."""
    texts = [prompt + answer for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]
    folder, _ = make_tokenizer(RECIPE, texts * 2, None, tmp_path_factory.mktemp("nano"))
    known = load_tokenizer(folder)
    architecture = ArchitectureSection(hidden_size=16, intermediate_size=16, layers=1, heads=1)
    return folder, build_model(architecture, known.get_vocab_size(), known.pad, known.stop)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """Folder of SmolLM2's own tokenizer with nano's markers, and the model itself with a row for each of them."""
    if not (SMOLLM2 / "tokenizer.json").is_file():
        pytest.skip(f"no SmolLM2 in {SMOLLM2}")
    recipe = load_tokenizer_recipes(ROOT)["smollm2"]
    folder, _ = make_tokenizer(recipe, (), SMOLLM2 / "tokenizer.json", tmp_path_factory.mktemp("smollm2"))
    model = load_base(SMOLLM2, folder)
    return folder, model.eval()


def rows(**columns: list[str]) -> pl.DataFrame:
    stamps = [datetime(2012, 1, 3, 21, 5, tzinfo=UTC) + timedelta(days=day) for day in range(len(PROMPTS))]
    key = {"symbol": "IBM", "interval": "1d", "template": selection("agent_v1").version}
    return pl.DataFrame({"prompt": PROMPTS, "decision_at": stamps, **columns}).with_columns(
        **{k: pl.lit(v) for k, v in key.items()}
    )


def check_three_ways(folder: Path, model) -> None:
    tokenizer = load_tokenizer(folder)
    known = {"d": tokenizer}
    supervised = supervised_tokens(rows(answer=ANSWERS), known, "t", "s", marked=True).rows
    pairs = preference_tokens(rows(chosen=ANSWERS, rejected=ANSWERS[::-1]), known, "t", "s").rows
    asked = prompt_tokens(rows(), known, "t", "s", room=32).rows
    served = as_transformers(folder)
    fed: dict[int, list[int]] = {}

    def keep(module, arguments, named):
        ids = named["input_ids"]
        if ids.shape[1] > 1:  # the prompts; an answer is fed token by token
            seen = named.get("attention_mask", torch.ones_like(ids)).bool()
            rows = [row[shown].tolist() for row, shown in zip(ids, seen, strict=True)]
            fed.update({PROMPTS.index(tokenizer.decode(row)): row for row in rows})

    model.register_forward_pre_hook(keep, with_kwargs=True)
    generate(model, tokenizer, PROMPTS, most=32, batch=2)
    special = {tokenizer.stop, tokenizer.pad, *tokenizer.markers.values()}
    for place, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        ids, length = supervised["input_ids"][place].to_list(), supervised["prompt_length"][place]
        of_prompt = ids[:length]
        assert of_prompt == pairs["prompt_ids"][place].to_list() == asked["prompt_ids"][place].to_list()
        assert of_prompt == fed[place] == served(prompt)["input_ids"]
        assert not special & set(of_prompt)
        assert served.decode(of_prompt) == prompt
        # What training is asked to say is what serving reads as this answer, and its end is the one stop token.
        assert decode_answer(tokenizer, ids[length:]) == answer == served.decode(ids[length:-1])
        assert ids[length:].count(tokenizer.stop) == 1 and ids[-1] == served.eos_token_id != served.pad_token_id
        assert [n >= length for n in range(len(ids))] == supervised["loss_mask"][place].to_list()


def test_nano(nano):
    check_three_ways(*nano)


def test_smollm2_as_it_was_fetched(smollm2):
    check_three_ways(*smollm2)


def test_smollm2_splits_digits_and_keeps_its_own_ids(smollm2):
    from transformers import AutoTokenizer

    tokenizer = load_tokenizer(smollm2[0])
    own = AutoTokenizer.from_pretrained(SMOLLM2, local_files_only=True)
    text = "limit 0117.45\n"
    (ids,) = encode_prompts(tokenizer, [text])
    assert ids == as_transformers(smollm2[0])(text)["input_ids"] == own(text, add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([token]) for token in ids] == ["limit", " ", *"0117.45", "\n"]
    assert min(tokenizer.markers.values()) == len(own) and tokenizer.pad != tokenizer.stop


def test_nano_declares_every_tag_and_action_of_a_thesis(nano):
    elements = {f"<action>{action}</action>" for action in ACTIONS}
    assert set(RECIPE.markers) == {*TAGS, *elements}
    tokenizer = load_tokenizer(nano[0])
    ids = supervised_tokens(rows(answer=[THESIS_ANSWER] * 4), {"d": tokenizer}, "t", "s", marked=True).rows["input_ids"][0]
    assert ids.to_list().count(tokenizer.markers["<action>strong_buy</action>"]) == 1
    assert ids.to_list().count(tokenizer.markers["<claim>"]) == len(CLAIMS)
    assert not isinstance(parse_thesis(THESIS_ANSWER), str) and parse_thesis(THESIS_ANSWER).action == "strong_buy"
