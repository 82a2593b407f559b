import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.settings import load_settings
from tapehouse.tokens import encode_answers, load_tokenizer
from tapehouse.vocabularies import (
    PAD,
    STOP,
    TokenizerRecipe,
    load_tokenizer_recipes,
    make_tokenizer,
    own_source,
    tokenizers_fingerprint,
    train_tokenizer,
)
from tests.house import ROOT

TEXTS = [f"price {price:07.2f}\nBUY limit {price:07.2f} because trend up" for price in range(10, 40)]
OWN = {"description": "x", "own": "bases/other", "stop": STOP, "pad": PAD, "max_length": 64}


@pytest.fixture
def home(tmp_path) -> Path:
    (tmp_path / "models_registry" / "tokenizers").mkdir(parents=True)
    for name in ("sources.yaml", "workspace.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def declare(home: Path, text: str) -> None:
    (home / "models_registry" / "tokenizers" / "other.yaml").write_text(text)


def test_the_packaged_declarations_have_the_same_markers():
    found = load_tokenizer_recipes(ROOT)
    assert found["nano"].train is not None and found["smollm2"].own == "bases/smollm2"
    assert found["nano"].markers == found["smollm2"].markers
    assert all(recipe.stop != recipe.pad for recipe in found.values())


def test_a_base_s_own_tokenizer_keeps_its_ids_and_gets_its_markers_at_the_end(tmp_path):
    train_tokenizer(TEXTS, tmp_path / "base")
    before = load_tokenizer(tmp_path / "base")
    recipe = TokenizerRecipe(**OWN, markers=("<action>", "<action>buy</action>"))
    folder, digest = make_tokenizer(recipe, (), tmp_path / "base" / "tokenizer.json", tmp_path / "made")
    known = load_tokenizer(folder)
    assert folder.name == digest and known.max_length == 64
    assert encode_answers(known, TEXTS) == encode_answers(before, TEXTS)
    assert sorted(known.markers.values()) == [before.get_vocab_size(), before.get_vocab_size() + 1]


@settings(max_examples=10, deadline=None)
@given(texts=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=8))
def test_the_digest_is_a_function_of_texts_and_declaration(tmp_path_factory, texts):
    recipe = TokenizerRecipe(description="x", train={}, stop=STOP, pad=PAD, max_length=64)
    folder = tmp_path_factory.mktemp("made")
    digests = {make_tokenizer(recipe, order, None, folder)[1] for order in (texts, texts[::-1], [*texts, texts[0]])}
    assert len(digests) == 1
    assert make_tokenizer(recipe.model_copy(update={"max_length": 65}), texts, None, folder)[1] not in digests


def test_what_is_read_for_a_base_changes_the_fingerprint(home):
    declare(home, f'{{description: x, own: bases/other, stop: "{STOP}", pad: "{PAD}", max_length: 64}}')
    house = load_settings(home, warehouse=home / "warehouse", threads=1)
    at = datetime(2012, 1, 1, tzinfo=UTC)
    absent = tokenizers_fingerprint(house, at, at)
    recipe = load_tokenizer_recipes(home)["other"]
    assert own_source(recipe, house.models_dir) is None
    train_tokenizer(TEXTS, house.models_dir / "bases/other")
    present = tokenizers_fingerprint(house, at, at)
    declare(home, f'{{description: y, own: bases/other, stop: "{STOP}", pad: "{PAD}", max_length: 64}}')
    assert tokenizers_fingerprint(house, at, at) == present != absent
    declare(home, f'{{description: x, own: bases/other, stop: "{STOP}", pad: "{PAD}", max_length: 65}}')
    assert tokenizers_fingerprint(house, at, at) != present
    (house.models_dir / "bases/other/tokenizer.json").unlink()
    with pytest.raises(TapehouseError, match=r"holds neither tokenizer.json nor one \*.gguf"):
        own_source(recipe, house.models_dir)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{description: x, stop: a, pad: b, max_length: 64}", "exactly one of train"),
        ("{description: x, train: {}, own: y, stop: a, pad: b, max_length: 64}", "exactly one of train"),
        ("{description: x, train: {}, stop: a, pad: a, max_length: 64}", "both stops and pads"),
        ("{description: x, train: {}, stop: a, pad: b, max_length: 64, markers: [buy]}", "markers: .* mend .*buy"),
        ("{description: x, train: {}, stop: a, pad: b, max_length: 64, markers: [<a>, <a>]}", "the repeated one"),
        ("{description: x, train: {words: 3}, stop: a, pad: b, max_length: 64}", "train.words: Extra"),
        ("{description: x, train: {}, stop: a, pad: b, max_length: 8}", "max_length: .*32"),
        ("{description: [", "not YAML"),
    ],
)
def test_a_faulty_declaration_is_refused_by_file_and_key(home, text, said):
    declare(home, text)
    with pytest.raises(TapehouseError, match=rf"other\.yaml: .*{said}"):
        load_tokenizer_recipes(home)
