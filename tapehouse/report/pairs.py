"""The page about preference pairs: what a model could learn from them without reading a prompt, and how balanced they are."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from io import BytesIO

import polars as pl

from tapehouse.pair_diagnostics import ALL, BALANCED, BASELINES, EVEN, LAST_THIRD
from tapehouse.report import pair_figures as figures
from tapehouse.report.shell import chart, facts, framed, over, table
from tapehouse.report.verdict import number

LEARNABLE, NEARLY, NOTHING = "learnable", "hardly", "nothing"
BADGES = {LEARNABLE: "bad", NEARLY: "even", NOTHING: "good"}
HARDLY = 0.55  # a rule that tells fewer apart is told, but is no danger beside what a prompt can teach
UNITS = {"offset_atr": "ATR", "offset_bps": "bps of the price shown"}


def pairs_html(
    dataset: str, told: pl.DataFrame, rows: pl.DataFrame, provenance: Mapping[str, str], declared: Mapping[str, float]
) -> str:
    """One self-contained HTML; the same input gives the same bytes.

    Args:
        dataset: its name, such as `datasets.preference_pairs`.
        told: its pairs as `tapehouse.pair_diagnostics.described` gives them.
        rows: the dataset's rows of `reports.pair_diagnostics`.
        provenance: what the figures were made from, in the order to be shown.
        declared: the declared share of BUY in a regime, by regime; empty where none is declared.
    """
    drawn = {
        "accuracy": figures.accuracy_figure(rows),
        "margin": figures.margin_figure(told),
        "length": figures.length_figure(told),
        "farther": figures.farther_figure(told, _unit(told)),
        "sides": figures.sides_figure(told, dict(declared)),
    }
    parts = [
        over(dataset, _origin(provenance)),
        f"<h1>{escape(headline(rows))}</h1>",
        f"<p>{escape(_scope(dataset, told))}</p>",
        _verdicts(rows),
        '<section><h2>Told apart without the prompt</h2><p class="note">Each rule is fitted on a fold’s training window and '
        "scored on its test block; the ticks are in-sample, by objective, on all pairs, where a rule of many cells fits "
        f"chance, too. Bars are 95 % intervals; the dotted line is even odds.</p>{chart('accuracy')}",
        _accuracies(rows),
        '</section><section class="two"><div><h2>Margins</h2><p class="note">By how much the chosen order was paid better.</p>'
        f"{chart('margin')}</div>",
        f'<div><h2>Lengths</h2><p class="note">A longer answer must not be the better one.</p>{chart("length")}</div>',
        '</section><section class="two"><div><h2>Offsets</h2><p class="note">Far from the dotted line an offset tells the '
        f"answer.</p>{chart('farther')}</div>",
        f'<div><h2>Sides</h2><p class="note">BUY and SELL within a regime and a symbol.</p>{chart("sides")}</div>',
        f"</section><section><h2>By objective</h2>{_objectives(rows)}</section>",
        f"<section><h2>Balance</h2>{_balance(rows)}</section>",
        '<section><h2>Provenance</h2><p class="note">From these the figures can be made again.</p>',
        f"{facts(provenance)}</section>",
    ]
    return framed(f"Tapehouse: {dataset}", "\n".join(parts), drawn)


def headline(rows: pl.DataFrame) -> str:
    """The best rule on unseen pairs, in one sentence; in-sample where no fold has pairs on both sides."""
    (rule, value), tested = _best(rows)
    pairs = "unseen pairs" if tested else "pairs, in sample,"
    if all(_even(_scored(rows, name)) for name in BASELINES):
        return f"Without the prompt no rule tells {pairs} apart by more than chance."
    return f"Without the prompt {_share(value)} of {pairs} are told apart by {figures.NAMES[rule]}; even odds are 50 %."


def word(rows: pl.DataFrame, rule: str) -> str:
    """`nothing` where every interval of a rule holds even odds, also by objective; `learnable` from 55 % on; else `hardly`."""
    scored = _scored(rows, rule)
    if not _even(scored) and _joined(scored) >= HARDLY:
        return LEARNABLE
    return NOTHING if _even(scored) and _above(rows, rule).is_empty() else NEARLY


def _even(scored: pl.DataFrame) -> bool:
    return all(low is None or low <= EVEN for low in scored["low"])


def _above(rows: pl.DataFrame, rule: str) -> pl.DataFrame:
    """A rule's accuracies by objective, of test blocks, whose interval lies above even odds."""
    tested = rows.filter((pl.col("measure") == f"{rule}_accuracy") & (pl.col("objective") != ALL) & (pl.col("fold") != ALL))
    return tested.filter(pl.col("low") > EVEN).sort("fold", "objective")


