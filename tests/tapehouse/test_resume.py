"""Runs that are killed and started again: the same weights and the same losses, bit for bit, as if nothing had been."""

import json
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from safetensors.torch import load_file

from tapehouse.errors import TapehouseError
from tapehouse.tokens import load_tokenizer
from tapehouse.training.__main__ import train
from tapehouse.training.corpus import pretraining_tokens
from tapehouse.training.jobs import export_job
from tapehouse.training.trainer import Rows
from tests.tapehouse.killed_runs import metrics, reports, run
from tests.tapehouse.training_jobs import (
    PROVENANCE,
    TRAIN_END,
    adapter_recipe,
    dpo_rows,
    make_base,
    make_tokenizer,
    nano_recipe,
    pairs,
    sft_rows,
)

BUDGET = {"steps": 8, "batch_size": 4, "accumulation": 2, "checkpoint_every": 2}
RANDOM = {"rank": 2, "alpha": 4, "targets": ["q_proj", "v_proj"], "dropout": 0.2}  # draws at every step
SYNCS = 6  # of a checkpoint: its four files, its folder, the folder that it is renamed in
TAIL = {**PROVENANCE, "validation_start": TRAIN_END - timedelta(days=8)}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> tuple[Path, Path]:
    """Folders of a tokenizer and of a base."""
    root = tmp_path_factory.mktemp("world")
    make_tokenizer(root / "tokenizer")
    return root / "tokenizer", make_base(root, root / "tokenizer")


@pytest.fixture(scope="module")
def job(world, tmp_path_factory) -> Path:
    """A supervised job with dropout, a validation tail and four checkpoints, and in `whole` what it gives undisturbed."""
    root = tmp_path_factory.mktemp("supervised")
    recipe = adapter_recipe("sft", adapter=RANDOM, budget=BUDGET, evaluation={"every": 4})
    export_job(root / "job", recipe, sft_rows(world[0]), world[1], world[0], 3, TAIL, threads=1)
    assert run(root / "job", root / "whole")
    return root / "job"


def same(outdir: Path, whole: Path) -> bool:
    """Whether two runs left the same weights and filed the same reports."""
    return (outdir / "adapter_model.safetensors").read_bytes() == (
        whole / "adapter_model.safetensors"
    ).read_bytes() and metrics(outdir) == metrics(whole)


