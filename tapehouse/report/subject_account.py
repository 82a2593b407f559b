"""What the account of one subject did from day to day: equity, drawdown, rolling ratio, exposure, and its months."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import polars as pl

from tapehouse.report.figures import LONG, RATIO_SCALE
from tapehouse.report.section import Section, Subject, heat_table
from tapehouse.report.shell import chart
from tapehouse.report.verdict import number
from tapehouse.statistics.drawdowns import PERIODS_A_YEAR

US = "var(--us)"
BENCHMARK = "buy_and_hold"
SHOWN_AT_FIRST = 3  # baselines that are drawn; the others wait in the legend
BASELINE_LINES = (
    {"color": "#3a8fd6", "width": 1.6, "dash": "solid"},
    {"color": "#1aa37a", "width": 1.6, "dash": "solid"},
    {"color": "#8a8f98", "width": 1.6, "dash": "solid"},
    {"color": "#c98f00", "width": 1.4, "dash": "dot"},
    {"color": "#7a6fd0", "width": 1.4, "dash": "dot"},
    {"color": "#c96fa3", "width": 1.4, "dash": "dot"},
)
FEW_BLOCKS = 6  # up to so many, their edges are drawn
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
FULL_COLOUR = 0.10  # return of a month that is coloured as strongly as any
HALF_YEAR, QUARTER = 120, 60  # sessions of the rolling ratio, and of one where there are few
HEIGHT = 400
# Two panes over one axis of time.
PANES = {
    "height": HEIGHT,
    "margin": {"l": 58, "r": 12, "t": 8, "b": 30},
    "hovermode": "x unified",
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    "xaxis": {"type": "date", "anchor": "y2"},
}


def equity_section(subject: Subject) -> Section | None:
    """Equity beside the baselines over the same sessions, and the drawdown below it."""
    if subject.record is None or not len(subject.record.ret):
        return None
    long = len(subject.record.ret) > LONG
    scale = RATIO_SCALE if long else {}
    ours, days = subject.record.ret, [day.isoformat() for day in subject.record.sessions]
    data = []
    for place, (name, ret) in enumerate(_ordered(subject)):
        line = BASELINE_LINES[place % len(BASELINE_LINES)]
        data.append(_line(name, days, _worth(ret.to_numpy()), line, shown=place < SHOWN_AT_FIRST, unit=""))
    data.append(_line(subject.name, days, _worth(ours), {"color": US, "width": 2.4}, unit=""))
    fallen = _fallen(ours)
    data.append(
        {"type": "scatter", "mode": "lines", "x": days, "y": fallen, "yaxis": "y2", "fill": "tozeroy", "showlegend": False,
         "name": "drawdown", "line": {"color": US, "width": 1}, "hovertemplate": "%{y:.1f} %"}
    )  # fmt: skip
    layout = PANES | {
        "yaxis": {"domain": [0.33, 1], "title": {"text": "worth of 100"}, "zeroline": False} | scale,
        "yaxis2": {"domain": [0, 0.26], "title": {"text": "drawdown, %"}, "zeroline": False},
        "shapes": _edges(subject),
    }
    waiting = " A click in the legend shows or hides a line." if len(subject.baselines) > SHOWN_AT_FIRST else ""
    note = (
        "Returns after all costs, the first session of each block left out; the account is closed, at cost, at a block's end "
        f"and opens anew. Baselines are of the same sessions.{' The scale is of ratios.' if long else ''}{waiting}"
    )
    return Section("equity", "Equity against the baselines", chart("equity-chart"), note, {
        "equity-chart": {"data": data, "layout": layout}
    })  # fmt: skip


def rolling_section(subject: Subject) -> Section | None:
    """The Sharpe ratio of the last sessions, beside the strongest baseline's, and how much was held."""
    record, equity = subject.record, subject.rows("reports.backtest_equity")
    if record is None or equity is None or not record.trades:
        return None
    window = HALF_YEAR if len(record.ret) >= 2 * HALF_YEAR + HALF_YEAR // 2 else QUARTER
    days = [day.isoformat() for day in record.sessions]
    held = equity.sort("session").filter(pl.col("session").is_in(list(record.sessions)))
    figures, data = {}, []
    if len(days) > window:
        strongest = next(iter(subject.baselines.items()), None)
        if strongest is not None:
            line = {"color": BASELINE_LINES[0]["color"], "width": 1.4}
            data.append(_line(strongest[0], days, rolling_sharpe(strongest[1].to_numpy(), window), line, unit=""))
        data.append(_line(subject.name, days, rolling_sharpe(record.ret, window), {"color": US, "width": 2}, unit=""))
    long = len(record.ret) > LONG
    if long:
        held = held.group_by_dynamic("session", every="1w", label="datapoint").agg(
            pl.col("gross_exposure", "net_exposure").mean()
        )
    weeks = [day.isoformat() for day in held["session"]]
    for name, column, style in (("gross", "gross_exposure", "var(--even)"), ("net", "net_exposure", US)):
        level = [round(100 * x, 2) for x in held[column]]
        shape = {"color": style, "width": 1, "shape": "linear" if long else "hv"}
        data.append(
            {"type": "scatter", "mode": "lines", "name": f"{name} exposure", "x": weeks, "y": level, "yaxis": "y2",
             "line": shape, "fill": "tozeroy" if name == "gross" else "none", "hovertemplate": "%{y:.0f} %"}
        )  # fmt: skip
    layout = PANES | {
        "yaxis": {"domain": [0.5, 1], "title": {"text": f"Sharpe, {window} sessions"}, "zeroline": True},
        "yaxis2": {"domain": [0, 0.42], "title": {"text": "exposure, %"}, "zeroline": True},
        "shapes": _edges(subject),
    }
    figures["rolling-chart"] = {"data": data, "layout": layout}
    note = (
        f"The ratio is of the last {window} sessions, across blocks, annualised; over so few its own error is about "
        f"{math.sqrt(PERIODS_A_YEAR / window):.1f} either way. Exposure is longs plus shorts (gross) and longs less shorts "
        f"(net) over equity, at the close{'; means of weeks' if long else ''}."
    )
    return Section("rolling", "Rolling Sharpe ratio and exposure", chart("rolling-chart"), note, figures)


