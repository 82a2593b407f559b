"""A small picture of one subject, for its asset's metadata: equity beside the baselines, and the drawdown."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from tapehouse.report.section import Subject
from tapehouse.report.subject import headline
from tapehouse.report.verdict import number, percent

US, SOFT, GRID = "#b8480f", "#5b616b", "#e3e5e9"
BASELINES = ("#3a8fd6", "#1aa37a", "#8a8f98")


def subject_png(subject: Subject) -> bytes:
    """A PNG of 1000 x 420 pixels; the same input gives the same bytes on the same matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: its global state outlives the call
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    record = subject.record
    if record is not None and len(record.ret):
        days = list(record.sessions)
        for (name, ret), colour in zip(subject.baselines.items(), BASELINES, strict=False):
            gained = (np.cumprod(1.0 + ret.to_numpy()) - 1.0) * 100
            upper.plot(days, gained, color=colour, linewidth=1.2, label=f"{name} {percent(gained[-1] / 100)}")
        level = np.cumprod(1.0 + record.ret)
        label = f"{subject.name} {percent(record.gained)}, Sharpe {number(record.sharpe if record.trades else None)}"
        upper.plot(days, (level - 1.0) * 100, color=US, linewidth=2, label=label)
        lower.fill_between(days, (level / np.maximum(np.maximum.accumulate(level), 1.0) - 1.0) * 100, color=US, alpha=0.5, lw=0)
        upper.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)  # above, off the curves
        locator = AutoDateLocator(minticks=3, maxticks=10)
        lower.xaxis.set_major_locator(locator)
        lower.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for panel, title in ((upper, "return, %"), (lower, "drawdown, %")):
        panel.set_ylabel(title, fontsize=9, color=SOFT)
        panel.grid(color=GRID, linewidth=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8, colors=SOFT)
    figure.suptitle(headline(subject), fontsize=11)
    out = BytesIO()
    # Without these two the file names the library's version and the time.
    figure.savefig(out, format="png", metadata={"Software": None, "Creation Time": None})
    return out.getvalue()
