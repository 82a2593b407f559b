"""How far the figures of one subject carry: statistics with intervals, vetoes, later and dearer orders, more capital."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any, Final

import polars as pl

from tapehouse.report.section import Section, Subject
from tapehouse.report.sensitivity_figures import capacity_figure, cost_lag_figure, sensitivity_words
from tapehouse.report.shell import chart, head, subject, table
from tapehouse.report.verdict import number, percent
from tapehouse.sensitivity import CAPITAL, joined
from tapehouse.strategies.log import MEANING as LOG
from tapehouse.subject_statistics import MEANING
from tapehouse.yaml_files import parse_yaml

SHARES: Final = {
    *("annual_return", "return", "volatility", "max_drawdown", "mean_drawdown", "exposure", "net_exposure", "hit_rate"),
}
WHOLE: Final = {"trades", "longest_drawdown", "mean_drawdown_length"}
NAMES: Final = {
    "sharpe": "Sharpe ratio",
    "sharpe_standard_error": "its standard error",
    "sortino": "Sortino ratio",
    "calmar": "Calmar ratio",
    "longest_drawdown": "longest drawdown, sessions",
    "mean_drawdown_length": "mean drawdown, sessions",
    "turnover": "turnover a year",
    "mean_trade_bps": "mean trade, bps",
}
CONFIDENCE, RANK = "confidence", "rank"  # a gate, and what its threshold is of unless it says otherwise
TAIL: Final = {
    "tail_target": "target",
    "tail_realised": "realised",
    "tail_at_full_size": "at full size",
    "tail_size": "mean size",
}
FATES: Final = {
    "ordered": "ordered",
    "passed_over": "passed over: the symbol had a position or a resting order",
    "too_late": "too late: the block's last session",
    "no_size": "no size: it could not be known, or was nothing",
}


def statistics_section(of: Subject) -> Section | None:
    """Every figure of the account over all blocks joined, and the difference from each baseline."""
    rows, others = of.rows("reports.statistics"), of.rows("reports.differences")
    if rows is None:
        return None
    found = {row["metric"]: row for row in rows.iter_rows(named=True)}
    body = []
    for name, meaning in MEANING.items():
        row = found.get(name)
        if row is not None:
            low, high = (_shown(name, row[end]) for end in ("low", "high"))
            between = number(None) if row["low"] is None or row["high"] is None else f"{low} to {high}"
            title = head(NAMES.get(name, name.replace("_", " ")), meaning)
            body.append((title, _shown(name, row["value"]), between, f"{row['n']:,}"))
    text = table(("metric", "value", "95 % interval", "of"), body)
    if others is not None:
        beside = f"<div><h3>Sharpe ratio less that of</h3>{_differences(of, others)}</div>"
        text = f'<div class="two"><div><h3>Of the account</h3>{text}</div>{beside}</div>'
    note = (
        "All blocks joined, after costs. Intervals by block bootstrap of sessions; those of trades draw them with the session "
        "that they end in. Differences are paired, and each is one question by itself: "
        "BEATS alone, of the verdicts, is corrected for all."
    )
    return Section("statistics", "Statistics", text, note)


def veto_section(of: Subject) -> Section | None:
    """What became of every signal, and what each gate, veto and guard held back."""
    log, decisions = of.rows("reports.veto_log"), of.rows("reports.strategy_decisions")
    if decisions is None:
        return None
    wanted = decisions.filter(pl.col("action") != "HOLD")
    fates = wanted.group_by("fate").len().sort("len", "fate", descending=[True, False])
    rows = [
        (escape(FATES.get(fate, fate.replace(".", " ").replace("_", " "))), f"{n:,}", _share(n, wanted.height))
        for fate, n in fates.iter_rows()
    ]
    parts = [table(("what became of it", "signals", "share"), rows, words=("what became of it",))]
    if log is not None:
        parts.append("<h3>Gates, vetoes and guards</h3>" + _vetoes(log, _rank(of)))
    disagreed = int(decisions["disagreement"].sum())
    told = f"{wanted.height:,} decisions wanted a trade. "
    told += f"At {disagreed:,} one predictor would have bought what another would have sold. " if len(of.predictors) > 1 else ""
    note = (
        told + "Held: its condition was met; held back: it was the first to do so. Missing: its input was not known there, and "
        "it held nothing back (a gate by confidence everything). Unavailable: never known in any block."
    )
    return Section("vetoes", "Signals and vetoes", "".join(parts), note)


def tail_section(of: Subject) -> Section | None:
    """The share of sessions that may lose much, beside the share that did, block by block."""
    rows = of.rows("reports.backtests")
    if rows is None or rows.filter(metric="tail_target").is_empty():
        return None
    by = rows.filter(pl.col("metric").is_in([*TAIL, "tail_loss", "sessions"])).pivot("metric", index="fold", values="value")
    by = by.sort("fold")

    def over_all(name: str) -> float:
        return float((by[name] * by["sessions"]).sum() / by["sessions"].sum())

    loss, target = by["tail_loss"][-1], by["tail_target"][-1]
    over = by.filter(pl.col("tail_realised") > pl.col("tail_target")).height
    body = (
        f"<p>Asked: at most {_percent(target)} of sessions lose more than {_percent(loss)} of equity. Realised: "
        f"{_percent(over_all('tail_realised'))}; at full size {_percent(over_all('tail_at_full_size'))}. Above the target in "
        f"{over} of {by.height} blocks; the size allowed was {number(over_all('tail_size'))} of full size on average.</p>"
    )
    lines = [
        (escape(row["fold"]), *(number(row[c]) if c == "tail_size" else _percent(row[c]) for c in TAIL))
        for row in by.iter_rows(named=True)
    ]
    each = table(("block", *(head(title, LOG[name]) for name, title in TAIL.items())), lines, words=("block",))
    note = "Conformal risk control keeps the promise for exchangeable sessions; real losses come in clusters."
    return Section("tail", "Tail target", f"{body}<details><summary>By block</summary>{each}</details>", note)


def sensitivity_section(of: Subject) -> Section | None:
    """The Sharpe ratio under other lags and costs, and with more capital."""
    rows = of.rows("reports.sensitivity")
    if rows is None or of.record is None or not of.record.trades:
        return None
    cells = joined(rows)
    figures = {"cost-lag": cost_lag_figure(cells)}
    words = "".join(f"<p>{escape(text)}</p>" for text in sensitivity_words(cells))
    parts = [f"<div><h3>Costs and lag: Sharpe ratio</h3>{chart('cost-lag')}</div>"]
    if cells.filter(kind=CAPITAL).height:
        figures["capacity"] = capacity_figure(cells)
        parts.append(f"<div><h3>Capacity</h3>{chart('capacity')}</div>")
    note = (
        "Orders sent later and charged more, all else as declared; and the same decisions with more capital, under square-root "
        "impact and a cap on the share of the volume known by then."
    )
    return Section("sensitivity", "Sensitivity and capacity", f'{words}<div class="two">{"".join(parts)}</div>', note, figures)


def _differences(of: Subject, others: pl.DataFrame) -> str:
    rows = []
    for row in others.filter(pl.col("other").is_in(list(of.baselines))).sort("difference", "other").iter_rows(named=True):
        told = number(row["difference"])
        if row["low"] is not None and row["high"] is not None:  # small, as on the leaderboard: five columns are too wide
            told += f" <small>{number(row['low'])} to {number(row['high'])}</small>"
        link = subject(row["other"], "baseline", f"{row['other']}.html")
        p = number(row["p_value"], 3)
        rows.append((link, told, p, number(row["correlation"])))
    heads = {
        "difference": "Small: its 95 % interval.",
        "p": "One-sided: that the difference is not above 0.",
        "correlation": "Of the two series of daily returns.",
    }
    return table(("subject", *(head(text, meaning) for text, meaning in heads.items())), rows)


def _rank(of: Subject) -> float | None:
    """The rank that its gate by confidence declares; None where it declares none."""
    gate = (parse_yaml(of.declared).get("gates") or {}).get("confidence") or {}
    return gate.get("least") if gate.get("of", RANK) == RANK else None


def _threshold(row: Mapping[str, Any], rank: float | None) -> str:
    """What was compared with: the range over blocks, where each has its own, and the rank that is declared for it."""
    low, high = row["lowest"], row["highest"]
    told = number(None) if low is None else f"{low:g}" if low == high else f"{low:.2f} to {high:.2f}"
    return f"rank {rank:g}: {told}" if row["veto"] == CONFIDENCE and rank is not None else told


def _vetoes(log: pl.DataFrame, rank: float | None) -> str:
    """The log over all blocks: counts add up, a state is given with the blocks that it held in."""
    by = (
        log.sort("stage", "veto", "fold")
        .group_by("stage", "veto", maintain_order=True)
        .agg(
            pl.col("threshold").min().alias("lowest"),
            pl.col("threshold").max().alias("highest"),
            (pl.col("state") == "active").sum().alias("active"),
            pl.col("state").filter(pl.col("state") != "active").last().alias("otherwise"),
            pl.len().alias("blocks"),
            pl.col("signals", "holds", "held_back", "missing").sum(),
            pl.col("window", "least", "cool_down").last(),
        )
    )
    rows = []
    for r in by.iter_rows(named=True):
        state = "active" if r["active"] == r["blocks"] else r["otherwise"].replace("_", " ")
        state += f" in {r['blocks'] - r['active']} of {r['blocks']} blocks" if 0 < r["active"] < r["blocks"] else ""
        counts = [f"{r[c]:,}" for c in ("holds", "held_back", "missing")]
        pace = [number(None if r[c] is None else float(r[c]), 0) for c in ("window", "least", "cool_down")]
        rows.append((escape(r["veto"].replace("_", " ")), r["stage"], escape(state), _threshold(r, rank), *counts, *pace))
    names = ("veto", "stage", "state")
    heads = (*names, "threshold", "held", "held back", "missing", "window", "sample", "cool-down")
    return table(heads, rows, words=names)


def _shown(name: str, value: float | None) -> str:
    if name in SHARES:
        return percent(value).lstrip("+") if name in ("volatility", "exposure", "hit_rate") else percent(value)
    return f"{value:,.0f}" if name in WHOLE and value is not None else number(value)


def _percent(value: float | None) -> str:
    return percent(value).lstrip("+")


def _share(part: int, of: int) -> str:
    return percent(part / of if of else None).lstrip("+")
