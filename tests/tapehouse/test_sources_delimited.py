import csv
import gzip
import random

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.sources.delimited import read_delimited

CONTENT = b"Date,Close\n2000-03-01,1\n2000-03-02,2\n"
FIELDS = {"session": "Date", "close": "Close"}
LINES = b"T,Date,Open,Close\n" + b"".join(b"A%d,2000-01-%02d,%d.5,%d\n" % (i, i + 1, i, i) for i in range(12))


def read(tmp_path, content: bytes, name: str = "bars.csv") -> list[tuple]:
    path = tmp_path / name
    path.write_bytes(content)
    return read_delimited(path, FIELDS, "vendor", symbol="X").select("session", "close", "origin", "fault").rows()


def test_reading_by_hand(tmp_path):
    whole = [("2000-03-01", "1", "bars.csv:2", None), ("2000-03-02", "2", "bars.csv:3", None)]
    assert read(tmp_path, CONTENT) == whole
    assert read(tmp_path, CONTENT.replace(b"\n", b"\r\n")) == whole
    assert read(tmp_path, b"\xef\xbb\xbf" + CONTENT) == whole
    assert read(tmp_path, gzip.compress(CONTENT)) == whole
    assert read(tmp_path, gzip.compress(CONTENT[:20]) + gzip.compress(CONTENT[20:])) == whole
    assert read(tmp_path, CONTENT.replace(b"\n2000-03-02", b"\n\n2000-03-02"))[1][2] == "bars.csv:4"
    assert read(tmp_path, CONTENT.replace(b",1", b',"1"')) == whole
    assert read(tmp_path, CONTENT.replace(b"2000-03-01", b"\xef\xbb\xbf2000-03-01"))[0][0] == "\ufeff2000-03-01"


def test_a_cut_is_seen(tmp_path):
    assert [row[3] for row in read(tmp_path, CONTENT[:-3])] == [None, "cut off: the last line has no line end"]
    cut = gzip.compress(CONTENT)[:-9]
    assert read(tmp_path, cut)[-1][3] == "cut off: the gzip stream ends too early"
    damaged = bytearray(gzip.compress(CONTENT))
    damaged[-6] ^= 255  # the checksum
    assert "the gzip stream is damaged" in read(tmp_path, bytes(damaged))[-1][3]
    for content in (b"", CONTENT[:5], gzip.compress(b"")):
        assert [row[3][:7] for row in read(tmp_path, content)] == ["cut off"]


def test_lines_that_cannot_be_taken_apart_say_why(tmp_path):
    content = CONTENT + b'short\n1,2,3\n"2000-03-05,5\n1,"2\r3"\r4\n\xff,6\n2000-03-07,7\n'
    rows = read(tmp_path, content)
    assert [row[3] for row in rows[2:]] == [
        "short row: 1 of 2 fields",
        "long row: 3 fields for 2 columns",
        "short row: 1 of 2 fields",
        "broken quotes (new-line character seen in unquoted field - do you need to open the file in universal-newline mode?)",
        None,
        None,
    ]
    assert rows[6][:2] == ("\ufffd", "6") and rows[7] == ("2000-03-07", "7", "bars.csv:9", None)


@settings(max_examples=60, deadline=None)
@given(lost=st.integers(1, 400))
def test_a_gzip_cut_anywhere_keeps_what_could_be_read(tmp_path_factory, lost):
    lines = [f"2000-03-{day:02d},{day * 1.37:.4f}" for day in range(1, 29)]
    content = gzip.compress("\n".join(["Date,Close", *lines, ""]).encode(), mtime=0)
    path = tmp_path_factory.getbasetemp() / "cut.csv.gz"
    path.write_bytes(content[: max(3, len(content) - lost)])
    rows = read_delimited(path, FIELDS, "vendor", symbol="X")
    whole = rows.filter(pl.col("fault").is_null())["record"].to_list()
    assert whole == lines[: len(whole)]
    assert rows.height == len(whole) + 1 and rows["fault"][-1].startswith("cut off")


MARKS = [
    b'"',
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b"\x00",
    b"\xc3\xa9",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\n\n",
    b" \n",
    b"#",
    b"\x85",
    b"\x0c",
]


def mangled(rng: random.Random) -> bytes:
    """The lines after up to five damages of bytes."""
    content = LINES.replace(b"\n", b"\r\n") if rng.random() < 0.2 else LINES
    for _ in range(rng.randrange(6)):
        at = rng.randrange(len(content) + 1)
        content = rng.choice(
            [
                content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
                content[:at] + rng.choice(MARKS) + content[at:],
                content[:at] + content[at + rng.randrange(20) :],
                content[:at] + content[at : at + rng.randrange(60)] + content[at:],
                content[:at],
            ]
        )
    return content


def one_by_one(content: bytes) -> list[tuple]:
    """(first field, last field, record, origin, fault) of each line, read with a closer look at every one."""
    *lines, unended = content.decode("utf-8-sig", errors="replace").split("\n")
    cells = [fields(line.rstrip("\r")) for line in lines]
    width = len(cells[0][0]) if cells else 0
    rows = []
    for number, (line, (found, fault)) in enumerate(zip(lines[1:], cells[1:], strict=True), start=2):
        if not line.rstrip("\r").strip():
            continue
        if len(found) < width:
            fault = fault or f"short row: {len(found)} of {width} fields"
        elif len(found) > width:
            fault = f"long row: {len(found)} fields for {width} columns"
        padded = (found + [None] * width)[:width]
        rows.append((*padded[:1], *padded[-1:], line.rstrip("\r"), f"mangled.csv:{number}", fault))
    if unended or not lines:
        why = "the last line has no line end" if unended else "the file is empty"
        rows.append((*[None] * (min(width, 1) * 2), unended, f"mangled.csv:{len(lines) + 1}", f"cut off: {why}"))
    return rows


def fields(line: str) -> tuple[list[str], str | None]:
    try:
        return (next(csv.reader([line]), []) if '"' in line else line.split(",")), None
    except csv.Error as error:
        return [], f"broken quotes ({error})"


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_lines_read_at_once_are_those_read_one_by_one(tmp_path_factory, seed):
    """No damage crashes the reader, no line is dropped, and what is read at once is what a closer look finds."""
    content = mangled(random.Random(seed))
    path = tmp_path_factory.getbasetemp() / "mangled.csv"
    path.write_bytes(content)
    records = read_delimited(path, {}, "vendor").drop("source")
    header = [name for name in records.columns if name not in ("origin", "record", "fault")]
    columns = [*header[:1], *header[-1:], "record", "origin", "fault"] if header else ["record", "origin", "fault"]
    found = list(zip(*(records[name].to_list() for name in columns), strict=True))
    assert found == one_by_one(content)
