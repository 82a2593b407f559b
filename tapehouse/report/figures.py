"""Plotly figures as plain dictionaries: written by hand, so that their bytes depend on the data alone."""

from __future__ import annotations

import polars as pl

from tapehouse.evaluations import reading
from tapehouse.report.verdict import Record

# Okabe and Ito's colours, which the colour-blind can tell apart, lightened where a dark page needs it.
ADAPTER_COLOURS = ("#e0662a", "#3a8fd6", "#1aa37a", "#c96fa3", "#c98f00", "#7a6fd0")
BASELINE_COLOUR = "#8a8f98"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
ACTION_COLOURS = {"SELL": "#d1495b", "HOLD": "#9aa0a8", "BUY": "#2f9e77"}
EXIT_COLOURS = {"take": "#2f9e77", "stop": "#d1495b", "vertical": "#9aa0a8", "end": "#c9a227"}
LABELLED_BLOCKS = 6  # more labels than these would lie on one another
MARGIN = {"l": 110, "r": 16, "t": 28, "b": 36}


def styles(found: list[Record]) -> dict[str, dict]:
    """A line style for each subject: adapters in colour, baselines in grey with a dash of their own."""
    made, adapters, baselines = {}, 0, 0
    for record in sorted(found, key=lambda r: r.subject):
        if record.kind == "baseline":
            made[record.subject] = {"color": BASELINE_COLOUR, "width": 1.5, "dash": DASHES[baselines % len(DASHES)]}
            baselines += 1
        else:
            made[record.subject] = {"color": ADAPTER_COLOURS[adapters % len(ADAPTER_COLOURS)], "width": 2.5, "dash": "solid"}
            adapters += 1
    return made


def equity_figure(found: list[Record], equity: pl.DataFrame) -> dict:
    """Return in per cent, and below it the drawdown: of each block by itself, or chained where there are many."""
    lines = styles(found)
    data = []
    starts = equity.group_by("fold").agg(pl.col("session").min()).sort("fold")["session"]
    chained = len(starts) > LABELLED_BLOCKS
    # Adapters are drawn last, and so lie above the baselines.
    for record in sorted(found, key=lambda r: (r.kind != "baseline", r.subject)):
        curve = equity.filter(pl.col("subject") == record.subject).sort("fold", "session")
        days, gained, fallen = [], [], []
        for _, block in [("", curve)] if chained else curve.group_by("fold", maintain_order=True):
            level = (1.0 + block["ret"]).cum_prod()
            high = pl.Series([max(1.0, x) for x in level.cum_max()])
            days += [day.isoformat() for day in block["session"]] + [block["session"][-1].isoformat()]
            gained += [*((level - 1.0) * 100).round(4), None]  # the null breaks the line between blocks
            fallen += [*((level / high - 1.0) * 100).round(4), None]
        common = {"type": "scatter", "mode": "lines", "name": record.subject, "legendgroup": record.subject, "x": days}
        data.append({**common, "y": gained, "line": lines[record.subject], "hovertemplate": "%{y:+.2f} %"})
        thin = {**lines[record.subject], "width": lines[record.subject]["width"] * 0.7}
        data.append({**common, "y": fallen, "line": thin, "yaxis": "y2", "showlegend": False, "hovertemplate": "%{y:.2f} %"})
    edges = [
        {"type": "line", "xref": "x", "yref": "paper", "x0": d.isoformat(), "x1": d.isoformat(), "y0": 0, "y1": 1,
         "line": {"width": 1, "dash": "dot", "color": BASELINE_COLOUR}}
        for d in starts
    ]  # fmt: skip
    names = [] if chained else [
        {"x": d.isoformat(), "y": 1, "xref": "x", "yref": "paper", "xanchor": "left", "yanchor": "top", "showarrow": False,
         "text": f" block {d.isoformat()}", "font": {"size": 11}}
        for d in starts
    ]  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": 520,
            "margin": {**MARGIN, "l": 56},
            "hovermode": "x unified",
            "legend": {"orientation": "h", "x": 0, "y": 1.03, "yanchor": "bottom"},
            "xaxis": {"type": "date", "anchor": "y2", "rangebreaks": [{"bounds": ["sat", "mon"]}]},
            "yaxis": {
                "domain": [0.36, 1],
                "title": {"text": "return, %" if chained else "return in the block, %"},
                "zeroline": True,
            },
            "yaxis2": {"domain": [0, 0.28], "title": {"text": "drawdown, %"}, "zeroline": False},
            "shapes": edges,
            "annotations": names,
        },
    }


