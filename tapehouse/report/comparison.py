"""The page of two subjects beside each other: what may be said of their difference first, then where they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

import polars as pl

from tapehouse.comparison import ACTIONS, SIDES, Comparison
from tapehouse.report import shell
from tapehouse.report.caveats import HINDSIGHT
from tapehouse.report.figures import ADAPTER_COLOURS, BASELINE_COLOUR, LONG, worth_axis
from tapehouse.report.subject_limits import NAMES
from tapehouse.report.verdict import number, percent
from tapehouse.subject_statistics import MEANING

COLOURS: Final = {"a": ADAPTER_COLOURS[0], "b": ADAPTER_COLOURS[1]}
ASKED_BEFORE: Final = (
    "The interval is for one question asked beforehand. Who looks at many pairs and keeps the best of them will find one "
    "that is ahead by luck: the verdict BEATS is corrected for that, LOSES and this page are not."
)
ENTRIES: Final = (
    "An entry is the same where both opened the same side of a symbol on the same session of a block; its gain is shown as the "
    "first one had it. Gains are net, in thousands of currency."
)
FRACTIONS: Final = {"return", "annual_return", "max_drawdown", "mean_drawdown", "net_exposure"}  # per cent, with a sign
SHARES: Final = {"exposure", "volatility", "hit_rate"}  # per cent
COUNTS: Final = {"trades", "longest_drawdown", "mean_drawdown_length", "mean_trade_bps"}
LEGEND: Final = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


def comparison_html(
    found: Comparison, words: Mapping[str, str], provenance: Mapping[str, str], caveats: Sequence[str] = (HINDSIGHT,)
) -> str:
    """One self-contained HTML; the same input gives the same bytes.

    Args:
        words: of each of the two its verdict (`reports.verdicts`), where it has one.
        provenance: what the figures were made from, the snapshot and the commit first.
        caveats: said before any figure.
    """
    origin = " · ".join(f"{k} {v}" for k, v in list(provenance.items())[:2])
    names = {"a": escape(found.a), "b": escape(found.b)}
    parts = (
        shell.over("two beside each other", origin, "../index.html"),
        f"<h1>{escape(found.claim)}</h1>",
        f"<p>{escape(found.evidence)}</p>",
        shell.caveats((*caveats, ASKED_BEFORE)),
        f'<ul class="verdicts">{_verdicts(found, words)}</ul>',
        shell.tiles(_tiles(found)),
        shell.section("Equity, and one over the other", shell.chart("equity"), note=_span(found)),
        shell.section("Statistics over the same blocks", _statistics(found, names), note="Small: 95 % intervals."),
        shell.section("Block by block", shell.chart("blocks") + _blocks(found, names)),
        shell.section(
            "What they held at the same closes",
            _crossed(found.held, SIDES, found),
            note="Shares of the closes of what either traded in a block; off the diagonal they differ.",
        ),
        "" if found.answered is None else shell.section(
            "What they answered to the same questions", _crossed(found.answered, ACTIONS, found), note="Shares of decisions."
        ),
        '<div class="two">',
        shell.section("Entries of both, and of one alone", _entries(found, names), note=ENTRIES),
        shell.section("Net gain by symbol", _symbols(found, names), note="Thousands of currency; small: number of trades."),
        "</div>",
        shell.section("Sessions on which they parted most", _farthest(found, names)),
        shell.section("Provenance", shell.provenance(provenance), note="From these the figures can be made again."),
    )  # fmt: skip
    drawn = {"equity": equity_figure(found), "blocks": blocks_figure(found)}
    return shell.framed(f"Tapehouse: {found.a} and {found.b}", "\n".join(parts), drawn)


def statistics_cells(found: Comparison) -> list[tuple[str, str, str, str, str]]:
    """Of each metric its name, and of the two in turn the figure and its interval, as text."""
    of = {name: found.statistics.filter(pl.col("subject") == name) for name in (found.a, found.b)}
    rows = []
    for metric in MEANING:
        cells: list[str] = []
        for name in (found.a, found.b):
            row = of[name].filter(pl.col("metric") == metric).row(0, named=True)
            low, high = row["low"], row["high"]
            within = "" if low is None or high is None else f"{_figure(metric, low)} to {_figure(metric, high)}"
            cells += [_figure(metric, row["value"]), within]
        rows.append((NAMES.get(metric, metric.replace("_", " ")), *cells))
    return rows


def equity_figure(found: Comparison) -> dict[str, Any]:
    """Both chained over the blocks of both, and below them what one is worth in terms of the other."""
    days = [day.isoformat() for day in found.daily["session"]]
    level = {key: (1.0 + found.daily[key]).cum_prod() for key in "ab"}
    long = len(days) > LONG
    told = "%{y:.1f}" if long else "%{y:+.2f} %"
    data = [
        {"type": "scatter", "mode": "lines", "name": name, "x": days, "y": [*((level[key] - (not long)) * 100).round(4)],
         "line": {"color": COLOURS[key], "width": 2}, "hovertemplate": told}
        for key, name in (("a", found.a), ("b", found.b))
    ]  # fmt: skip
    over = [*((level["a"] / level["b"] - 1.0) * 100).round(4)]
    data.append(
        {"type": "scatter", "mode": "lines", "name": f"{found.a} over {found.b}", "x": days, "y": over, "yaxis": "y2",
         "line": {"color": BASELINE_COLOUR, "width": 1.5}, "fill": "tozeroy", "hovertemplate": "%{y:+.2f} %"}
    )  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": 460,
            "hovermode": "x unified",
            "legend": LEGEND,
            "xaxis": {"type": "date", "anchor": "y2"},
            "yaxis": {"domain": [0.36, 1]} | worth_axis(long),
            "yaxis2": {"domain": [0, 0.28], "title": {"text": "one over the other, %"}},
        },
    }


def blocks_figure(found: Comparison) -> dict[str, Any]:
    """Returns of the two in each block, side by side, in per cent."""
    data = [
        {"type": "bar", "name": name, "x": found.blocks["fold"].to_list(), "marker": {"color": COLOURS[key]},
         "y": [*(found.blocks[f"{key}_return"] * 100).round(4)], "hovertemplate": "%{y:+.2f} %"}
        for key, name in (("a", found.a), ("b", found.b))
    ]  # fmt: skip
    return {
        "data": data,
        "layout": {
            "height": 260,
            "barmode": "group",
            "hovermode": "x unified",
            "legend": LEGEND,
            "xaxis": {"type": "category"},
            "yaxis": {"title": {"text": "return in the block, %"}},
        },
    }


def _verdicts(found: Comparison, words: Mapping[str, str]) -> str:
    told = {name: f'<a href="../{escape(name)}.html">{escape(name)}</a>' for name in (found.a, found.b) if name in words}
    return "".join(
        f"<li>{shell.badge(words[name])}<span>{link}, against the strongest baseline over all its sessions.</span></li>"
        for name, link in told.items()
    )


def _tiles(found: Comparison) -> list[tuple[str, str, str]]:
    row = found.difference
    within = "fewer than 30 sessions" if row["low"] is None else f"{number(row['low'])} to {number(row['high'])}"
    return [
        ("difference of Sharpe ratios", number(row["difference"]), within),
        ("p-value, one-sided", number(row["p_value"], 3), f"that {found.a} is not ahead"),
        ("correlation of returns", number(row["correlation"]), "daily"),
        ("holding the same", percent(found.alike, 0).lstrip("+"), "of closes where either held something"),
        ("sessions of both", f"{row['sessions']:,}", f"{len(found.folds)} test block{'s' if len(found.folds) > 1 else ''}"),
    ]


def _span(found: Comparison) -> str:
    first, last = found.daily["session"].min(), found.daily["session"].max()
    return f"From {first} to {last}; both accounts are closed, at cost, at the end of each block and open anew."


def _statistics(found: Comparison, names: Mapping[str, str]) -> str:
    rows = []
    for meaning, cells in zip(MEANING.values(), statistics_cells(found), strict=True):
        told, *figures = cells
        shown = [_small(value, within) for value, within in zip(figures[::2], figures[1::2], strict=True)]
        rows.append((shell.head(told, meaning), *shown))
    return shell.table(("metric", names["a"], names["b"]), rows)


def _small(value: str, within: str) -> str:
    return f"{value} <small>{within}</small>" if within else value


def _figure(metric: str, value: float | None) -> str:
    if metric in FRACTIONS:
        return percent(value)
    if metric in SHARES:
        return percent(value).lstrip("+")
    return f"{value:,.0f}".replace("-", "\N{MINUS SIGN}") if metric in COUNTS and value is not None else number(value)


def _blocks(found: Comparison, names: Mapping[str, str]) -> str:
    heads = ("block", *(f"{names[k]} {what}" for what in ("return", "trades") for k in "ab"), "difference")
    rows = [
        (row["fold"], percent(row["a_return"]), percent(row["b_return"]), str(row["a_trades"]), str(row["b_trades"]),
         percent(row["a_return"] - row["b_return"]))
        for row in found.blocks.iter_rows(named=True)
    ]  # fmt: skip
    return f"<details><summary>As a table</summary>{shell.table(heads, rows, words=('block',))}</details>"


def _crossed(shares: Sequence[Sequence[float]], labels: Sequence[str], found: Comparison) -> str:
    heads = (f"{escape(found.a)} (down), {escape(found.b)} (across)", *labels, "all")
    rows = [
        (escape(label), *(percent(x).lstrip("+") for x in line), percent(sum(line)).lstrip("+"))
        for label, line in zip(labels, shares, strict=True)
    ]
    sums = [sum(line[j] for line in shares) for j in range(len(labels))]
    rows.append(("all", *(percent(x).lstrip("+") for x in sums), percent(sum(sums)).lstrip("+")))
    return shell.table(heads, rows, words=heads[:1])


def _entries(found: Comparison, names: Mapping[str, str]) -> str:
    told = {"both": "both", "a": f"{names['a']} alone", "b": f"{names['b']} alone"}
    rows = [
        (told[row["who"]], f"{row['trades']:,}", number(row["pnl"] / 1000, 1), percent(row["hit_rate"]).lstrip("+"),
         number(row["mean_bps"], 1))
        for row in found.entries.iter_rows(named=True)
    ]  # fmt: skip
    return shell.table(("entered by", "trades", "net gain", "hit rate", "mean, bps"), rows, words=("entered by",))


def _symbols(found: Comparison, names: Mapping[str, str]) -> str:
    rows = [
        (escape(row["symbol"]), *(f"{number(row[f'{k}_pnl'] / 1000, 1)} <small>{row[f'{k}_trades']}</small>" for k in "ab"))
        for row in found.symbols.iter_rows(named=True)
    ]
    return shell.table(("symbol", names["a"], names["b"]), rows)


def _farthest(found: Comparison, names: Mapping[str, str]) -> str:
    rows = [
        (str(row["session"]), percent(row["a"], 2), percent(row["b"], 2), percent(row["a"] - row["b"], 2))
        for row in found.farthest.iter_rows(named=True)
    ]
    return shell.table(("session", names["a"], names["b"], "difference"), rows, words=("session",))
