"""The frame of a page: what it carries, what it escapes, what it refuses, and that it repeats byte for byte."""

import re
import shutil
import subprocess
from base64 import b64decode
from gzip import decompress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.report.shell import (
    badge,
    caveats,
    chart,
    choice,
    contents,
    facts,
    figures_of,
    framed,
    head,
    over,
    section,
    subject,
    table,
    tiles,
)

LINE = {"type": "scatter", "x": [1, 2], "y": [3.5, None], "line": {"color": "var(--good)"}}
FIGURE = {"data": [LINE], "layout": {"height": 300}}


def test_a_page_carries_its_figures_and_plotly_and_nothing_from_outside():
    page = framed("a < b", chart("one"), {"one": FIGURE})
    assert figures_of(page) == {"one": FIGURE}
    assert "<title>a &lt; b</title>" in page
    code = re.search(r'<script id="plotly" type="text/plain">(.*?)</script>', page)
    assert code is not None and "plotly.js v" in decompress(b64decode(code[1]))[:200].decode()
    assert len(page) < 2_200_000 and not re.findall(r"""(?:src|href)\s*=\s*["']?https?:""", page)
    assert framed("a < b", chart("one"), {"one": FIGURE}) == page


def test_a_page_without_figures_is_small():
    page = framed("words", "<p>words</p>", {})
    assert len(page) < 20_000 and figures_of(page) == {}


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"no chart for figures \['two'\]"):
        framed("t", chart("one"), {"one": FIGURE, "two": FIGURE})
    with pytest.raises(ValueError, match="JSON"):
        framed("t", chart("one"), {"one": {"data": [float("nan")], "layout": {}}})
    with pytest.raises(ValueError, match="not a page"):
        figures_of("<html></html>")


def test_pieces_by_hand():
    assert table(("subject", "x"), [("a", ("<b>1</b>", 1.0)), ("b", ("–", None))], sortable=True) == (
        '<div class="scroll"><table class="sortable"><thead><tr><th class="word">subject</th><th>x</th></tr></thead><tbody>'
        '<tr><td class="word">a</td><td data-value="1.0"><b>1</b></td></tr>'
        '<tr><td class="word">b</td><td data-value="">–</td></tr></tbody></table></div>'
    )
    assert 'class="badge good">BEATS' in badge("BEATS") and 'class="badge even">OTHER' in badge("OTHER")
    assert '<a href="#there">There</a>' in contents([("there", "There")])
    assert section("T", "<p>b</p>", "there", "n") == '<section id="there"><h2>T</h2><p class="note">n</p><p>b</p></section>'
    assert '<a href="index.html">Tapehouse</a>' in over("x", "y") and "<a" not in over("x", "y", index=None)
    assert subject("gbm", "baseline", "gbm.html") == '<span class="them"><a href="gbm.html">gbm</a></span>'
    panels = choice({"A": chart("a"), "B": chart("b")})
    assert panels.count("<div hidden>") == 1 and panels.index('aria-pressed="true">A') < panels.index('aria-pressed="false">B')


@given(st.text())
def test_no_text_can_break_out_of_a_piece(text):
    bad = text + '<script>"'
    made = (
        tiles([(bad, bad, bad)]) + caveats([bad]) + badge(bad) + head(bad, bad) + subject(bad, "adapter", bad)
        + facts({bad: bad}) + over(bad, bad) + contents([(bad, bad)]) + choice({bad: ""}) + section(bad, "", bad)
    )  # fmt: skip
    assert "<script" not in made


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to read the page's script")
def test_the_script_of_a_page_can_be_read(tmp_path):
    page = framed("t", chart("one"), {"one": FIGURE})
    code = tmp_path / "page.js"
    code.write_text(re.findall(r"<script>(.*?)</script>", page, re.DOTALL)[-1])
    assert subprocess.run(["node", "--check", str(code)], capture_output=True, text=True).returncode == 0
