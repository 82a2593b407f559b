"""Trials as they happen, in files of the warehouse: those of searches, fits that failed, accounts over a test block.

Apart from the table that they end in (`tapehouse.trials`): what fits a model is part of its version, and how trials are counted
later is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tapehouse.json_lines import append_line

FIT, SWEEP, TUNING = KINDS = ("fit", "sweep", "tuning")
COMPLETE, PRUNED, FAILED = STATES = ("complete", "pruned", "failed")
FOLDER: Final = "trials"  # of the warehouse: JSON lines that searches, failed trainings and accounts leave, one file each


def record_trial(root: Path, name: str, trial: Mapping[str, Any]) -> None:
    """Append one trial to `trials/<name>.jsonl` in the warehouse folder `root`, in one write.

    Args:
        name: of the file; one a search, or a fold's training or account. trial: `subject`, `fold`, `kind`, `state`, and of
            `params` (a mapping), `objective`, `returns` (daily, of any length), `first_session` (ISO date) and `reason` what is
            known.

    Raises:
        ValueError: a kind or a state that there is not, or no subject or fold.
    """
    if trial.get("kind") not in KINDS or trial.get("state") not in STATES or not (trial.get("subject") and trial.get("fold")):
        raise ValueError(f"a trial has subject, fold, a kind of {KINDS} and a state of {STATES}; got {dict(trial)}")
    append_line(root / FOLDER / f"{name}.jsonl", trial)


@contextmanager
def failure_recorded(b: Any, recipe: Any) -> Iterator[None]:
    """A fit inside this context that raises is a trial that failed, and raises all the same.

    The reason is the last line of the error, which for a process of its own is its own error; the whole is in the run's log.
    A repetition that is held against what is stored is no trial, nor is a fit that is interrupted.

    Args:
        b: the build of the model's asset. recipe: what is fitted.
    """
    try:
        yield
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        trial = {"subject": recipe.name, "fold": b.fold.id, "kind": FIT, "state": FAILED, "params": {"setting": recipe.hash}}
        reason = lines[-1] if lines else type(error).__name__
        if not b.comparing:
            record_trial(b.settings.root, f"{recipe.name}-{b.fold.id}-fit", trial | {"reason": reason})
        raise
