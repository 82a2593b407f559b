"""What later and dearer orders, and more capital, leave of a subject: a table as a heat map, a curve, a sentence each."""

from __future__ import annotations

import polars as pl

from tapehouse.report.figures import ADAPTER_COLOURS, BASELINE_COLOUR
from tapehouse.report.verdict import number, percent
from tapehouse.sensitivity import CAPITAL, COST

# Orange loses and blue gains: the colour-blind can tell them apart.
SCALE = [[0.0, "#e0662a"], [0.5, "#eceef1"], [1.0, "#3a8fd6"]]
LEAST_SPAN = 1.0  # of the colours, in Sharpe ratios: noise around 0 stays pale


def cost_lag_figure(cells: pl.DataFrame) -> dict:
    """Annualised Sharpe ratio by lag and cost, the declared cell framed; a cell without trades is empty.

    Args:
        cells: of `tapehouse.sensitivity.joined`, one subject.
    """
    grid = cells.filter(pl.col("kind") == COST).sort("lag", "cost_bps")
    costs, lags = (grid[name].unique().sort().to_list() for name in ("cost_bps", "lag"))
    declared = grid.filter("declared")
    at = declared["cost_bps"][0] if declared.height else None
    cell = {(row["lag"], row["cost_bps"]): row for row in grid.iter_rows(named=True)}
    rows = [[cell.get((lag, cost), {}) for cost in costs] for lag in lags]
    ratios = [[_rounded(found.get("sharpe")) for found in row] for row in rows]
    far = max([LEAST_SPAN, *(abs(value) for row in ratios for value in row if value is not None)])
    told = [
        [f"return {percent(found['return'])}, {found['trades']:,} trades" if found else "" for found in row] for row in rows
    ]
    heat = {
        "type": "heatmap",
        "x": [f"{cost:g}" for cost in costs],
        "y": [str(lag) for lag in lags],
        "z": ratios,
        "customdata": told,
        "zmin": -far,
        "zmax": far,
        "colorscale": SCALE,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "text": [["" if value is None else number(value) for value in row] for row in ratios],
        "texttemplate": "%{text}",
        "hoverongaps": False,
        "hovertemplate": "%{x} bps a side, %{y} sessions later<br>Sharpe ratio %{text}<br>%{customdata}<extra></extra>",
    }
    drawn = any(value is not None for row in ratios for value in row)  # an axis without values has no place for a frame
    frame = [_frame(costs.index(at), 0)] if drawn and at is not None else []
    return {
        "data": [heat],
        "layout": {
            "height": 108 + 36 * len(lags),
            "margin": {"l": 56, "r": 16, "t": 8, "b": 48},
            "xaxis": {"type": "category", "title": {"text": "cost a side, bps (framed: as declared)"}, "showgrid": False},
            "yaxis": {"type": "category", "title": {"text": "sessions later"}, "autorange": "reversed", "showgrid": False},
            "shapes": frame,
        },
    }


def capacity_figure(cells: pl.DataFrame) -> dict:
    """Sharpe ratio, and below it the return a year, by capital; dotted what is declared, without impact.

    Args:
        cells: of `tapehouse.sensitivity.joined`, one subject.
    """
    curve = cells.filter(pl.col("kind") == CAPITAL).sort("capital")
    declared = cells.filter(pl.col("declared") & pl.col("sharpe").is_not_null())
    common = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": curve["capital"].to_list(),
        "line": {"color": ADAPTER_COLOURS[1], "width": 2.5},
        "showlegend": False,
    }
    percent = [_rounded(value * 100) for value in curve["annual_return"]]
    ratio = {**common, "y": [_rounded(value) for value in curve["sharpe"]]}
    gained = [round(value) for value in curve["annual_return"] * curve["capital"]]
    profit = {**common, "y": percent, "yaxis": "y2", "customdata": gained}
    levels = []
    if declared.height:
        levels = [_level("y", declared["sharpe"][0]), _level("y2", declared["annual_return"][0] * 100)]
    return {
        "data": [
            {**ratio, "hovertemplate": "%{x:,.0f}: %{y:.2f}<extra>Sharpe ratio</extra>"},
            {**profit, "hovertemplate": "%{x:,.0f}: %{y:.1f} %, %{customdata:,.0f}<extra>a year</extra>"},
        ],
        "layout": {
            "height": 360,
            "margin": {"l": 72, "r": 16, "t": 8, "b": 48},
            "xaxis": {"type": "log", "anchor": "y2", "dtick": 1, "title": {"text": "capital (dotted: as declared, no impact)"}},
            "yaxis": {"domain": [0.55, 1], "title": {"text": "Sharpe ratio"}, "zeroline": True},
            "yaxis2": {"domain": [0, 0.42], "title": {"text": "return a year, %"}, "zeroline": True},
            "shapes": levels,
        },
    }


