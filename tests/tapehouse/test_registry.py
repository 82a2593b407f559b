"""Models in the registry: registered from code, asked again out of it, the title of champion given and taken."""

import json
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import yaml

from tapehouse.champions import champions, newest
from tapehouse.errors import TapehouseError
from tapehouse.judging_rules import Gates, load_rules
from tapehouse.model_cards import model_card
from tapehouse.registry import CHALLENGER, CHAMPION, promote, register, withdraw
from tapehouse.tracking import log_adapter
from tapehouse.training.jobs import plain_fold
from tapehouse.training.manifest import files_digest, weights_digest
from tests.tapehouse.classical import answers, fit, make_fold, make_inputs, recipe
from tests.tapehouse.training_jobs import adapter_recipe, make_tokenizer, pairs


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A small model of trees with its manifest, as a step leaves it; the answers that it gives; and where MLflow is."""
    folder = tmp_path_factory.mktemp("gbm") / "model"
    folder.mkdir()
    fold, inputs, of = make_fold(), make_inputs(), recipe("gbm", params={"n_estimators": 5})
    facts = fit(of, inputs, fold, folder)
    manifest = facts | {"name": of.name, "method": of.method, "recipe": json.loads(of.model_dump_json())}
    manifest |= {"recipe_hash": of.hash, "fold": fold.id, "snapshot": 3, "train_end": fold.train_end.isoformat(), "seed": 0}
    manifest |= {"digest": files_digest(folder), "dataset_digest": "d" * 16, "window": plain_fold(fold)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    uri = f"sqlite:///{folder.parent / 'mlflow.db'}"
    return folder, manifest, inputs["features.decision_points"], answers(of, inputs, fold, folder), uri


def test_a_registered_model_answers_as_the_method_does(fitted):
    folder, manifest, points, said, uri = fitted
    run = log_adapter(uri, manifest, [], folder.parent / "mlflow", folder)
    assert register(uri, run, manifest, folder) == "1"

    import mlflow

    client = mlflow.MlflowClient(uri)
    version = client.get_model_version_by_alias("gbm", CHALLENGER)
    assert version.tags["digest"] == manifest["digest"] and version.tags["fold"] == manifest["fold"]
    files = [f.name for f in folder.parent.joinpath("mlflow").rglob("*") if f.is_file()]
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".joblib"))]  # from code, and never a pickle
    served = mlflow.pyfunc.load_model("models:/gbm@challenger")
    found = pl.from_pandas(served.predict(points.to_pandas()))
    both = found.join(said, on=["symbol", "decision_at"], how="inner", suffix="_said")
    assert both.height == said.height > 0
    assert both.filter(pl.col("p_buy") != pl.col("p_buy_said")).is_empty()
    # The same weights again are no second version; others are.
    assert register(uri, run, manifest, folder) == "1"
    assert register(uri, run, manifest | {"digest": "another"}, folder) == "2"
    assert str(client.get_model_version_by_alias("gbm", CHALLENGER).version) == "2"
    # A fold that was trained later, and lies before, challenges nobody.
    assert register(uri, run, manifest | {"digest": "early", "fold": "1999-01-04"}, folder) == "3"
    assert str(client.get_model_version_by_alias("gbm", CHALLENGER).version) == "2"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with a tokenizer, a base and, in `adapter`, factors for it that are not zero."""
    import torch
    from peft import get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from tapehouse.tokens import load_tokenizer
    from tapehouse.training.lora import load_base, lora_config, save_adapter

    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    known = load_tokenizer(root / "tokenizer")
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=known.get_vocab_size(), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                    num_attention_heads=2, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    ).save_pretrained(root / "base")  # fmt: skip
    model = get_peft_model(
        load_base(root / "base"), lora_config(adapter_recipe("sft").adapter, load_base(root / "base"), known)
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    save_adapter(model, "tiny", root / "adapter")
    return root


def served(world, of, **places):
    """The model that a registered adapter of the recipe `of` loads as."""
    from tapehouse.served_model import ServedModel

    said = {"recipe": json.loads(of.model_dump_json()), "base_digest": weights_digest(world / "base")}
    (world / "adapter" / "manifest.json").write_text(json.dumps(said))
    lying = {"base": str(world / "base"), "tokenizer": str(world / "tokenizer"), "trust_remote_code": False}
    model = ServedModel()
    model.load_context(SimpleNamespace(artifacts={"model": str(world / "adapter")}, model_config=lying | places))
    return model


HOW = {"objective": "patient", "answer": "constrained", "temperature": 1.5, "top_p": 0.9, "batch_size": 2}


def test_an_adapter_answers_as_its_recipe_says(world):
    from tapehouse.inference.asking import predict
    from tapehouse.inference.sampling import Sampling
    from tapehouse.tokens import load_tokenizer
    from tapehouse.training.lora import load_trained

    of, asked = adapter_recipe("sft", prompt=HOW, quantisation={"kind": "nf4"}, seed=5), pairs(4).select("prompt")
    model = load_trained(world / "base", world / "adapter", world / "tokenizer", quantisation=of.quantisation)
    known = load_tokenizer(world / "tokenizer")
    said = predict(model, known, asked["prompt"], mode="constrained", batch=2, sampling=Sampling(1.5, 0.9, seed=5))
    assert set(said["parse_state"]) == {"ok"}  # nothing is that such weights write freely
    assert pl.from_pandas(served(world, of).predict(None, asked.to_pandas())).rows() == said.rows()


def test_code_of_a_base_runs_where_it_was_trusted(world, monkeypatch):
    trusted = []
    monkeypatch.setattr("tapehouse.training.lora.load_trained", lambda *said: trusted.append(said[5]))
    monkeypatch.setattr("tapehouse.inference.asking.predict", lambda *said: pl.DataFrame())
    for word in (True, False):
        served(world, adapter_recipe("sft"), trust_remote_code=word).predict(None, pairs(1).select("prompt"))
    assert trusted == [True, False]


def test_answers_are_scored_where_the_decision_is_given(world):
    of = adapter_recipe("sft", prompt={"objective": "patient", "answer": "score"})
    model, asked = served(world, of, template="order_v2"), pairs(3).select("prompt")
    with pytest.raises(
        TapehouseError, match=r"tiny_sft scores .* pass the columns of its decision point beside 'prompt'.*ret_20d"
    ):
        model.predict(None, asked)
    points = asked.with_columns(ret_20d=pl.lit(0.01), realised_vol_20d=pl.lit(0.2), rsi_14=pl.lit(50.0))
    said = pl.from_pandas(model.predict(None, points.to_pandas()))
    assert set(said["parse_state"]) == {"ok"} and said["p_buy"].null_count() == 0


def test_a_model_that_gives_no_answers_is_not_asked(world):
    model = served(world, adapter_recipe("reward", prompt=None))
    with pytest.raises(TapehouseError, match=r"tiny_reward scores answers, and gives none; .*tapehouse\.training\.reward"):
        model.predict(None, pairs(1).select("prompt"))


def test_what_serving_takes_is_registered(fitted):
    from tapehouse.bases import Base
    from tapehouse.steps.publish import places, publish

    folder, manifest, _, _, uri = fitted
    home = Path(__file__).parents[2]
    found = places(adapter_recipe("sft"), Base(folder, trust_remote_code=True), folder, home)
    assert found == {"base": str(folder), "tokenizer": str(folder), "trust_remote_code": True, "template": "order_v2"}
    assert "template" not in places(adapter_recipe("reward", prompt=None), Base(folder), folder, home)
    settings = SimpleNamespace(root=folder.parent, tracking_uri=uri)
    named = manifest | {"name": "placed", "cpu": "a processor", "threads": 1, "packages": {"torch": "2"}}
    publish(SimpleNamespace(comparing=False, settings=settings, note=lambda **said: None), named, folder, found)

    import mlflow

    assert mlflow.pyfunc.load_model("models:/placed@challenger").model_config == found


def test_the_title_follows_the_gates(fitted):
    _, manifest, _, _, uri = fitted
    import mlflow

    client = mlflow.MlflowClient(uri)
    assert promote(uri, "gbm", "unknown weights") is None
    assert promote(uri, "gbm", manifest["digest"]) == "1"
    assert str(client.get_model_version_by_alias("gbm", CHAMPION).version) == "1"
    withdraw(uri, "gbm")
    withdraw(uri, "nobody")  # has no title to lose
    assert CHAMPION not in client.get_registered_model("gbm").aliases


def test_gates_by_hand():
    models = pl.DataFrame({"adapter": ["a", "a", "b", "c"], "fold": ["1", "2", "2", "2"], "digest": ["old", "new", "x", "y"]})
    words = pl.DataFrame({"subject": ["a", "b"], "verdict": ["BEATS", "LOSES"]})
    said = pl.DataFrame({"adapter": ["a", "b"], "fold": ["2", "2"], "parse_state": ["ok", "ok"]})
    quality = [{"expect_column_values_to_be_in_set": {"column": "parse_state", "value_set": ["ok"]}}]
    rows = champions(newest(models), words, said, quality, Gates())
    assert rows.select("adapter", "digest", "champion", "reason").rows() == [
        ("a", "new", True, "every gate passes"),
        ("b", "x", False, "its verdict is LOSES"),
        ("c", "y", False, "it has no verdict"),
    ]
    torn = said.with_columns(parse_state=pl.lit("unparseable"))
    assert champions(newest(models), words, torn, quality, Gates())["failed_checks"].to_list() == [1, 1, 0]
    assert not champions(newest(models), words, torn, quality, Gates())["champion"][0]
    assert champions(newest(models), words, torn, quality, Gates(checks="any"))["champion"][0]
    control = champions(newest(models), words, said, quality, Gates(), ["a"])
    assert not control["champion"][0] and control["reason"][0] == "it is a control"


def test_a_card_is_what_the_hub_reads(fitted):
    _, manifest, *_ = fitted
    text = model_card(manifest | {"cpu": "a processor", "threads": 1, "packages": {"torch": "2"}})
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["tags"] == ["tapehouse", "finance", "gbm"] and "base_model" not in head
    adapter = manifest | {"method": "sft", "recipe": manifest["recipe"] | {"model": {"base": "nano", "init_from": None}}}
    text = model_card(adapter | {"base_digest": "b" * 16})
    head = yaml.safe_load(text.split("---\n")[1])
    assert (head["base_model"], head["library_name"]) == ("nano", "peft") and "bbbb" in text and manifest["fold"] in text


def test_rules_name_their_file_and_key(tmp_path):
    (tmp_path / "models_registry").mkdir()
    file = tmp_path / "models_registry" / "judging.yaml"
    with pytest.raises(TapehouseError, match=r"judging\.yaml: no such file"):
        load_rules(tmp_path)
    for text, said in (("baselins: [a]", "did you mean 'baselines'"), ("baselines: []", "baselines"), ("{", "not YAML")):
        file.write_text(text)
        with pytest.raises(TapehouseError, match=rf"(?s)judging\.yaml: .*{said}"):
            load_rules(tmp_path)
