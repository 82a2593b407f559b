"""What a model's foresight rests on, how much a block differs from its training window, and paths, as plotly's dictionaries."""

from __future__ import annotations

import polars as pl

from tapehouse.adversarial import ALL as BLOCK
from tapehouse.adversarial import FEATURE as OF_FEATURE
from tapehouse.adversarial import INSIDE
from tapehouse.combinatorial import WHOLE
from tapehouse.importance import ALL, FEATURE, GROUP
from tapehouse.report.figures import BASELINE_COLOUR, MARGIN

US = "var(--us)"
MILLINATS = 1_000.0
SYMBOLS = {ALL: "square", GROUP: "diamond", FEATURE: "circle"}
COLOURS = {ALL: US, GROUP: US, FEATURE: BASELINE_COLOUR}
WORDS = {ALL: "all at once", GROUP: "features that go together", FEATURE: "one feature"}
ROW_HEIGHT = 21


def importance_figure(rows: pl.DataFrame) -> dict:
    """By how much the log loss rises with features in disorder, with 95 % intervals, in the last fold that `rows` have.

    Args:
        rows: of `reports.importance`, one subject.
    """
    last = rows.filter(pl.col("fold") == pl.col("fold").max()).sort("value", "level")
    data = []
    for kind, symbol in SYMBOLS.items():
        own = last.filter(kind=kind)
        if own.is_empty():
            continue
        centre = (own["value"] * MILLINATS).round(3)
        up, down = ((own[end] * MILLINATS - own["value"] * MILLINATS).abs().round(3) for end in ("high", "low"))
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": WORDS[kind],
                "x": centre.to_list(),
                "y": [_name(level) for level in own["level"]],
                "error_x": {"type": "data", "symmetric": False, "array": up.to_list(), "arrayminus": down.to_list(),
                            "color": COLOURS[kind], "thickness": 1.5, "width": 3},
                "marker": {"symbol": symbol, "size": 8, "color": COLOURS[kind]},
                "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
            }
        )  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": 110 + ROW_HEIGHT * last.height,
            "margin": {**MARGIN, "l": 16, "t": 8},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
            "xaxis": {"title": {"text": "rise of the log loss in disorder, 10⁻³ nats"}, "zeroline": True},
            "yaxis": {"type": "category", "automargin": True, "categoryorder": "array",
                      "categoryarray": [_name(level) for level in last["level"]]},
        },
    }  # fmt: skip


def paths_figure(rows: pl.DataFrame, walk_forward: float | None = None) -> dict:
    """Sharpe ratios of all paths, over the span and group by group: a distribution.

    Args:
        rows: of `reports.paths`, one subject. walk_forward: its ratio over the test blocks, to be drawn beside them.
    """
    parts = [WHOLE, *sorted((p for p in rows["part"].unique() if p != WHOLE), key=int)]
    names = {part: _span(rows.filter(part=part), part) for part in parts}
    told = rows.drop_nulls("sharpe").sort("path", "part")
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "a path",
            "x": told["sharpe"].round(3).to_list(),
            "y": [names[part] for part in told["part"]],
            "text": [f"path {path}" for path in told["path"]],
            "marker": {"size": 9, "color": US, "opacity": 0.65},
            "hovertemplate": "%{text}: %{x:.2f}<extra></extra>",
        }
    ]
    if walk_forward is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "walk-forward, on its own sessions",
                "x": [round(walk_forward, 3)],
                "y": [names[WHOLE]],
                "marker": {"size": 12, "symbol": "line-ns-open", "color": BASELINE_COLOUR, "line": {"width": 3}},
                "hovertemplate": "walk-forward: %{x:.2f}<extra></extra>",
            }
        )
    return {
        "data": data,
        "layout": {
            "height": 110 + 26 * len(parts),
            "margin": {**MARGIN, "l": 16, "t": 8},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
            "xaxis": {"title": {"text": "Sharpe ratio, annualised, after costs"}, "zeroline": True},
            "yaxis": {"type": "category", "automargin": True, "categoryorder": "array",
                      "categoryarray": [names[part] for part in reversed(parts)]},
        },
    }  # fmt: skip


def adversarial_figure(rows: pl.DataFrame) -> dict:
    """How well each test block is told from its training window, beside stretches of the window from the rest of it.

    Args:
        rows: of `reports.adversarial`, all folds.
    """
    blocks = rows.filter(kind=BLOCK).drop_nulls("auc").sort("fold")
    inside = rows.filter(kind=INSIDE).sort("fold")
    bar = {"type": "data", "symmetric": False, "thickness": 1.5, "width": 3}
    up, down = ((blocks[end] - blocks["auc"]).abs().round(4).to_list() for end in ("high", "low"))
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "name": "stretches inside the window: mean, least, largest",
                "x": inside["fold"].to_list(),
                "y": inside["auc"].round(4).to_list(),
                "error_y": {**bar, "color": BASELINE_COLOUR, "array": (inside["high"] - inside["auc"]).round(4).to_list(),
                            "arrayminus": (inside["auc"] - inside["low"]).round(4).to_list()},
                "marker": {"size": 7, "color": BASELINE_COLOUR, "symbol": "diamond"},
                "hovertemplate": "%{y:.2f}<extra>inside</extra>",
            },
            {
                "type": "scatter",
                "mode": "markers",
                "name": "the block, 95 % interval",
                "x": blocks["fold"].to_list(),
                "y": blocks["auc"].round(4).to_list(),
                "error_y": {**bar, "color": US, "array": up, "arrayminus": down},
                "marker": {"size": 9, "color": US},
                "hovertemplate": "%{y:.2f}<extra>block</extra>",
            },
        ],
        "layout": {
            "height": 330,
            "margin": {**MARGIN, "l": 56, "t": 8},
            "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom"},
            "xaxis": {"type": "date", "title": {"text": "first session of the block"}},
            "yaxis": {"title": {"text": "area under the ROC curve"}, "range": [0, 1.02], "zeroline": False},
            "shapes": [{"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0.5, "y1": 0.5,
                        "line": {"width": 1, "dash": "dot", "color": BASELINE_COLOUR}}],
        },
    }  # fmt: skip


def tells_apart(rows: pl.DataFrame, most: int = 3) -> list[tuple[str, float]]:
    """The features that the trees gained most by, with their mean share over all folds, largest first.

    Args:
        rows: of `reports.adversarial`.
    """
    shares = rows.filter(kind=OF_FEATURE).group_by("level").agg(pl.col("gain").mean())
    return [(name, share) for name, share in shares.sort("gain", "level", descending=[True, False]).head(most).iter_rows()]


def _name(level: str) -> str:
    return level or "all features"


def _span(rows: pl.DataFrame, part: str) -> str:
    first, last = rows["first_session"].min(), rows["last_session"].max()
    return "the span" if part == WHOLE else f"{first:%Y-%m} to {last:%Y-%m}"
