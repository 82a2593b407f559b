"""Replacing a file: the new content in one step, and nothing left behind when it cannot be done."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.files import replace_file


def test_an_open_reader_keeps_the_old_file(tmp_path):
    page = tmp_path / "reports" / "index.html"
    replace_file(page, b"old and long")
    with page.open("rb") as reader:
        replace_file(page, b"new")
        assert reader.read() == b"old and long"
    assert page.read_bytes() == b"new" and list(page.parent.iterdir()) == [page]


@given(st.lists(st.binary(max_size=64), min_size=1, max_size=4))
def test_the_last_content_stays(contents):
    with TemporaryDirectory() as folder:
        page = Path(folder) / "page"
        for content in contents:
            replace_file(page, content)
        assert page.read_bytes() == contents[-1]


def test_what_cannot_be_replaced_stays(tmp_path):
    page = tmp_path / "index.html"
    (page / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        replace_file(page, b"new")
    assert list(tmp_path.iterdir()) == [page] and (page / "inside").is_dir()
