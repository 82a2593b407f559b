"""How a table is declared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.errors import TapehouseError
from tapehouse.tables import Declaration, Read, TableDoc, header_grain, load_doc, reads, table

NAMES = st.lists(st.from_regex(r"[a-z][a-z_0-9]{0,8}", fullmatch=True), min_size=1, max_size=4, unique=True)


def test_a_declaration_by_hand():
    inputs = reads("staging.bars", lookback_months=2), reads("raw.instruments", window="all")

    @table(*inputs, files=("objectives.yaml",))
    def build(b):
        return b

    assert build.declaration == Declaration(
        (Read("staging.bars", 2, 0, "range"), Read("raw.instruments", 0, 0, "all")), None, ("objectives.yaml",)
    )
    assert build(3) == 3  # the function itself is left as it is


@given(NAMES, st.text(alphabet="abc :()", max_size=10))
def test_the_grain_is_read_from_the_first_line(names, words):
    assert header_grain(f"One row per ({', '.join(names)}): {words}\nMore words.") == tuple(names)


def test_without_a_grain_there_is_none():
    assert header_grain("Rows of something.") == ()
    assert header_grain("one row per (a,b)") == ("a", "b")


def test_a_check_file_by_hand(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text(
        "time: event_at\ngrain: [a, event_at]\ncolumns:\n"
        "  a: {type: varchar, doc: x}\n  event_at: {type: timestamptz, doc: y}\n"
        "contract:\n  - expect_column_values_to_not_be_null: {column: a}\n"
    )
    doc = load_doc(file)
    assert doc.types == {"a": "varchar", "event_at": "timestamptz"}
    assert (doc.grain, doc.time, doc.owner) == (("a", "event_at"), "event_at", "team:data")
    assert doc.contract == ({"expect_column_values_to_not_be_null": {"column": "a"}},)
    file.write_text("columns:\n  a: {type: varchar, doc: x}\n  b: {doc: y}\n")
    assert load_doc(file).types == {}  # the types of a SQL table are those of its query
    file.write_text("")
    assert load_doc(file) == TableDoc()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("grains: [a]\n", ["unknown key 'grains'", "did you mean 'grain'"]),
        ("columns:\n  a: {type: varchar}\n", ["columns.a.doc", "required"]),
        ("grain: a\n", ["grain"]),
        ("contract:\n  - {}\n", ["contract", "each entry is one"]),
        ("a: [\n", ["not YAML"]),
        ("- a\n", ["t.yaml"]),
    ],
)
def test_a_wrong_check_file_names_itself_and_the_key(tmp_path, text, words):
    file = tmp_path / "t.yaml"
    file.write_text(text)
    with pytest.raises(TapehouseError) as caught:
        load_doc(file)
    for word in (str(file), *words):
        assert word in str(caught.value)
