"""Each adapter against the strongest baseline, in figures and in one honest sentence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from tapehouse.metrics import sharpe, sharpe_difference_interval, sharpe_interval
from tapehouse.statistics.drawdowns import drawdowns

AHEAD, NOT_PROVEN, LOSES, NO_TRADES = "ahead", "not proven", "loses", "no trades"


@dataclass(frozen=True)
class Record:
    """One subject over all its blocks, joined: positions are flattened, at cost, at the end of each.

    `ret` (sessions,) leaves out the first session of a block, on which nothing can have been earned. `sharpe` is 0 for a
    subject that never traded: it held cash.
    """

    subject: str
    kind: str
    ret: np.ndarray
    sessions: tuple
    gained: float
    sharpe: float
    interval: tuple[float, float] | tuple[None, None]
    max_drawdown: float
    trades: int


@dataclass(frozen=True)
class Comparison:
    """An adapter beside the baseline with the highest Sharpe ratio over the same sessions.

    Attributes:
        word: `ahead` where the 95 % interval of the paired difference lies above 0; `loses` where the difference is below
            0, whatever its interval; `no trades`; else `not proven`.
    """

    subject: Record
    baseline: Record
    difference: float
    interval: tuple[float, float] | tuple[None, None]
    word: str

    @property
    def sentence(self) -> str:
        """The comparison in words, as plain text."""
        us, them = self.subject, self.baseline
        if self.word == NO_TRADES:
            return f"{us.subject} never traded, so there is nothing to compare; {them.subject} returned {percent(them.gained)}."
        claim = {
            AHEAD: f"{us.subject} is ahead of {them.subject}",
            LOSES: f"{us.subject} loses to {them.subject}",
            NOT_PROVEN: f"{us.subject} does not beat {them.subject} by more than chance",
        }[self.word]
        figures = (
            f"{claim}: Sharpe ratio {number(us.sharpe)} against {number(them.sharpe)}, return {percent(us.gained)} against "
            f"{percent(them.gained)}, over {len(us.ret)} sessions and {us.trades} trades."
        )
        low, high = self.interval
        if low is None or high is None:
            return f"{figures} Too few sessions for an interval."
        spans = "includes zero" if low <= 0 <= high else "excludes zero"
        return f"{figures} The 95 % interval of the difference, {number(low)} to {number(high)}, {spans}."


def records(leaderboard: pl.DataFrame, equity: pl.DataFrame) -> list[Record]:
    """One record a subject, best Sharpe ratio first.

    Args:
        leaderboard: `subject`, `fold`, `kind`, `trades`.
        equity: rows of `reports.backtest_equity`: `subject`, `fold`, `session`, `ret`.

    Raises:
        ValueError: a subject of the leaderboard without an equity curve.
    """
    found = []
    for (subject,), rows in leaderboard.sort("subject").group_by("subject", maintain_order=True):
        curve = equity.filter(pl.col("subject") == subject).sort("fold", "session")
        if curve.is_empty():
            raise ValueError(f"{subject} is on the leaderboard and has no rows in reports.backtest_equity")
        traded = curve.filter(pl.col("session") > pl.col("session").min().over("fold"))
        ret = traded["ret"].to_numpy()
        trades = int(rows["trades"].sum())
        found.append(
            Record(
                subject=str(subject),
                kind=rows["kind"][0],
                ret=ret,
                sessions=tuple(traded["session"]),
                gained=float(np.prod(1.0 + ret) - 1.0),
                sharpe=(sharpe(ret) or 0.0) if trades else 0.0,
                interval=sharpe_interval(ret) if trades else (None, None),
                max_drawdown=drawdowns(ret).deepest,
                trades=trades,
            )
        )
    return sorted(found, key=lambda r: (-r.sharpe, r.subject))


def compare(found: list[Record]) -> list[Comparison]:
    """Every adapter beside the strongest baseline, in the order given.

    Raises:
        ValueError: no baseline, or one that was not tested on the sessions of an adapter.
    """
    baselines = [r for r in found if r.kind == "baseline"]
    adapters = [r for r in found if r.kind != "baseline"]
    if adapters and not baselines:
        raise ValueError("no baseline on the leaderboard: a report without one says nothing")
    comparisons = []
    for us in adapters:
        them = max(baselines, key=lambda r: r.sharpe)
        if us.sessions != them.sessions:
            raise ValueError(f"{us.subject} and {them.subject} were tested on different sessions; make both again")
        difference = us.sharpe - them.sharpe
        low, high = sharpe_difference_interval(us.ret, them.ret)
        if us.trades == 0:
            word = NO_TRADES
        elif difference < 0:
            word = LOSES
        else:
            word = AHEAD if low is not None and low > 0 else NOT_PROVEN
        comparisons.append(Comparison(us, them, difference, (low, high), word))
    return comparisons


def headline(comparisons: list[Comparison]) -> str:
    """The outcome of all comparisons in one line."""
    if not comparisons:
        return "Baselines only: no adapter has been tested yet."
    ahead = [c.subject.subject for c in comparisons if c.word == AHEAD]
    baseline = comparisons[0].baseline.subject
    if not ahead:
        which = "The adapter does not beat" if len(comparisons) == 1 else f"None of the {len(comparisons)} adapters beats"
        return f"{which} the strongest baseline, {baseline}."
    return f"{len(ahead)} of {len(comparisons)} adapters ahead of the strongest baseline, {baseline}: {', '.join(ahead)}."


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
