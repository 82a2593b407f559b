"""Training on preferences in jobs of a tiny base: every loss, the kept reference, TRL's trainers on stored tokens."""

import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import TrainingArguments

import tests.tapehouse.training_jobs as jobs
from tapehouse.errors import TapehouseError
from tapehouse.tokens import load_tokenizer, pad_id, prompt_ids
from tapehouse.training import references
from tapehouse.training.__main__ import train
from tapehouse.training.jobs import export_job
from tapehouse.training.kto import with_answers_of_others
from tapehouse.training.lora import copy_reference, load_base
from tapehouse.training.losses import PairScores, pair_losses
from tapehouse.training.preference import PreferenceTrainer, alike
from tapehouse.training.reward import load_scorer, scores
from tapehouse.training.stored import Verified, check

PROVENANCE = jobs.PROVENANCE | {"validation_start": jobs.START + timedelta(days=14)}
BUDGET = {"steps": 4, "batch_size": 4, "precision": "fp32"}


def make_world(folder, markers=()):
    jobs.make_tokenizer(folder / "tokenizer", markers)
    base = jobs.make_base(folder, folder / "tokenizer")
    return folder, base, jobs.dpo_rows(folder / "tokenizer")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("preferences"))


def trained(world, name, method, rows=None, **changes):
    folder, base, tokens = world
    recipe = jobs.adapter_recipe(method, **{"budget": BUDGET, "evaluation": {"every": 2, "rows": 2}} | changes)
    job = folder / name / "job"
    export_job(job, recipe, tokens if rows is None else rows, base, folder / "tokenizer", 3, PROVENANCE, threads=1)
    return train(job, folder / name / "out", lambda facts: None), folder / name


@pytest.mark.parametrize(
    ("name", "loss", "start"),
    [
        ("sigmoid", {}, 0.693147),
        ("ipo", {"kinds": ["ipo"], "beta": 0.5}, 1.0),
        ("soft_clip", {"kinds": ["soft_clip"]}, 0.5 * 0.693147 + 0.14),
        ("mixed", {"kinds": ["sigmoid", "ipo"], "kind_weights": [0.5, 2.0], "beta": 0.5}, 0.5 * 0.693147 + 2.0),
    ],
)
def test_every_loss_begins_at_what_an_unchanged_policy_gives_and_falls(world, name, loss, start):
    manifest, folder = trained(world, f"dpo_{name}", "dpo", loss=loss, budget=BUDGET | {"steps": 8})
    measured = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    assert manifest["validation_loss"] == min(m["validation_loss"] for m in measured if "validation_loss" in m)
    assert manifest["loss"] < start
    # A policy that is the reference has these losses, whatever it says.
    one, minus = torch.ones(1), -torch.ones(1)
    same = PairScores(minus, 2 * minus, one, one)
    weights = loss.get("kind_weights", [1.0])
    kinds = zip(loss.get("kinds", ["sigmoid"]), weights, strict=True)
    assert sum(w * pair_losses(same, same, kind, loss.get("beta", 0.1)).item() for kind, w in kinds) == pytest.approx(start)


def test_weights_by_margin_change_what_is_learnt_and_equal_margins_do_not(world):
    equal, _ = trained(world, "equal", "dpo")
    same, _ = trained(world, "same_margins", "dpo", loss={"weighted": "margin"})
    assert same["digest"] == equal["digest"]  # every margin of these pairs is 10 bps
    uneven = world[2].with_columns(margin_bps=pl.int_range(1, pl.len() + 1).cast(pl.Float64))
    other, _ = trained(world, "margins", "dpo", rows=uneven, loss={"weighted": "margin"})
    assert other["digest"] != equal["digest"]


def test_the_reference_is_kept_by_row_and_found_again_bit_for_bit(world):
    first, folder = trained(world, "kept", "dpo")
    (file,) = (folder / "references").rglob("*.parquet")
    kept = pl.read_parquet(file)
    assert file.stem == PROVENANCE["fold"] and kept["row"].n_unique() == kept.height > 8
    again, _ = trained(world, "kept", "dpo", loss={"kinds": ["soft_clip"]})
    assert pl.read_parquet(file).equals(kept)  # another loss over the same reference
    kept.head(3).write_parquet(file)  # what is missing is computed, and the result is the same
    anew, _ = trained(world, "kept", "dpo")
    assert anew["digest"] == first["digest"] != again["digest"]
    assert pl.read_parquet(file).sort("row").equals(kept.sort("row"))


