"""Each subject's verdict (`reports.verdicts`) in one honest sentence, and its curve over all its blocks."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from tapehouse.verdicts import BEATS, INCONCLUSIVE, LOSES

CLAIMS = {
    BEATS: "{us} beats {them}",
    LOSES: "{us} loses to {them}",
    INCONCLUSIVE: "{us} is not shown to beat {them}",
}


@dataclass(frozen=True)
class Record:
    """One subject over all its blocks, joined: positions are flattened, at cost, at the end of each.

    `ret` (sessions,) leaves out the first session of a block, on which nothing can have been earned. `sharpe` is 0 for a
    subject that never traded: it held cash. `row` is its row of `reports.verdicts`. `is_baseline`: others are held against it,
    be it a rule, a model or a strategy such as a baseline scaled to a volatility; so they are against a control (`is_control`),
    which is no yardstick. `has_page`: whether there is a page of its own to be linked.
    """

    subject: str
    kind: str
    ret: np.ndarray
    sessions: tuple
    row: dict[str, Any]
    is_baseline: bool = False
    is_control: bool = False
    has_page: bool = True

    @property
    def link(self) -> str | None:
        """Address of its own page, beside that of the run; None where it has none."""
        return f"{self.subject}.html" if self.has_page else None

    @property
    def role(self) -> str:
        """What it is, in a word: baseline or control, else its kind."""
        if self.is_control:
            return "control"
        return "baseline" if self.is_baseline else self.kind

    @property
    def gained(self) -> float:
        return self.row["return"]

    @property
    def sharpe(self) -> float:
        return self.row["sharpe"] or 0.0

    @property
    def interval(self) -> tuple[float | None, float | None]:
        return self.row["sharpe_low"], self.row["sharpe_high"]

    @property
    def max_drawdown(self) -> float:
        return self.row["max_drawdown"]

    @property
    def trades(self) -> int:
        return self.row["trades"]

    @property
    def word(self) -> str:
        """BEATS, LOSES or INCONCLUSIVE."""
        return self.row["verdict"]

    @property
    def sentence(self) -> str:
        """The verdict in words, as plain text."""
        row = self.row
        if row["baseline"] is None:
            return f"{self.subject}: {row['reason']}."
        if not self.trades:
            return f"{self.subject} never traded, so there is nothing to compare."
        claim = CLAIMS[self.word].format(us=self.subject, them=row["baseline"])
        said = (
            f"{claim}: Sharpe ratio {number(self.sharpe)} against {number(row['baseline_sharpe'])}, return "
            f"{percent(self.gained)}, over {row['sessions']:,} sessions and {self.trades:,} trades"
        )
        low, high = row["difference_low"], row["difference_high"]
        if low is not None and high is not None:
            said += f"; the 95 % interval of the difference is {number(low)} to {number(high)}"
        return f"{said}. {row['reason'][:1].upper()}{row['reason'][1:]}." if self.word == INCONCLUSIVE else f"{said}."


def records(
    verdicts: pl.DataFrame,
    equity: pl.DataFrame,
    baselines: Collection[str] = (),
    controls: Collection[str] = (),
    pageless: Collection[str] = (),
) -> list[Record]:
    """One record a subject, most sessions first, then the best Sharpe ratio: ratios of other spans do not rank.

    Args:
        verdicts: rows of `reports.verdicts`. equity: rows of `reports.backtest_equity`: `subject`, `fold`, `session`, `ret`.
        baselines: the declared ones, beside all that are of this kind. controls: the declared ones.
        pageless: those without a page of their own.

    Raises:
        ValueError: a subject without an equity curve.
    """
    rows = equity.sort("subject", "fold", "session")
    curves = rows.filter(pl.col("session") > pl.col("session").min().over("subject", "fold"))
    by = {str(subject): own for (subject,), own in curves.group_by("subject", maintain_order=True)}
    found = []
    for row in verdicts.iter_rows(named=True):
        name = row["subject"]
        if name not in by:
            raise ValueError(f"{name} has a verdict and no rows in reports.backtest_equity; make reports/verdicts again")
        control = name in controls
        held_against = row["kind"] == "baseline" or name in baselines or control
        ret, sessions = by[name]["ret"].to_numpy(), tuple(by[name]["session"])
        found.append(Record(name, row["kind"], ret, sessions, row, held_against, control, name not in pageless))
    return sorted(found, key=lambda r: (-len(r.sessions), -r.sharpe, r.subject))


def span(record: Record, found: Collection[Record]) -> str:
    """How many blocks it was traded on, where another of `found` was on more; else nothing."""
    most, own = max(r.row["folds"] for r in found), record.row["folds"]
    return "" if own == most else f"{own} block{'s' if own != 1 else ''}"


def headline(found: list[Record]) -> str:
    """The outcome of all verdicts in one line; baselines and controls are what the others are held against."""
    judged = [r for r in found if not r.is_baseline]
    if not judged:
        return "Baselines only: no adapter, policy or strategy has been tested yet."
    ahead, lost = ([r.subject for r in judged if r.word == word] for word in (BEATS, LOSES))
    if not ahead:
        which = "The one subject tested does not beat" if len(judged) == 1 else f"None of the {len(judged)} subjects beats"
        return f"{which} the strongest baseline over its sessions; {len(lost)} lose to it."
    return f"{len(ahead)} of {len(judged)} subjects beat the strongest baseline over their sessions: {', '.join(ahead)}."


def number(value: float | None, digits: int = 2) -> str:
    """A figure with a true minus sign, never a negative zero; a dash where it is not defined."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:.{digits}f}"
    text = text.lstrip("-") if not text.strip("-0.") else text
    return text.replace("-", "\N{MINUS SIGN}")


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction in per cent, signed."""
    if value is None:
        return "\N{EN DASH}"
    text = number(value * 100, digits)
    return ("+" if value > 0 and text.strip("0.") else "") + text + "\N{NO-BREAK SPACE}%"
