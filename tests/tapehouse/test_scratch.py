"""The chain in memory: which months are needed, and rebuilding from raw rows alone."""

from datetime import UTC, datetime

import polars as pl
import pytest

from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash
from tapehouse.scratch import month_of, needed_months, read_raw, rebuild, shift_month
from tests.house import TOY_MONTHS

JAN, FEB, MAR, APR = TOY_MONTHS[:4]


def test_needed_months_add_up_along_the_chain(toy):
    assert needed_months(toy.project, ["labels.dear"], MAR, APR) == {
        "labels.dear": (MAR, APR),
        "features.whole": (MAR, APR),
        "features.change": (MAR, APR),
        "staging.ticks": (FEB, APR),  # the change looks back one month
        "raw.ticks": (FEB, APR),
    }
    both = needed_months(toy.project, ["features.cents", "features.change"], JAN, JAN)
    assert both["raw.ticks"] == (JAN, JAN)  # clipped to the span


def test_look_ahead_is_needed_too(toy):
    toy.write(
        "sql/labels/later.sql",
        """
        -- One row per (symbol, decision_at): the highest price of the month after.
        -- lookahead: 1 months
        select symbol, max(decision_at) filter (where decision_at < $end) as decision_at, max(price) as highest
        from features.change
        group by symbol, date_trunc('month', decision_at)
        """,
    )
    assert needed_months(toy.reload(), ["labels.later"], FEB, FEB)["raw.ticks"] == (JAN, MAR)


def test_a_rebuild_equals_what_the_engine_stores(toy):
    toy.refresh()
    with toy.warehouse.reading() as (cursor, _):
        raw = read_raw(cursor, toy.project, ["labels.dear", "features.change"], FEB, MAR)
    assert list(raw) == ["raw.ticks"]
    assert raw["raw.ticks"].height == 18  # with the month before
    frames = rebuild(toy.project, raw, ["labels.dear", "features.change"], FEB, MAR)
    start, end = toy.project.span(FEB, MAR)
    for name in ("labels.dear", "features.change"):
        assert frame_hash(frames[name]) == frame_hash(toy.frame(name, start, end))
    assert "features.cents" not in frames


def test_a_rebuild_from_other_rows_gives_other_rows(toy):
    toy.make("raw.ticks")
    raw = {"raw.ticks": toy.frame("raw.ticks").with_columns(price=pl.lit(3.5))}
    frames = rebuild(toy.project, raw, ["features.whole"], FEB, FEB)
    assert frames["features.whole"]["units"].unique().to_list() == [3]
    assert toy.rows("select count(*) from raw.ticks where price = 3.5") == [(0,)]


def test_raw_tables_that_are_not_given_are_empty(toy):
    frames = rebuild(toy.project, {}, ["features.change"], FEB, FEB)
    assert frames["features.change"].is_empty()
    assert list(frames["features.change"].columns) == list(toy.project.tables["features.change"].types)


def test_a_build_that_returns_other_columns_is_refused_in_memory_too(toy):
    toy.write(
        "assets/features/wrong.py",
        '''
        """One row per (symbol, event_at): a table that forgets its key."""

        from tapehouse.tables import reads, table


        @table(reads("raw.ticks"))
        def build(b):
            return b.read("raw.ticks").select("event_at")
        ''',
    )
    toy.write(
        "checks/features/wrong.yaml",
        """
        columns:
          symbol: {type: varchar, doc: "Ticker."}
          event_at: {type: timestamptz, doc: "UTC."}
        """,
    )
    with pytest.raises(TapehouseError, match=r"features/wrong.py: .* missing \['symbol'\]"):
        rebuild(toy.reload(), {}, ["features.wrong"], FEB, FEB)


def test_months():
    assert month_of(datetime(2005, 2, 28, 23, 59, tzinfo=UTC)) == "2005-02-01"
    assert shift_month("2005-01-01", -2) == "2004-11-01"
    assert shift_month("2005-11-01", 3) == "2006-02-01"