@pytest.mark.parametrize("at_sync", [2, SYNCS, 3 * SYNCS + 4, 4 * SYNCS])
def test_a_kill_while_a_checkpoint_is_written_changes_nothing(job, tmp_path, at_sync):
    assert not run(job, tmp_path / "out", at_sync=at_sync)
    assert not (tmp_path / "out").exists()
    assert run(job, tmp_path / "out")
    assert same(tmp_path / "out", job.parent / "whole")
    # The rename of a checkpoint comes before the last of its syncs, so that one killed there is already valid.
    resumed = json.loads((tmp_path / "out" / "manifest.json").read_text())["resumed_at"]
    assert resumed == (2 * (at_sync // SYNCS) or None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_kills_from_outside_one_after_the_other_change_nothing(job, tmp_path):
    for at_report in (1, 5, 8):
        run(job, tmp_path / "out", at_report=at_report)
    if not (tmp_path / "out").exists():
        assert run(job, tmp_path / "out")
    assert same(tmp_path / "out", job.parent / "whole")


def test_preference_tuning_goes_on_to_the_same_weights(world, tmp_path):
    recipe = adapter_recipe("dpo", budget=BUDGET)
    export_job(tmp_path / "job", recipe, dpo_rows(world[0]), world[1], world[0], 3, PROVENANCE, threads=1)
    assert run(tmp_path / "job", tmp_path / "whole")
    assert not run(tmp_path / "job", tmp_path / "out", at_sync=SYNCS + 2)
    run(tmp_path / "job", tmp_path / "out", at_report=5)
    assert run(tmp_path / "job", tmp_path / "out")
    assert same(tmp_path / "out", tmp_path / "whole")


def test_pretraining_goes_on_to_the_same_weights(world, tmp_path):
    plan = {"copy_steps": 60, "copy_batch": 2, "text_steps": 60, "text_batch": 2}
    recipe = nano_recipe(curriculum=plan)
    tokens = pretraining_tokens(pairs(), recipe.corpus, load_tokenizer(world[0]), 3)
    export_job(tmp_path / "job", recipe, tokens, None, world[0], 3, {**PROVENANCE, "fold": None}, threads=1)
    assert run(tmp_path / "job", tmp_path / "whole")
    run(tmp_path / "job", tmp_path / "out", at_report=11)
    assert [path.name for path in (tmp_path / "out.checkpoints").glob("*/step-*")] == ["step-00000100"]
    assert not run(tmp_path / "job", tmp_path / "out", at_sync=2)
    assert run(tmp_path / "job", tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert metrics(tmp_path / "out") == metrics(tmp_path / "whole")


def test_a_run_that_was_stopped_early_and_killed_then_trains_no_further(world, tmp_path):
    """Killed after the last checkpoint, before the weights were left: what is started again has nothing more to do."""
    recipe = adapter_recipe(
        "sft",
        budget={"steps": 40, "batch_size": 4, "checkpoint_every": 1},
        evaluation={"every": 1, "patience": 2, "threshold": 10.0},
    )
    export_job(tmp_path / "job", recipe, sft_rows(world[0]), world[1], world[0], 3, TAIL, threads=1)
    assert run(tmp_path / "job", tmp_path / "whole")
    told = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    losses = [line["validation_loss"] for line in metrics(tmp_path / "whole") if "validation_loss" in line]
    assert told["steps"] == len(losses) == 3  # the first is the best, two do not undercut it by the threshold
    assert told["validation_loss"] == min(losses) and told["best_step"] == 1 + losses.index(min(losses))
    assert not run(tmp_path / "job", tmp_path / "out", at_sync=3 * SYNCS)
    assert run(tmp_path / "job", tmp_path / "out")
    assert same(tmp_path / "out", tmp_path / "whole")


def test_another_job_takes_no_notice_of_checkpoints_that_are_not_its_own(job, world, tmp_path):
    run(job, tmp_path / "out", at_report=5)
    recipe = adapter_recipe("sft", adapter=RANDOM, budget=BUDGET, evaluation={"every": 4})
    export_job(tmp_path / "job", recipe, sft_rows(world[0]), world[1], world[0], 4, TAIL, threads=1)  # another seed
    assert train(tmp_path / "job", tmp_path / "out", lambda facts: None)["resumed_at"] is None


def test_a_loss_that_is_no_number_stops_before_the_weights_and_names_its_rows(world, tmp_path):
    spoilt = 11
    recipe = adapter_recipe("sft", budget={"steps": 17, "batch_size": 1, "checkpoint_every": 1})
    nothing = pl.col("loss_mask").list.eval(pl.element() & False)  # the mean loss of no token
    rows = sft_rows(world[0]).with_row_index()
    rows = rows.with_columns(loss_mask=pl.when(pl.col("index") == spoilt).then(nothing).otherwise("loss_mask"))
    export_job(tmp_path / "job", recipe, rows.drop("index"), world[1], world[0], 3, PROVENANCE, threads=1)
    at = Rows(17, 17, 3).order.index(spoilt) + 1
    assert at > 2
    said = rf"the loss is nan at step {at}, .*examples {spoilt} of .*step-{at - 1:08d}\."
    for _ in range(2):  # and again where it is started again
        with pytest.raises(TapehouseError, match=said):
            train(tmp_path / "job", tmp_path / "out", lambda facts: None)
        kept = sorted((tmp_path / "out.checkpoints").glob("*/step-*"))
        assert [int(path.name[-2:]) for path in kept] == [at - 2, at - 1]
        assert all(value.isfinite().all() for value in load_file(kept[-1] / "weights.safetensors").values())


def test_a_validation_loss_that_is_no_number_ends_the_run_and_leaves_no_best_state(world, tmp_path):
    recipe = adapter_recipe("sft", budget=BUDGET, evaluation={"every": 4})
    nothing = pl.col("loss_mask").list.eval(pl.element() & False)  # the mean loss of no token
    late = pl.col("decision_at") >= TAIL["validation_start"]
    rows = sft_rows(world[0]).with_columns(loss_mask=pl.when(late).then(nothing).otherwise("loss_mask"))
    export_job(tmp_path / "job", recipe, rows, world[1], world[0], 3, TAIL, threads=1)
    with pytest.raises(TapehouseError, match=r"recipe tiny_sft: the validation loss is nan at step 4, .*validation tail"):
        train(tmp_path / "job", tmp_path / "out", lambda facts: None)
    assert [path.name for path in (tmp_path / "out.checkpoints").glob("*/step-*")] == ["step-00000002"]


def test_two_processes_with_one_output_take_turns(job, tmp_path):
    """A caller that was killed can leave its training behind: the next one waits for it, and both end with the same weights."""
    from tests.tapehouse.killed_runs import SERVER, _run

    both = [SERVER.Process(target=_run, args=(job, tmp_path / "out", 0)) for _ in range(2)]
    for process in both:
        process.start()
    while all(process.is_alive() for process in both):
        assert len(list(tmp_path.glob("out.partial-*"))) <= 1
        reports(tmp_path / "out")
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert same(tmp_path / "out", job.parent / "whole")
