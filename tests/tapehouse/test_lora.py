"""What is trained, how it is saved, and that what answers is what was trained."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from tapehouse.errors import TapehouseError
from tapehouse.recipes import parse_recipe
from tapehouse.tokens import load_tokenizer
from tapehouse.training.job import Job
from tapehouse.training.lora import adapted_model, load_base, load_trained, save_adapter
from tapehouse.vocabularies import train_tokenizer

MARKERS = ["<thesis>", "</thesis>", "<action>buy</action>"]
BIG = Path("/nowhere")


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def world(request, tmp_path_factory) -> Path:
    """A tokenizer with three markers, and a base that knows all of its tokens but these."""
    root = tmp_path_factory.mktemp("world")
    train_tokenizer(["price 123 up\n", "sell 456 down <thesis> buy\n"] * 2, root / "tokenizer", MARKERS, 256)
    size = load_tokenizer(root / "tokenizer").get_vocab_size() - len(MARKERS)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(vocab_size=size, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
                    tie_word_embeddings=request.param, pad_token_id=0, eos_token_id=1, bos_token_id=None)
    ).save_pretrained(root / "base")  # fmt: skip
    return root


def job(world: Path, out: Path = BIG, seed: int = 3, **sections) -> Job:
    fields = {
        "name": "t",
        "description": "x",
        "method": "sft",
        "adapter": {"rank": 2, "alpha": 4} | sections.pop("adapter", {}),
        "optimiser": {"learning_rate": 0.01},
        "budget": {"steps": 1, "batch_size": 1},
        "prompt": {"objective": "patient"},
    }
    recipe = parse_recipe(fields | sections, "test")
    return Job(recipe, pl.DataFrame(), pl.DataFrame(), world, out, seed, print, out)


def taught(model, ids: torch.Tensor, steps: int = 6) -> list[float]:
    """Train on one batch; the losses."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    losses = []
    model.train()
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    return losses


def some_ids(world: Path) -> torch.Tensor:
    known = load_tokenizer(world / "tokenizer")
    ids = torch.randint(2, known.get_vocab_size(), (3, 12), generator=torch.Generator().manual_seed(5))
    ids[:, 3:6] = torch.tensor(sorted(known.markers.values()))
    return ids


@pytest.mark.parametrize(
    ("adapter", "quantisation", "apart"),
    [
        ({}, "none", 1e-5),
        ({"dora": True, "rslora": True}, "none", 1e-5),
        ({"kind": "full"}, "none", 1e-5),
        ({}, "nf4", 1e-4),
        ({"dora": True}, "nf4", 1e-4),
        # In int8 activations are rounded too, which merged weights do not show.
        ({}, "int8", 0.1),
    ],
)
def test_it_trains_and_answers_as_it_was_trained(tmp_path, world, adapter, quantisation, apart):
    given = job(world, tmp_path / "out", adapter=adapter, quantisation={"kind": quantisation, "compute": "fp32"})
    model, ids = adapted_model(given), some_ids(world)
    losses = taught(model, ids)
    assert losses[-1] < losses[0] - 0.2
    save_adapter(model, "nano", tmp_path / "out")
    answering = load_trained(world / "base", tmp_path / "out", world / "tokenizer", quantisation=given.recipe.quantisation)
    with torch.no_grad():
        difference = (model.eval()(input_ids=ids).logits - answering(input_ids=ids).logits).abs().max()
    assert difference < apart


def test_the_rows_of_markers_are_trained_and_saved(tmp_path, world):
    known = load_tokenizer(world / "tokenizer")
    plain = load_base(world / "base", world / "tokenizer")
    base, head = plain.get_input_embeddings().weight, plain.get_output_embeddings().weight
    first = sorted(known.markers.values())[0]
    pieces = known.tokenizer.encode("<thesis>", add_special_tokens=False).ids
    assert first not in pieces and len(pieces) > 1
    torch.testing.assert_close(base[first], base[pieces].mean(dim=0))
    model = adapted_model(job(world))
    taught(model, some_ids(world))
    save_adapter(model, "nano", tmp_path / "out")
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    rows = [weight for name, weight in saved.items() if "trainable_tokens" in name]
    tied = json.loads((world / "base" / "config.json").read_text())["tie_word_embeddings"]
    assert [weight.shape for weight in rows] == [(3, 64)] * (1 if tied else 2)
    answering = load_trained(world / "base", tmp_path / "out", world / "tokenizer")
    for end, before in ((answering.get_input_embeddings(), base), (answering.get_output_embeddings(), head)):
        assert (end.weight[first:] - before[first:]).norm() > 0.01
        torch.testing.assert_close(end.weight[:first], before[:first])  # nothing else is
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "nano"


def test_a_target_that_the_base_lacks_is_refused(world):
    with pytest.raises(TapehouseError, match=r"adapter\.targets: the base has no module named \['v_prj'\].*'v_proj'"):
        adapted_model(job(world, adapter={"targets": ["q_proj", "v_prj"]}))


def test_without_markers_no_embedding_is_trained(tmp_path, world):
    model = adapted_model(job(world, adapter={"markers": False}))
    assert {name.split(".")[-3] for name, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def test_a_child_goes_on_from_its_parent(tmp_path, world):
    parent = adapted_model(job(world))
    taught(parent, some_ids(world))
    for name, model in (("base", None), ("tokenizer", None), ("parent", parent)):
        if model is None:
            (tmp_path / name).symlink_to(world / name)
        else:
            save_adapter(model, "nano", tmp_path / name)
    child = adapted_model(job(tmp_path, model={"init_from": "other"}))
    trained = [{n: p for n, p in m.named_parameters() if p.requires_grad} for m in (parent, child)]
    assert trained[0].keys() == trained[1].keys()
    for name, weight in trained[0].items():
        torch.testing.assert_close(trained[1][name], weight, rtol=0, atol=0)


def test_a_new_adapter_is_a_function_of_the_seed(world):
    first, again, other = (adapted_model(job(world, seed=seed)).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert any(not torch.equal(weight, other[name]) for name, weight in first.items())


def test_code_of_a_base_and_an_absent_device_are_refused(tmp_path, world):
    config = json.loads((world / "base" / "config.json").read_text())
    config |= {"model_type": "homemade", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\nclass M: pass\n")
    with pytest.raises(TapehouseError, match="trust_remote_code: true"):
        load_base(tmp_path)
    assert not (tmp_path / "ran").exists()
    if not torch.cuda.is_available():
        with pytest.raises(TapehouseError, match="torch sees no GPU"):
            load_base(world / "base", device="cuda")


def test_what_cannot_be_together_is_refused_at_load(world):
    with pytest.raises(TapehouseError, match="has nothing to train"):
        job(world, adapter={"kind": "full"}, quantisation={"kind": "nf4"})
    with pytest.raises(TapehouseError, match=r"adapter\.dora: .*int8"):
        job(world, adapter={"dora": True}, quantisation={"kind": "int8"})