def sensitivity_words(cells: pl.DataFrame) -> list[str]:
    """What the two figures say, as plain sentences: costs at which nothing is left, what a delay changes, how much capital.

    Args:
        cells: of `tapehouse.sensitivity.joined`, one subject.
    """
    if cells.is_empty() or not cells["trades"].sum():
        return ["It never traded: neither costs nor delays nor capital change anything."]
    grid = cells.filter(pl.col("kind") == COST).sort("lag", "cost_bps")
    said = [_of_costs(grid.filter(pl.col("lag") == 0))]
    declared = grid.filter("declared").select("cost_bps")
    late = grid.join(declared, on="cost_bps", how="semi").sort("lag")
    if late.height > 1 and late["sharpe"].null_count() == 0:
        ratios = [number(value) for value in late["sharpe"]]
        later = f"{', '.join(ratios[1:])} where orders are sent 1 to {late['lag'][-1]} sessions later"
        said.append(f"Its Sharpe ratio of {ratios[0]} is {later}.")
    curve = cells.filter((pl.col("kind") == CAPITAL) & pl.col("sharpe").is_not_null()).sort("capital")
    return said + ([_of_capital(curve)] if curve.height else [])


def break_even_bps(costs: list[float], means: list[float]) -> float | None:
    """Cost a side at which the mean daily return crosses 0, between two that were run; None where it does not.

    Args:
        costs: ascending. means: of the same cells.
    """
    for i in range(1, len(costs)):
        if means[i - 1] > 0.0 >= means[i]:
            return costs[i - 1] + (costs[i] - costs[i - 1]) * means[i - 1] / (means[i - 1] - means[i])
    return None


def _of_costs(row: pl.DataFrame) -> str:
    costs, means = row["cost_bps"].to_list(), row["mean_ret"].to_list()
    if means[0] <= 0:
        return f"Even at {costs[0]:g} bps a side it earns nothing."
    found = break_even_bps(costs, means)
    if found is None:
        return f"It earns something at every cost that was tried, up to {costs[-1]:g} bps a side."
    return f"What it earns is used up at {found:.0f} bps a side."


def _of_capital(curve: pl.DataFrame) -> str:
    """Up to which capital half of what the smallest account shows is left; impact need not fall in one direction."""
    least, first = curve["capital"][0], curve["sharpe"][0]
    if first <= 0:
        return f"With impact it earns nothing even on {least:,.0f}."
    below = curve.filter(pl.col("sharpe") < first / 2)
    if below.is_empty():
        return f"Of the Sharpe ratio of {number(first)} on {least:,.0f}, more than half is left on {curve['capital'][-1]:,.0f}."
    at, left = below.select("capital", "sharpe").row(0)
    kept = curve.filter(pl.col("capital") < at)["capital"][-1]
    half = f"more than half is left on {kept:,.0f}, and {number(left)} on {at:,.0f}"
    return f"Of the Sharpe ratio of {number(first)} on {least:,.0f}, {half}."


def _level(axis: str, height: float) -> dict:
    """A dotted line across a panel."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "yref": axis,
        "y0": _rounded(height),
        "y1": _rounded(height),
        "line": {"width": 1.5, "dash": "dot", "color": BASELINE_COLOUR},
    }


def _frame(column: int, row: int) -> dict:
    """A frame around a cell of a category axis."""
    return {
        "type": "rect",
        "xref": "x",
        "yref": "y",
        "x0": column - 0.49,
        "x1": column + 0.49,
        "y0": row - 0.49,
        "y1": row + 0.49,
        "line": {"width": 2.5, "color": "var(--ink)"},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
