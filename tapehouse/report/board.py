"""The leaderboard as tables: who was traded over the same sessions stands together, with the baselines over just those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import polars as pl

from tapehouse.metrics import sharpe, sharpe_interval
from tapehouse.report import shell
from tapehouse.report.verdict import Record, number, percent
from tapehouse.statistics.drawdowns import drawdowns

HEADS = {
    "": "Place by Sharpe ratio among those that traded.",
    "subject": "",
    "verdict": "",
    "return": "Change of equity over all blocks, joined, after all costs.",
    "Sharpe": "Mean over deviation of daily returns times the root of 252, gross of a risk-free rate; small: 95 % interval.",
    "less best": "Sharpe ratio less that of the strongest other baseline over the same sessions; small: paired 95 % interval.",
    "deflated": "Probability that the true ratio is above that of the best of all trials without skill.",
    "max drawdown": "Deepest fall of the joined equity.",
    "trades": "Closed trades.",
    "what": "A declared baseline may be the yardstick; a control tells where a result comes from and is not counted.",
}


@dataclass(frozen=True)
class Group:
    """Subjects of the same sessions, best Sharpe ratio first; of fewer blocks than all beside baselines over just those."""

    found: tuple[Record, ...]
    folds: tuple[str, ...]

    @property
    def title(self) -> str:
        first, last = self.found[0].row["first_session"], self.found[0].row["last_session"]
        return f"{blocks(len(self.folds))}, {first} to {last}"


def groups(found: Sequence[Record], equity: pl.DataFrame, trades: pl.DataFrame) -> list[Group]:
    """Records by the sessions they were traded on, most blocks first.

    Args:
        equity, trades: rows of `reports.backtest_equity` and `reports.backtest_trades`.
    """
    folds = {name: tuple(own) for name, own in equity.group_by("subject").agg(pl.col("fold").unique().sort()).iter_rows()}
    counts = {(s, f): n for s, f, n in trades.group_by("subject", "fold").len().iter_rows()}
    made = []
    for own, some in groupby(
        sorted(found, key=lambda r: (-len(folds[r.subject]), folds[r.subject])), lambda r: folds[r.subject]
    ):
        members = list(some)
        names = {r.subject for r in members}
        sessions = set(members[0].sessions)
        for other in found:
            if other.is_baseline and other.subject not in names and sessions <= set(other.sessions):
                members.append(_over(other, members[0].sessions, sum(counts.get((other.subject, f), 0) for f in own)))
        made.append(Group(tuple(sorted(members, key=lambda r: (-r.sharpe, r.subject))), own))
    return made


def board(group: Group) -> str:
    """The group's table: a click on a head sorts it, a name leads to the subject's page."""
    ranked = [r.subject for r in group.found if r.trades]
    rows = []
    for record in group.found:
        row, traded = record.row, record.trades > 0
        place = ranked.index(record.subject) + 1 if traded else None
        rows.append(
            (
                (number(place, 0), place),
                shell.subject(record.subject, record.role, record.link),
                shell.badge(record.word) if record.word else "",
                (percent(record.gained), record.gained),
                _told(record.sharpe if traded else None, *record.interval),
                _told(row["difference"] if traded else None, row["difference_low"], row["difference_high"]),
                (number(row["deflated_sharpe"]), row["deflated_sharpe"]),
                (percent(record.max_drawdown), record.max_drawdown),
                (f"{record.trades:,}", record.trades),
                record.role,
            )
        )
    heads = [shell.head(text, meaning) if meaning and text else text for text, meaning in HEADS.items()]
    return shell.table(heads, rows, sortable=True)


def blocks(count: int) -> str:
    """So many test blocks, in words."""
    return "1 test block" if count == 1 else f"{count} test blocks"


def _over(record: Record, sessions: Sequence, trades: int) -> Record:
    """A baseline or control over some of its sessions: without a verdict, which is on all of them."""
    at = {session: place for place, session in enumerate(record.sessions)}
    ret = record.ret[[at[session] for session in sessions]]
    low, high = sharpe_interval(ret) if trades else (None, None)
    row = dict.fromkeys(record.row) | {
        "subject": record.subject,
        "kind": record.kind,
        "sessions": len(ret),
        "first_session": sessions[0],
        "last_session": sessions[-1],
        "trades": trades,
        "return": float((1.0 + ret).prod() - 1.0),
        "max_drawdown": drawdowns(ret).deepest,
        "sharpe": sharpe(ret) if trades else None,
        "sharpe_low": low,
        "sharpe_high": high,
    }
    return Record(record.subject, record.kind, ret, tuple(sessions), row, True, record.is_control, record.has_page)


def _told(value: float | None, low: float | None, high: float | None) -> tuple[str, float | None]:
    if value is None or low is None or high is None:
        return number(value), value
    return f"{number(value)} <small>{number(low)} to {number(high)}</small>", value
