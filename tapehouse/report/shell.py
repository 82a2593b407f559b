"""A page around a body: the style, the scripts and the pieces of all reports, in one file that needs no network.

Plotly's whole bundle is 4.8 MB of text and 1.5 MB compressed. A page carries it, and its figures, compressed and in base 64;
the browser unpacks them (`DecompressionStream`, WHATWG Compression Standard), also from a file. A page is 2 MB and its data.
"""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from importlib import resources
from string import Template
from typing import Any

PAGE = "page.html"
FIRST = ("snapshot", "commit", "packages")  # of the provenance; the rest is a line for every block or model
# Heads of columns of text, set to the left.
WORDS = {"subject", "objective", "rule", "level", "tested on", "verdict", "what", "metric", "symbol", "regime", "side"}
BADGES = {"BEATS": "good", "LOSES": "bad"}
PACKED = re.compile(r'<script id="packed" type="text/plain">(.*?)</script>', re.DOTALL)


def framed(title: str, body: str, figures: Mapping[str, Mapping[str, Any]]) -> str:
    """One self-contained HTML; the same input gives the same bytes.

    Args:
        title: of the window, as text.
        body: what stands inside `<main>`, HTML already, with one :func:`chart` for each figure.
        figures: id to a Plotly figure as a plain dictionary (`data`, `layout`); it is drawn again when the reader's colours
            change. A text `var(--good)` in it (`ink`, `soft`, `line`, `card`, `page`, `us`, `good`, `bad`, `even`) is the
            page's colour of that name. Without figures Plotly is left out.

    Raises:
        ValueError: a figure for which the body has no chart, or a number that JSON does not know.
    """
    lost = [name for name in figures if f'id="{name}"' not in body]
    if lost:
        raise ValueError(f"page {title!r} has no chart for figures {lost}; put chart({lost[0]!r}) into its body")
    text = resources.files("tapehouse.report").joinpath(PAGE).read_text(encoding="utf-8")
    data = json.dumps(figures, sort_keys=True, separators=(",", ":"), allow_nan=False)
    packed, plotly = (_packed(data), _plotly()) if figures else ("", "")
    return Template(text).substitute(title=escape(title), body=body, packed=packed, plotly=plotly)


def figures_of(page: str) -> dict[str, dict[str, Any]]:
    """The figures that a page carries, by id."""
    found = PACKED.search(page)
    if found is None:
        raise ValueError("not a page of tapehouse.report: it has no element with the id packed")
    return json.loads(gzip.decompress(b64decode(found[1]))) if found[1] else {}


def chart(name: str) -> str:
    """Where a figure is drawn."""
    return f'<div id="{escape(name)}" class="chart"></div>'


def over(left: str, right: str, index: str | None = "index.html") -> str:
    """The line above the headline: what this page is, what it was made from, and the way back to the run's page.

    Args:
        left, right: as text. index: address of the page of the run; None on that page itself.
    """
    home = "Tapehouse" if index is None else f'<a href="{escape(index)}">Tapehouse</a>'
    return f'<p class="over">{home} · {escape(left)} <span>{escape(right)}</span></p>'


def section(title: str, body: str, name: str = "", note: str = "") -> str:
    """A part of the page under a heading. `body` and `note` are HTML already; `name` is what :func:`contents` points at."""
    told = f'<p class="note">{note}</p>' if note else ""
    anchor = f' id="{escape(name)}"' if name else ""
    return f"<section{anchor}><h2>{escape(title)}</h2>{told}{body}</section>"


def contents(entries: Sequence[tuple[str, str]]) -> str:
    """A line of links to sections, each as name and title."""
    links = "".join(f"<a href={_quoted('#' + name)}>{escape(title)}</a>" for name, title in entries)
    return f'<nav class="contents">{links}</nav>'


def tiles(entries: Sequence[tuple[str, str, str]]) -> str:
    """Key figures side by side, each as label, value and what stands below it (such as the interval); all as text."""
    each = (f"<div><span>{escape(a)}</span><b>{escape(b)}</b><small>{escape(c)}</small></div>" for a, b, c in entries)
    return f'<div class="tiles">{"".join(each)}</div>'


def caveats(texts: Sequence[str], more: str = "") -> str:
    """What speaks against the figures, set off from them. `texts` as text, `more` HTML already."""
    return f'<div class="caveats">{"".join(f"<p>{escape(text)}</p>" for text in texts)}{more}</div>'


def badge(word: str) -> str:
    """A verdict as a framed word in its colour: BEATS, LOSES, or any other in grey."""
    return f'<span class="badge {BADGES.get(word, "even")}">{escape(word)}</span>'


def choice(panels: Mapping[str, str]) -> str:
    """Buttons of which each shows one panel, the first at the start. Labels are text, panels HTML with or without charts."""
    buttons = (f'<button aria-pressed="{"false" if i else "true"}">{escape(label)}</button>' for i, label in enumerate(panels))
    shown = (f"<div{' hidden' if i else ''}>{panel}</div>" for i, panel in enumerate(panels.values()))
    return f'<div class="choice"><nav>{"".join(buttons)}</nav>{"".join(shown)}</div>'


def head(text: str, meaning: str) -> str:
    """The head of a column that tells its meaning when it is pointed at."""
    return f'<abbr title="{escape(meaning)}">{escape(text)}</abbr>'


def subject(name: str, kind: str, link: str | None = None) -> str:
    """A subject's name, in colour unless it is a baseline or a control, and a link to its own page where there is one."""
    inner = escape(name) if link is None else f"<a href={_quoted(link)}>{escape(name)}</a>"
    return f'<span class="{"them" if kind in ("baseline", "control") else "us"}">{inner}</span>'


Cell = str | tuple[str, float | str | None]


def table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], words: Sequence[str] = (), sortable: bool = False) -> str:
    """A table that scrolls sideways where it is too wide.

    Args:
        heads: HTML already.
        rows: each with a cell a head, HTML already, or HTML and the value to sort by (None is last).
        words: heads of columns of text, beside the usual ones (`WORDS`).
        sortable: a click on a head sorts by its column.
    """
    left = {i for i, h in enumerate(heads) if h in WORDS or h in words}
    top = "".join(f"<th{_word(i in left)}>{h}</th>" for i, h in enumerate(heads))
    body = "".join("<tr>" + "".join(_cell(c, i in left) for i, c in enumerate(row)) + "</tr>" for row in rows)
    kind = ' class="sortable"' if sortable else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(entries: Mapping[str, str]) -> str:
    """A table of names and texts: what a page was made from."""
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(str(v))}</td></tr>" for k, v in entries.items())
    return f'<table class="facts">{rows}</table>'


def provenance(entries: Mapping[str, str]) -> str:
    """What a page was made from: snapshot, commit and packages, and folded below them a line for every block or model."""
    shown = {name: told for name, told in entries.items() if name in FIRST}
    folded = {name: told for name, told in entries.items() if name not in FIRST}
    return facts(shown) + (f"<details><summary>Every block and model</summary>{facts(folded)}</details>" if folded else "")


def _cell(cell: Cell, word: bool) -> str:
    if isinstance(cell, str):
        return f"<td{_word(word)}>{cell}</td>"
    shown, value = cell
    return f"<td{_word(word)} data-value={_quoted('' if value is None else str(value))}>{shown}</td>"


def _word(word: bool) -> str:
    return ' class="word"' if word else ""


def _quoted(text: str) -> str:
    return f'"{escape(text)}"'


def _packed(text: str) -> str:
    return b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@lru_cache(maxsize=1)  # a fifth of a second a page otherwise
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return _packed(get_plotlyjs())
