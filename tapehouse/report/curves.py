"""The loss curve of a training run as a picture, for the asset's metadata and for MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

CURVES = {"loss": ("training", "#2b6cb0", "-"), "validation_loss": ("validation", "#c05621", "o-")}


def loss_curve_png(metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of 700 x 320 pixels; the same input gives the same bytes on the same matplotlib.

    Args:
        metrics: reports of a run, the lines of `metrics.jsonl`: `step`, and `loss` or `validation_loss`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), dpi=100, facecolor="white", layout="constrained")
    # No pyplot: its global state outlives the call.
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    for key, (label, color, line) in CURVES.items():
        told = [(facts["step"], facts[key]) for facts in metrics if key in facts]
        if told:
            steps, losses = zip(*told, strict=True)
            panel.plot(steps, losses, line, color=color, markersize=4, label=f"{label}, last {losses[-1]:.4g}")
    panel.set_xlabel("step", fontsize=9, color="#5b616b")
    panel.set_ylabel("loss", fontsize=9, color="#5b616b")
    panel.grid(color="#e3e5e9", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8, colors="#5b616b")
    if panel.lines:
        panel.legend(fontsize=8, frameon=False)
    out = BytesIO()
    # Without these two the file names the library's version and the time.
    figure.savefig(out, format="png", metadata={"Software": None, "Creation Time": None})
    return out.getvalue()
