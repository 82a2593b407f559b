"""Template files: front matter, optional lines, what is selected, what is hidden."""

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.prompts import templates
from tapehouse.prompts.masking import hide_dates, neutral_name

TEXT = """---
family: toy
optional: ["news ", "macro "]
---
{symbol} at {decision_at:%Y-%m-%d %H:%M}
macro vix {vix:.1f}
news {articles:d}: {headline}
price {close:07.2f}
"""
AT = datetime(2008, 9, 15, 20, 5, tzinfo=UTC)
ROW = {"symbol": "IBM", "decision_at": AT, "vix": 31.7, "articles": 3, "headline": "IBM falls in May 2008", "close": 114.9}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "toy_v1.txt").write_text(TEXT)
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    return tmp_path


def points(**changes) -> pl.DataFrame:
    return pl.DataFrame([ROW | changes], schema_overrides={"vix": pl.Float64, "articles": pl.Int64})


def test_by_hand(toy):
    loaded = templates.load("toy_v1")
    assert loaded.family == "toy" and loaded.columns == ("symbol", "decision_at", "vix", "articles", "headline", "close")
    assert templates.render(points(), "toy_v1").to_list() == [
        "IBM at 2008-09-15 20:05\nmacro vix 31.7\nnews 3: IBM falls in May 2008\nprice 0114.90\n"
    ]


def test_an_optional_line_without_its_values_is_left_out_row_by_row(toy):
    rows = pl.concat([points(), points(vix=None), points(articles=None, vix=float("nan"))])
    shown = [prompt.splitlines()[1:] for prompt in templates.render(rows, "toy_v1")]
    assert [len(lines) for lines in shown] == [3, 2, 1]
    assert shown[1][0].startswith("news") and shown[2] == ["price 0114.90"]
    with pytest.raises(ValueError, match="close is null or not finite in row 1"):
        templates.render(pl.concat([points(), points(close=float("inf"))]), "toy_v1")
    with pytest.raises(ValueError, match="vix"):
        templates.render(points().drop("vix"), "toy_v1")


def test_a_stored_prompt_gets_shorter_in_the_declared_order(toy):
    prompt = templates.render(points(), "toy_v1")[0]
    shorter = templates.shortened(prompt, "toy_v1")
    assert [text.count("\n") for text in shorter] == [3, 2]
    assert "news" not in shorter[0] and "macro" in shorter[0] and "macro" not in shorter[1]
    assert templates.shortened(shorter[1], "toy_v1") == []


def test_names_and_dates_are_hidden_also_in_quoted_text(toy):
    shown = templates.render(points(), "toy_v1", ["names", "dates"])[0]
    name = neutral_name("IBM")
    assert shown == f"{name} at hidden\nmacro vix 31.7\nnews 3: {name} falls in hidden\nprice 0114.90\n"
    assert templates.render(points(), "toy_v1", ["names"])[0].startswith(f"{name} at 2008-09-15 20:05\n")
    assert len({neutral_name(f"S{n}") for n in range(3000)}) == 3000
    with pytest.raises(ValueError, match="no mask"):
        templates.render(points(), "toy_v1", ["prices"])


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("on 2008-09-15 at 20:05", "on hidden at 20:05"),
        ("2008-09-15T20:05:00Z and 9/15/2008", "hidden and hidden"),
        ("in 2008, since September 15th, 2007", "in hidden, since hidden"),
        ("Sept. 15, 2008, 15 Sep 2008 and Oct. 3", "hidden, hidden and hidden"),
        ("2008/09/15, 20080915 and 09-15-2008", "hidden, hidden and hidden"),
        ("Mark Maynard, 20089999 shares, 3/4 of 1-2", "Mark Maynard, 20089999 shares, 3/4 of 1-2"),
        ("price 2008.50, 2,008 shares, 12008 and $1999", "price 2008.50, 2,008 shares, 12008 and $1999"),
    ],
)
def test_dates_in_texts(text, hidden):
    assert hide_dates(text) == hidden


@given(
    st.dates(),
    st.sampled_from(["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%m-%d-%Y", "%d %B %Y", "%d %b %Y", "%b. %d, %Y", "%B %d, %Y", "%Y"]),
)
def test_no_year_of_a_date_survives(day, form):
    assert str(day.year) not in hide_dates(f"it was {day:{form}} then") or not 1900 <= day.year < 2100


def test_prompts_yaml_selects_and_the_version_tells_what(toy, tmp_path):
    def version(line: str) -> str:
        (tmp_path / "prompts.yaml").write_text(line)
        return templates.selected(tmp_path, "toy").version

    plain = version("toy: {template: toy_v1}\n")
    masked = version("toy: {template: toy_v1, mask: [names]}\n")
    assert plain.startswith("toy_v1@") and masked.startswith("toy_v1-names@")
    assert templates.template_of(masked) == templates.template_of(plain) == "toy_v1"
    (toy / "toy_v1.txt").write_text(TEXT.replace("macro vix", "macro VIX").replace('"macro "', '"macro V"'))
    assert version("toy: {template: toy_v1}\n") != plain


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("toy: {template: toy_v2}\n", r"prompts.yaml: toy: .*toy_v2.txt: no such template; .* \['order_v9', 'toy_v1'\]"),
        ("toy: {template: ../templates/toy_v1}\n", r"prompts.yaml: toy: template '../templates/toy_v1': .* letters, digits"),
        ("- toy\n", r"prompts.yaml: .*a family and what it selects"),
        ("toy: toy_v1\n", r"prompts.yaml: toy: .*a family and what it selects"),
        ("toy: {template: toy_v1}\noder: {template: toy_v1}\n", r"prompts.yaml: oder: no template is of this family"),
        ("toy: {template: toy_v1, masks: []}\n", r"prompts.yaml: toy: masks: Extra inputs"),
        ("toy: {template: toy_v1, mask: [prices]}\n", r"prompts.yaml: toy: mask.0: Input should be 'names' or 'dates'"),
        ("toy: {template: order_v9}\n", r"prompts.yaml: toy: order_v9 is a template of the family 'order'"),
        ("order: {template: toy_v1}\n", r"no family 'toy'; it declares \['order'\]"),
    ],
)
def test_a_wrong_selection_names_file_and_key(toy, tmp_path, content, fault):
    (toy / "order_v9.txt").write_text(TEXT.replace("family: toy", "family: order"))
    (tmp_path / "prompts.yaml").write_text(content)
    with pytest.raises(TapehouseError, match=fault):
        templates.selected(tmp_path, "toy")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("price {close}\n", "begin with front matter"),
        ("---\nfamily: toy\noptions: []\n---\nx\n", "options: Extra inputs"),
        ('---\nfamily: toy\noptional: ["vix"]\n---\nprice\n', r"no line begins with \['vix'\]"),
        ("---\nfamily: toy\n---\nprice {close.real}\n", "a column's name and a format"),
    ],
)
def test_a_wrong_template_names_file_and_fault(toy, text, fault):
    (toy / "toy_v1.txt").write_text(text)
    with pytest.raises(TapehouseError, match=f"toy_v1.txt: .*{fault}"):
        templates.load("toy_v1")
