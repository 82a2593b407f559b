import json
import math
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.training.__main__ import train
from tapehouse.training.cadence import enough
from tapehouse.training.jobs import export_job
from tapehouse.training.trainer import Rows
from tests.tapehouse.training_jobs import (
    PROVENANCE,
    TRAIN_END,
    adapter_recipe,
    dpo_rows,
    make_base,
    make_tokenizer,
    sft_rows,
)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a tokenizer and of a base."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    return root / "tokenizer", make_base(root, root / "tokenizer")


def losses(world, folder: Path, method: str, provenance=PROVENANCE, **changes) -> tuple[dict, list[dict]]:
    """Manifest of a run and its reports."""
    rows = sft_rows(world[0]) if method == "sft" else dpo_rows(world[0])
    export_job(folder / "job", adapter_recipe(method, **changes), rows, world[1], world[0], 3, provenance, threads=1)
    manifest = train(folder / "job", folder / "out", lambda facts: None)
    return manifest, [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]


@given(rows=st.integers(1, 40), batches=st.integers(1, 20), size=st.integers(1, 8), seed=st.integers(0, 9))
def test_every_row_comes_once_before_one_comes_again(rows, batches, size, seed):
    order = Rows(rows, batches * size, seed).order
    assert len(order) == batches * size
    for start in range(0, len(order), rows):
        epoch = order[start : start + rows]
        assert len(set(epoch)) == len(epoch) and set(epoch) <= set(range(rows))
    assert Rows(rows, batches * size + 5, seed).order[: len(order)] == order  # a longer run begins as a shorter one


def test_when_it_is_enough():
    # 5.0 is the best; 4.9995 does not undercut it by 0.001, 4.99 does, then three do not.
    history = [5.0, 4.9995, 4.99, 4.99, 5.2, 4.9895]
    assert [enough(history[:count], 3, 0.001) for count in range(1, 7)] == [False, False, False, False, False, True]
    assert not enough([3.0, 2.0, 1.0], 1, 0.001) and enough([1.0, 1.0], 1, 0.0)
    assert not enough([], 1, 0.0)


def test_learning_rates_follow_the_schedule(world, tmp_path):
    """Warm-up over two steps, then half a cosine to zero over the other six; told is the rate that a step was made with."""
    budget = {"steps": 8, "batch_size": 2}
    _, told = losses(world, tmp_path, "sft", budget=budget, schedule={"kind": "cosine", "warmup_steps": 2})
    expected = [0.0, 0.5, *(0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6))]
    assert [line["learning_rate"] for line in told] == pytest.approx([0.01 * share for share in expected])


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_parts_and_layers_made_again_change_no_loss(world, tmp_path, method):
    """A batch in four parts, and activations made again in the backward pass, in float32: the same losses but for rounding."""
    budget = {"steps": 4, "batch_size": 8, "precision": "fp32"}
    whole, parts, again = (
        [line["loss"] for line in losses(world, tmp_path / name, method, budget=budget | changes)[1]]
        for name, changes in (("whole", {}), ("parts", {"accumulation": 4}), ("again", {"activation_checkpointing": True}))
    )
    assert parts == pytest.approx(whole, abs=1e-5)
    assert again == pytest.approx(whole, abs=1e-5)
    assert whole[0] != whole[-1]


def test_the_weights_of_the_lowest_validation_loss_are_left(world, tmp_path):
    """The same job, cut off at the best step, leaves the same weights: with a constant rate its first steps are the same."""
    tail = {**PROVENANCE, "validation_start": TRAIN_END - timedelta(days=8)}
    steady = {"schedule": {"kind": "constant", "warmup_steps": 1}, "optimiser": {"learning_rate": 0.3}}
    section = {"every": 1, "patience": None}
    long, told = losses(
        world, tmp_path / "long", "sft", tail, budget={"steps": 12, "batch_size": 4}, evaluation=section, **steady
    )
    measured = [line["validation_loss"] for line in told if "validation_loss" in line]
    best = measured.index(min(measured)) + 1
    assert long["best_step"] == best < 12 and long["validation_loss"] == min(measured) and long["steps"] == 12
    short, _ = losses(world, tmp_path / "short", "sft", tail, budget={"steps": best, "batch_size": 4}, **steady)
    assert short["digest"] == long["digest"]
