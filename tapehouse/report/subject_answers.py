"""How good the answers of one subject were apart from any account: figures with intervals, calibration, confusion, slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import polars as pl

from tapehouse.evaluations.reading import COUNTED, MEANING, pooled
from tapehouse.labels.forward import HORIZONS
from tapehouse.predictions import ACTIONS
from tapehouse.report.section import ADAPTER, Section, Subject, heat_table
from tapehouse.report.shell import chart, choice, head, table
from tapehouse.report.verdict import number, percent

EVALUATIONS: Final = "reports.evaluations"
US, SOFT = "var(--us)", "var(--soft)"
# Those that the first table shows, where they are known; all others are folded away below it.
MAIN: Final = (
    *("accuracy", "balanced_accuracy", "mcc", "f1_macro", "log_loss", "brier"),
    *("calibration_error", "calibration_error_by_chance"),
    *("hit_rate", "mean_ret", "rank_ic", "reward_by_margin", "reward_by_confidence", "fill_rate"),
    *("implementation_shortfall_bps", "policy_agreement", "disagreement_ret", "preference_accuracy", "preference_margin"),
)
SHARES: Final = {f"share_{action.lower()}": action for action in ACTIONS}  # shown without interval, as heads
SLICED: Final = ("n_labelled", *SHARES, "accuracy", "mcc", "log_loss", "hit_rate", "mean_ret")
SLICES: Final = {"regime": "regime", "symbol": "symbol", "action": "answer", "objective": "objective"}
HEADS: Final = {
    "n_labelled": "decisions",
    "mcc": "MCC",
    "f1_macro": "F1, mean of classes",
    "brier": "Brier score",
    "calibration_error_by_chance": "the same by chance",
    "mean_ret": "mean return, bps",
    "rank_ic": "rank IC",
    "implementation_shortfall_bps": "shortfall, bps",
    "disagreement_ret": "return where they disagree, bps",
}
IN_BPS: Final = ("mean_ret", "sd_ret", "disagreement_ret")  # fractions that are read in bps
# By sessions after the decision; names of metrics but for the number of sessions.
BY_HORIZON: Final = {
    "hit_rate": "hit rate",
    "mean_ret": "mean return, bps",
    "sd_ret": "deviation, bps",
    "t_ret": "t-statistic, all blocks",
    "rank_ic": "rank IC",
    "daily_rank_ic": "daily rank IC",
}
LARGEST = 22  # pixels of the largest point of a plot


def answers_section(of: Subject) -> Section | None:
    """Every figure of its answers over all test blocks, beside what the same answers score against shuffled outcomes."""
    rows = of.rows(EVALUATIONS)
    if rows is None:
        return None
    found = {row["metric"]: row for row in pooled(rows).iter_rows(named=True)}
    main = [name for name in MAIN if name in found]
    apart = {name for name in COUNTED if name in found} | {f"{name}_{h}d" for name in BY_HORIZON for h in HORIZONS}
    apart |= set() if of.kind == ADAPTER else {"unparseable"}
    others = [name for name in MEANING if name in found and name not in main and name not in apart]
    base = found.get("log_loss_base_rate")
    told = [f"{found['n']['value']:,.0f} answers"] if "n" in found else []
    if of.kind == ADAPTER and "unparseable" in found:  # nothing else answers in text
        told.append(f"{found['unparseable']['value'] * 100:.1f} % did not parse and acted as HOLD")
    told += [f"the blocks' own base rates have a log loss of {base['value']:.3f}"] if base is not None else []
    body = _figures(found, main or others)
    if main and others:
        body += f"<details><summary>{len(others)} more figures</summary>{_figures(found, others)}</details>"
    body += _horizons(found)
    note = (
        f"{'; '.join(told)}{'. ' if told else ''}Over all test blocks, weighed by their observations; intervals of 95 % by "
        "blocks of joint dates. Shuffled: the same answers against outcomes that changed places within their block."
    )
    return Section("answers", "Answers against what happened", body, note)


def calibration_section(of: Subject) -> Section | None:
    """What was answered beside what happened, and how often a stated probability came true."""
    rows = of.rows(EVALUATIONS)
    if rows is None:
        return None
    confusion = _confusion(rows)
    figure = reliability_figure(pooled(rows, "confidence"))
    parts, figures, notes = [], {}, []
    if figure is not None:
        figures["reliability"] = figure
        parts.append(f"<div><h3>Calibration</h3>{chart('reliability')}</div>")
        notes.append(
            "Each point is a bin of the probability given to the answered action, as large as it has answers; on the diagonal "
            "what was stated came true as often. Hollow: too few in most blocks for an interval. Crosses: against shuffled "
            "outcomes."
        )
    if confusion is not None:
        parts.append(f"<div>{'<h3>Confusion</h3>' if figure else ''}{confusion}</div>")
        notes.append("A row is what happened, with the share of it that was answered so; the colour compares with chance.")
    if not parts:
        return None
    body = f'<div class="two">{"".join(parts)}</div>' if len(parts) > 1 else parts[0]
    return Section("calibration", "Calibration and confusion" if figure else "Confusion", body, " ".join(notes), figures)


def reward_section(of: Subject) -> Section | None:
    """What answers were paid, by the margin of the answered side over the other."""
    rows = of.rows(EVALUATIONS)
    figure = None if rows is None else margin_figure(pooled(rows, "margin"))
    if figure is None:
        return None
    note = (
        "Mean realised reward of BUY and SELL answers by how much more probable the answered side was held than the other, in "
        "deviations of the price over the window. Were the model's margins worth something, the points would rise to the "
        "right; hollow ones are too few in most blocks for an interval."
    )
    return Section("reward", "Reward against margin", chart("margin-chart"), note, {"margin-chart": figure})


def slices_section(of: Subject) -> Section | None:
    """The main figures by regime, symbol, answer and objective."""
    rows = of.rows(EVALUATIONS)
    if rows is None:
        return None
    panels = {}
    for name, title in SLICES.items():
        found = pooled(rows, name)
        if found["level"].n_unique() > (0 if name == "regime" else 1):
            panels[f"by {title}"] = _sliced(found, title)
    if not panels:
        return None
    note = (
        "Regimes are those known at the decision (features.regime). BUY, HOLD and SELL are shares of the answers: who follows "
        "the regime alone shows it here. Below 30 observations in a block there is no interval."
    )
    return Section("slices", "By regime, symbol and answer", choice(panels), note)


def reliability_figure(bins: pl.DataFrame) -> dict[str, Any] | None:
    """Stated probability against the share that came true; None for a rule, which states none.

    Args:
        bins: pooled figures `said` and `happened` of slice `confidence`.
    """
    points = _bin_points(bins, "said", "happened")
    if not points:
        return None
    layout = {
        "height": 340,
        "margin": {"l": 54, "r": 12, "t": 8, "b": 44},
        "xaxis": {"title": {"text": "stated, %"}, "range": [0, 100], "zeroline": False},
        "yaxis": {"title": {"text": "came true, %"}, "range": [0, 100], "zeroline": False},
        "showlegend": False,
    }
    diagonal = {"type": "scatter", "mode": "lines", "x": [0, 100], "y": [0, 100], "hoverinfo": "skip",
                "line": {"color": SOFT, "width": 1, "dash": "dot"}}  # fmt: skip
    chance = [(x, row) for x, row in points if row["shuffled"] is not None]
    crosses = {
        "type": "scatter", "mode": "markers", "x": [_percent(x) for x, _ in chance],
        "y": [_percent(row["shuffled"]) for _, row in chance], "marker": {"color": SOFT, "symbol": "x-thin-open", "size": 8},
        "hovertemplate": "shuffled: %{y:.1f} %<extra></extra>",
    }  # fmt: skip
    return {"data": [diagonal, crosses, *_points(points, "stated %{x:.1f} %, came true %{y:.1f} %", 100.0)], "layout": layout}


def margin_figure(bins: pl.DataFrame) -> dict[str, Any] | None:
    """Mean reward by mean margin; None where no margin is known.

    Args:
        bins: pooled figures `margin` and `mean_reward` of slice `margin`.
    """
    points = _bin_points(bins, "margin", "mean_reward")
    if not points:
        return None
    layout = {
        "height": 320,
        "margin": {"l": 58, "r": 12, "t": 8, "b": 44},
        "xaxis": {"title": {"text": "margin: probability of the answered side less the other's"}, "zeroline": True},
        "yaxis": {"title": {"text": "mean reward, deviations"}, "zeroline": True},
        "showlegend": False,
    }
    return {"data": _points(points, "margin %{x:.2f}: reward %{y:.3f}", 1.0), "layout": layout}


def _bin_points(bins: pl.DataFrame, across: str, up: str) -> list[tuple[float, dict[str, Any]]]:
    """Value of the figure `across` and row of the figure `up` of each bin that has both, in the order of the first."""
    at = _by_level(bins, across)
    return sorted(((at[k]["value"], row) for k, row in _by_level(bins, up).items() if k in at), key=lambda point: point[0])


def _points(points: Sequence[tuple[float, Mapping[str, Any]]], told: str, factor: float) -> list[dict[str, Any]]:
    """Points with their 95 % intervals, as large as they have observations; hollow where those are too few for one."""
    most = max(row["n"] for _, row in points)
    without = [point for point in points if point[1]["low"] is None]
    known = [point for point in points if point[1]["low"] is not None]
    made = [_marks(part, told, factor, most) for part in (without, known) if part]
    if without:
        made[0]["marker"]["symbol"] = "circle-open"
    if known:
        low, high = ([round(factor * abs(row[end] - row["value"]), 5) for _, row in known] for end in ("low", "high"))
        made[-1]["error_y"] = {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "color": US,
                               "thickness": 1.5, "width": 4}  # fmt: skip
    return made


def _marks(points: Sequence[tuple[float, Mapping[str, Any]]], told: str, factor: float, most: int) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [round(factor * x, 4) for x, _ in points],
        "y": [round(factor * row["value"], 5) for _, row in points],
        "text": [f"{row['n']:,} answers" for _, row in points],
        "marker": {"color": US, "size": [round(6 + (LARGEST - 6) * (row["n"] / most) ** 0.5, 1) for _, row in points]},
        "hovertemplate": f"{told}<br>%{{text}}<extra></extra>",
    }


def _confusion(rows: pl.DataFrame) -> str | None:
    """Three rows of what happened by three columns of what was answered."""
    found = {row["metric"]: row for row in pooled(rows).iter_rows(named=True)}
    lines = []
    for happened in ACTIONS:
        cells = [found.get(f"confusion_{happened.lower()}_as_{said.lower()}") for said in ACTIONS]
        if any(cell is None for cell in cells):
            return None
        total = sum(cell["value"] for cell in cells if cell)
        texts = []
        for said, cell in zip(ACTIONS, cells, strict=True):
            assert cell is not None
            share = f" ({100 * cell['value'] / total:.0f} %)" if total else ""
            texts.append((f"{cell['value']:,.0f}{share}", _against_chance(cell, said == happened)))
        lines.append((f"{happened} happened", texts))
    return heat_table(("", *(f"answered {action}" for action in ACTIONS)), lines)


def _against_chance(cell: Mapping[str, Any], right: bool) -> float | None:
    """How many of its roots the count is off what shuffled outcomes give, of four; more is good where it is right."""
    if not cell["shuffled"]:
        return None
    off = (cell["value"] - cell["shuffled"]) / cell["shuffled"] ** 0.5 / 4.0
    return off if right else -off


def _figures(found: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    rows = []
    for name in names:
        row = found[name]
        shown = [_shown(name, row[what]) for what in ("value", "low", "high", "shuffled")]
        between = f"{shown[1]} to {shown[2]}" if row["low"] is not None and row["high"] is not None else number(None)
        rows.append((head(_title(name), MEANING.get(name, name)), shown[0], between, shown[3], f"{row['n']:,}"))
    return table(("metric", "value", "95 % interval", "shuffled", "observations"), rows)


def _horizons(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What the answered direction earned over several horizons, a row each."""
    rows = []
    names = [name for name in BY_HORIZON if any(f"{name}_{h}d" in found for h in HORIZONS)]
    for h in HORIZONS:
        some = [found.get(f"{name}_{h}d") for name in names]
        rows.append((str(h), *(_with_interval(name, row) for name, row in zip(names, some, strict=True))))
    if not names:
        return ""
    heads = [head(BY_HORIZON[name], MEANING.get(f"{name}_{HORIZONS[-1]}d", name)) for name in names]
    return "<h3>By sessions after the decision</h3>" + table(("sessions", *heads), rows)


