"""Several processes that share every batch train the same model as one."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tapehouse.errors import TapehouseError
from tapehouse.training.__main__ import train
from tapehouse.training.jobs import export_job, run_job
from tests.tapehouse.training_jobs import (
    PROVENANCE,
    TRAIN_END,
    adapter_recipe,
    dpo_rows,
    make_base,
    make_tokenizer,
    sft_rows,
)

STEPS = 20


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a tokenizer and of a base."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    return root / "tokenizer", make_base(root, root / "tokenizer")


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_two_processes_train_as_one(world, tmp_path, method):
    """The losses of 20 steps and of two validations to 1e-4, the weights to 1e-5; epochs end inside batches."""
    recipe = adapter_recipe(
        method,
        budget={"steps": STEPS, "batch_size": 8, "checkpoint_every": 5, "precision": "fp32"},
        evaluation={"every": 10, "patience": None},
    )
    rows = sft_rows(world[0]) if method == "sft" else dpo_rows(world[0])
    tail = {**PROVENANCE, "validation_start": TRAIN_END - timedelta(days=5)}
    export_job(tmp_path / "job", recipe, rows, world[1], world[0], 3, tail, threads=1)
    alone = train(tmp_path / "job", tmp_path / "alone", lambda facts: None)
    together = run_job(tmp_path / "job", tmp_path / "together", launcher="local:2")
    assert (alone["ranks"], together["ranks"]) == (1, 2)
    assert (alone["tokens"], alone["best_step"]) == (together["tokens"], together["best_step"])
    told = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("alone", "together")
    ]
    for key, count in (("loss", STEPS), ("validation_loss", 2)):
        one, two = ([line[key] for line in lines if key in line] for lines in told)
        assert len(one) == count and len(set(one)) > count - 2  # by its warm-up, the first step changes nothing
        assert two == pytest.approx(one, abs=1e-4)
    one, two = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("alone", "together"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5


def test_fewer_processes_than_were_asked_for_are_refused(world, tmp_path):
    export_job(tmp_path / "job", adapter_recipe("sft"), sft_rows(world[0]), world[1], world[0], 3, PROVENANCE, threads=1)
    with pytest.raises(TapehouseError, match="2 processes were to share the job and 1 do"):
        train(tmp_path / "job", tmp_path / "out", lambda facts: None, ranks=2)
