"""Trials: what was tried is logged once, stays, and counts when it failed."""

import sys
from datetime import date
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from tapehouse.account_trials import record_traded
from tapehouse.errors import TapehouseError
from tapehouse.training.jobs import run_process
from tapehouse.trial_files import failure_recorded, record_trial
from tapehouse.trials import GRAIN, TRIALS, appended, fit_trials, stored_trials, trial_rows, trials_fingerprint
from tapehouse.verdicts import number_of_trials


def equity(last: float) -> pl.DataFrame:
    days = [date(2010, 1, 4), date(2010, 1, 5), date(2010, 1, 6)]
    return pl.DataFrame({"subject": "ours", "fold": "f", "session": days, "ret": [0.0, 0.01, last]})


SETTINGS = {"ours": "h1"}


def test_a_fit_that_was_traded_is_a_trial_by_hand():
    (row,) = fit_trials(equity(0.03), SETTINGS, {"ours": 4}).rows(named=True)
    assert (row["subject"], row["fold"], row["kind"], row["state"]) == ("ours", "f", "fit", "complete")
    assert row["returns"] == [0.01, 0.03] and row["first_session"] == date(2010, 1, 4) and row["prior_trials"] == 4
    assert row["sharpe"] == pytest.approx(0.02 / np.std([0.01, 0.03], ddof=1))
    assert '"setting": "h1"' in row["params"]


def test_what_was_logged_stays_and_the_same_is_logged_once():
    first = appended(trial_rows([]), fit_trials(equity(0.03), SETTINGS, {}))
    assert appended(first, fit_trials(equity(0.03), SETTINGS, {})).equals(first)
    changed = appended(first, fit_trials(equity(-0.05), {"ours": "h2"}, {}))
    assert changed.height == 2 and set(first["trial"]) < set(changed["trial"])


def test_searches_and_failures_come_out_of_their_files(tmp_path):
    before = trials_fingerprint(tmp_path)
    tuning = {"subject": "gbm", "fold": "f", "kind": "tuning", "params": {"params.max_depth": 2}}
    record_trial(tmp_path, "gbm-f", tuning | {"state": "complete", "objective": -1.1, "returns": [0.01, -0.02]})
    record_trial(tmp_path, "gbm-f", tuning | {"state": "failed", "reason": "loss is not finite at step 3"})
    with (tmp_path / "trials" / "gbm-f.jsonl").open("a") as file:
        file.write('{"subject": "gbm", "fo')  # a search that was killed while it wrote
    rows = stored_trials(tmp_path)
    assert dict(rows.schema) == TRIALS and rows["state"].to_list() == ["complete", "failed"]
    assert rows.row(1, named=True)["sharpe"] is None and "not finite" in rows["reason"][1]
    assert trials_fingerprint(tmp_path) != before
    # The search that goes on after it writes a line of its own.
    record_trial(tmp_path, "gbm-f", tuning | {"state": "pruned"})
    assert stored_trials(tmp_path)["state"].to_list() == ["complete", "failed", "pruned"]


def test_a_trial_without_a_fold_or_of_no_kind_is_refused(tmp_path):
    for bad in ({"kind": "guess"}, {"state": "fine"}, {"fold": None}):
        trial = {"subject": "a", "fold": "f", "kind": "fit", "state": "complete"} | bad
        with pytest.raises(ValueError, match="a trial has subject, fold"):
            record_trial(tmp_path, "a", trial)


def build_of(root, comparing: bool = False) -> SimpleNamespace:
    """What a step is given, as far as a failed fit needs it."""
    return SimpleNamespace(settings=SimpleNamespace(root=root), fold=SimpleNamespace(id="2012-05-29"), comparing=comparing)


RECIPE = SimpleNamespace(name="gbm", hash="h1")


def test_a_training_process_that_fails_leaves_its_last_words_and_fails_all_the_same(tmp_path):
    dies = [sys.executable, "-c", "raise ValueError('loss is not finite at step 3')"]
    for _ in range(2):  # the same failure is one trial
        with pytest.raises(TapehouseError, match="ended with code 1"), failure_recorded(build_of(tmp_path), RECIPE):
            run_process(dies, {})
    (row,) = stored_trials(tmp_path).rows(named=True)
    assert (row["subject"], row["fold"], row["kind"], row["state"]) == ("gbm", "2012-05-29", "fit", "failed")
    assert row["reason"] == "ValueError: loss is not finite at step 3" and row["params"] == '{"setting": "h1"}'
    assert row["returns"] == [] and row["sharpe"] is None


def test_an_account_is_filed_the_moment_it_was_made_and_outlives_its_equity(tmp_path):
    declared, days = SimpleNamespace(name="ours", prior_trials=4), [date(2010, 1, 4), date(2010, 1, 5), date(2010, 1, 6)]
    b = SimpleNamespace(settings=SimpleNamespace(root=tmp_path), fold=SimpleNamespace(id="f"), comparing=False)
    before = trials_fingerprint(tmp_path)
    for last in (0.03, 0.03, -0.05):  # the same result again, and another of other data
        record_traded(b, declared, "h1", pl.DataFrame({"session": days, "ret": [0.0, 0.01, last]}))
    b.comparing = True
    record_traded(b, declared, "h1", pl.DataFrame({"session": days, "ret": [0.0, 0.01, 0.07]}))
    filed = stored_trials(tmp_path)
    assert filed["returns"].to_list() == [[0.01, 0.03], [0.01, -0.05]] and filed["first_session"].unique().to_list() == days[:1]
    standing = fit_trials(equity(-0.05), SETTINGS, {"ours": 4})
    assert filed[1:].equals(standing)  # the same row as that made of the equity
    assert appended(trial_rows([]), pl.concat([standing, filed]).unique(GRAIN)).height == 2
    assert trials_fingerprint(tmp_path) == before  # by the equity the table is stale already


def test_what_is_held_against_the_stored_or_stopped_by_hand_is_no_trial(tmp_path):
    with pytest.raises(ValueError), failure_recorded(build_of(tmp_path, comparing=True), RECIPE):
        raise ValueError("other weights")
    with pytest.raises(KeyboardInterrupt), failure_recorded(build_of(tmp_path), RECIPE):
        raise KeyboardInterrupt
    with failure_recorded(build_of(tmp_path), RECIPE):
        pass
    assert stored_trials(tmp_path).is_empty()


def test_a_setting_that_failed_and_one_that_was_traded_are_two_tries(tmp_path):
    with pytest.raises(RuntimeError), failure_recorded(build_of(tmp_path), RECIPE):
        raise RuntimeError
    failed = stored_trials(tmp_path)
    assert failed["reason"].to_list() == ["RuntimeError"]
    traded = fit_trials(equity(0.03).with_columns(subject=pl.lit("gbm")), {"gbm": "h2"}, {})
    assert number_of_trials(appended(failed, traded)) == 2
    mended = fit_trials(equity(0.03).with_columns(subject=pl.lit("gbm")), {"gbm": "h1"}, {})
    assert number_of_trials(appended(failed, mended)) == 1  # the setting that failed once, and then did not
