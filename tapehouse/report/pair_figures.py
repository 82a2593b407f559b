"""Figures of the page about preference pairs, as plain dictionaries: their bytes depend on the data alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import numpy as np
import polars as pl

from tapehouse.pair_diagnostics import ALL, BASELINES, LAST_THIRD
from tapehouse.report.figures import ACTION_COLOURS, ADAPTER_COLOURS, BASELINE_COLOUR

NAMES: Final = {"length": "length alone", "offset": "offset alone", "offset_cells": "both offsets and side",
                "offset_trees": "trees on offsets and side"}  # fmt: skip
SYMBOLS: Final = ("circle", "diamond", "square", "cross", "star", "hexagon")
MARGIN_EDGES: Final = np.geomspace(1.0, 3000.0, 33)  # bps; wide enough for a crash, four bins a doubling
OFFSET_BINS: Final = 8
EVEN_LINE: Final = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 50, "x1": 50,
                    "line": {"width": 1.5, "dash": "dot", "color": BASELINE_COLOUR}}  # fmt: skip
MARGINS: Final = {"l": 56, "r": 16, "t": 28, "b": 44}
DECLARED: Final = "#f2c230"
LEGEND: Final = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def objective_colours(names: list[str]) -> dict[str, str]:
    """A colour for each objective, the same in every figure."""
    return {name: ADAPTER_COLOURS[place % len(ADAPTER_COLOURS)] for place, name in enumerate(sorted(names))}


def accuracy_figure(rows: pl.DataFrame) -> dict[str, Any]:
    """Accuracy of each rule in per cent with its 95 % interval: on each test block, and in-sample by objective.

    Args:
        rows: of `reports.pair_diagnostics`, one dataset's.
    """
    rows = rows.filter(pl.col("measure").str.ends_with("_accuracy"))
    folds = sorted(set(rows["fold"]) - {ALL})
    objectives = sorted(set(rows["objective"]) - {ALL})
    colours = objective_colours(objectives)
    series = [
        (f if f == LAST_THIRD else f"test block {f}", f, ALL, "#d1495b", SYMBOLS[n % len(SYMBOLS)]) for n, f in enumerate(folds)
    ]
    series += [(f"in sample, {name}", ALL, name, colours[name], "line-ns-open") for name in objectives]
    places = {rule: float(len(NAMES) - 1 - n) for n, rule in enumerate(NAMES)}
    data = []
    for place, (label, fold, objective, colour, symbol) in enumerate(series):
        x, y, above, below = [], [], [], []
        for rule in NAMES:
            scored = (pl.col("measure") == f"{rule}_accuracy") & (pl.col("fold") == fold) & (pl.col("objective") == objective)
            found = rows.filter(scored)
            if found.is_empty():  # trees are not told in sample
                continue
            one = found.row(0, named=True)
            x.append(round(one["value"] * 100, 3))
            y.append(places[rule] + 0.32 - 0.64 * place / max(len(series) - 1, 1))
            above.append(round((one["high"] - one["value"]) * 100, 3) if one["high"] is not None else 0.0)
            below.append(round((one["value"] - one["low"]) * 100, 3) if one["low"] is not None else 0.0)
        bar = {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": colour, "thickness": 2}
        data.append(
            {"type": "scatter", "mode": "markers", "name": label, "x": x, "y": y, "error_x": {**bar, "width": 4},
             "marker": {"color": colour, "size": 11, "symbol": symbol, "line": {"width": 2.5, "color": colour}},
             "hovertemplate": "%{x:.1f} %<extra>" + label + "</extra>"}
        )  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": 150 + 80 * len(NAMES),
            "margin": {**MARGINS, "l": 180},
            "legend": LEGEND,
            "shapes": [EVEN_LINE],
            "xaxis": {"title": {"text": "pairs told apart, % (even odds: 50)"}, "zeroline": False},
            "yaxis": {"tickvals": list(places.values()), "ticktext": [NAMES[r] for r in places], "zeroline": False,
                      "showgrid": False, "range": [-0.5, len(NAMES) - 0.5]},
        },
    }  # fmt: skip


def margin_figure(told: pl.DataFrame) -> dict[str, Any]:
    """How far apart the two orders of a pair were paid, by objective: shares of its pairs over bins that widen by a ratio."""
    middles = [round(float(np.sqrt(low * high)), 3) for low, high in pairwise(MARGIN_EDGES)]
    data = []
    for name, colour in objective_colours(told["objective"].unique().to_list()).items():
        margins = told.filter(pl.col("objective") == name)["margin_bps"].to_numpy()
        counts, _ = np.histogram(np.clip(margins, MARGIN_EDGES[0], MARGIN_EDGES[-1]), MARGIN_EDGES)
        data.append(_line(name, middles, np.round(counts / len(margins) * 100, 3).tolist(), colour, "hvh", "%{y:.1f} %"))
    ticks = [1, 3, 10, 30, 100, 300, 1000, 3000]
    return {
        "data": data,
        "layout": {
            "height": 320,
            "margin": MARGINS,
            "legend": LEGEND,
            "xaxis": {"type": "log", "title": {"text": "margin, bps of the arrival price (logarithmic)"}, "tickvals": ticks,
                      "ticktext": [f"{t:,}" for t in ticks]},
            "yaxis": {"title": {"text": "share of the objective's pairs, %"}, "rangemode": "tozero"},
        },
    }  # fmt: skip


def farther_figure(told: pl.DataFrame, unit: str) -> dict[str, Any]:
    """How often the farther limit was the better one, over the farther offset, by objective."""
    data = []
    for name, colour in objective_colours(told["objective"].unique().to_list()).items():
        part = told.filter(pl.col("objective") == name).sort("far")
        x, y = [], []
        for some in np.array_split(np.arange(part.height), min(OFFSET_BINS, part.height)):
            bin_ = part[some]
            x.append(round(float(bin_["far"].to_numpy().mean()), 4))
            y.append(round(float(bin_["far_wins"].to_numpy().mean()) * 100, 3))
        data.append({**_line(name, x, y, colour, "linear", "%{y:.1f} %"), "mode": "lines+markers"})
    even = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 50, "y1": 50, "line": EVEN_LINE["line"]}
    return {
        "data": data,
        "layout": {
            "height": 320,
            "margin": MARGINS,
            "legend": LEGEND,
            "shapes": [even],
            "xaxis": {"title": {"text": f"offset of the farther limit, {unit}"}},
            "yaxis": {"title": {"text": "farther limit chosen, %"}, "range": [0, 100]},
        },
    }


def length_figure(told: pl.DataFrame) -> dict[str, Any]:
    """Characters of the chosen answer less those of the rejected, over all pairs."""
    counts = told["length_difference"].value_counts().sort("length_difference")
    share = (counts["count"] / told.height * 100).round(3)
    bar = {
        "type": "bar",
        "x": counts["length_difference"].to_list(),
        "y": share.to_list(),
        "marker": {"color": ADAPTER_COLOURS[1]},
        "hovertemplate": "%{x}: %{y:.1f} %<extra></extra>",
    }
    reach = max(3, int(told["length_difference"].abs().max()) + 1)
    return {
        "data": [bar],
        "layout": {
            "height": 320,
            "margin": MARGINS,
            "bargap": 0.2,
            "xaxis": {"title": {"text": "characters of chosen less rejected"}, "range": [-reach, reach],
                      "dtick": max(1, reach // 3)},
            "yaxis": {"title": {"text": "share of pairs, %"}, "range": [0, 100]},
        },
    }  # fmt: skip


def sides_figure(told: pl.DataFrame, declared: dict[str, float]) -> dict[str, Any]:
    """Shares of BUY and SELL in each regime and symbol; a mark where a regime's declared share is."""
    groups = [("regime", level) for level in sorted(told["regime"].unique(), reverse=True)]
    groups = [("symbol", level) for level in sorted(told["symbol"].unique(), reverse=True)] + groups
    labels, buys = [], []
    for column, level in groups:
        part = told.filter(pl.col(column) == level)
        labels.append(level)
        buys.append(round(int((part["side"] == "BUY").sum()) / part.height * 100, 3))
    bars = [
        {"type": "bar", "orientation": "h", "name": side, "y": labels, "x": x, "marker": {"color": ACTION_COLOURS[side]},
         "hovertemplate": "%{x:.1f} %<extra>%{y}: " + side + "</extra>"}
        for side, x in (("BUY", buys), ("SELL", [round(100 - x, 3) for x in buys]))
    ]  # fmt: skip
    marks = [level for level in labels if level in declared]
    if marks:
        bars.append(
            {"type": "scatter", "mode": "markers", "name": "declared", "y": marks, "x": [declared[m] * 100 for m in marks],
             "marker": {"symbol": "line-ns-open", "size": 20, "color": DECLARED, "line": {"width": 3, "color": DECLARED}},
             "hovertemplate": "%{x:.0f} %<extra>declared</extra>"}
        )  # fmt: skip
    return {
        "data": bars,
        "layout": {
            "height": 110 + 28 * len(labels),
            "margin": {**MARGINS, "l": 110},
            "barmode": "stack",
            "bargap": 0.3,
            "legend": {**LEGEND, "traceorder": "normal"},
            "xaxis": {"title": {"text": "share of its pairs, %"}, "range": [0, 100]},
            "yaxis": {"type": "category", "automargin": True},
        },
    }


def _line(name: str, x: list, y: list, colour: str, shape: str, hover: str) -> dict[str, Any]:
    line = {"color": colour, "width": 2.2, "shape": shape}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": line,
            "marker": {"color": colour, "size": 8}, "hovertemplate": hover + f"<extra>{name}</extra>"}  # fmt: skip


assert set(NAMES) == set(BASELINES), "a rule without a name in the figures"
