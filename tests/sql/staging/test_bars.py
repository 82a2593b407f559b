from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import TIMESTAMP

SQL = Path(__file__).parents[3] / "sql" / "staging"
CLOSE = datetime(2000, 3, 1, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
RANGE = {"start": datetime(2000, 3, 1, tzinfo=UTC), "end": datetime(2000, 4, 1, tzinfo=UTC)}
SCHEMA = {
    "symbol": pl.String,
    "interval": pl.String,
    "session": pl.Date,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "close": pl.Float64,
    "source": pl.String,
    "ingested_at": TIMESTAMP,
}


def received(*records: tuple) -> pl.DataFrame:
    """(hours after the close when known, close, source)"""
    rows = [
        ("IBM", "1d", date(2000, 3, 1), CLOSE, CLOSE + hours * HOUR, close, source, CLOSE + 999 * HOUR)
        for hours, close, source in records
    ]
    prices = pl.col("close")
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(
        open=prices, high=prices, low=prices, volume=pl.lit(5, pl.Int64)
    )


def stage(bars: pl.DataFrame, **bounds) -> tuple[pl.DataFrame, pl.DataFrame]:
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; create schema raw; create schema staging")
        con.register("received", bars)
        con.execute("create table raw.bars as select * from received")
        con.execute(f"create table staging.bars as {(SQL / 'bars.sql').read_text()}", RANGE | bounds)
        versions = con.execute("from staging.bars order by symbol, session, known_at").pl()
        return versions, versions.filter(pl.col("superseded_at").is_null())


def test_versions_by_hand():
    versions, latest = stage(received((0, 1.0, "a"), (5, 1.0, "a"), (9, 2.0, "a"), (9, 3.0, "b"), (20, 1.0, "a")))
    assert versions.select("version", "close", "known_at", "superseded_at", "source").rows() == [
        (1, 1.0, CLOSE, CLOSE + 9 * HOUR, "a"),
        (2, 2.0, CLOSE + 9 * HOUR, CLOSE + 20 * HOUR, "a"),
        (3, 1.0, CLOSE + 20 * HOUR, None, "a"),
    ]
    assert latest.select("close", "known_at").rows() == [(1.0, CLOSE + 20 * HOUR)]


def test_the_range_is_half_open():
    bars = received((0, 1.0, "a"))
    assert stage(bars, end=CLOSE)[1].is_empty()
    assert stage(bars, start=CLOSE, end=CLOSE + HOUR)[1].height == 1


def test_the_file_says_what_a_row_is():
    first = (SQL / "bars.sql").read_text().splitlines()[0]
    assert first.startswith("-- One row per (symbol, interval, session")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([1.0, 2.0]), st.sampled_from("ab")), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
)
def test_versions_tile_time(records, order):
    unique = list({(known, source): (known, close, source) for known, close, source in records}.values())
    versions, latest = stage(received(*unique))
    assert latest.height == 1
    assert versions["version"].to_list() == list(range(1, versions.height + 1))
    assert versions["superseded_at"].to_list() == [*versions["known_at"].to_list()[1:], None]
    assert (versions["close"] != versions["close"].shift(1)).fill_null(True).all()
    order.shuffle(unique)
    assert stage(received(*unique))[0].equals(versions)
