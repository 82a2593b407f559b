"""Tuning: a recipe's declared search space, searched by purged cross-validation inside the training window of one fold.

A study is a folder: the tables that the recipe reads, the recipe, and the journal of its trials, which several processes
append to. What a killed search had finished stays; its open trials count as failed. The first trial is what the recipe says
now. The next values are drawn by TPE (J. Bergstra and others, Algorithms for Hyper-Parameter Optimization, NIPS 2011), from a
generator of the recipe's seed and the number of trials, so that one process draws the same ones however often it is stopped.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from tapehouse.cross_fitting import LABELS, POINTS, check_answered_once, cross_fitted, fitting_points
from tapehouse.declared_splits import declared_splits
from tapehouse.errors import TapehouseError
from tapehouse.folds import Fold
from tapehouse.hashing import frame_hash, text_hash
from tapehouse.predictions import CHANCES, KEYS, as_predictions
from tapehouse.recipe_sections import ClassicalRecipe
from tapehouse.recipes import parse_recipe
from tapehouse.trial_files import COMPLETE, FAILED, PRUNED, TUNING, record_trial
from tapehouse.trial_files import FOLDER as TRIALS_FOLDER

if TYPE_CHECKING:
    import optuna

SPLITS, BARS, ACTIONS = "models.splits", "staging.bars", "raw.corporate_actions"
JOURNAL, INPUTS, RECIPE, JOB = "journal.log", "inputs", "recipe.json", "job.json"
SMALLEST = 1e-12
STARTUP_TRIALS = 5  # before the first may be pruned
KILLED = "its process ended before it did"


@dataclass(frozen=True)
class Found:
    """What a search has come to.

    Attributes:
        counts: trials by state, all that there are in the study. best: values by key of the best complete one, and
        `objective`, its. own: the objective of what the recipe says now; None where the search leaves that out.
    """

    counts: dict[str, int]
    best: dict[str, float]
    objective: float
    own: float | None


def make_study(root: Path, recipe: ClassicalRecipe, inputs: dict[str, pl.DataFrame], fold: Fold, job: dict[str, Any]) -> Path:
    """The folder of the study of these rows and of what the recipe says beside the searched values; made if it is not there.

    Args:
        root: the warehouse's folder. inputs: what the recipe's method reads, and `models.splits`, `staging.bars` and
            `raw.corporate_actions`, of the training window. job: what `tapehouse.training.jobs.job_fold` reads, and more.

    Raises:
        TapehouseError: the recipe has nothing to search, or its scheme answers a row more than once.
    """
    if not recipe.search:
        raise TapehouseError(
            f"recipe {recipe.name}: search: nothing to search; give ranges there, as params.max_depth: {{low: 1, high: 4}}"
        )
    check_answered_once(inputs[SPLITS], recipe.tuning.scheme, fold, recipe.name)
    fixed = with_values(recipe, {key: bounds.low for key, bounds in recipe.search.items()}).hash
    searched = json.dumps({key: bounds.model_dump() for key, bounds in recipe.search.items()}, sort_keys=True)
    rows = (f"{name}={frame_hash(frame)}" for name, frame in sorted(inputs.items()))
    identity = text_hash(fixed, searched, recipe.tuning.scheme, fold.id, *rows)[:16]
    folder = root / "tuning" / recipe.name / fold.id / identity
    if not folder.is_dir():
        aside = folder.with_name(f"{identity}.partial")
        shutil.rmtree(aside, ignore_errors=True)
        (aside / INPUTS).mkdir(parents=True)
        for name, frame in inputs.items():
            frame.write_parquet(aside / INPUTS / f"{name}.parquet")
        (aside / JOB).write_text(json.dumps(job, indent=1, sort_keys=True))
        aside.rename(folder)
    (folder / RECIPE).write_text(recipe.model_dump_json(indent=1))  # the present values, and how many trials to prune
    return folder


def with_values(recipe: ClassicalRecipe, values: dict[str, float]) -> ClassicalRecipe:
    """`recipe` with other values at the keys of a search. Raises TapehouseError where one of them cannot be."""
    fields = recipe.model_dump(mode="json")
    for key, value in values.items():
        *path, last = key.split(".")
        section = fields
        for part in path:
            section = section[part]
        section[last] = value
    return parse_recipe(fields, f"recipe {recipe.name} with {values}")


def open_study(folder: Path) -> optuna.Study:
    """The study in `folder`; a line that a killed process has torn goes, and its open trials are told as failed.

    To be called before the processes of a search start: while one runs, an open trial is no dead one.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal, recipe = folder / JOURNAL, _recipe(folder)
    if journal.exists():
        written = journal.read_bytes()
        journal.write_bytes(written[: written.rfind(b"\n") + 1])
    study = optuna.create_study(study_name=folder.name, storage=_storage(folder), direction="maximize", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if not _record_file(folder, trial.number).exists():
            _record(folder, {"number": trial.number, **trial.params}, FAILED, reason=KILLED)
    own = {key: _value(recipe, key) for key in recipe.search}
    if not study.trials and all(bounds.low <= own[key] <= bounds.high for key, bounds in recipe.search.items()):
        study.enqueue_trial(own)
    return study


def search(folder: Path, trials: int, worker: int = 0) -> None:
    """Run so many more trials of the study in `folder`, and record each; a setting that fails is a failed trial."""
    import optuna

    from tapehouse.training.jobs import job_fold

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe, inputs, fold = _recipe(folder), _inputs(folder), job_fold(json.loads((folder / JOB).read_text()))
    pruner = optuna.pruners.MedianPruner(STARTUP_TRIALS, 1) if recipe.tuning.prune else optuna.pruners.NopPruner()
    study = optuna.load_study(study_name=folder.name, storage=_storage(folder), pruner=pruner)
    for _ in range(trials):
        study.sampler = _sampler(recipe, worker, len(study.get_trials(deepcopy=False)))
        trial = study.ask()
        values = {key: _suggested(trial, key, bounds) for key, bounds in recipe.search.items()}
        told: dict[str, Any] = {"number": trial.number, **values}
        try:
            value, account, pruned = judged(with_values(recipe, values), inputs, fold, trial)
        except Exception as error:  # whatever a setting breaks is what became of its trial, and is recorded
            _record(folder, told, FAILED, reason=f"{type(error).__name__}: {error}")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        _record(folder, told, PRUNED if pruned else COMPLETE, value, account)
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        study.tell(trial, None if pruned else value, state=state)


def judged(
    recipe: ClassicalRecipe, inputs: dict[str, pl.DataFrame], fold: Fold, trial: optuna.Trial | None = None
) -> tuple[float, pl.DataFrame, bool]:
    """How well the recipe answers rows of the training window that it was not fitted on.

    Returns:
        The objective, a mean over the rows of the splits: the log-likelihood of their labels; of a recipe that gives no
        probabilities, the return of its trades by their barriers, before costs. The account (`session`, `ret`) that traded
        the answers, at the costs of every backtest. Whether the trial was pruned, and then both of the splits before.

    Raises:
        ValueError: no row to judge by.
    """
    rows = fitting_points(inputs, fold)
    splits = declared_splits(inputs[SPLITS], rows, recipe.tuning.scheme, fold.id)
    answered, scores, pruned = [], np.empty(0), False
    with tempfile.TemporaryDirectory() as aside:
        for number, answers in enumerate(cross_fitted(recipe, inputs, fold, rows, splits, Path(aside))):
            answered.append(answers)
            scores = np.concatenate([scores, _scores(answers, inputs[LABELS])])
            if trial is not None and scores.size:
                trial.report(float(scores.mean()), number)
                pruned = number + 1 < len(splits) and trial.should_prune()
                if pruned:
                    break
    if not scores.size:
        raise ValueError(f"{recipe.name} {fold.id}: no answer of the splits has a label to be judged by")
    return float(scores.mean()), traded(pl.concat(answered), inputs, recipe, fold), pruned


def traded(answers: pl.DataFrame, inputs: dict[str, pl.DataFrame], recipe: ClassicalRecipe, fold: Fold) -> pl.DataFrame:
    """`session` and `ret` of an account that follows `answers`, from the session after the first decision's to the last's."""
    from tapehouse.backtest.run import run_backtest
    from tapehouse.calendars import all_sessions

    first, last = answers["decision_at"].min(), answers["decision_at"].max()
    calendar = inputs[SPLITS].filter(scheme=recipe.tuning.scheme, fold=fold.id)["calendar"][0]
    days = all_sessions(calendar)
    # A decision is taken after the close of its session.
    own = days.filter(pl.col("close_at") <= first).tail(1)["close_at"].item()
    held = days.filter(pl.col("close_at").is_between(own, last))
    result = run_backtest(
        as_predictions(answers.drop("split"), recipe.name, fold), inputs[POINTS], inputs[BARS], inputs[ACTIONS], held
    )
    return result.equity.select("session", "ret")[1:]


def outcome(folder: Path) -> Found:
    """What the study in `folder` has found.

    Raises:
        TapehouseError: no trial is complete; it says why the last one failed.
    """
    import optuna

    study = optuna.load_study(study_name=folder.name, storage=_storage(folder))
    trials = study.get_trials(deepcopy=False)
    state = optuna.trial.TrialState
    names = {state.COMPLETE: COMPLETE, state.PRUNED: PRUNED, state.FAIL: FAILED}
    counts = {name: sum(t.state == kind for t in trials) for kind, name in names.items()}
    if not counts[COMPLETE]:
        raise TapehouseError(f"{folder}: none of {len(trials)} trials is complete {counts}; the reasons are in reports.trials")
    recipe = _recipe(folder)
    own = {key: _value(recipe, key) for key in recipe.search}
    mine = [t.value for t in trials if t.state == state.COMPLETE and t.params == own]
    return Found({k: n for k, n in counts.items() if n}, study.best_params, study.best_value, mine[0] if mine else None)


def main(arguments: list[str]) -> int:
    """`python -m tapehouse.tuning FOLDER TRIALS WORKER`: one process of a search.

    It holds a lock of its own: it may outlive the process that started it, and a new search must not begin before it ends.
    """
    from filelock import FileLock

    folder, trials, worker = arguments
    with FileLock(Path(folder) / f"{worker}.lock"):
        search(Path(folder), int(trials), int(worker))
    return 0


def _scores(answers: pl.DataFrame, labels: pl.DataFrame) -> np.ndarray:
    """One score an answer that can be judged."""
    if set(CHANCES) <= set(answers.columns):
        known = labels.filter(pl.col("side") == 0).drop_nulls("label").select(*KEYS, "label")
        rows = answers.join(known, on=KEYS, how="inner", validate="1:1").drop_nulls(CHANCES)
        chances = rows.select(CHANCES).to_numpy()[np.arange(rows.height), rows["label"].to_numpy() + 1]
        return np.log(np.maximum(chances, SMALLEST))
    sides = pl.col("action").replace_strict({"BUY": 1, "SELL": -1}, default=0, return_dtype=pl.Int32)
    taken = labels.filter(pl.col("side") != 0).select(*KEYS, "side", "ret").drop_nulls("ret")
    rows = answers.with_columns(side=sides).join(taken, on=[*KEYS, "side"], how="left", validate="1:1")
    return rows["ret"].fill_null(0.0).to_numpy()


def _record(
    folder: Path,
    params: dict[str, Any],
    state: str,
    value: float | None = None,
    account: pl.DataFrame | None = None,
    reason: str | None = None,
) -> None:
    """File a trial before the journal says that it is over: one that is killed in between is filed already."""
    recipe, fold = folder.parts[-3:-1]
    trial: dict[str, Any] = {"subject": recipe, "fold": fold, "kind": TUNING, "state": state, "params": params}
    trial |= {"objective": value, "reason": reason}
    if account is not None and account.height:
        trial |= {"returns": account["ret"].to_list(), "first_session": account["session"][0].isoformat()}
    record_trial(folder.parents[3], _record_file(folder, params["number"]).stem, trial)


def _record_file(folder: Path, number: int) -> Path:
    """A file a trial: no two processes write to the same one."""
    recipe, fold = folder.parts[-3:-1]
    return folder.parents[3] / TRIALS_FOLDER / f"tuning_{recipe}_{fold}_{folder.name}_{number:05d}.jsonl"


def _storage(folder: Path) -> optuna.storages.JournalStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / JOURNAL)))


def _sampler(recipe: ClassicalRecipe, worker: int, number: int) -> optuna.samplers.TPESampler:
    import optuna

    seed = int(text_hash(str(recipe.seed), str(worker), str(number))[:8], 16)
    return optuna.samplers.TPESampler(seed=seed)


def _suggested(trial: optuna.Trial, key: str, bounds) -> float | int:
    if isinstance(bounds.low, int) and isinstance(bounds.high, int):
        return trial.suggest_int(key, bounds.low, bounds.high, log=bounds.log)
    return trial.suggest_float(key, bounds.low, bounds.high, log=bounds.log)


def _value(recipe: ClassicalRecipe, key: str) -> float | int:
    found: Any = recipe
    for part in key.split("."):
        found = getattr(found, part)
    return found


def _recipe(folder: Path) -> ClassicalRecipe:
    return parse_recipe(json.loads((folder / RECIPE).read_text()), str(folder / RECIPE))


def _inputs(folder: Path) -> dict[str, pl.DataFrame]:
    return {file.stem: pl.read_parquet(file) for file in sorted((folder / INPUTS).glob("*.parquet"))}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
