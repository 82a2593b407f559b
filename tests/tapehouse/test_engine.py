"""The engine on toy tables: what is judged, what is swapped, what is written in the books."""

from datetime import UTC, datetime

import pytest

from tapehouse.errors import TapehouseError
from tapehouse.frames import duckdb_type
from tests.house import TOY_MONTHS, House

JAN, FEB, MAR = TOY_MONTHS[:3]


def data_files(house: House) -> set[str]:
    return {str(f) for f in (house.settings.root / "data").rglob("*.parquet") if "/meta/" not in str(f)}


def spoil(house: House, month: str, price: str) -> None:
    """Set the price of AAA on the 15th of a month."""
    stamp = f"{month[:7]}-15T21:00:00Z"
    lines = (house.home / "ticks.csv").read_text().splitlines()
    edited = [f"AAA,{stamp},{stamp},{price}" if line.startswith(f"AAA,{stamp},") else line for line in lines]
    assert edited != lines
    (house.home / "ticks.csv").write_text("\n".join(edited) + "\n")


def refused(house: House, name: str, partitions=None) -> str:
    with pytest.raises(TapehouseError) as caught:
        house.make(name, partitions)
    return str(caught.value)


# ---------------------------------------------------------------------- rows and books


def test_rows_and_books_are_written_together(toy):
    outcome = toy.make("raw.ticks", [JAN, FEB], run_id="run-1")
    assert [(p.partition, p.rows, p.changed) for p in outcome.outputs[0].made] == [(JAN, 6, True), (FEB, 6, True)]
    assert toy.rows("select count(*) from raw.ticks") == [(12,)]
    books = toy.rows('select asset, "partition", rows, run_id from meta.partitions order by all')
    assert books == [("raw.ticks", JAN, 6, "run-1"), ("raw.ticks", FEB, 6, "run-1")]
    # At no snapshot is there a row without its books, nor a book without its rows.
    for (snapshot,) in toy.rows("select snapshot_id from ducklake_snapshots('lake') order by 1"):
        cursor = toy.warehouse.connect(snapshot)
        tables = {t for (t,) in cursor.execute("select table_name from duckdb_tables() where schema_name = 'raw'").fetchall()}
        rows = cursor.execute("select count(*) from raw.ticks").fetchone()[0] if "ticks" in tables else 0
        known = {t for (t,) in cursor.execute("select table_name from duckdb_tables() where schema_name = 'meta'").fetchall()}
        booked = (
            cursor.execute("select coalesce(sum(rows), 0) from meta.partitions").fetchone()[0] if "partitions" in known else 0
        )
        assert rows == booked
    (message,) = toy.rows("select commit_message from ducklake_snapshots('lake') order by snapshot_id desc limit 1")
    assert message == (f"raw.ticks {JAN} … {FEB}",)


def test_unchanged_rows_are_not_written_again_but_the_books_are(toy):
    toy.make("raw.ticks", [JAN, FEB], run_id="one")
    files = data_files(toy)
    outcome = toy.make("raw.ticks", [JAN, FEB], run_id="two")
    assert not any(p.changed for p in outcome.outputs[0].made)
    assert data_files(toy) == files
    assert toy.rows("select distinct run_id from meta.partitions") == [("two",)]

    spoil(toy, FEB, "99")
    outcome = toy.make("raw.ticks", [JAN, FEB], run_id="three")
    assert [p.changed for p in outcome.outputs[0].made] == [False, True]
    assert len([file for file in data_files(toy) - files if "/year=2005/" in file]) == 1  # and one of deletions
    assert toy.rows("select count(*), max(price) from raw.ticks") == [(12, 99.0)]


def test_one_month_replaces_its_own_rows_alone(toy):
    toy.make("raw.ticks")
    before = toy.frame("raw.ticks")
    spoil(toy, FEB, "99")
    spoil(toy, MAR, "98")
    toy.make("raw.ticks", [FEB])
    after = toy.frame("raw.ticks")
    changed = after.filter(after["price"] != before["price"])
    assert changed["event_at"].to_list() == [datetime(2005, 2, 15, 21, tzinfo=UTC)]


