"""What was answered, held against what happened, apart from any account: one line a subject, over all its blocks."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import polars as pl

from tapehouse.evaluations import reading
from tapehouse.report import shell
from tapehouse.report.verdict import Record, number, percent

# Metric: its head, by what it is multiplied to be shown, digits, and whether its interval and its shuffled twin are shown.
COLUMNS: Final = {
    "accuracy": ("accuracy, %", 100.0, 1, True),
    "mcc": ("MCC", 1.0, 2, True),
    "log_loss": ("log loss", 1.0, 3, True),
    "calibration_error": ("cal. error", 1.0, 3, False),
    "hit_rate": ("hits, %", 100.0, 1, True),
    "mean_ret": ("mean, bps", 1e4, 0, True),
    "rank_ic": ("IC", 1.0, 3, True),
}
PAIRS: Final = {"pair_accuracy": "a reward model’s score", "preference_accuracy": "an adapter’s log-probability"}


def answers_table(evaluations: pl.DataFrame, found: Sequence[Record]) -> str:
    """Of every subject that answers the main figures, pooled over its blocks, each with its interval and its shuffled twin.

    Args:
        evaluations: rows of `reports.evaluations`.
    """
    rows = {(r["subject"], r["metric"]): r for r in reading.pooled(evaluations).iter_rows(named=True)}
    heads = ["subject", "blocks", "answers", *(shell.head(head, reading.MEANING[name]) for name, (head, *_) in COLUMNS.items())]
    body = []
    for record in found:
        counted = rows.get((record.subject, "n"))
        if counted is not None:
            name = shell.subject(record.subject, record.role, record.link)
            measured = (_cell(rows, record.subject, metric) for metric in COLUMNS)
            body.append((name, (str(counted["folds"]), counted["folds"]), _asked(rows, record), *measured))
    return shell.table(heads, body, sortable=True)


def pairs_table(evaluations: pl.DataFrame, pageless: Collection[str] = ()) -> str:
    """How often the better paid answer of a pair is told from the other; empty where nobody was asked.

    Args:
        evaluations: rows of `reports.evaluations`. pageless: subjects without a page of their own.
    """
    pooled = reading.pooled(evaluations).filter(pl.col("metric").is_in(list(PAIRS))).sort("subject", "metric")
    body = []
    for row in pooled.iter_rows(named=True):
        cell = _told(row, 100.0, 1, True)
        link = shell.subject(row["subject"], "adapter", None if row["subject"] in pageless else f"{row['subject']}.html")
        body.append((link, PAIRS[row["metric"]], number(row["n"], 0), (cell, row["value"])))
    return shell.table(("subject", "told by", "pairs", "accuracy, %"), body, words=("told by",)) if body else ""


def unparsed(evaluations: pl.DataFrame) -> dict[str, str]:
    """Share of answers that did not parse, in words, by subject; only of those with some."""
    some = reading.pooled(evaluations).filter((pl.col("metric") == "unparseable") & (pl.col("value") > 0))
    return {name: percent(value, 1).lstrip("+") for name, value in some.select("subject", "value").iter_rows()}


def _asked(rows: dict[tuple[str, str], dict[str, Any]], record: Record) -> tuple[str, float]:
    """How many answers there are, and of one in text what share of them did not parse."""
    count, lost = rows[record.subject, "n"]["value"], rows.get((record.subject, "unparseable"))
    shown = f"{count:,.0f}"
    if record.kind == "adapter" and lost is not None and lost["value"] is not None:
        shown += f"<br><small>{percent(lost['value'], 1).lstrip('+')} unparseable</small>"
    return shown, count


def _cell(rows: dict[tuple[str, str], dict[str, Any]], subject: str, metric: str) -> tuple[str, float | None]:
    row = rows.get((subject, metric))
    if row is None or row["value"] is None:
        return number(None), None
    return _told(row, *COLUMNS[metric][1:]), row["value"]


def _told(row: dict[str, Any], factor: float, digits: int, whole: bool) -> str:
    shown = number(row["value"] * factor, digits)
    if not whole:
        return shown
    small = []
    if row["low"] is not None and row["high"] is not None:
        small.append(f"{number(row['low'] * factor, digits)} to {number(row['high'] * factor, digits)}")
    if row["shuffled"] is not None:
        small.append(f"shuffled {number(row['shuffled'] * factor, digits)}")
    return f"{shown}<br><small>{'<br>'.join(small)}</small>" if small else shown
