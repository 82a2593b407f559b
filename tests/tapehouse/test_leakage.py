from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.hashing import frame_hash
from tapehouse.leakage import find_leaks, mutate
from tapehouse.scratch import read_raw
from tests.house import House, copy_project
from tests.tapehouse.planted_leaks import LEAKS, plant

FIRST, LAST = "2004-12-01", "2005-02-01"
CUTS = [datetime(2005, 2, 9, 17, tzinfo=UTC), datetime(2005, 2, 24, 21, 5, tzinfo=UTC)]
SCREENED = ("open", "high", "low", "close")


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The real declarations with the leaks beside them; raw tables alone are made, over ten months."""
    house = House(copy_project(tmp_path_factory.mktemp("planted"), date(2003, 9, 1), date(2005, 7, 1)))
    plant(house)
    for name in ("raw.instruments", "raw.bars", "raw.corporate_actions"):
        house.make(name)
    return house


def raw_rows(house, targets, first=FIRST, last=LAST):
    with house.warehouse.reading() as (cursor, _):
        return read_raw(cursor, house.project, targets, first, last)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_caught(planted, name, cut):
    leaks = find_leaks(planted.project, raw_rows(planted, [name]), [name], cut, 1)
    assert leaks
    assert {leak.table for leak in leaks} == {name}
    columns = {leak.column for leak in leaks}
    assert columns <= {*planted.project.tables[name].types, "(row)"}
    assert "2005-02" in str(leaks[-1])


@pytest.mark.parametrize("cut", CUTS)
def test_what_does_not_look_ahead_is_left_in_peace(planted, cut):
    name = "features.honest"
    assert find_leaks(planted.project, raw_rows(planted, [name]), [name], cut, 1) == []


def test_a_leak_says_where_what_and_when(planted):
    (leak, *_) = find_leaks(planted.project, raw_rows(planted, ["features.lead"]), ["features.lead"], CUTS[0], 1)
    assert leak.column == "next_close"
    assert "features.lead.next_close of" in str(leak)
    assert str(CUTS[0]) in str(leak)
    assert float(leak.before) != float(leak.after)


def test_rows_that_vanish_or_appear_are_leaks(planted):
    """A table whose rows are those bars that get corrected later."""
    planted.write(
        "sql/features/revised.sql",
        """
        -- One row per (symbol, decision_at): a bar that was corrected later on.
        select distinct symbol, event_at + interval 5 minute as decision_at
        from staging.bars
        where event_at >= $start and event_at < $end and superseded_at is not null
        """,
    )
    project = planted.reload()
    (leak,) = find_leaks(project, raw_rows(planted, ["features.revised"]), ["features.revised"], CUTS[0], 1)
    assert (leak.column, leak.before) == ("(row)", "appeared")


# ---------------------------------------------------------------------- the mutation itself


@settings(max_examples=25, deadline=None)
@given(
    st.datetimes(datetime(2004, 10, 1), datetime(2005, 6, 25)).map(lambda at: at.replace(tzinfo=UTC)),
    st.integers(0, 2**31),
)
def test_another_future_is_valid_and_shares_the_past(planted, cut, seed):
    raw = raw_rows(planted, ["features.price"], "2005-01-01", "2005-06-01")
    changed = mutate(raw, cut, seed)
    assert changed.keys() == raw.keys()
    for name in ("raw.bars", "raw.corporate_actions"):
        known = pl.col("known_at") <= cut
        order = list(planted.project.tables[name].doc.grain)
        before, after = (frames[name].filter(known).sort(order) for frames in (raw, changed))
        assert frame_hash(before) == frame_hash(after)
        assert changed[name].schema == raw[name].schema
        assert not changed[name].select(order).is_duplicated().any()
    bars = changed["raw.bars"]
    assert bars.select(pl.min_horizontal(*SCREENED)).to_series().min() > 0
    assert bars.filter(pl.col("high") < pl.max_horizontal("open", "close", "low")).is_empty()
    assert bars.filter(pl.col("low") > pl.min_horizontal("open", "close", "high")).is_empty()
    assert bars["volume"].min() > 0
    assert bars.filter(pl.col("known_at") < pl.col("event_at")).is_empty()
    assert changed["raw.corporate_actions"]["ratio"].min() > 0


@settings(max_examples=10, deadline=None)
@given(
    st.datetimes(datetime(2004, 10, 1), datetime(2005, 6, 25)).map(lambda at: at.replace(tzinfo=UTC)),
    st.integers(0, 2**31),
)
def test_late_delistings_are_valid_and_share_the_past(planted, cut, seed):
    raw = raw_rows(planted, ["features.decision_points"], "2005-01-01", "2005-06-01")
    before, after = raw["raw.instruments"], mutate(raw, cut, seed)["raw.instruments"]
    order = list(planted.project.tables["raw.instruments"].doc.grain)
    known = pl.col("known_at") <= cut
    assert frame_hash(before.filter(known).sort(order)) == frame_hash(after.filter(known).sort(order))
    assert not after.select(order).is_duplicated().any() and after.schema == before.schema
    ended = after.filter(~known)
    assert ended.height >= 5 and ended.filter(pl.col("valid_to") < pl.col("valid_from")).is_empty()


def test_another_future_has_every_kind_of_change(planted):
    cut = datetime(2005, 3, 10, tzinfo=UTC)
    raw = raw_rows(planted, ["features.price"], "2005-01-01", "2005-06-01")
    changed = mutate(raw, cut, 3)
    key = ["symbol", "event_at"]
    later = pl.col("known_at") > cut
    bars, before = changed["raw.bars"].filter(later), raw["raw.bars"]
    assert before.filter(later).join(bars, on=key, how="anti").height > 0  # removed
    corrected = bars.filter(pl.col("event_at") <= cut)
    assert corrected["source"].n_unique() > 1  # corrected by their source, and arrived from another
    assert corrected["known_at"].max() > cut + timedelta(days=20)
    ahead = bars.join(before, on=[*key, "source"], suffix="_before").filter(pl.col("event_at") > cut)
    assert ahead.height > 0
    assert (ahead["close"] != ahead["close_before"]).all()
    actions = changed["raw.corporate_actions"].filter(later)
    assert actions.filter(pl.col("event_at") <= cut).height > 0  # corrected late
    assert actions.filter(source="late").height > 0  # new splits
    assert mutate(raw, cut, 3)["raw.bars"].equals(changed["raw.bars"])
    assert not mutate(raw, cut, 4)["raw.bars"].equals(changed["raw.bars"])
