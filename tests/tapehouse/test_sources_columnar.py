import json
import random
from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.sources.columnar import read_parquet
from tapehouse.sources.located import locate_all

FIELDS = {"session": "Date", "close": "Close"}
BARS = pl.DataFrame({"Date": [date(2000, 3, day) for day in (1, 2, 3)], "Close": [1.0, 0.1, None], "Note": ["a", None, "é"]})


def read(path, **options) -> pl.DataFrame:
    return read_parquet(path, FIELDS, "vendor", **options)


def test_reading_by_hand(tmp_path):
    BARS.write_parquet(tmp_path / "bars.parquet", row_group_size=2)
    found = read(tmp_path / "bars.parquet", symbol="X")
    assert found.select("symbol", "session", "close", "Note", "source", "origin", "fault").rows() == [
        ("X", "2000-03-01", "1.0", "a", "vendor", "bars.parquet:1", None),
        ("X", "2000-03-02", "0.1", None, "vendor", "bars.parquet:2", None),
        ("X", "2000-03-03", None, "é", "vendor", "bars.parquet:3", None),
    ]
    assert json.loads(found["record"][0]) == {"session": "2000-03-01", "close": "1.0", "Note": "a"}


def test_types_become_the_texts_that_are_judged(tmp_path):
    noon = datetime(2000, 3, 1, 12, 0, 0, 500000)
    frame = pl.DataFrame(
        {
            "Date": [datetime(2000, 3, 1), datetime(2000, 3, 2)],  # a date, as pandas writes one
            "Close": pl.Series([1, 2], dtype=pl.Int32),
            "naive": [noon, noon],
            "zoned": pl.Series([noon, noon]).dt.replace_time_zone("America/New_York"),
            "small": pl.Series([0.1, 2.5], dtype=pl.Float32),
            "exact": pl.Series(["1.10", "2.00"]).cast(pl.Decimal(10, 2)),
            "flag": [True, False],
            "list": [[1.5], []],
            "bytes": [b"a", b"\xff"],
        }
    )
    frame.write_parquet(tmp_path / "x.parquet")
    first = read(tmp_path / "x.parquet").row(0, named=True)
    assert (first["session"], first["close"], first["naive"]) == ("2000-03-01", "1", "2000-03-01 12:00:00.500")
    assert (first["zoned"], first["small"], first["exact"]) == ("2000-03-01T17:00:00.500+00:00", "0.1", "1.10")
    assert (first["flag"], first["list"], first["bytes"]) == ("true", "[1.5]", '"a"')


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_numbers_read_back_to_the_same_bits(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "numbers.parquet"
    pl.DataFrame({"Close": pl.Series(values, dtype=pl.Float64)}).write_parquet(path)
    back = read(path)["close"].cast(pl.Float64)
    assert back.equals(pl.Series("close", values, dtype=pl.Float64), null_equal=True)


def test_what_cannot_be_read_is_a_record_with_a_fault(tmp_path):
    path = tmp_path / "bars.parquet"
    big = pl.concat([BARS.with_columns(Close=pl.lit(float(at))) for at in range(1000)])
    big.write_parquet(path, row_group_size=1000, compression="zstd")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = bytes(500)
    path.write_bytes(content)
    found = read(path)
    assert found.height == 2001 and found["fault"].null_count() == 2000
    fault = found.filter(pl.col("fault").is_not_null()).row(0, named=True)
    first = int(fault["origin"].removeprefix("bars.parquet:"))
    assert fault["fault"].startswith(f"cut off: rows {first} to {first + 999} cannot be read (")
    for useless in (b"", b"PAR1", b"Date,Close\n", bytes(content[:-1])):
        path.write_bytes(useless)
        (lost,) = read(path).select("origin", "fault").rows()
        assert lost[0] == "bars.parquet:1" and lost[1].startswith("cut off: the Parquet file cannot be read")
    BARS.clear().write_parquet(path)
    assert read(path).is_empty() and "Note" in read(path).columns


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), damages=st.integers(1, 4))
def test_no_damage_crashes_the_reader(tmp_path_factory, seed, damages):
    rng, path = random.Random(seed), tmp_path_factory.getbasetemp() / "mangled.parquet"
    BARS.write_parquet(path, row_group_size=1, compression=rng.choice(["zstd", "uncompressed", "snappy"]))
    content = bytearray(path.read_bytes())
    for _ in range(damages):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    found = read(path)
    assert found["origin"].null_count() == 0
    bad = found.filter(pl.col("fault").is_not_null())
    assert found.height == 3 or bad.height, "rows are missing without a word"


def test_a_date_beyond_all_calendars_is_a_row_group_that_cannot_be_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    days = pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"Date": days, "Note": ["a", "b"]}), tmp_path / "far.parquet", row_group_size=1)
    found = read(tmp_path / "far.parquet")
    assert found["origin"].to_list() == ["far.parquet:1", "far.parquet:2"]
    assert found["fault"][0] is None and "rows 2 to 2 cannot be read (out-of-range date)" in found["fault"][1]


def test_names_of_files(tmp_path):
    for name in ("b.csv", "a.csv.gz", "c.txt", "deep/d.parquet", "deep/e.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [name for name, _ in locate_all(".", tmp_path)] == ["a.csv.gz", "b.csv"]
    assert [name for name, _ in locate_all("*.csv", tmp_path)] == ["b.csv"]
    assert [name for name, _ in locate_all("**/*.*", tmp_path)] == [
        "a.csv.gz",
        "b.csv",
        "c.txt",
        "deep/d.parquet",
        "deep/e.csv",
    ]
    assert [name for name, _ in locate_all("de*/d.*", tmp_path)] == ["deep/d.parquet"]
    assert [name for name, _ in locate_all("c.txt", tmp_path)] == ["c.txt"]


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_a_zoned_timestamp_is_the_same_instant(tmp_path, zone):
    at = pl.Series([datetime(2000, 3, 1, 21, tzinfo=UTC)]).dt.convert_time_zone(zone)
    pl.DataFrame({"Date": at}).write_parquet(tmp_path / "x.parquet")
    text = read(tmp_path / "x.parquet")["session"].item()
    assert datetime.fromisoformat(text) == datetime(2000, 3, 1, 21, tzinfo=UTC)
