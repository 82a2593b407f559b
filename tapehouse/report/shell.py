"""A page around a body: the style, the scripts and the figures of all reports, in one file that needs no network."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

PAGE = "page.html"  # the report of a run; other pages take over its head and its scripts
WORDS = {"subject", "objective", "rule", "level", "tested on"}  # heads of columns of text, set to the left


def framed(title: str, body: str, figures: dict[str, dict[str, Any]]) -> str:
    """One self-contained HTML; the same input gives the same bytes.

    Args:
        title: of the window, as text.
        body: what stands inside `<main>`, HTML already, with one `<div id="…">` for each figure.
        figures: id to a Plotly figure as a plain dictionary; it is drawn again when the reader's colours change.
    """
    from plotly.offline import get_plotlyjs

    text = resources.files("tapehouse.report").joinpath(PAGE).read_text(encoding="utf-8")
    head, _, rest = text.partition("<main>")
    _, _, tail = rest.partition("</main>")
    head = re.sub(r"<title>.*?</title>", lambda _: f"<title>{escape(title)}</title>", head)
    # "</" would end the script element that carries the data.
    data = json.dumps(figures, sort_keys=True, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return f"{head}<main>\n{body}\n</main>{Template(tail).substitute(figures=data, plotly=get_plotlyjs())}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls sideways where it is too wide. Heads and cells are HTML already."""
    words = {i for i, h in enumerate(heads) if h in WORDS}
    head = "".join(f"<th{_word(i in words)}>{h}</th>" for i, h in enumerate(heads))
    body = "".join("<tr>" + "".join(f"<td{_word(i in words)}>{c}</td>" for i, c in enumerate(row)) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(entries: Mapping[str, str]) -> str:
    """A table of names and texts: what a page was made from."""
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in entries.items())
    return f'<table class="facts">{rows}</table>'


def _word(word: bool) -> str:
    return ' class="word"' if word else ""
