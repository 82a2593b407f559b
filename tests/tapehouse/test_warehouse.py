import json
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse import writerlock
from tapehouse.errors import TapehouseError
from tapehouse.settings import load_settings
from tapehouse.warehouse import Change, Warehouse, apply_change, short_type

HOME = Path(__file__).parents[2]
PRICES = {"symbol": "varchar", "price": "double"}


def open_lake(folder: Path) -> Warehouse:
    lake = Warehouse(load_settings(HOME, warehouse=folder, threads=1, catalog="sqlite"))
    lake.initialise()
    return lake


@pytest.fixture
def lake(tmp_path):
    lake = open_lake(tmp_path / "warehouse")
    yield lake
    lake.close()


def rows(lake: Warehouse, query: str, snapshot: int | None = None) -> list[tuple]:
    with lake.reading(snapshot) as (cursor, _):
        return cursor.execute(query).fetchall()


def prices(*pairs: tuple[str, float | None]) -> pl.DataFrame:
    return pl.DataFrame(list(pairs), schema={"symbol": pl.String, "price": pl.Float64}, orient="row")


# ---------------------------------------------------------------------- writing and reading


def test_overwrite_replaces_what_is_selected_and_nothing_else(lake):
    lake.ensure("raw.prices", PRICES)
    lake.append("raw.prices", prices(("A", 1.0), ("B", 2.0)))
    # Columns are matched by name, not by place.
    lake.overwrite([Change("raw.prices", prices(("A", 3.0), ("A", 4.0)).select("price", "symbol"), "symbol = 'A'")])
    assert rows(lake, "from raw.prices order by all") == [("A", 3.0), ("A", 4.0), ("B", 2.0)]
    lake.overwrite([Change("raw.prices", prices(), "symbol = 'B'")])
    assert rows(lake, "from raw.prices order by all") == [("A", 3.0), ("A", 4.0)]


def test_a_commit_says_who_and_why(lake):
    lake.ensure("raw.prices", PRICES)
    before = lake.snapshot()
    lake.overwrite([Change("raw.prices", prices(("A", 1.0)))], who="a test", message="prices of A", extra={"run_id": "r1"})
    found = rows(
        lake, f"select author, commit_message, commit_extra_info from ducklake_snapshots('lake') where snapshot_id > {before}"
    )
    assert [(who, why, json.loads(extra)) for who, why, extra in found] == [("a test", "prices of A", {"run_id": "r1"})]


def test_a_reading_block_sees_one_snapshot(lake):
    lake.ensure("raw.prices", PRICES)
    lake.append("raw.prices", prices(("A", 1.0)))
    with lake.reading() as (cursor, snapshot):
        assert cursor.execute("from raw.prices").fetchall() == [("A", 1.0)]
        lake.overwrite([Change("raw.prices", prices(("A", 2.0)))])
        assert cursor.execute("from raw.prices").fetchall() == [("A", 1.0)]
        assert lake.snapshot(cursor) == snapshot
    assert lake.snapshot() == snapshot + 1
    assert rows(lake, "from raw.prices") == [("A", 2.0)]


def test_what_fails_leaves_nothing_behind_and_lets_the_next_writer_in(lake, tmp_path):
    lake.ensure("raw.prices", PRICES)
    lake.ensure("raw.other", PRICES)
    lake.append("raw.prices", prices(("A", 1.0)))
    before = lake.snapshot()
    with pytest.raises(duckdb.Error):
        lake.overwrite([Change("raw.prices", prices(("A", 2.0))), Change("raw.missing", prices(("A", 2.0)))])
    with pytest.raises(KeyboardInterrupt), lake.writing("test", "interrupted") as cursor:
        apply_change(cursor, Change("raw.other", prices(("A", 2.0))))
        raise KeyboardInterrupt
    assert lake.snapshot() == before
    assert rows(lake, "select (select count(*) from raw.other), price from raw.prices") == [(0, 1.0)]
    other = open_lake(tmp_path / "warehouse")  # a lock of its own, as another process has
    other.append("raw.prices", prices(("B", 2.0)))
    other.close()
    assert rows(lake, "from raw.prices order by all") == [("A", 1.0), ("B", 2.0)]


def test_a_writer_that_waits_too_long_says_so(lake, tmp_path, monkeypatch):
    lake.ensure("raw.prices", PRICES)
    monkeypatch.setattr(writerlock, "LOCK_SECONDS", 0.05)
    other = open_lake(tmp_path / "warehouse")
    with lake.writing("test", "long"):
        for write in (lambda: other.append("raw.prices", prices(("B", 2.0))), other.compact, other.expire):
            with pytest.raises(TapehouseError, match=r"\.writer\.lock: another writer has held the lock for 0.05 s"):
                write()
    other.append("raw.prices", prices(("B", 2.0)))
    other.close()


def test_readers_cannot_write(lake):
    lake.ensure("raw.prices", PRICES)
    with pytest.raises(duckdb.Error, match="read-only"):
        lake.connect().execute("delete from raw.prices")


