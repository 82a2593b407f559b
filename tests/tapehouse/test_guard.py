import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.training.__main__ import train
from tapehouse.training.guard import PROCESS, available, available_gpu, estimate, weight_shapes
from tapehouse.training.jobs import export_job
from tests.tapehouse.rollout_jobs import grpo_recipe, grpo_rows
from tests.tapehouse.training_jobs import PROVENANCE, adapter_recipe, make_base, make_tokenizer, sft_rows


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a tokenizer and of a base: two layers of width 32 and 64."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    return root / "tokenizer", make_base(root, root / "tokenizer")


def recipe(adapter=None, **budget):
    budget = {"steps": 1, "batch_size": 8, "accumulation": 2, "precision": "fp32"} | budget
    return adapter_recipe("sft", budget=budget, adapter=adapter or {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"]})


def test_an_estimate_by_hand(world):
    rows = sft_rows(world[0])
    vocabulary = json.loads((world[1] / "config.json").read_text())["vocab_size"]
    projected = 2 * (4 * 32 * 32 + 3 * 32 * 64)
    everything = projected + vocabulary * 32 + 2 * 2 * 32 + 32
    factors = 2 * 2 * 2 * (32 + 32)  # layers, targets, rank
    tokens = 4 * int(rows["input_ids"].list.len().max())  # a part of the batch, as long as its longest
    found = estimate(recipe(), world[1], rows)
    assert found.weights == 4 * (everything + factors)
    assert found.optimiser == 12 * factors
    assert found.activations == tokens * 2 * (14 * 32 + 8 * 64) * 4
    assert found.logits == tokens * vocabulary * 12
    assert found.total == PROCESS + found.weights + found.optimiser + found.activations + found.logits
    whole = estimate(recipe({"kind": "full"}), world[1], rows)
    assert (whole.weights, whole.optimiser) == (4 * everything, 12 * everything)
    assert sum(len(shape) == 2 for shape in weight_shapes(world[1]).values()) == 2 * 7 + 1


@pytest.mark.parametrize(
    ("group", "updates", "accumulation", "count", "prompts"),
    [
        (4, 1, 1, 16, 4),
        (4, 1, 2, 8, 4),  # the answers of a rollout are shuffled before it is parted
        (4, 4, 4, 4, 4),  # each of another prompt, at most
        (16, 1, 2, 8, 1),
    ],
)
def test_answers_are_counted_beside_the_prompts_that_they_share(world, group, updates, accumulation, count, prompts):
    budget = {"steps": 4, "batch_size": 16, "accumulation": accumulation, "precision": "fp32"}
    rollout = {"group": group, "most_tokens": 24, "updates": updates}
    made = grpo_recipe(budget=budget, rollout=rollout)
    rows = grpo_rows(world[0], made)
    tokens = prompts * int(rows["prompt_ids"].list.len().max()) + count * 25
    vocabulary = json.loads((world[1] / "config.json").read_text())["vocab_size"]
    assert estimate(made, world[1], rows).logits == tokens * vocabulary * 12


@settings(max_examples=15)
@given(size=st.integers(1, 64), parts=st.integers(1, 4))
def test_more_parts_and_remaking_take_less(world, size, parts):
    rows = sft_rows(world[0])
    one = estimate(recipe(batch_size=size * parts, accumulation=parts), world[1], rows)
    assert one == estimate(recipe(batch_size=size, accumulation=1), world[1], rows)
    remade = estimate(recipe(batch_size=size, accumulation=1, activation_checkpointing=True), world[1], rows)
    assert remade.activations < one.activations and remade.weights == one.weights
    half = estimate(recipe(batch_size=2 * size, accumulation=1), world[1], rows, processes=2)
    assert half == one


def test_what_a_control_group_leaves(tmp_path):
    """The limit of the group around it holds too, and the system's memory above all."""
    inner = tmp_path / "groups" / "outer" / "inner"
    inner.mkdir(parents=True)
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    for folder, most, used in ((inner, "max", 5), (inner.parent, "3000000", 1000000)):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    assert available(tmp_path / "groups", own) == 2e6
    (inner / "memory.max").write_text("1500000")
    assert available(tmp_path / "groups", own) == 1.5e6 - 5
    assert available(tmp_path / "nothing", tmp_path / "nowhere") > 1e6


def test_a_run_that_cannot_fit_is_refused_before_it_starts(world, tmp_path):
    big = recipe(batch_size=40_000_000, accumulation=1)
    export_job(tmp_path / "job", big, sft_rows(world[0]), world[1], world[0], 3, PROVENANCE, threads=1)
    with pytest.raises(TapehouseError, match=r"training takes about \d+\.\d+ GB .*GB are free on the cpu; raise budget.accum"):
        train(tmp_path / "job", tmp_path / "out", lambda facts: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job"]


def test_a_gpu_that_is_not_there_is_named():
    import torch

    if torch.cuda.is_available():
        assert available_gpu() > 0
    else:
        with pytest.raises(TapehouseError, match="this machine shows no GPU; set cpu"):
            available_gpu()