def months_section(subject: Subject) -> Section | None:
    """Return of each month, a row a year."""
    if subject.record is None or not subject.record.trades:
        return None
    months = monthly_returns(list(subject.record.sessions), subject.record.ret)
    rows = []
    for year in sorted({year for year, _ in months}):
        of = [months.get((year, month)) for month in range(1, 13)]
        whole = float(np.prod([1.0 + x for x in of if x is not None]) - 1.0)
        cells = [("" if x is None else number(100 * x, 1), None if x is None else x / FULL_COLOUR) for x in of]
        rows.append((str(year), [*cells, (number(100 * whole, 1), whole / (2 * FULL_COLOUR))]))
    gained = sum(x > 0 for x in months.values())
    note = f"Per cent, after costs; {gained} of {len(months)} months gained. The first and the last month are not whole."
    return Section("months", "Months", heat_table(("", *MONTHS, "year"), rows), note)


def monthly_returns(sessions: list[date], ret: np.ndarray) -> dict[tuple[int, int], float]:
    """(year, month) to the compounded return of its sessions."""
    grown: dict[tuple[int, int], float] = {}
    for day, one in zip(sessions, ret, strict=True):
        key = (day.year, day.month)
        grown[key] = grown.get(key, 1.0) * (1.0 + float(one))
    return {key: level - 1.0 for key, level in grown.items()}


def rolling_sharpe(ret: np.ndarray, window: int) -> list[float | None]:
    """Annualised ratio of mean to deviation (n - 1) of the last `window` returns; None before, and where nothing moved."""
    series = pl.Series(ret)
    mean, deviation = series.rolling_mean(window), series.rolling_std(window, ddof=1)
    root = math.sqrt(PERIODS_A_YEAR)
    # Sums that run along leave a residue where nothing moves: below it a deviation is none.
    return [
        None if m is None or d is None or d < 1e-9 else round(m / d * root, 3) for m, d in zip(mean, deviation, strict=True)
    ]


def _ordered(subject: Subject) -> list[tuple[str, pl.Series]]:
    """The strongest baseline, the benchmark, then the others as they rank."""
    names = list(subject.baselines)
    first = [name for name in (*names[:1], BENCHMARK) if name in names]
    return [(name, subject.baselines[name]) for name in dict.fromkeys((*first, *names))]


def _line(name: str, days: list[str], values: list, line: dict, shown: bool = True, unit: str = " %") -> dict:
    made = {"type": "scatter", "mode": "lines", "name": name, "x": days, "y": values, "line": line,
            "hovertemplate": "%{y:.2f}" + unit}  # fmt: skip
    return made if shown else made | {"visible": "legendonly"}


def _worth(ret: np.ndarray) -> list[float]:
    return [round(float(x), 3) for x in np.cumprod(1.0 + ret) * 100]


def _fallen(ret: np.ndarray) -> list[float]:
    level = np.concatenate([[1.0], np.cumprod(1.0 + ret)])
    return [round(float(x), 3) for x in (level / np.maximum.accumulate(level) - 1.0)[1:] * 100]


def _edges(subject: Subject) -> list[dict]:
    """A line at the start of each block after the first, where there are few."""
    equity = subject.rows("reports.backtest_equity")
    if equity is None:
        return []
    starts = equity.group_by("fold").agg(pl.col("session").min()).sort("fold")["session"].to_list()[1:]
    line = {"width": 1, "dash": "dot", "color": "var(--soft)"}
    return [
        {"type": "line", "xref": "x", "yref": "paper", "x0": d.isoformat(), "x1": d.isoformat(), "y0": 0, "y1": 1, "line": line}
        for d in (starts if len(starts) < FEW_BLOCKS else [])
    ]
