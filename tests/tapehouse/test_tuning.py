"""Searches: what they maximise on paper, that they go on where they were killed, and that every trial is filed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import polars as pl
import pytest

from tapehouse.cross_fitting import cross_fitted, fitting_points
from tapehouse.declared_splits import declared_splits, splits_frame
from tapehouse.errors import TapehouseError
from tapehouse.folds import CrossValidation
from tapehouse.predictions import CHANCES
from tapehouse.recipes import load_recipes
from tapehouse.training.jobs import plain_fold
from tapehouse.trials import stored_trials
from tapehouse.tuning import JOURNAL, judged, make_study, open_study, outcome, search, with_values
from tests.tapehouse.classical import DAYS, KEYS, LABELS, SPEC, SPLITS, calendar, in_training, make_fold, make_inputs, recipe

FOLD = make_fold()
INPUTS = in_training(make_inputs(), FOLD)
JOB = {"fold": plain_fold(FOLD)}
SEARCH = {"params.l2": {"low": 0.1, "high": 1000.0, "log": True}}
LINEAR = recipe("linear", params={"l2": 2.0}, search=SEARCH, tuning={"trials": 6, "prune": False}, seed=4)


def study_of(root: Path, of=LINEAR, **changed) -> Path:
    folder = make_study(root, of, INPUTS | changed, FOLD, JOB)
    open_study(folder)
    return folder


def told(folder: Path) -> list[tuple]:
    study = optuna.load_study(study_name=folder.name, storage=_storage(folder))
    return [(t.number, t.state.name, t.params, t.value) for t in study.get_trials(deepcopy=False)]


def _storage(folder: Path):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A search of six trials that nothing interrupted."""
    root = tmp_path_factory.mktemp("whole")
    folder = study_of(root)
    search(folder, 6)
    return root, folder


def test_the_objective_is_the_mean_log_likelihood_of_rows_that_were_not_fitted_on(tmp_path):
    value, account, pruned = judged(LINEAR, INPUTS, FOLD)
    rows = fitting_points(INPUTS, FOLD)
    splits = declared_splits(INPUTS[SPLITS], rows, "tuning", FOLD.id)
    answers = pl.concat(cross_fitted(LINEAR, INPUTS, FOLD, rows, splits, tmp_path))
    truth = answers.join(INPUTS[LABELS].filter(side=0), on=KEYS, maintain_order="left")["label"].to_numpy() + 1
    by_hand = np.log(answers.select(CHANCES).to_numpy()[np.arange(rows.height), truth]).mean()
    assert value == pytest.approx(by_hand, rel=1e-12) and not pruned
    # The account runs from the session after the first decision to that of the last whose label is known before the tail.
    assert account["session"].to_list() == DAYS["session"][1:53].to_list() and account["ret"].n_unique() > 40


