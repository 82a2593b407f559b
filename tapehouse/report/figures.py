"""Plotly figures of a run as plain dictionaries: written by hand, so that their bytes depend on the data alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from tapehouse.evaluations import reading
from tapehouse.report.verdict import Record
from tapehouse.verdicts import BEATS, LOSES

# Okabe and Ito's colours, which the colour-blind can tell apart, lightened where a dark page needs it.
ADAPTER_COLOURS = ("#e0662a", "#3a8fd6", "#1aa37a", "#c96fa3", "#c98f00", "#7a6fd0")
BASELINE_COLOUR = "#8a8f98"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
ACTION_COLOURS = {"SELL": "#d1495b", "HOLD": "#9aa0a8", "BUY": "#2f9e77"}
EXIT_COLOURS = {
    "take": "#2f9e77", "stop": "#d1495b", "vertical": "#9aa0a8", "end": "#c9a227", "signal": "#3a8fd6", "delisted": "#7a6fd0",
}  # fmt: skip
EXIT_WORDS: Final = {
    "take": "take-profit",
    "stop": "stop",
    "vertical": "end of the horizon",
    "end": "end of the block",
    "signal": "opposite signal",
    "delisted": "delisted",
}
VERDICT_COLOURS: Final = {BEATS: "var(--good)", LOSES: "var(--bad)"}
POINTS = 600  # of a curve; with more sessions every so manieth is drawn, which a screen does not tell apart
SHOWN = 5  # lines drawn at first beside the baselines that are; the others wait in the legend
LONG = 750  # sessions from which on equity is drawn on a scale of ratios
RATIO_SCALE: Final = {"type": "log", "tickvals": [k * 10**power for power in range(-1, 6) for k in (1, 2, 5)]}
LARGEST_COLOURED = 20.0  # per cent in a block, from where the colour is full
LARGEST_DIFFERENCE = 1.5  # of two Sharpe ratios, from where the colour is full
MARGIN = {"l": 110, "r": 16, "t": 28, "b": 36}
LEGEND: Final = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def styles(found: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """A line style for each subject: baselines in grey with a dash each, all others in colour, solid while these last."""
    made, others, baselines = {}, 0, 0
    for record in sorted(found, key=lambda r: r.subject):
        if record.is_baseline:
            made[record.subject] = {"color": BASELINE_COLOUR, "width": 1.5, "dash": DASHES[baselines % len(DASHES)]}
            baselines += 1
        else:
            colour, turn = ADAPTER_COLOURS[others % len(ADAPTER_COLOURS)], others // len(ADAPTER_COLOURS)
            made[record.subject] = {"color": colour, "width": 2, "dash": DASHES[turn % len(DASHES)]}
            others += 1
    return made


def first_shown(found: Sequence[Record], named: Collection[str] = ()) -> set[str]:
    """Who is drawn at first: the strongest baselines, up to two, `named` ones, and of the others the best by Sharpe ratio."""
    ranked = sorted((r for r in found if r.trades), key=lambda r: (-r.sharpe, r.subject))
    best = [r.subject for r in ranked if not r.is_baseline][:SHOWN]
    return {*best, *[r.subject for r in ranked if r.is_baseline][:2], *(n for n in named if any(r.subject == n for r in found))}


def equity_figure(found: Sequence[Record], edges: Sequence[Any] = (), named: Collection[str] = ()) -> dict[str, Any]:
    """Equity over all blocks joined, on the axis of :func:`worth_axis`, and below it the drawdown.

    Args:
        edges: first sessions of blocks, each marked by a line. named: subjects to be drawn at first in any case.
    """
    lines, shown = styles(found), first_shown(found, named)
    long = any(len(record.ret) > LONG for record in found)
    data = []
    # Baselines are drawn first, and so lie below the others.
    for record in sorted(found, key=lambda r: (not r.is_baseline, r.subject)):
        level = np.cumprod(1.0 + record.ret)
        fallen = level / np.maximum(np.maximum.accumulate(level), 1.0) - 1.0
        kept = [*range(0, len(level), max(1, len(level) // POINTS))]
        kept += [len(level) - 1] if kept and kept[-1] != len(level) - 1 else []
        common: dict[str, Any] = {
            "type": "scatter",
            "mode": "lines",
            "name": record.subject,
            "legendgroup": record.subject,
            "x": [record.sessions[i].isoformat() for i in kept],
            "line": lines[record.subject],
        }
        if record.subject not in shown:
            common["visible"] = "legendonly"
        of = {"y": level if long else level - 1.0, "y2": fallen}
        for axis, values in of.items():
            below = {"yaxis": "y2", "showlegend": False} if axis == "y2" else {}
            y = [round(float(values[i]) * 100, 2) for i in kept]
            told = "%{y:.1f}" if long and axis == "y" else "%{y:+.1f} %"
            data.append({**common, **below, "y": y, "hovertemplate": told})
    worth = worth_axis(long)
    marks = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": day.isoformat(), "x1": day.isoformat(), "y0": 0, "y1": 1,
         "layer": "below", "line": {"width": 1, "dash": "dot", "color": "var(--line)"}}
        for day in edges
    ]  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": 540,
            "margin": {"l": 56, "r": 16, "t": 28, "b": 36},
            "hovermode": "x unified",
            "legend": {"orientation": "h", "x": 0, "y": -0.07, "yanchor": "top", "font": {"size": 12}},
            "xaxis": {"type": "date", "anchor": "y2"},
            "yaxis": {"domain": [0.36, 1]} | worth,
            "yaxis2": {"domain": [0, 0.28], "title": {"text": "drawdown, %"}, "zeroline": False},
            "shapes": marks,
        },
    }


def worth_axis(long: bool) -> dict[str, Any]:
    """The axis of equity: of returns in per cent, or where there are many sessions the worth of 100 on a scale of ratios."""
    if long:
        return {"title": {"text": "worth of 100"}, "zeroline": False} | RATIO_SCALE
    return {"title": {"text": "return, %"}, "zeroline": True}


def sharpe_figure(found: Sequence[Record]) -> dict[str, Any]:
    """Sharpe ratio of each subject with its 95 % interval, in the colour of its verdict; who never traded is left out."""
    traded = [r for r in reversed(found) if r.trades]
    data = []
    for record in traded:
        low, high = record.interval
        colour = BASELINE_COLOUR if record.is_baseline else VERDICT_COLOURS.get(record.word, "var(--ink)")
        bar = {"type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 5}
        if low is not None and high is not None:
            bar |= {"array": [round(high - record.sharpe, 4)], "arrayminus": [round(record.sharpe - low, 4)]}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [round(record.sharpe, 4)],
                "y": [record.subject],
                "error_x": bar,
                "marker": {"color": colour, "size": 9, "symbol": "diamond" if record.is_baseline else "circle"},
                "showlegend": False,
                "hovertemplate": "%{x:.2f}<extra>%{y}</extra>",
            }
        )
    return {
        "data": data,
        "layout": {
            "height": 60 + 24 * max(len(traded), 2),
            "margin": {**MARGIN, "t": 8},
            "xaxis": {"title": {"text": "Sharpe ratio, annualised, 95 % interval"}, "zeroline": True},
            "yaxis": {"type": "category", "automargin": True},
        },
    }


def blocks_figure(leaderboard: pl.DataFrame, found: Sequence[Record]) -> dict[str, Any]:
    """Return of every subject in every block after costs, in per cent, as a heat map; best Sharpe ratio on top.

    Args:
        leaderboard: rows of `reports.leaderboard`: `subject`, `fold`, `return`.
    """
    folds = sorted(leaderboard["fold"].unique())
    gained = {(s, f): r for s, f, r in leaderboard.select("subject", "fold", "return").iter_rows()}
    names = [r.subject for r in reversed(found)]
    cells = [[gained.get((name, fold)) for fold in folds] for name in names]
    return {
        "data": [
            {
                "type": "heatmap",
                "x": folds,
                "y": names,
                "z": [[None if r is None else round(r * 100, 2) for r in row] for row in cells],
                "zmin": -LARGEST_COLOURED,
                "zmax": LARGEST_COLOURED,
                "colorscale": [[0, "var(--bad)"], [0.5, "var(--page)"], [1, "var(--good)"]],
                "xgap": 1,
                "ygap": 1,
                "hoverongaps": False,
                "colorbar": {"title": {"text": "%"}, "thickness": 12, "outlinewidth": 0},
                "hovertemplate": "%{z:+.1f} %<extra>%{y}, block %{x}</extra>",
            }
        ],
        "layout": {
            "height": 90 + 21 * max(len(names), 2),
            "margin": {**MARGIN, "t": 8},
            "xaxis": {"type": "category", "showgrid": False},
            "yaxis": {"type": "category", "automargin": True, "showgrid": False},
        },
    }


def differences_figure(differences: pl.DataFrame, found: Sequence[Record]) -> dict[str, Any]:
    """Sharpe ratio of the subject on the left less that of the one below, coloured where the 95 % interval does not hold 0.

    Args:
        differences: rows of `reports.differences`; pairs without a row or an interval stay blank.
    """
    names = [r.subject for r in found]
    rows = {(r["subject"], r["other"]): r for r in differences.filter(pl.col("low").is_not_null()).iter_rows(named=True)}
    apart: list[list[float | None]] = []
    words: list[list[str]] = []
    for name in reversed(names):
        line = [rows.get((name, other)) for other in names]
        apart.append([round(r["difference"], 3) if r and (r["low"] > 0 or r["high"] < 0) else None for r in line])
        words.append(
            [f"{r['difference']:+.2f}, {r['low']:.2f} to {r['high']:.2f}, {r['sessions']} sessions" if r else "" for r in line]
        )
    return {
        "data": [
            {
                "type": "heatmap",
                "x": names,
                "y": names[::-1],
                "z": apart,
                "text": words,
                "zmin": -LARGEST_DIFFERENCE,
                "zmax": LARGEST_DIFFERENCE,
                "colorscale": [[0, "var(--bad)"], [0.5, "var(--page)"], [1, "var(--good)"]],
                "xgap": 1,
                "ygap": 1,
                "colorbar": {"thickness": 12, "outlinewidth": 0},
                "hovertemplate": "%{text}<extra>%{y} less %{x}</extra>",
            }
        ],
        "layout": {
            "height": 170 + 21 * max(len(names), 2),
            "margin": {**MARGIN, "t": 8},
            "xaxis": {"type": "category", "showgrid": False, "tickangle": -60},
            "yaxis": {"type": "category", "automargin": True, "showgrid": False},
        },
    }


def actions_figure(evaluations: pl.DataFrame, found: Sequence[Record]) -> dict[str, Any]:
    """What was answered, as shares of all answers, above what happened: which barrier was reached first."""
    wide = reading.figures(evaluations)
    rows = []
    for record in reversed(found):
        of = wide.filter((pl.col("subject") == record.subject) & pl.col("n").is_not_null())
        if of.height:
            rows.append((record.subject, [weighted(of, f"share_{a.lower()}", "n") for a in ACTION_COLOURS]))
    if rows:
        one = wide.filter(pl.col("subject") == rows[0][0])
        happened = [weighted(one, f"base_rate_{a.lower()}", "n_labelled") for a in ACTION_COLOURS]
        rows.insert(0, ("what happened", happened))
    return _stacked(rows, ACTION_COLOURS, "share of decisions, %")


def exits_figure(trades: pl.DataFrame, found: Sequence[Record]) -> dict[str, Any]:
    """How positions ended, as shares of each subject's trades."""
    counts = {(s, reason): n for s, reason, n in trades.group_by("subject", "exit_reason").len().iter_rows()}
    rows = []
    for record in reversed(found):
        own = [counts.get((record.subject, reason), 0) for reason in EXIT_COLOURS]
        if sum(own):
            rows.append((record.subject, [n / sum(own) for n in own]))
    return _stacked(rows, {EXIT_WORDS[reason]: colour for reason, colour in EXIT_COLOURS.items()}, "share of trades, %")


def weighted(rows: pl.DataFrame, share: str, weight: str) -> float:
    """Mean of a share over blocks, by the number of rows behind each; 0 where there are none."""
    total = rows[weight].sum()
    return float((rows[share].fill_null(0.0) * rows[weight]).sum() / total) if total else 0.0


def _stacked(rows: list[tuple[str, list[float]]], colours: dict[str, str], title: str) -> dict[str, Any]:
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": [subject for subject, _ in rows],
            "x": [round(shares[i] * 100, 2) for _, shares in rows],
            "marker": {"color": colour},
            "hovertemplate": "%{x:.1f} %<extra>%{y}: " + name + "</extra>",
        }
        for i, (name, colour) in enumerate(colours.items())
        if any(shares[i] for _, shares in rows)
    ]
    return {
        "data": data,
        "layout": {
            "height": 96 + 22 * max(len(rows), 1),
            "margin": MARGIN,
            "barmode": "stack",
            "bargap": 0.35,
            "legend": {**LEGEND, "traceorder": "normal"},
            "xaxis": {"title": {"text": title}, "range": [0, 100]},
            "yaxis": {"type": "category", "automargin": True},
        },
    }