def test_partitions_that_do_not_exist_or_do_not_touch_are_refused(toy):
    assert "no partition ['2005-07-01']" in refused(toy, "raw.ticks", ["2005-07-01"])
    assert "contiguous" in refused(toy, "raw.ticks", [JAN, MAR])
    assert toy.state() == {}


def test_a_missing_upstream_is_named_with_the_remedy(toy):
    toy.make("raw.ticks", [JAN, FEB])
    toy.make("staging.ticks", [FEB])
    said = refused(toy, "features.change", [FEB])
    assert f"features.change reads partitions that have not been made: staging.ticks {JAN}" in said
    assert "tapehouse run" in said
    assert ("features.change", FEB) not in toy.state()


# ---------------------------------------------------------------------- contract and quality


def test_a_partition_that_breaks_its_contract_keeps_its_last_good_rows(toy):
    for name in ("raw.ticks", "staging.ticks"):
        toy.make(name)
    spoil(toy, JAN, "11")
    spoil(toy, FEB, "-1")
    toy.make("raw.ticks")
    outcome = toy.make("staging.ticks", [JAN, FEB, MAR], run_id="later")
    assert list(outcome.failed) == ["staging.ticks"]
    assert list(outcome.failed["staging.ticks"]) == [FEB]
    (reason,) = outcome.failed["staging.ticks"][FEB]
    assert "expect_column_values_to_be_between(column=price" in reason
    assert "-1" in reason
    prices = toy.rows("select price from staging.ticks where symbol = 'AAA' and day(event_at) = 15 order by event_at limit 3")
    assert prices == [(11.0,), (11.25,), (12.25,)]  # new, last good, unchanged
    books = dict(toy.rows("select \"partition\", run_id from meta.partitions where asset = 'staging.ticks'"))
    assert (books[JAN], books[FEB], books[MAR]) == ("later", "", "later")


def test_a_doubled_or_missing_key_breaks_the_contract(toy):
    toy.make("raw.ticks")
    stamp = "2005-02-15T21:00:00Z"
    with (toy.home / "ticks.csv").open("a") as file:
        file.write(f"AAA,{stamp},{stamp},12.0\n")
    outcome = toy.make("raw.ticks")
    assert outcome.failed == {"raw.ticks": {FEB: [outcome.failed["raw.ticks"][FEB][0]]}}
    assert outcome.failed["raw.ticks"][FEB][0].startswith("grain(symbol, event_at): 2 rows share or lack a key")
    assert toy.rows("select count(*) from raw.ticks") == [(36,)]


def test_a_failed_quality_check_is_only_told(toy):
    toy.edit("checks/staging/ticks.yaml", "max_value: 500", "max_value: 2")
    toy.reload()
    toy.make("raw.ticks")
    outcome = toy.make("staging.ticks")
    assert not outcome.failed
    assert [r.success for r in outcome.outputs[0].quality] == [False]
    assert "observed" in outcome.outputs[0].quality[0].detail
    assert toy.rows("select count(*) from staging.ticks") == [(36,)]


def test_an_unknown_expectation_names_the_file(toy):
    toy.edit("checks/staging/ticks.yaml", "expect_column_mean_to_be_between", "expect_column_mean_to_be_nice")
    toy.reload()
    toy.make("raw.ticks")
    said = refused(toy, "staging.ticks")
    assert "checks/staging/ticks.yaml: unknown expectation 'expect_column_mean_to_be_nice'" in said


# ---------------------------------------------------------------------- what a build may return