def test_a_recipe_without_probabilities_is_judged_by_its_trades(tmp_path):
    for name, text in {
        "gbm": "method: gbm\ndescription: d\nparams: {n_estimators: 5}\n",
        "auditor": "method: auditor\ndescription: d\naudits: gbm\nparams: {n_estimators: 5, threshold: 0.0}\n"
        "search: {params.threshold: {low: 0.0, high: 1.0}}\n",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    auditor = load_recipes(tmp_path)["auditor"]
    everything, _, _ = judged(auditor, INPUTS, FOLD)
    assert everything > 0.004  # a trade that is right returns 1 % a deviation of its feature
    fewer, _, _ = judged(with_values(auditor, {"params.threshold": 1.0}), INPUTS, FOLD)
    assert 0 <= fewer < everything


def test_the_first_trial_is_what_the_recipe_says_and_all_are_filed(whole):
    root, folder = whole
    trials = told(folder)
    assert [(n, s) for n, s, _, _ in trials] == [(n, "COMPLETE") for n in range(6)]
    assert trials[0][2] == {"params.l2": 2.0}
    assert len({p["params.l2"] for _, _, p, _ in trials}) == 6
    found = outcome(folder)
    assert found.objective == max(value for *_, value in trials) and found.own == trials[0][3]
    assert found.counts == {"complete": 6}
    filed = stored_trials(root)
    assert filed.height == 6 and set(filed["kind"]) == {"tuning"} and set(filed["subject"]) == {"linear"}
    assert filed["fold"].unique().to_list() == [FOLD.id]
    assert sorted(filed["objective"]) == sorted(value for *_, value in trials)
    assert filed["returns"].list.len().to_list() == [52] * 6 and filed["sharpe"].null_count() == 0
    assert sorted(json.loads(p)["number"] for p in filed["params"]) == list(range(6))


def test_a_search_in_parts_is_the_search_in_one(whole, tmp_path):
    folder = study_of(tmp_path)
    for count in (1, 3, 2):
        open_study(folder)
        search(folder, count)
    assert told(folder) == told(whole[1])


def test_a_killed_search_goes_on_and_its_open_trial_has_failed(tmp_path):
    folder = study_of(tmp_path)
    search(folder, 2)
    before = told(folder)
    worker = subprocess.Popen([sys.executable, "-m", "tapehouse.tuning", str(folder), "5000", "0"], stderr=subprocess.DEVNULL)
    while len(told(folder)) < 4:
        time.sleep(0.02)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    with (folder / JOURNAL).open("ab") as torn:  # in the middle of a line
        torn.write(b'{"op_code": 5, "worker_')
    done = len(told_after_mending(folder))
    search(folder, 1)
    after = told(folder)
    assert after[:2] == before and len(after) == done + 1
    assert {state for _, state, _, _ in after} <= {"COMPLETE", "FAIL"} and after[-1][1] == "COMPLETE"
    filed = stored_trials(tmp_path)
    assert filed.height == len(after)
    killed = filed.filter(state="failed")
    assert set(killed["reason"]) <= {"its process ended before it did"}


def told_after_mending(folder: Path) -> list[tuple]:
    open_study(folder)
    return told(folder)


def test_a_setting_that_breaks_is_a_failed_trial_that_is_filed(tmp_path):
    broken = INPUTS[LABELS].with_columns(label=pl.lit(1, pl.Int32))
    folder = study_of(tmp_path, **{LABELS: broken})
    search(folder, 2)
    assert [state for _, state, _, _ in told(folder)] == ["FAIL", "FAIL"]
    filed = stored_trials(tmp_path)
    assert set(filed["state"]) == {"failed"} and filed["reason"].str.contains("labels are BUY").all()
    with pytest.raises(TapehouseError, match="none of 2 trials is complete"):
        outcome(folder)


def test_poor_trials_are_pruned_and_filed_with_what_they_had(tmp_path):
    of = recipe(
        "linear",
        params={"l2": 1.0},
        search={"params.l2": {"low": 1.0, "high": 1e9, "log": True}},
        tuning={"prune": True},
        seed=4,
    )
    folder = study_of(tmp_path, of)
    search(folder, 14)
    states = [state for _, state, _, _ in told(folder)]
    assert set(states) == {"COMPLETE", "PRUNED"}
    pruned = stored_trials(tmp_path).filter(state="pruned")
    assert pruned.height == states.count("PRUNED")
    assert (pruned["returns"].list.len() < 52).all() and pruned["objective"].null_count() == 0


def test_processes_share_a_study(tmp_path):
    folder = study_of(tmp_path)
    workers = [subprocess.Popen([sys.executable, "-m", "tapehouse.tuning", str(folder), "3", str(n)]) for n in range(2)]
    assert [worker.wait() for worker in workers] == [0, 0]
    trials = told(folder)
    assert [state for _, state, _, _ in trials] == ["COMPLETE"] * 6 and len({p["params.l2"] for _, _, p, _ in trials}) == 6
    assert stored_trials(tmp_path).height == 6


def test_a_study_is_of_its_rows_and_of_what_is_not_searched(tmp_path):
    first = study_of(tmp_path)
    assert study_of(tmp_path, with_values(LINEAR, {"params.l2": 50.0})) == first
    assert study_of(tmp_path, LINEAR.model_copy(update={"seed": 5})) != first
    other = INPUTS[LABELS].with_columns(pl.col("ret") * 2)
    assert study_of(tmp_path, **{LABELS: other}) != first


def test_values_that_cannot_be_and_nothing_to_search_are_refused(tmp_path):
    with pytest.raises(TapehouseError, match=r"params\.l2: .*greater than 0"):
        with_values(LINEAR, {"params.l2": -1.0})
    with pytest.raises(TapehouseError, match=r"recipe linear: search: nothing to search"):
        make_study(tmp_path, recipe("linear"), INPUTS, FOLD, JOB)


def test_a_scheme_that_answers_a_row_in_several_splits_is_refused(tmp_path):
    spec = SPEC.model_copy(update={"cross_validation": {"tuning": CrossValidation(groups=3, held_out=2)}})
    with pytest.raises(TapehouseError, match=r"recipe linear: scheme 'tuning' holds out 2 blocks .* held_out: 1"):
        study_of(tmp_path, **{SPLITS: splits_frame([FOLD], spec, calendar())})
    assert not list(tmp_path.iterdir())
