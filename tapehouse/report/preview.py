"""A small picture of the run, for the asset's metadata: every Sharpe ratio with its interval, in the colour of its verdict."""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO

import polars as pl

from tapehouse.report.verdict import Record, headline, number, percent, records, span
from tapehouse.verdicts import BEATS, LOSES

COLOURS = {BEATS: "#1d7a5a", LOSES: "#b3263a"}
OTHERS, BASELINES = "#1d2026", "#8a8f98"
SOFT = "#5b616b"


def preview_png(
    verdicts: pl.DataFrame, equity: pl.DataFrame, baselines: Collection[str] = (), controls: Collection[str] = ()
) -> bytes:
    """A PNG 1000 pixels wide, 20 high a subject; the same input gives the same bytes on the same matplotlib.

    Args:
        verdicts, equity, baselines, controls: as for `tapehouse.report.page.report_html`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    subjects = records(verdicts, equity, baselines, controls)
    found = [r for r in subjects if r.trades]
    figure = Figure(figsize=(10, 1.1 + 0.2 * max(len(found), 4)), dpi=100, facecolor="white", layout="constrained")
    # No pyplot: its global state outlives the call.
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    panel.axvline(0.0, color="#b9bdc4", linewidth=1)
    for place, record in enumerate(reversed(found)):
        colour = BASELINES if record.is_baseline else COLOURS.get(record.word, OTHERS)
        low, high = record.interval
        if low is not None and high is not None:
            panel.plot([low, high], [place, place], color=colour, linewidth=1.8)
        panel.plot([record.sharpe], [place], "D" if record.is_baseline else "o", color=colour, markersize=5)
        word = record.role if record.is_baseline else record.word
        told = f"{number(record.sharpe)}   {percent(record.gained)}   {word.lower()}"
        panel.annotate(told, (1.01, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=colour)
    panel.set_yticks(range(len(found)), [_label(r, subjects) for r in reversed(found)], fontsize=8)
    panel.set_ylim(-0.7, max(len(found), 1) - 0.3)
    panel.grid(axis="x", color="#e3e5e9", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)
    panel.tick_params(axis="x", labelsize=8, colors=SOFT)
    panel.set_xlabel(
        "Sharpe ratio of all its blocks with its 95 % interval; then return after costs and verdict", fontsize=8, color=SOFT
    )
    figure.suptitle(headline(subjects), fontsize=11)
    out = BytesIO()
    # Without these two the file names the library's version and the time.
    figure.savefig(out, format="png", metadata={"Software": None, "Creation Time": None})
    return out.getvalue()


def _label(record: Record, found: list[Record]) -> str:
    few = span(record, found)
    return f"{record.subject} ({few})" if few else record.subject
