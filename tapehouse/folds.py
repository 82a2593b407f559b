"""Walk-forward folds from the exchange calendar, and the purge and embargo that keep training rows out of a test block.

A fold trains on all sessions before its test block, or on a rolling window of them; `chronological` cuts one test block at
the end. Both may keep the tail of the training window for validation. What trains on both sides of a block (purged K-fold,
combinatorial) is declared beside them and listed in `models.splits` (`tapehouse.declared_splits`): the partitions of models
look at the past alone.

Folds follow from the calendar and one YAML alone, never from data, so that the partitions of what is fitted are known
when the definitions load. Purging and embargo: López de Prado, Advances in Financial Machine Learning (2018), 7.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tapehouse.errors import TapehouseError
from tapehouse.yaml_files import parse_yaml

FOLDS_FILE = Path("models_registry/folds.yaml")
SCHEMES = ("walk_forward", "chronological")


class CrossValidation(BaseModel):
    """Purged cross-validation over contiguous blocks of sessions: each choice of `held_out` of them is tested once.

    Attributes:
        groups: how many blocks, of equal length give or take a session. held_out: one is K-fold, more are combinatorial.
        inside: `training`, the training window of each fold, less its validation tail; `span`, all sessions.
        embargo_sessions: after the last label of a test block, in which no training row may be decided.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    groups: int = Field(ge=2)
    held_out: int = Field(1, ge=1)
    inside: Literal["training", "span"] = "training"
    embargo_sessions: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _trains_on_something(self) -> CrossValidation:
        if self.held_out >= self.groups:
            raise ValueError(f"held_out {self.held_out} of groups {self.groups} leaves no block to train on; lower held_out")
        return self


class FoldSpec(BaseModel):
    """How test blocks are cut, in sessions of one exchange calendar.

    Attributes:
        count: the last so many blocks; null takes every one.
        adapter_count: the last so many of them, for which adapters are trained, after a base that knows none of the text from
            there on; 0 takes every one.
        scheme: `walk_forward`, contiguous test blocks to the end of the span; `chronological`, the last `test_sessions` alone.
        train_sessions: of the window before each block, for one that rolls; null for one that expands.
        validation_sessions: the tail of the training window that is kept for stopping, calibrating and tuning.
        cross_validation: by name, what trains on both sides of its test blocks; rows of `models.splits`, no partitions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    calendar: str = "XNYS"
    test_sessions: int = Field(120, ge=1)
    min_train_sessions: int = Field(320, ge=1)
    min_test_sessions: int = Field(60, ge=1)
    purge_sessions: int = Field(12, ge=0)
    embargo_sessions: int = Field(12, ge=0)
    count: int | None = Field(2, ge=1)
    adapter_count: int = Field(0, ge=0)
    scheme: Literal["walk_forward", "chronological"] = "walk_forward"
    train_sessions: int | None = Field(None, ge=1)
    validation_sessions: int = Field(0, ge=0)
    cross_validation: dict[str, CrossValidation] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> FoldSpec:
        if self.purge_sessions >= self.min_train_sessions:
            raise ValueError(
                f"purge_sessions {self.purge_sessions} leaves nothing of min_train_sessions {self.min_train_sessions}; "
                "lower the one or raise the other"
            )
        window = self.min_train_sessions if self.train_sessions is None else min(self.train_sessions, self.min_train_sessions)
        # Behind the fitted part comes a gap as before the test block.
        gaps = self.purge_sessions * (2 if self.validation_sessions else 1)
        if self.validation_sessions + gaps >= window:
            raise ValueError(
                f"a training window of {window} sessions holds nothing beside validation_sessions {self.validation_sessions} "
                f"and purge_sessions {self.purge_sessions}; lower those, or raise train_sessions and min_train_sessions"
            )
        fitted = window - self.purge_sessions - self.validation_sessions
        for name, declared in self.cross_validation.items():
            if name in SCHEMES:
                raise ValueError(f"cross_validation.{name}: the name stands for the folds themselves; give it another")
            if declared.groups > fitted:
                raise ValueError(
                    f"cross_validation.{name}: groups {declared.groups} do not fit into {fitted} sessions of training; lower "
                    "groups, or raise min_train_sessions"
                )
        return self


@dataclass(frozen=True)
class Fold:
    """One test block and the window before it. All times are UTC and all windows half open.

    `train_end` stands `purge_sessions` before `test_start`: the label of a decision made before `train_end` is known by
    `test_start`. No row from `test_start` to `embargo_end` may train a model that is tested on this block. What is decided
    from `validation_start` (where there is one) to `train_end` validates and does not fit.
    """

    id: str
    train_start: datetime
    train_end: datetime
    test_start: datetime
    test_end: datetime
    embargo_end: datetime
    embargo_sessions: int
    test_first_session: date
    test_last_session: date
    validation_start: datetime | None = None


def read_spec(path: Path = FOLDS_FILE) -> FoldSpec:
    """The fold specification in `path`. Raises TapehouseError naming the file and the bad key."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TapehouseError(f"{path}: no such file; it says how test blocks are cut ({', '.join(_keys())})") from None
    except yaml.YAMLError as error:
        raise TapehouseError(f"{path}: not YAML: {error}") from None
    if content is not None and not isinstance(content, dict):
        raise TapehouseError(f"{path}: expected a mapping with the keys {', '.join(_keys())}; got a {type(content).__name__}")
    try:
        return FoldSpec.model_validate(content or {})
    except ValidationError as error:
        raise TapehouseError(f"{path}: " + "; ".join(_explain(fault) for fault in error.errors())) from None


