"""The page of one recipe or strategy: the verdict in words and what speaks against it first, then every section that it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, Final

from tapehouse.report import shell
from tapehouse.report.caveats import HINDSIGHT
from tapehouse.report.section import STRATEGY, Section, Subject
from tapehouse.report.subject_account import equity_section, months_section, rolling_section
from tapehouse.report.subject_answers import answers_section, calibration_section, reward_section, slices_section
from tapehouse.report.subject_examined import adversarial_section, importance_section, paths_section
from tapehouse.report.subject_limits import sensitivity_section, statistics_section, tail_section, veto_section
from tapehouse.report.subject_predictors import predictor_sections
from tapehouse.report.subject_provenance import provenance_body
from tapehouse.report.subject_trades import outcome_section, price_section
from tapehouse.report.verdict import CLAIMS, number, percent

Maker = Callable[[Subject], Section | None]  # None where the subject's tables say nothing of it
# In the order of the page; the answers that a strategy trades on stand where a recipe has its own.
ACCOUNT: Final[tuple[Maker, ...]] = (
    equity_section,
    statistics_section,
    rolling_section,
    months_section,
    price_section,
    outcome_section,
)
ANSWERS: Final[tuple[Maker, ...]] = (
    answers_section,
    calibration_section,
    reward_section,
    slices_section,
    importance_section,
    adversarial_section,
)
LIMITS: Final[tuple[Maker, ...]] = (
    veto_section,
    tail_section,
    sensitivity_section,
    paths_section,
)
JUDGED = (
    "The yardstick is the best of the declared baselines, picked on the same sessions. BEATS is corrected for all subjects and "
    "for everything that was tried; LOSES is not: the 95 % interval of the difference lies below 0, as declared. The intervals "
    "shown, of 95 %, are of this subject alone."
)
REMADE = "From these the figures can be made again."
CONTROL = "control"
KINDS = {
    "adapter": "an adapter, a language model trained on the base",
    "policy": "a policy, a network on features",
    "baseline": "a baseline, that others are held against",
    STRATEGY: "a strategy",
    CONTROL: "a control, not a yardstick",
}


def subject_html(subject: Subject, provenance: Mapping[str, str], caveats: Sequence[str] = (HINDSIGHT,)) -> str:
    """One self-contained HTML of a subject; the same input gives the same bytes.

    Args:
        provenance: what the figures were made from, in the order to be shown; the first two, such as snapshot and commit, stand
            at the head of the page too.
        caveats: said on the first screen, before any figure.
    """
    sections = [*_made(ACCOUNT, subject), *_made(ANSWERS, subject), *predictor_sections(subject), *_made(LIMITS, subject)]
    named = [(s.name, s.title) for s in sections]
    origin = " · ".join(f"{k} {v}" for k, v in list(provenance.items())[:2])
    body = [
        shell.over(f"{_kind(subject)} {subject.name}", origin),
        f"<h1>{_headline(subject)}</h1>",
        f"<p>{_said(subject)}</p>",
        shell.caveats((*caveats, *_scope(subject))),
        shell.tiles(_tiles(subject)),
        shell.contents([*named, ("provenance", "Provenance")]),
        *(shell.section(s.title, s.body, s.name, s.note) for s in sections),
        shell.section("Provenance", provenance_body(subject, provenance), "provenance", REMADE),
    ]
    figures: dict[str, Any] = {name: figure for s in sections for name, figure in s.figures.items()}
    return shell.framed(f"{subject.name} · Tapehouse", "\n".join(body), figures)


def _made(makers: Sequence[Maker], subject: Subject) -> list[Section]:
    return [found for make in makers if (found := make(subject)) is not None]


def headline(subject: Subject) -> str:
    """The verdict in a line, as text."""
    record = subject.record
    if record is None:
        return f"{subject.name} trades nothing, so it has no verdict."
    row = record.row
    if row["baseline"] is None or not record.trades:
        return record.sentence
    return CLAIMS[record.word].format(us=subject.name, them=row["baseline"]) + "."


def _headline(subject: Subject) -> str:
    mark = shell.badge(subject.record.word) + " " if subject.record is not None else ""
    return mark + escape(headline(subject))


def _said(subject: Subject) -> str:
    """What it is, and the verdict with its figures."""
    kind = escape(KINDS[_kind(subject)])
    follows = ""
    if subject.predictors:
        links = ", ".join(shell.subject(name, STRATEGY, subject.page_of(name)) for name in subject.predictors)
        follows = f" that trades on {links}"
    verdict = "" if subject.record is None else f" {escape(subject.record.sentence)}"
    return f"{escape(subject.description)} It is {kind}{follows}.{verdict}"


def _kind(subject: Subject) -> str:
    return CONTROL if subject.record is not None and subject.record.role == CONTROL else subject.kind


def _scope(subject: Subject) -> tuple[str, ...]:
    if subject.record is None:
        return ()
    row = subject.record.row
    return (f"Of {row['scope']}, {row['first_session']:%Y-%m-%d} to {row['last_session']:%Y-%m-%d}. {JUDGED}",)


def _tiles(subject: Subject) -> list[tuple[str, str, str]]:
    if subject.record is None:
        return []
    record, row = subject.record, subject.record.row
    means = _means(subject)
    low, high = record.interval
    traded = record.trades > 0
    return [
        ("return", percent(record.gained), f"{len(record.ret):,} sessions"),
        ("Sharpe ratio", number(record.sharpe if traded else None), _between(low, high)),
        (
            "difference",
            number(row["difference"] if traded else None),
            _between(row["difference_low"], row["difference_high"]),
        ),
        ("deflated Sharpe", number(row["deflated_sharpe"]), f"of 0.95; {row['trials']} trials"),
        ("max drawdown", percent(record.max_drawdown), "joined equity"),
        ("trades", f"{record.trades:,}", f"{percent(means['won'], 0).lstrip('+')} gained" if traded else ""),
        ("costs a block", percent(means["costs"]).lstrip("+"), "of equity"),
        ("exposure", percent(means["exposure"], 0).lstrip("+"), "of equity, mean"),
    ]


def _between(low: float | None, high: float | None) -> str:
    return "no interval" if low is None or high is None else f"{number(low)} to {number(high)}"


def _means(subject: Subject) -> dict[str, float | None]:
    """Means over the blocks of what an account says of each, and the share of all trades that gained."""
    rows, trades = subject.rows("reports.backtests"), subject.rows("reports.backtest_trades")
    found: dict[str, float | None] = {"won": None, "costs": None, "exposure": None}
    if rows is not None:
        for name in ("costs", "exposure"):
            found[name] = rows.filter(metric=name)["value"].mean()
    if trades is not None:
        found["won"] = float((trades["pnl"] > 0).mean())
    return found
