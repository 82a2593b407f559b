"""A small picture of the run, for the asset's metadata: return within each block, adapters in colour."""

from __future__ import annotations

from io import BytesIO

import polars as pl

from tapehouse.report.figures import styles
from tapehouse.report.verdict import headline, percent, records

MOST_PANES = 4
MATPLOTLIB_DASHES = {
    "solid": "-",
    "dash": "--",
    "dot": ":",
    "dashdot": "-.",
    "longdash": (0, (8, 3)),
    "longdashdot": (0, (8, 3, 1, 3)),
}


def preview_png(verdicts: pl.DataFrame, equity: pl.DataFrame) -> bytes:
    """A PNG of 1000 x 420 pixels; the same input gives the same bytes on the same matplotlib.

    Args:
        verdicts, equity: as for `tapehouse.report.page.report_html`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    found = records(verdicts, equity)
    lines = styles(found)
    panes = _panes(equity)
    figure = Figure(figsize=(10, 4.2), dpi=100, facecolor="white", layout="constrained")
    # No pyplot: its global state outlives the call.
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(panes), sharey=True, squeeze=False)[0]
    for (title, rows), panel in zip(panes, panels, strict=True):
        for record in sorted(found, key=lambda r: (r.kind != "baseline", r.subject)):
            curve = rows.filter(pl.col("subject") == record.subject).sort("session")
            style = lines[record.subject]
            panel.plot(
                curve["session"].to_list(),
                ((1.0 + curve["ret"]).cum_prod() * 100 - 100).to_list(),
                color=style["color"],
                linewidth=style["width"],
                linestyle=MATPLOTLIB_DASHES[style["dash"]],
                label=f"{record.subject} {percent(record.gained)}",
            )
        panel.set_title(title, fontsize=10, color="#5b616b")
        panel.grid(color="#e3e5e9", linewidth=0.8)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8, colors="#5b616b")
        locator = AutoDateLocator(minticks=2, maxticks=5 if len(panes) > 1 else 10)
        panel.xaxis.set_major_locator(locator)
        panel.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    panels[0].set_ylabel("return, %", fontsize=9, color="#5b616b")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), fontsize=8, frameon=False)
    figure.suptitle(headline(found), fontsize=11)
    out = BytesIO()
    # Without these two the file names the library's version and the time.
    figure.savefig(out, format="png", metadata={"Software": None, "Creation Time": None})
    return out.getvalue()


def _panes(equity: pl.DataFrame) -> list[tuple[str, pl.DataFrame]]:
    """A pane for each block, or one for all of them where they would be too narrow."""
    folds = sorted(equity["fold"].unique())
    if len(folds) > MOST_PANES:
        return [(f"{len(folds)} blocks, joined", equity)]
    return [(f"block {fold}", equity.filter(pl.col("fold") == fold)) for fold in folds]