def _keys() -> list[str]:
    return list(FoldSpec.model_fields)


def _explain(fault: dict) -> str:
    key = ".".join(map(str, fault["loc"]))
    if fault["type"] == "extra_forbidden":
        return f"{key}: unknown key; the keys are {', '.join(_keys())}"
    return f"{key}: {fault['msg'].removeprefix('Value error, ')}" if key else fault["msg"].removeprefix("Value error, ")


def walk_forward(sessions: pl.DataFrame, spec: FoldSpec) -> list[Fold]:
    """Contiguous test blocks over `sessions` (session, open_at, close_at; ascending), each with the window before it.

    Blocks are anchored at the first session, so that one more session never moves an older block (the one block of the
    chronological scheme lies at the end and does move); they are cut at the open of their first session. Raises ValueError
    where the calendar is too short for a single block.
    """
    days: list[date] = sessions["session"].to_list()
    opens: list[datetime] = sessions["open_at"].to_list()
    last_close: datetime = sessions["close_at"].to_list()[-1] if days else None
    if days != sorted(set(days)):
        raise ValueError("sessions must be unique and ascending")

    def edge(index: int) -> datetime:
        return opens[index] if index < len(opens) else day_after(last_close)

    firsts = range(spec.min_train_sessions, len(days), spec.test_sessions)
    if spec.scheme == "chronological":
        firsts = range(max(len(days) - spec.test_sessions, spec.min_train_sessions), len(days), spec.test_sessions)
    folds = []
    for first in firsts:
        end = min(first + spec.test_sessions, len(days))
        if end - first < min(spec.min_test_sessions, spec.test_sessions):
            break
        folds.append(
            Fold(
                id=days[first].isoformat(),
                train_start=opens[0 if spec.train_sessions is None else max(first - spec.train_sessions, 0)],
                train_end=opens[first - spec.purge_sessions],
                test_start=opens[first],
                test_end=edge(end),
                embargo_end=edge(end + spec.embargo_sessions),
                embargo_sessions=spec.embargo_sessions,
                test_first_session=days[first],
                test_last_session=days[end - 1],
                validation_start=(
                    opens[first - spec.purge_sessions - spec.validation_sessions] if spec.validation_sessions else None
                ),
            )
        )
    if not folds:
        needed = spec.min_train_sessions + min(spec.min_test_sessions, spec.test_sessions)
        raise ValueError(f"no fold fits into {len(days)} sessions: at least {needed} are needed")
    return folds if spec.count is None else folds[-spec.count :]


