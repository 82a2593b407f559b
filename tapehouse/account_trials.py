"""Accounts as trials: what was traded over a test block, filed the moment it was (`tapehouse.trial_files`).

Apart from the files of fits that fail, so that a change here makes backtests stale, and no model.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from tapehouse.trial_files import COMPLETE, FIT, record_trial


def traded_trial(subject: str, fold: str, setting: str, prior: int, equity: pl.DataFrame) -> dict[str, Any]:
    """The trial of one account over a test block.

    Args:
        setting: a hash of what was declared. prior: trials before these were logged. equity: `session` and `ret`, in order.
    """
    return {
        "subject": subject,
        "fold": fold,
        "kind": FIT,
        "state": COMPLETE,
        "params": {"setting": setting},
        "returns": equity["ret"].to_list()[1:],  # on the first session nothing can have been earned
        "first_session": equity["session"][0].isoformat(),
        "prior_trials": prior,
    }


def record_traded(b: Any, declared: Any, setting: str, equity: pl.DataFrame) -> None:
    """File what an account earned the moment it did: another may stand in its place when trials are counted.

    The same result again is the same trial. A repetition that is held against what is stored is none.

    Args:
        b: the build of the backtest's asset. declared: the recipe or strategy. setting, equity: as of :func:`traded_trial`.
    """
    if not b.comparing:
        trial = traded_trial(declared.name, b.fold.id, setting, declared.prior_trials, equity)
        record_trial(b.settings.root, f"{declared.name}-{b.fold.id}-account", trial)
