"""Supervised jobs as they are run: packed, of one stage, going on from all of a parent's weights."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from tapehouse.errors import TapehouseError
from tapehouse.methods.sft import training_rows
from tapehouse.training.__main__ import train
from tapehouse.training.jobs import export_job
from tests.tapehouse.training_jobs import PROVENANCE, START, adapter_recipe, make_base, make_tokenizer, sft_rows

FULL = {"kind": "full"}
TAIL = PROVENANCE | {"validation_start": START + timedelta(days=14)}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a tokenizer and of a base."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    return root / "tokenizer", make_base(root, root / "tokenizer")


def test_packed_rows_are_trained_on_and_the_tail_is_measured(tmp_path, world):
    recipe = adapter_recipe(
        "sft",
        data={"row_tokens": 256},
        evaluation={"every": 2, "rows": 2},
        budget={"steps": 4, "batch_size": 2, "checkpoint_every": 2},
    )
    export_job(tmp_path / "job", recipe, sft_rows(world[0]), world[1], world[0], 3, TAIL, 1)
    rows = pl.read_parquet(tmp_path / "job" / "tokens.parquet")
    facts = train(tmp_path / "job", tmp_path / "out", lambda report: None)
    assert facts["rows"] == rows["block_lengths"].list.len().sum()  # none was lost
    assert facts["batch_rows"] == rows.height < facts["rows"]
    assert facts["steps"] == 4 and facts["best_step"] in (2, 4) and facts["validation_loss"] > 0
    assert facts["rows_validation"] > 0


def test_a_child_goes_on_from_all_of_its_parents_weights(tmp_path, world):
    rows = sft_rows(world[0])
    budget = {"steps": 12, "batch_size": 4}
    parent = adapter_recipe("sft", adapter=FULL, budget=budget)
    export_job(tmp_path / "job", parent, rows, world[1], world[0], 3, PROVENANCE, 1)
    taught = train(tmp_path / "job", tmp_path / "parent", lambda report: None)
    assert (tmp_path / "parent" / "config.json").is_file() and not (tmp_path / "parent" / "adapter_config.json").exists()
    child = adapter_recipe("sft", adapter=FULL, budget={"steps": 1, "batch_size": 4}, model={"init_from": parent.name})
    export_job(tmp_path / "job", child, rows, world[1], world[0], 3, PROVENANCE, 1, tmp_path / "parent")
    fresh = adapter_recipe("sft", adapter=FULL, budget={"steps": 1, "batch_size": 4})
    export_job(tmp_path / "other", fresh, rows, world[1], world[0], 3, PROVENANCE, 1)
    went_on, began = (train(tmp_path / job, tmp_path / f"{job}_out", lambda report: None) for job in ("job", "other"))
    assert went_on["init_digest"] == taught["digest"]
    assert went_on["loss"] < began["loss"] - 0.05  # it begins where its parent ended


def test_one_stage_and_one_dataset_are_taken():
    recipe = adapter_recipe("sft", data={"dataset": "instructions", "stage": "claims"}, prompt={"batch_size": 8})
    tokens = pl.DataFrame({"dataset": ["orders", "instructions", "instructions"], "stage": ["claims", "claims", "decision"]})
    assert training_rows(recipe, tokens, {}).rows() == [("instructions", "claims")]
    with pytest.raises(TapehouseError, match=r"no example of instructions at stage 'claims'"):
        training_rows(recipe, tokens.head(1), {})