def _scored(rows: pl.DataFrame, rule: str) -> pl.DataFrame:
    """A rule's accuracies over all objectives: of the test blocks, or in-sample where there are none."""
    of = rows.filter((pl.col("measure") == f"{rule}_accuracy") & (pl.col("objective") == ALL))
    tested = of.filter(pl.col("fold") != ALL)
    return (tested if tested.height else of).sort("fold")


def _joined(scored: pl.DataFrame) -> float:
    return sum(v * n for v, n in scored.select("value", "pairs").iter_rows()) / scored["pairs"].sum()


def _best(rows: pl.DataFrame) -> tuple[tuple[str, float], bool]:
    """The rule that tells most apart with its accuracy, and whether that is of test blocks."""
    scored = {rule: _scored(rows, rule) for rule in BASELINES}
    tested = any((part["fold"] != ALL).any() for part in scored.values())
    return max(((rule, _joined(part)) for rule, part in scored.items() if part.height), key=lambda item: item[1]), tested


def _verdicts(rows: pl.DataFrame) -> str:
    items = []
    for rule, does in BASELINES.items():
        scored, said = _scored(rows, rule), word(rows, rule)
        if scored.is_empty():
            continue
        each = "; ".join(f"{_share(r['value'])}{_between(r)} {_where(r['fold'])}" for r in scored.iter_rows(named=True))
        some = "; ".join(
            f"{r['objective']} {_share(r['value'])}{_between(r)} {_where(r['fold'])}"
            for r in _above(rows, rule).iter_rows(named=True)
        )
        text = f"{figures.NAMES[rule]} ({does}): {each}." + (f" By objective more: {some}." if some else "")
        items.append(f'<li><span class="badge {BADGES[said]}">{said}</span><span>{escape(text)}</span></li>')
    return f'<ul class="verdicts">{"".join(items)}</ul>'


def _accuracies(rows: pl.DataFrame) -> str:
    of = rows.filter(pl.col("measure").str.ends_with("_accuracy"))
    body = []
    for (fold, objective), part in of.sort("fold", "objective").group_by(["fold", "objective"], maintain_order=True):
        by = {row["measure"]: row for row in part.iter_rows(named=True)}
        cells = []
        for rule in BASELINES:
            row = by.get(f"{rule}_accuracy")
            cells.append(f"{_share(row['value'])} <small>{escape(_between(row).strip(' ()'))}</small>" if row else number(None))
        body.append((escape(_where(fold)), escape(objective), f"{by['length_accuracy']['pairs']:,}", *cells))
    return table(("tested on", "objective", "pairs", *figures.NAMES.values()), body)


def _objectives(rows: pl.DataFrame) -> str:
    of = rows.filter(pl.col("fold") == ALL)
    shares = {"same_form": "equal form", "farther_chosen": "farther chosen", "chosen_filled": "chosen filled",
              "rejected_filled": "rejected filled"}  # fmt: skip
    body = []
    for name in sorted(of["objective"].unique(), key=lambda n: (n == ALL, n)):
        part = {
            (m, level): v for m, level, v in of.filter(pl.col("objective") == name).select("measure", "level", "value").rows()
        }
        cells = [_share(part[m, ""]) if (m, "") in part else number(None) for m in shares]
        low, middle, high = (number(part["margin_bps", f"q{q}"], 0) for q in ("05", "50", "95"))
        largest = number(part["length_difference_largest", ""], 0)
        margin = f"{middle} <small>{low} to {high}</small>"
        body.append((escape(name), f"{part['pairs', '']:,.0f}", largest, *cells, margin))
    heads = ("objective", "pairs", "length differs by", *shares.values(), "margin, bps")
    return table(heads, body)