def test_where_there_is_nothing(tmp_path, lake):
    empty = Warehouse(load_settings(HOME, warehouse=tmp_path / "empty", catalog="sqlite"))
    assert not empty.exists()
    with pytest.raises(TapehouseError, match="empty: no warehouse here yet; `make run` makes one"):
        empty.connect()
    with pytest.raises(TapehouseError, match="no snapshot 999; `tapehouse snapshots` lists"):
        lake.connect(999)


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ABC"), st.lists(st.floats(0, 9), max_size=3), st.booleans()), min_size=1, max_size=5)
)
def test_any_overwrites_leave_what_was_written_last(tmp_path_factory, changes):
    lake = open_lake(tmp_path_factory.mktemp("lake"))
    lake.ensure("raw.prices", PRICES)
    expected: dict[str, list[float]] = {}
    for symbol, values, append in changes:
        where = "false" if append else f"symbol = '{symbol}'"
        lake.overwrite([Change("raw.prices", prices(*((symbol, v) for v in values)), where)])
        expected[symbol] = (expected.get(symbol, []) if append else []) + values
    assert rows(lake, "from raw.prices order by all") == sorted((s, v) for s, values in expected.items() for v in values)
    lake.close()


# ---------------------------------------------------------------------- schemas


def test_ensure_adapts_a_table_and_keeps_its_rows(lake):
    lake.ensure("features.f", {"k": "bigint", "gone": "double", "kind": "integer", "n": "integer[]"})
    lake.append(
        "features.f", pl.DataFrame({"k": [1], "gone": [1.5], "kind": [7], "n": [[1, 2]]}, schema_overrides={"kind": pl.Int32})
    )
    snapshot = lake.snapshot()
    lake.ensure("features.f", {"k": "bigint", "kind": "varchar", "added": "timestamp with time zone", "n": "integer[]"})
    assert lake.tables()["features.f"] == {"k": "bigint", "n": "integer[]", "added": "timestamptz", "kind": "varchar"}
    assert rows(lake, "select k, kind, added, n from features.f") == [(1, None, None, [1, 2])]
    assert rows(lake, "select gone, kind from features.f", snapshot) == [(1.5, 7)]


def test_ensure_writes_nothing_when_nothing_changed(lake):
    lake.ensure("features.f", {"k": "bigint", "at": "timestamptz"}, partitioned_by='year("at")')
    before = lake.snapshot()
    lake.ensure("features.f", {"k": "bigint", "at": "timestamp with time zone"})
    lake.initialise()
    assert lake.snapshot() == before


@pytest.mark.parametrize("columns", [{"symbol": "varchar"}, {"symbol": "varchar", "price": "varchar"}])
def test_nothing_is_dropped_from_a_raw_table(lake, columns):
    lake.ensure("raw.prices", PRICES)
    lake.append("raw.prices", prices(("A", 1.0)))
    with pytest.raises(TapehouseError, match=r"raw\.prices: columns \['price'\] were removed or changed type"):
        lake.ensure("raw.prices", columns)
    lake.ensure("raw.prices", {**PRICES, "venue": "varchar"})
    assert rows(lake, "select symbol, price, venue from raw.prices") == [("A", 1.0, None)]


def test_short_types():
    assert short_type("TIMESTAMP WITH TIME ZONE") == "timestamptz"
    assert short_type(" INTEGER[] ") == "integer[]"
    assert short_type("int32") == "integer"


# ---------------------------------------------------------------------- pins and upkeep


def test_a_pinned_snapshot_outlives_overwrites_compaction_and_expiry(lake):
    lake.ensure("raw.prices", PRICES)
    snapshots = []
    for number in range(6):
        lake.overwrite([Change("raw.prices", prices(("A", float(number)), ("B", None)))])
        snapshots.append(lake.snapshot())
    first, second = snapshots[:2]
    pin = {"snapshot": [first], "asset": ["models.m"], "partition": ["f"], "run_id": ["r"], "made_at": [None]}
    lake.append("meta.pins", pl.DataFrame(pin, schema_overrides={"made_at": pl.Datetime("us", "UTC")}))
    pinned_at = lake.snapshot()
    assert lake.pinned() == {first}

    lake.compact()
    assert rows(lake, "from raw.prices order by all", first) == [("A", 0.0), ("B", None)]
    gone = lake.expire(keep_last=2)
    assert first not in gone and pinned_at not in gone and second in gone
    assert lake.expire(keep_last=2) == []
    fresh = Warehouse(lake.settings)  # no connection from before
    assert rows(fresh, "from raw.prices order by all", first) == [("A", 0.0), ("B", None)]
    assert rows(fresh, "from raw.prices order by all") == [("A", 5.0), ("B", None)]
    with pytest.raises(TapehouseError, match=f"no snapshot {second}"):
        fresh.connect(second)
    fresh.close()


def test_the_newest_snapshot_is_never_expired(lake):
    lake.ensure("raw.prices", PRICES)
    lake.append("raw.prices", prices(("A", 1.0)))
    newest = lake.snapshot()
    assert newest not in lake.expire(keep_last=0)
    assert rows(lake, "from raw.prices", newest) == [("A", 1.0)]


def test_files_of_expired_snapshots_are_deleted(lake):
    lake.ensure("raw.prices", PRICES)
    for number in range(4):
        lake.overwrite([Change("raw.prices", prices(("A", float(number))))])
    stray = lake.root / "data" / "raw" / "prices" / "left-by-a-killed-writer.parquet"
    prices(("Z", 1.0)).write_parquet(stray)
    before = set((lake.root / "data" / "raw").rglob("*.parquet"))
    lake.expire(keep_last=1)
    left = set((lake.root / "data" / "raw").rglob("*.parquet"))
    assert len(before) == 5 and len(left) == 1 and stray not in left
    assert rows(lake, "from raw.prices") == [("A", 3.0)]


def test_a_warehouse_that_was_copied_says_so(tmp_path):
    open_lake(tmp_path / "here").close()
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    copied = Warehouse(load_settings(HOME, warehouse=tmp_path / "there", threads=1, catalog="sqlite"))
    with pytest.raises(TapehouseError, match="cannot be moved or copied"), copied.reading():
        pass
