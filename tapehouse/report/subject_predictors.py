"""The answers that a strategy trades on: of each of its predictors the panels that stand on the predictor's own page, too."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Final

from tapehouse.report.section import STRATEGY, Section, Subject
from tapehouse.report.shell import chart, subject
from tapehouse.report.subject_answers import calibration_section, reward_section, slices_section
from tapehouse.report.subject_examined import importance_section

# In the order of the section, as they go on the predictor's page.
PANELS: Final[tuple[Callable[[Subject], Section | None], ...]] = (
    calibration_section,
    reward_section,
    slices_section,
    importance_section,
)


def predictor_sections(of: Subject) -> list[Section]:
    """A section a predictor: calibration, confusion, reward against margin, slices and importance, those that it has.

    Figures are of the blocks that the strategy was traded on. Their ids begin with the predictor's name, since a page may have
    the same panel of several.
    """
    return [_section(of, name) for name in of.predictors]


def _section(of: Subject, name: str) -> Section:
    own = of.predictor(name)
    panels = [found for make in PANELS if (found := make(own)) is not None]
    body, figures = "", {}
    for panel in panels:
        shown = panel.body
        for figure, drawn in panel.figures.items():
            shown = shown.replace(chart(figure), chart(f"{name}-{figure}"))
            figures[f"{name}-{figure}"] = drawn
        body += f'<h3>{escape(panel.title)}</h3><p class="note">{panel.note}</p>{shown}'
    page = of.page_of(name, "#answers")
    told = "Over the blocks of this page (importance: one training window), before gates, vetoes and sizes. " if panels else ""
    note = told if page is None else f"{told}All figures of these answers stand on the page of {subject(name, STRATEGY, page)}."
    return Section(f"answers-{name}", f"Answers of {name}", body, note, figures)
