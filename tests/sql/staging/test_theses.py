from datetime import UTC, date, datetime, timedelta

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.merging import merge_versions
from tapehouse.sources.theses import SCHEMA
from tests.house import ROOT

SQL = ROOT / "sql" / "staging" / "theses.sql"
DAY = datetime(2016, 7, 1, 4, tzinfo=UTC)  # the end of June 30 in New York
HOUR = timedelta(hours=1)
RANGE = {"start": datetime(2016, 7, 1, tzinfo=UTC), "end": datetime(2016, 8, 1, tzinfo=UTC)}


def received(*records: tuple) -> pl.DataFrame:
    """(hours after the as-of day when known, action, reasoning, source)"""
    rows = [
        (
            "one",
            " aapl",
            date(2016, 6, 30),
            DAY,
            DAY + hours * HOUR,
            action,
            reasoning,
            " 10-Q\n p. 2 ",
            "desk",
            "1",
            "a.xml",
            source,
        )
        for hours, action, reasoning, source in records
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(ingested_at=pl.lit(DAY + 999 * HOUR))


def stage(theses: pl.DataFrame, **bounds) -> pl.DataFrame:
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; create schema raw")
        con.register("received", theses)
        con.execute("create table raw.theses as select * from received")
        return con.execute(SQL.read_text(), RANGE | bounds).pl().sort("thesis_id", "known_at")


def test_versions_by_hand():
    versions = stage(
        received(
            (0, "buy", "It  grows.\n", "a"),
            (5, "buy", "It grows.", "b"),  # the same but for layout: no version
            (9, "hold", "It grows.", "b"),
            (9, "sell", "It shrinks.", "a"),  # at one instant the first source by name
        )
    )
    assert versions.select("version", "action", "reasoning", "known_at", "superseded_at", "source").rows() == [
        (1, "buy", "It grows.", DAY, DAY + 9 * HOUR, "a"),
        (2, "sell", "It shrinks.", DAY + 9 * HOUR, None, "a"),
    ]
    assert versions.select("symbol", "support", "generated_by", "generator_version").unique().rows() == [
        ("AAPL", "10-Q p. 2", "desk", "1")
    ]


@pytest.mark.parametrize(("bounds", "rows"), [({"end": DAY}, 0), ({"start": DAY, "end": DAY + HOUR}, 1)])
def test_the_range_is_half_open(bounds, rows):
    assert stage(received((0, "buy", "x", "a")), **bounds).height == rows


def test_an_empty_support_is_null():
    assert stage(received((0, "buy", "x", "a")).with_columns(support=pl.lit(" ")))["support"].to_list() == [None]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from(["buy", "sell"]), st.sampled_from("xy"), st.sampled_from("ab"))),
    st.integers(0, 7),
)
def test_as_known_then_is_what_was_built_then(records, hours):
    raw = received(*{(known, source): (known, action, why, source) for known, action, why, source in records}.values())
    instant = DAY + hours * HOUR
    versions, then = stage(raw), stage(raw.filter(pl.col("known_at") <= instant))
    assert versions["superseded_at"].to_list() == [*versions["known_at"].to_list()[1:], None][: versions.height]
    in_force = (pl.col("known_at") <= instant) & (pl.col("superseded_at").is_null() | (pl.col("superseded_at") > instant))
    assert (
        versions.filter(in_force)
        .drop("superseded_at")
        .equals(then.filter(pl.col("superseded_at").is_null()).drop("superseded_at"))
    )


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["buy", "sell", None])] * 3), min_size=1, max_size=5))
def test_corrections_as_they_arrive_leave_the_past_as_it_was(arrivals):
    """What a file held at each arrival (None: the thesis was not in it), merged, staged, and looked back at."""
    stored, built = pl.DataFrame(), []
    for number, actions in enumerate(arrivals, start=1):
        clock = DAY + number * 24 * HOUR
        held = [(0, action, "why", "a") for action in actions if action is not None]
        names = [name for name, action in zip(("one", "two", "three"), actions, strict=True) if action is not None]
        incoming = received(*held).drop("ingested_at").with_columns(thesis_id=pl.Series(names, dtype=pl.String))
        stored = merge_versions(stored, incoming, ("thesis_id", "source"), clock)
        built.append((clock, stage(stored).filter(pl.col("superseded_at").is_null()).drop("superseded_at")))
    now = stage(stored)
    for clock, then in built:
        in_force = (pl.col("known_at") <= clock) & (pl.col("superseded_at").is_null() | (pl.col("superseded_at") > clock))
        known = now.filter(in_force).drop("superseded_at")
        assert known.filter(pl.col("thesis_id").is_in(then["thesis_id"].to_list())).equals(then)