PYTHON = '''
"""One row per (symbol, event_at): a table made to be refused."""

from tapehouse.tables import reads, table


@table(reads("raw.ticks"))
def build(b):
    import polars as pl

    rows = b.read("raw.ticks").select("symbol", "event_at", units=pl.col("price").cast(pl.Int64))
    return rows{change}
'''
CHECKS = """
columns:
  symbol: {type: varchar, doc: "Ticker."}
  event_at: {type: timestamptz, doc: "UTC."}
  units: {type: bigint, doc: "Whole dollars."}
"""
WRONG = {
    '.drop("units")': ["missing ['units']"],
    ".with_columns(more=pl.lit(1))": ["unknown ['more']"],
    '.with_columns(pl.col("units").cast(pl.Float64))': ["units", "double", "bigint"],
    '.with_columns(pl.col("event_at").dt.offset_by("31d"))': ["rows lie outside the range", "2005-03"],
    '.with_columns(event_at=pl.lit(None, pl.Datetime("us", "UTC")))': ["rows lie outside the range"],
}


@pytest.mark.parametrize("change", WRONG)
def test_rows_other_than_declared_are_refused_with_the_file(toy, change):
    toy.write("assets/features/wrong.py", PYTHON.replace("{change}", change))
    toy.write("checks/features/wrong.yaml", CHECKS)
    toy.reload()
    toy.make("raw.ticks", [FEB])
    said = refused(toy, "features.wrong", [FEB])
    for word in ("assets/features/wrong.py", *WRONG[change]):
        assert word in said
    assert ("features.wrong", FEB) not in toy.state()


def test_reading_what_is_not_declared_is_refused(toy):
    toy.write("assets/features/wrong.py", PYTHON.replace("{change}", '.join(b.read("staging.ticks"), on="symbol")'))
    toy.write("checks/features/wrong.yaml", CHECKS)
    toy.reload()
    toy.make("raw.ticks", [FEB])
    said = refused(toy, "features.wrong", [FEB])
    assert "assets/features/wrong.py: reads staging.ticks, but declares only ['raw.ticks']" in said


def test_a_query_sees_no_further_than_it_declares(toy):
    """Without its look-back the query cannot see January's last price, though the table holds it."""
    toy.refresh()
    first = (
        "select price_before from features.change where symbol = 'AAA' and month(decision_at) = 2 order by decision_at limit 1"
    )
    assert toy.rows(first) == [(10.5,)]
    toy.edit("sql/features/change.sql", "-- lookback: 1 months\n", "")
    toy.reload()
    toy.make("features.change", [FEB])
    assert toy.rows(first) == [(None,)]


# ---------------------------------------------------------------------- folds


FOLD_TABLE = '''
"""One row per (fold, symbol): a number that was fitted for a fold."""

from tapehouse.tables import reads, table


@table(reads("staging.ticks", window="train"))
def build(b):
    import polars as pl

    ticks = b.read("staging.ticks")
    assert ticks["event_at"].max() < b.fold.train_end
    dearest = ticks.group_by("symbol", maintain_order=True).agg(dearest=pl.col("price").max())
    return dearest.select(fold=pl.lit(FOLD), symbol="symbol", dearest="dearest")
'''
FOLD_CHECKS = """
partition: fold
columns:
  fold: {type: varchar, doc: "The fold."}
  symbol: {type: varchar, doc: "Ticker."}
  dearest: {type: double, doc: "Highest price of the training window."}
"""