def _with_interval(name: str, row: Mapping[str, Any] | None) -> str:
    if row is None:
        return number(None)
    if name in SHARES or row["low"] is None or row["high"] is None:
        return _shown(name, row["value"])
    ends = (number(row[end] * 1e4, 0) if name.startswith(IN_BPS) else _shown(name, row[end]) for end in ("low", "high"))
    return f"{_shown(name, row['value'])} <small>{' to '.join(ends)}</small>"  # tenths of a bps: more than intervals know


def _sliced(found: pl.DataFrame, title: str) -> str:
    levels = found["level"].unique().sort().to_list()
    names = [name for name in SLICED if name in found["metric"].unique().to_list()]
    rows = []
    for level in levels:
        by = {row["metric"]: row for row in found.filter(level=level).iter_rows(named=True)}
        rows.append((escape(level), *(_with_interval(name, by.get(name)) for name in names)))
    return table((title, *(head(_title(n), MEANING[n]) for n in names)), rows, words=(title,))


def _by_level(found: pl.DataFrame, metric: str) -> dict[str, dict[str, Any]]:
    return {row["level"]: row for row in found.filter(metric=metric).iter_rows(named=True) if row["n"] > 0}


def _title(name: str) -> str:
    return SHARES.get(name) or HEADS.get(name, name.replace("_", " "))


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return number(None)
    if name in COUNTED:
        return f"{value:,.0f}"
    if name in SHARES:
        return percent(value, 0).lstrip("+")
    if name.startswith(IN_BPS):
        return number(value * 1e4, 1)
    return number(value, 1 if name.endswith("_bps") else 3)


def _percent(value: float) -> float:
    return round(100.0 * value, 2)