def test_code_that_computes_a_reference_is_part_of_what_it_is_known_by(world, monkeypatch):
    trained(world, "code", "dpo", evaluation=None)
    asked = []
    monkeypatch.setattr(references, "modules_version", lambda modules: asked.extend(modules) or "another code")
    trained(world, "code", "dpo", evaluation=None)
    one, other = (world[0] / "code" / "references").rglob("*.parquet")
    assert one.parent != other.parent and pl.read_parquet(one)["row"].equals(pl.read_parquet(other)["row"])
    assert {"tapehouse.training.preference", "tapehouse.training.lora", "tapehouse.training.shared_prompt"} < set(asked)


def test_a_row_is_known_by_where_its_parts_end():
    a, b = ([1, 2], [3], [4]), ([1], [2, 3], [4])
    assert len(set(references.row_digests([a, b, a]))) == 2


def test_reference_values_are_those_of_the_base_whatever_the_batch(world):
    folder, base, tokens = world
    model = load_base(base, folder / "tokenizer")
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "down_proj"])
    pairs = tokens.select("prompt_ids", "chosen_ids", "rejected_ids").rows()[:5]
    pad = pad_id(load_tokenizer(folder / "tokenizer"))
    arguments = TrainingArguments(str(folder / "none"), use_cpu=True, report_to="none", remove_unused_columns=False)
    trainer = PreferenceTrainer(get_peft_model(model, lora), pairs, pad, ["sigmoid"], [1.0], 0.1, args=arguments)
    found = trainer._reference()
    for row, (prompt, *answers) in enumerate(pairs):
        for name, answer in zip(("chosen", "rejected"), answers, strict=True):
            chances = model(input_ids=torch.tensor([prompt + answer])).logits.log_softmax(-1)[0]
            alone = sum(chances[len(prompt) - 1 + place, token] for place, token in enumerate(answer))
            assert found[f"reference_{name}"][row].item() == pytest.approx(alone.item(), abs=1e-4)


def test_a_reference_value_has_the_same_bits_in_every_company(world):
    folder, base, _ = world
    draw = np.random.default_rng(3)
    lengths = draw.permutation(np.repeat([(40, 7, 9), (41, 7, 9), (40, 9, 7)], 9, axis=0))
    pairs = [tuple(draw.integers(5, 40, n).tolist() for n in parts) for parts in lengths]
    model, pad = load_base(base, folder / "tokenizer"), pad_id(load_tokenizer(folder / "tokenizer"))
    found = []
    for size in (1, 4, 16):
        arguments = TrainingArguments(
            str(folder / "none"), use_cpu=True, bf16=True, report_to="none", per_device_train_batch_size=size
        )
        found.append(PreferenceTrainer(model, pairs, pad, ["sigmoid"], [1.0], 0.1, args=arguments)._reference())
    for other in found[1:]:
        assert all(torch.equal(other[name], values) for name, values in found[0].items())


def test_batches_are_of_equal_lengths_and_hold_every_row_once():
    pairs = [([1] * (row % 3 + 1), [2], [3]) for row in range(20)]
    batches = list(alike(range(2, 20), pairs, 4))
    assert sorted(row for batch in batches for row in batch) == list(range(2, 20))
    assert all(len(batch) <= 4 and len({len(pairs[row][0]) for row in batch}) == 1 for batch in batches)
    assert len(batches) == 6


class Broken(Exception):
    """What ends a run in its middle."""


@pytest.mark.parametrize("method", ["simpo", "kto", "reward"])
def test_trl_trains_on_stored_tokens_and_a_run_that_broke_off_goes_on_to_the_same_weights(world, method):
    changes = {"budget": BUDGET | {"checkpoint_every": 2}} | ({"prompt": None} if method == "reward" else {})
    whole, folder = trained(world, method, method, **changes)
    assert whole["steps"] == 4 and whole["tokens"] > 0 and whole["validation_loss"] > 0
    if method == "simpo":  # equal answers would be at log(1 + e^gamma)
        assert whole["loss"] == pytest.approx(1.3133, abs=0.2)

    def breaks(facts):
        if facts.get("step") == 4:
            raise Broken

    with pytest.raises(Broken):
        train(folder / "job", folder / "again", breaks)
    again = train(folder / "job", folder / "again", lambda facts: None)
    assert again["resumed_at"] == 2 and whole["resumed_at"] is None
    assert (again["digest"], again["loss"], again["tokens"]) == (whole["digest"], whole["loss"], whole["tokens"])


