import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse import codeversion
from tapehouse.codeversion import code_version, modules_version

ASSET = '''"""One row per (a): what it means."""

from tapehouse.tables import table


@table()
def build(b):
    """Doc."""
    from tapehouse.kernels import total  # why

    return total(b)
'''
KERNELS = '''"""Kernels."""
from tapehouse.deep.sums import add


def total(b):
    return add(b, 1)
'''
SUMS = "def add(a, b):\n    return a + b\n"


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package `tapehouse` of a few modules, and an asset that reaches them."""
    folder = tmp_path / "tapehouse"
    files = {
        "__init__.py": "",
        "kernels.py": KERNELS,
        "deep/__init__.py": "",
        "deep/sums.py": SUMS,
        "unrelated.py": "X = 1\n",
        "tables.py": "def table(): ...\n",
        "warehouse.py": "Y = 1\n",
        "../asset.py": ASSET,
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(codeversion, "PACKAGE", folder)
    return folder


ticks = itertools.count(1)


def rewrite(file: Path, old: str, new: str) -> None:
    """Edit a file; its time of change is set apart, for a clock may not tell two edits in one test apart."""
    import os

    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    os.utime(file, ns=(next(ticks), next(ticks)))


def test_comments_docstrings_and_layout_do_not_count(package):
    before = code_version(package / "../asset.py")
    rewrite(package / "../asset.py", "  # why", "  # another reason\n")
    rewrite(package / "../asset.py", '"""Doc."""', '"""Other words,\n    on two lines."""')
    rewrite(package / "../asset.py", "what it means", "what it means to others")
    rewrite(package / "kernels.py", "add(b, 1)", "add(\n        b,\n        1,\n    )")
    rewrite(package / "kernels.py", '"""Kernels."""', '"""Sums."""')
    assert code_version(package / "../asset.py") == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("../asset.py", "return total(b)", "return total(b) or None"),
        ("kernels.py", "add(b, 1)", "add(b, 2)"),
        ("deep/sums.py", "a + b", "b + a"),
    ],
)
def test_code_counts_however_far_it_is_reached(package, file, old, new):
    before = code_version(package / "../asset.py")
    rewrite(package / file, old, new)
    assert code_version(package / "../asset.py") != before


def test_what_is_not_reached_does_not_count(package):
    before = code_version(package / "../asset.py")
    rewrite(package / "unrelated.py", "1", "2")
    rewrite(package / "tables.py", "...", "return None")  # how a table is declared changes no row
    rewrite(package / "warehouse.py", "1", "2")
    assert code_version(package / "../asset.py") == before
    rewrite(package / "kernels.py", "def total", "import tapehouse.unrelated\n\n\ndef total")
    reached = code_version(package / "../asset.py")
    rewrite(package / "unrelated.py", "2", "3")
    assert code_version(package / "../asset.py") != reached


def test_imports_in_every_form_are_followed(package):
    rewrite(package / "../asset.py", "    from tapehouse.kernels import total  # why", "    PLACE")
    forms = ["import tapehouse.deep.sums", "from tapehouse.deep import sums", "from tapehouse.deep.sums import add as plus"]
    for form in forms:
        rewrite(package / "../asset.py", "    PLACE", f"    {form}")
        before = code_version(package / "../asset.py")
        rewrite(package / "deep/sums.py", "return", "return 0 +")
        assert code_version(package / "../asset.py") != before, form
        rewrite(package / "../asset.py", f"    {form}", "    PLACE")


def test_modules_that_import_each_other_end(package):
    rewrite(package / "deep/sums.py", SUMS, "from tapehouse.kernels import total\n\n\n" + SUMS)
    assert code_version(package / "../asset.py") == code_version(package / "../asset.py")


def test_extra_texts_count(package):
    plain = code_version(package / "../asset.py")
    assert len({plain, code_version(package / "../asset.py", "a"), code_version(package / "../asset.py", "a", "")}) == 3


def test_versions_of_modules(package):
    before = modules_version(("tapehouse.kernels",))
    rewrite(package / "deep/sums.py", "a + b", "b + a")
    assert modules_version(("tapehouse.kernels",)) != before
    with pytest.raises(AssertionError, match=r"no module tapehouse\.missing"):
        modules_version(("tapehouse.missing",))


def test_relative_imports_are_refused(package):
    rewrite(package / "kernels.py", "from tapehouse.deep.sums", "from .deep.sums")
    with pytest.raises(ValueError, match=r"kernels\.py: relative imports are not followed"):
        code_version(package / "../asset.py")


@settings(max_examples=40, deadline=None)
@given(st.integers(-5, 5), st.integers(-5, 5), st.text(st.characters(codec="ascii", categories=("L", "Zs")), max_size=9))
def test_two_files_differ_exactly_when_their_code_does(tmp_path_factory, left, right, comment):
    folder = tmp_path_factory.mktemp("files")
    (folder / "left.py").write_text(f"VALUE = {left}\n")
    (folder / "right.py").write_text(f"# {comment}\nVALUE = {right}  # {comment}\n")
    assert (code_version(folder / "left.py") == code_version(folder / "right.py")) == (left == right)


def test_templates_are_part_of_the_module_that_names_them():
    from tapehouse.codeversion import PACKAGE, _data_files

    assert {f.name for f in _data_files(PACKAGE, "templates")} == {f.name for f in (PACKAGE / "templates").iterdir()}
    assert {f.name for f in _data_files(PACKAGE / "report", "page.html")} == {"page.html"}
    assert _data_files(PACKAGE, "a sentence. / with a slash") == set()


def test_files_are_looked_at_once_within_a_look_and_anew_after_it(tmp_path):
    from tapehouse.codeversion import looked_at_once

    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    with looked_at_once():
        before = code_version(path)
        path.write_text("x = 22\n")
        assert code_version(path) == before
    assert code_version(path) != before
    with pytest.raises(OSError, match="gone"), looked_at_once():
        raise OSError("gone")
    after = code_version(path)
    path.write_text("x = 333\n")
    assert code_version(path) != after  # a look that failed is over, too