def test_each_fold_replaces_its_own_rows(toy):
    toy.write("assets/models/dearest.py", FOLD_TABLE.replace("FOLD", "b.fold.id"))
    toy.write("checks/models/dearest.yaml", FOLD_CHECKS)
    toy.reload()
    toy.refresh({"raw.ticks", "staging.ticks"})
    folds = list(toy.project.folds)
    for fold in (folds[1], folds[0], folds[1]):
        toy.make("models.dearest", [fold])
    assert toy.rows("select fold, symbol, dearest from models.dearest order by all") == [
        (folds[0], "AAA", 12.0),  # trained to 14 March
        (folds[0], "BBB", 22.0),
        (folds[1], "AAA", 13.5),
        (folds[1], "BBB", 23.5),
    ]
    before = toy.rows("select * from models.dearest order by all")
    outcome = toy.make("models.dearest", folds)  # each in a commit of its own, and as it was alone
    assert [made.partition for made in outcome.outputs[0].made] == folds
    assert toy.rows("select * from models.dearest order by all") == before
    assert len(toy.rows('select distinct snapshot, "partition" from meta.pins')) >= 2
    # Only what the training window reads makes a fold stale.
    spoil(toy, "2005-05-01", "99")
    toy.refresh({"raw.ticks", "staging.ticks"})
    assert toy.refresh({"models.dearest"}) == []
    spoil(toy, FEB, "50")
    toy.refresh({"raw.ticks", "staging.ticks"})
    assert toy.refresh({"models.dearest"}) == [("models.dearest", fold) for fold in folds]


def test_rows_of_another_fold_are_refused(toy):
    toy.write("assets/models/dearest.py", FOLD_TABLE.replace("FOLD", '"2001-01-01"'))
    toy.write("checks/models/dearest.yaml", FOLD_CHECKS)
    toy.reload()
    toy.refresh({"raw.ticks", "staging.ticks"})
    said = refused(toy, "models.dearest", [next(iter(toy.project.folds))])
    assert "assets/models/dearest.py: 2 rows lie outside the range that was asked for" in said


def test_a_partition_that_another_run_wrote_meanwhile_is_not_overwritten(toy):
    toy.write(
        "assets/features/slow.py",
        '''
        """One row per (symbol, event_at): rows during whose making another run finishes."""

        from tapehouse.tables import reads, table


        @table(reads("raw.ticks"))
        def build(b):
            import polars as pl

            b.progress("halfway")
            return b.read("raw.ticks").select("symbol", "event_at", run=pl.lit(b.run_id))
        ''',
    )
    toy.write(
        "checks/features/slow.yaml",
        CHECKS.replace('units: {type: bigint, doc: "Whole dollars."}', 'run: {type: varchar, doc: "Whose."}'),
    )
    toy.reload()
    toy.make("raw.ticks", [FEB])

    def other_run_finishes(_):
        toy.make("features.slow", [FEB], run_id="faster", progress=print)

    with pytest.raises(TapehouseError, match="another run wrote this partition while it was being made"):
        toy.make("features.slow", [FEB], run_id="slower", progress=other_run_finishes)
    assert toy.rows("select distinct run from features.slow") == [("faster",)]


# ---------------------------------------------------------------------- pins


def test_reports_pin_the_snapshot_that_they_read(toy):
    toy.refresh()
    ((snapshot, asset),) = toy.rows("select snapshot, asset from meta.pins")
    assert asset == "reports.totals"
    assert toy.warehouse.pinned() == {snapshot}
    assert toy.state()["reports.totals", ""].snapshot == snapshot
    assert toy.rows("select * from reports.totals order by all") == [("AAA", 18), ("BBB", 18)]
    # What it read can be read again, whatever has become of the table since.
    before = toy.frame("features.change")
    spoil(toy, FEB, "77")
    toy.refresh({"raw.ticks", "staging.ticks", "features.change"})
    cursor = toy.warehouse.connect(snapshot)
    assert cursor.execute("select max(price) from features.change").fetchone() == (before["price"].max(),)
    assert toy.frame("features.change")["price"].max() == 77


def test_types_of_frames_are_said_as_in_check_files():
    import polars as pl

    said = {
        pl.Int64: "bigint",
        pl.Int32: "integer",
        pl.Float64: "double",
        pl.String: "varchar",
        pl.Boolean: "boolean",
        pl.Date: "date",
        pl.Datetime("us", "UTC"): "timestamptz",
        pl.List(pl.Int32): "integer[]",
    }
    assert {kind: duckdb_type(pl.Series([], dtype=kind).dtype) for kind in said} == said
