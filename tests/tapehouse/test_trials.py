"""Trials: what was tried is logged once, stays, and counts when it failed."""

from datetime import date

import numpy as np
import polars as pl
import pytest

from tapehouse.trials import TRIALS, appended, fit_trials, record_trial, stored_trials, trial_rows, trials_fingerprint


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


def test_a_trial_without_a_fold_or_of_no_kind_is_refused(tmp_path):
    for bad in ({"kind": "guess"}, {"state": "fine"}, {"fold": None}):
        trial = {"subject": "a", "fold": "f", "kind": "fit", "state": "complete"} | bad
        with pytest.raises(ValueError, match="a trial has subject, fold"):
            record_trial(tmp_path, "a", trial)