def load_folds(start: datetime, end: datetime, path: Path = FOLDS_FILE) -> list[Fold]:
    """The folds of the span [start, end), from the file `path` and its exchange calendar.

    Raises:
        TapehouseError: names the file and what in it cannot be: a key, the calendar, or blocks that do not fit the span.
    """
    from exchange_calendars.errors import InvalidCalendarName

    from tapehouse.calendars import sessions

    spec = read_spec(path)
    try:
        days = sessions(start, end, spec.calendar)
    except InvalidCalendarName:
        raise TapehouseError(f"{path}: calendar: no exchange calendar {spec.calendar!r}; XNYS is New York's") from None
    try:
        return walk_forward(days, spec)
    except ValueError as error:
        raise TapehouseError(
            f"{path}: {error}; lower min_train_sessions or min_test_sessions, or declare a longer span in sources.yaml"
        ) from error


def span_covered(_settings: object, start: datetime, end: datetime) -> str:
    """What the blocks follow from beside their file: another span has other sessions, and other folds."""
    return f"{start.isoformat()}/{end.isoformat()}"


def fitted_until(fold: Fold) -> datetime:
    """The end of what is fitted on: of the training window less the tail that is kept for validation."""
    return fold.validation_start or fold.train_end


def first_fitted_until(folds: Sequence[Fold]) -> datetime:
    """The earliest end of what is fitted on: what is made once for all of `folds` (a tokenizer) may use rows before it."""
    return min(fitted_until(fold) for fold in folds)


def purge(rows: pl.DataFrame, fold: Fold, end_col: str = "label_end_at", start_col: str = "decision_at") -> pl.DataFrame:
    """`rows` whose [start_col, end_col] does not meet [test_start, embargo_end), in their order.

    Works on both sides of the block: a row that starts before the block and ends in it goes, as does one that starts in
    the block or its embargo, and one that spans it. A row without an end is not known to have ended, and goes too. The
    folds made here train on what lies before their block (`training_rows`); the side behind it is for whoever trains on
    both, as cross-validation does.
    """
    before = pl.col(end_col) < fold.test_start
    after = (pl.col(start_col) >= fold.embargo_end) & pl.col(end_col).is_not_null()
    return rows.filter(before | after)


def training_rows(
    rows: pl.DataFrame, fold: Fold, known_col: str = "label_known_at", start_col: str = "decision_at"
) -> pl.DataFrame:
    """`rows` decided in the training window of `fold` and purged by the time at which their outcome was known."""
    in_window = pl.col(start_col).is_between(fold.train_start, fold.train_end, closed="left")
    return purge(rows.filter(in_window), fold, known_col, start_col)


def fitting_rows(
    rows: pl.DataFrame, fold: Fold, known_col: str = "label_known_at", start_col: str = "decision_at"
) -> pl.DataFrame:
    """`training_rows` whose outcome was known before the validation tail begins; all of them where the fold has none."""
    trained = training_rows(rows, fold, known_col, start_col)
    return trained if fold.validation_start is None else trained.filter(pl.col(known_col) < fold.validation_start)


def validation_rows(
    rows: pl.DataFrame, fold: Fold, known_col: str = "label_known_at", start_col: str = "decision_at"
) -> pl.DataFrame:
    """`training_rows` decided in the validation tail; none where the fold has none."""
    trained = training_rows(rows, fold, known_col, start_col)
    return trained.clear() if fold.validation_start is None else trained.filter(pl.col(start_col) >= fold.validation_start)


def block_rows(rows: pl.DataFrame, fold: Fold, time_col: str = "decision_at") -> pl.DataFrame:
    """`rows` decided in the test block of `fold`."""
    return rows.filter(pl.col(time_col).is_between(fold.test_start, fold.test_end, closed="left"))


def folds_frame(folds: Sequence[Fold]) -> pl.DataFrame:
    """The rows of `models.folds`."""
    stamps = ("train_start", "validation_start", "train_end", "test_start", "test_end", "embargo_end")
    return pl.DataFrame(
        {
            "fold": [fold.id for fold in folds],
            **{name: [getattr(fold, name) for fold in folds] for name in stamps},
            "embargo_sessions": [fold.embargo_sessions for fold in folds],
        },
        schema={"fold": pl.String, **dict.fromkeys(stamps, pl.Datetime("us", "UTC")), "embargo_sessions": pl.Int32},
    )


def day_after(close: datetime) -> datetime:
    """The first midnight (UTC) after the calendar's last close: the edge of a block with no session behind it."""
    return datetime(close.year, close.month, close.day, tzinfo=UTC) + timedelta(days=1)