def test_every_method_trains_the_rows_of_markers_too(tmp_path):
    world = make_world(tmp_path, ["<thesis>", "</thesis>"])
    for method in ("dpo", "simpo", "kto", "reward"):
        changes = {"prompt": None} if method == "reward" else {}
        manifest, folder = trained(world, method, method, optimiser={"learning_rate": 0.1}, **changes)
        assert manifest["steps"] == 4 and manifest["validation_loss"] > 0
        weights = load_file(folder / "out" / "adapter_model.safetensors")
        (rows,) = (weight for name, weight in weights.items() if "trainable_tokens" in name)
        held = load_base(world[1], world[0] / "tokenizer").get_input_embeddings().weight
        # The score of a reward model is of no token, and no answer to an order has a marker: there their rows stay.
        assert rows.shape[0] == 2 and (method == "reward") == torch.allclose(rows, held[-2:].detach(), atol=1e-6)


def test_tokens_that_a_trainer_changed_are_an_error():
    ids, mask = torch.tensor([[5, 6, 7, 0], [8, 9, 1, 0]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]])
    check("input_ids", ids, mask, [[5, 6, 7], [8, 9, 1]])
    with pytest.raises(TapehouseError, match="row 1 of a batch has 3 tokens where 4 are stored, and differs from token 3 on"):
        check("input_ids", ids, mask, [[5, 6, 7], [8, 9, 1, 1]])
    short = Verified(lambda rows: {"ids": ids[:1], "mask": mask[:1]}, [("ids", "mask", lambda row: row["ids"])])
    with pytest.raises(TapehouseError, match="1 rows in a batch that is made of 2"):
        short([{"ids": [5, 6, 7]}, {"ids": [8, 9, 1]}])


def test_a_divergence_is_estimated_on_answers_of_other_rows():
    rows = [{"completion_ids": [place]} for place in range(3)]
    assert [row["KL_completion_ids"] for row in with_answers_of_others(rows)] == [[2], [0], [1]]


def test_the_copy_that_is_the_reference_has_the_rows_of_added_tokens(world):
    folder, base, _ = world
    rows = {"embed_tokens": [3, 4]}
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], trainable_token_indices=rows)
    model = get_peft_model(load_base(base, folder / "tokenizer"), lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.add_(1.0) if "trainable_tokens" in name else None
    model.add_adapter("ref", model.peft_config["default"])
    copy_reference(model)
    pairs = [(name, weight) for name, weight in model.named_parameters() if name.endswith("trainable_tokens_delta.default")]
    assert pairs
    for name, weight in pairs:
        assert torch.equal(weight, model.get_parameter(name.removesuffix("default") + "ref"))


def test_a_reward_model_scores_the_same_alone_and_in_a_batch_and_tells_pairs_apart(world):
    folder, base, tokens = world
    _, made = trained(
        world, "scored", "reward", prompt=None, loss={"margin": True}, budget=BUDGET | {"steps": 40}, evaluation=None
    )
    model = load_scorer(base, made / "out", folder / "tokenizer")
    pad = pad_id(load_tokenizer(folder / "tokenizer"))
    early = tokens.filter(pl.col("reward_known_at") < PROVENANCE["validation_start"])
    chosen, rejected = (
        early.select(pl.concat_list("prompt_ids", name)).to_series().to_list() for name in ("chosen_ids", "rejected_ids")
    )
    found = scores(model, chosen + rejected, pad)
    alone = torch.cat([scores(model, [sequence], pad) for sequence in chosen + rejected])
    assert torch.allclose(found, alone, atol=1e-5)
    assert (found[: len(chosen)] > found[len(chosen) :]).float().mean() > 0.7


def test_prompts_are_encoded_once(world):
    """What a trainer sees is what the token table holds: prompt and answer encoded apart, the stop token once, at the end."""
    folder, _, tokens = world
    vocabulary = load_tokenizer(folder / "tokenizer")
    row = tokens.row(0, named=True)
    assert row["prompt_ids"] == prompt_ids(vocabulary, [jobs.pairs()["prompt"][0]]).lists()[0]
    assert row["chosen_ids"].count(vocabulary.stop) == 1 and row["chosen_ids"][-1] == vocabulary.stop
