"""Trials: everything that was tried, so that the best of it can be judged as the best of many.

A row is a fit that was traded over a test block, a setting of a sweep, or a trial of a search, failed ones included, with its
daily returns. Rows are only ever added: a recipe that was changed leaves what it earned before. Searches and accounts leave
their trials in files as they happen (`tapehouse.trial_files`), which :func:`stored_trials` reads; the asset `reports.trials`
puts them together with the accounts that stand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from tapehouse.account_trials import traded_trial
from tapehouse.hashing import text_hash
from tapehouse.json_lines import read_lines
from tapehouse.trial_files import COMPLETE, FIT, FOLDER

TRIALS: Final = {
    "subject": pl.String,
    "fold": pl.String,
    "trial": pl.String,
    "kind": pl.String,
    "state": pl.String,
    "params": pl.String,
    "objective": pl.Float64,
    "sharpe": pl.Float64,
    "returns": pl.List(pl.Float64),
    "first_session": pl.Date,
    "prior_trials": pl.Int64,
    "reason": pl.String,
}
GRAIN: Final = ("subject", "fold", "trial")


def stored_trials(root: Path) -> pl.DataFrame:
    """Rows of `TRIALS` out of the files of `tapehouse.trial_files`, each line once, in the order of their files."""
    rows = []
    for file in sorted((root / FOLDER).glob("*.jsonl")):
        rows += read_lines(file)
    return trial_rows(rows)


def trials_fingerprint(root: Path) -> str:
    """What :func:`stored_trials` would find, as a text that changes with it, apart from what was traded.

    An account that was made changes the equity that trials are made of, too: the table is stale by that.
    """
    found = stored_trials(root).filter((pl.col("kind") != FIT) | (pl.col("state") != COMPLETE))
    return text_hash(found.write_json())


def fit_trials(equity: pl.DataFrame, settings: Mapping[str, str], prior: Mapping[str, int]) -> pl.DataFrame:
    """One trial for each subject and test block that was traded.

    Args:
        equity: rows of `reports.backtest_equity`: `subject`, `fold`, `session`, `ret`.
        settings: what identifies the setting of each subject: the hash of its recipe, or of its strategy and its predictors.
        prior: trials before these were logged, by subject.
    """
    rows = []
    for (subject, fold), days in equity.sort("subject", "fold", "session").group_by("subject", "fold", maintain_order=True):
        name = str(subject)
        rows.append(traded_trial(name, str(fold), settings[name], prior.get(name, 0), days))
    return trial_rows(rows)


def trial_rows(trials: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Trials as rows of `TRIALS`, named by a hash of what they say, so that the same one is one row; with Sharpe ratios."""
    rows = []
    for trial in trials:
        returns = [float(value) for value in trial.get("returns") or []]
        params = json.dumps(trial.get("params") or {}, sort_keys=True)
        said = [trial["subject"], trial["fold"], trial["kind"], trial["state"], params, repr(returns), str(trial.get("reason"))]
        first = trial.get("first_session")
        rows.append(
            {name: trial.get(name) for name in TRIALS}
            | {
                "trial": text_hash(*said)[:16],
                "params": params,
                "returns": returns,
                "sharpe": daily_sharpe(np.array(returns)),
                "first_session": date.fromisoformat(first) if first else None,
                "prior_trials": int(trial.get("prior_trials") or 0),
            }
        )
    return pl.DataFrame(rows, TRIALS).unique(GRAIN, keep="first", maintain_order=True)


def appended(existing: pl.DataFrame, found: pl.DataFrame) -> pl.DataFrame:
    """`existing` with what of `found` is new, by the grain; nothing that was logged goes, or changes."""
    new = found.join(existing, on=GRAIN, how="anti")
    return pl.concat([existing.select(pl.col(n).cast(k) for n, k in TRIALS.items()), new]).sort(GRAIN)


def daily_sharpe(returns: np.ndarray) -> float | None:
    """Mean over deviation (n - 1) of daily returns, not annualised; None where they do not vary, as without trades."""
    if len(returns) < 2 or not returns.std(ddof=1) > 0:
        return None
    return float(returns.mean() / returns.std(ddof=1))
