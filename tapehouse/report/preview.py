"""A small picture of the run, for the asset's metadata: return within each block, adapters in colour."""

from __future__ import annotations

from io import BytesIO

import polars as pl

from tapehouse.report.figures import styles
from tapehouse.report.verdict import compare, headline, percent, records

MATPLOTLIB_DASHES = {
    "solid": "-",
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 3, 1, 3)),
}


def preview_png(leaderboard: pl.DataFrame, equity: pl.DataFrame) -> bytes:
    """A PNG of 1000 x 420 pixels; the same input gives the same bytes on the same matplotlib.

    Args:
        leaderboard, equity: as for `tapehouse.report.page.report_html`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = records(leaderboard, equity)
    lines = styles(found)
    folds = sorted(equity["fold"].unique())
    figure = Figure(figsize=(10, 4.2), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    # No pyplot: its global state outlives the call.
    panels = figure.subplots(1, len(folds), sharey=True, squeeze=False)[0]
    for fold, panel in zip(folds, panels, strict=True):
        for record in sorted(found, key=lambda r: (r.kind != "baseline", r.subject)):
            block = equity.filter((pl.col("subject") == record.subject) & (pl.col("fold") == fold)).sort("session")
            style = lines[record.subject]
            label = f"{record.subject} {percent(record.gained)}"
            panel.plot(
                block["session"].to_list(),
                ((1.0 + block["ret"]).cum_prod() * 100 - 100).to_list(),
                color=style["color"],
                linewidth=style["width"],
                linestyle=MATPLOTLIB_DASHES[style["dash"]],
                label=label,
            )
        panel.set_title(f"block {fold}", fontsize=10, color="#5b616b")
        panel.grid(color="#e3e5e9", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8, colors="#5b616b")
        panel.xaxis.set_major_locator(_month_locator(len(folds)))
        panel.xaxis.set_major_formatter(_month_formatter())
    panels[0].set_ylabel("return in the block, %", fontsize=9, color="#5b616b")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), fontsize=8, frameon=False)
    figure.suptitle(headline(compare(found)), fontsize=11)
    out = BytesIO()
    # Without these two the file names the library's version and the time.
    figure.savefig(out, format="png", metadata={"Software": None, "Creation Time": None})
    return out.getvalue()


def _month_locator(panels: int):
    from matplotlib.dates import MonthLocator

    return MonthLocator(interval=2 if panels <= 4 else 6)


def _month_formatter():
    from matplotlib.dates import DateFormatter

    return DateFormatter("%Y-%m")