def sharpe_figure(found: list[Record]) -> dict:
    """Sharpe ratio of each subject over all blocks with its 95 % interval; who never traded is left out."""
    lines = styles(found)
    traded = [r for r in reversed(found) if r.trades]
    data = []
    for record in traded:
        low, high = record.interval
        colour = lines[record.subject]["color"]
        bar = {"type": "data", "symmetric": False, "color": colour, "thickness": 2, "width": 6}
        if low is not None and high is not None:
            bar |= {"array": [round(high - record.sharpe, 4)], "arrayminus": [round(record.sharpe - low, 4)]}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [round(record.sharpe, 4)],
                "y": [record.subject],
                "error_x": bar,
                "marker": {"color": colour, "size": 10, "symbol": "diamond" if record.kind == "baseline" else "circle"},
                "showlegend": False,
                "hovertemplate": "%{x:.2f}<extra>%{y}</extra>",
            }
        )
    return {
        "data": data,
        "layout": {
            "height": 60 + 34 * max(len(traded), 2),
            "margin": {**MARGIN, "t": 8},
            "xaxis": {"title": {"text": "Sharpe ratio, annualised, 95 % interval"}, "zeroline": True},
            "yaxis": {"type": "category", "automargin": True},
        },
    }


def actions_figure(evaluations: pl.DataFrame, found: list[Record]) -> dict:
    """What was answered, as shares of all answers, above what happened: which barrier was reached first."""
    wide = reading.figures(evaluations)
    rows = []
    for record in reversed(found):
        of = wide.filter(pl.col("subject") == record.subject)
        if of.height:
            rows.append((record.subject, [weighted(of, f"share_{a.lower()}", "n") for a in ACTION_COLOURS]))
    if rows:
        one = wide.filter(pl.col("subject") == rows[0][0])
        happened = [weighted(one, f"base_rate_{a.lower()}", "n_labelled") for a in ACTION_COLOURS]
        rows.insert(0, ("what happened", happened))
    return _stacked(rows, ACTION_COLOURS, "share of decisions, %")


def exits_figure(trades: pl.DataFrame, found: list[Record]) -> dict:
    """How positions ended, as shares of each subject's trades."""
    rows = []
    for record in reversed(found):
        ends = trades.filter(pl.col("subject") == record.subject)["exit_reason"]
        if len(ends):
            rows.append((record.subject, [float((ends == reason).mean()) for reason in EXIT_COLOURS]))
    return _stacked(rows, EXIT_COLOURS, "share of trades, %")


def weighted(rows: pl.DataFrame, share: str, weight: str) -> float:
    """Mean of a share over blocks, by the number of rows behind each; 0 where there are none."""
    total = rows[weight].sum()
    return float((rows[share].fill_null(0.0) * rows[weight]).sum() / total) if total else 0.0


def _stacked(rows: list[tuple[str, list[float]]], colours: dict[str, str], title: str) -> dict:
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
    ]
    return {
        "data": data,
        "layout": {
            "height": 96 + 30 * max(len(rows), 1),
            "margin": MARGIN,
            "barmode": "stack",
            "bargap": 0.35,
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
            "xaxis": {"title": {"text": title}, "range": [0, 100]},
            "yaxis": {"type": "category", "automargin": True},
        },
    }