def _balance(rows: pl.DataFrame) -> str:
    of = rows.filter((pl.col("fold") == ALL) & (pl.col("objective") == ALL) & (pl.col("measure") == "share"))
    buys = rows.filter((pl.col("fold") == ALL) & (pl.col("objective") == ALL) & (pl.col("measure") == "buy_share"))
    buy = dict(buys.select("level", "value").iter_rows())
    parts = []
    for column in BALANCED:
        body = []
        for level, value, pairs in of.select("level", "value", "pairs").sort("level").iter_rows():
            if level.startswith(f"{column} "):
                bought = [_share(buy[level])] if level in buy else []
                body.append((escape(level.removeprefix(f"{column} ")), f"{round(value * pairs):,}", _share(value), *bought))
        heads = ("level", "pairs", "share", *(["of them BUY"] if any(len(row) > 3 for row in body) else []))
        parts.append(f"<div><h3>{column}</h3>{table(heads, body)}</div>")
    return f'<div class="two">{"".join(parts)}</div>'


def _scope(dataset: str, told: pl.DataFrame) -> str:
    first, last = told["decision_at"].min(), told["decision_at"].max()
    return (
        f"{told.height:,} pairs of {told['symbol'].n_unique()} symbols and {told['objective'].n_unique()} objectives, decided "
        f"from {first:%Y-%m-%d} to {last:%Y-%m-%d}. A model that is trained to prefer one order to another learns whatever "
        "tells them apart; here is what does so without the market."
    )


def _unit(told: pl.DataFrame) -> str:
    offset = next(name.removeprefix("chosen_") for name in told.columns if name.startswith("chosen_offset_"))
    return UNITS.get(offset, offset.removeprefix("offset_"))


def _origin(provenance: Mapping[str, str]) -> str:
    return " · ".join(f"{k} {v}" for k, v in list(provenance.items())[:2])


def _share(value: float) -> str:
    return f"{value:.1%}".replace("%", " %")


def _where(fold: str) -> str:
    return {ALL: "in sample", LAST_THIRD: "in the last third"}.get(fold, f"in block {fold}")


def _between(row: dict) -> str:
    return "" if row["low"] is None else f" ({row['low'] * 100:.0f} to {row['high'] * 100:.0f})"


def preview_png(told: pl.DataFrame, rows: pl.DataFrame, declared: Mapping[str, float]) -> bytes:
    """A PNG of 1000 x 420 pixels of the page's main figures; the same input gives the same bytes on the same matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: its global state outlives the call
    left, middle, right = figure.subplots(1, 3)
    rules = list(BASELINES)
    for place, rule in enumerate(reversed(rules)):
        for offset, row in enumerate(_scored(rows, rule).iter_rows(named=True)):
            low, high = row["low"] or row["value"], row["high"] or row["value"]
            y = place - 0.12 * offset
            left.plot([low * 100, high * 100], [y, y], color="#3a8fd6", linewidth=2)
            left.plot([row["value"] * 100], [y], "o", color="#3a8fd6")
    left.axvline(50, color="#8a8f98", linestyle=":")
    left.set_yticks(range(len(rules)), [figures.NAMES[rule] for rule in reversed(rules)])
    left.set_ylim(-0.6, len(rules) - 0.4)
    left.set_title("told apart without the prompt, %", fontsize=10, color="#5b616b")
    for line in figures.margin_figure(told)["data"]:
        middle.step(line["x"], line["y"], where="mid", color=line["line"]["color"], label=line["name"], linewidth=1.8)
    middle.set_xscale("log")
    middle.set_title("margin, bps: share of pairs, %", fontsize=10, color="#5b616b")
    middle.legend(fontsize=8, frameon=False)
    bars = figures.sides_figure(told, dict(declared))["data"]
    right.barh(bars[0]["y"], bars[0]["x"], color=bars[0]["marker"]["color"], label="BUY")
    right.barh(bars[1]["y"], bars[1]["x"], left=bars[0]["x"], color=bars[1]["marker"]["color"], label="SELL")
    if len(bars) > 2:
        right.plot(bars[2]["x"], bars[2]["y"], "|", color=figures.DECLARED, markersize=16, markeredgewidth=3)
    right.set_xlim(0, 100)
    right.set_title("BUY and SELL, %", fontsize=10, color="#5b616b")
    for panel in (left, middle, right):
        panel.grid(axis="x", color="#e3e5e9", linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8, colors="#5b616b")
    figure.suptitle(headline(rows), fontsize=10)
    out = BytesIO()
    # Without these two the file names the library's version and the time.
    figure.savefig(out, format="png", metadata={"Software": None, "Creation Time": None})
    return out.getvalue()
