"""Labels on the real declarations: cheats are caught, honest tables are not, and each month alone is as in the range."""

import random
from datetime import UTC, date, datetime

import duckdb
import polars as pl
import pytest

from tapehouse.hashing import frame_hash
from tapehouse.judging import judge
from tapehouse.leakage import find_leaks
from tapehouse.scratch import build_months, rebuild
from tapehouse.warehouse import LAKE
from tests.house import House, copy_project
from tests.tapehouse.planted_label_leaks import LEAKS, plant, plant_unshifted_open

HONEST = ("labels.triple_barrier", "labels.forward_returns", "labels.signal", "features.cusum_events", "labels.concurrency")
BEFORE = "labels.unshifted_open"
RAW = ("raw.instruments", "raw.bars", "raw.corporate_actions")
FOLDS = "{min_train_sessions: 20, test_sessions: 15, min_test_sessions: 10, purge_sessions: 2, count: 1}\n"
CUT = datetime(2005, 2, 16, 17, tzinfo=UTC)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """The real declarations with the cheats beside them."""
    house = House(copy_project(tmp_path_factory.mktemp("planted"), date(2004, 9, 1), date(2005, 6, 1), FOLDS))
    plant_unshifted_open(house, BEFORE)
    plant(house)
    return house


@pytest.fixture(scope="module")
def raw(planted):
    """The raw tables of the whole span, built in memory from the packaged data."""
    con = duckdb.connect(config={"threads": 1})
    con.execute(f"attach ':memory:' as {LAKE}; use {LAKE}; create schema raw; set timezone = 'UTC'")
    frames = {}
    for name in (*RAW, "raw.quarantine"):
        body = ", ".join(f'"{c}" {t}' for c, t in planted.project.tables[name].types.items())
        con.execute(f"create table {name} ({body})")
    for name in RAW:
        made = build_months(planted.project, planted.project.assets[name], con, *whole(planted))
        con.register("rows", made[name].to_arrow())
        con.execute(f"insert into {name} by name select * from rows")
        frames[name] = made[name]
    con.close()
    return frames


def whole(house) -> tuple[str, str]:
    """The first and the last month."""
    return house.project.months[0], house.project.months[-1]


@pytest.mark.parametrize("name", LEAKS)
def test_a_cheat_is_caught(planted, raw, name):
    leaks = find_leaks(planted.project, raw, [name], CUT, 3)
    assert leaks
    assert {leak.table for leak in leaks} == {name}
    assert {leak.column for leak in leaks} & {"value", "lowest"}


@pytest.mark.parametrize("cut", [CUT, datetime(2005, 2, 28, 21, 5, tzinfo=UTC), datetime(2004, 12, 31, 18, tzinfo=UTC)])
def test_honest_labels_are_left_in_peace(planted, raw, cut):
    assert [str(leak) for leak in find_leaks(planted.project, raw, HONEST, cut, 4)] == []


def test_weights_of_a_fold_are_settled_when_its_test_block_begins(planted, raw):
    (fold,) = planted.project.folds.values()
    name = "models.sample_weights"
    rows = rebuild(planted.project, raw, [name], fold.id, fold.id)[name]
    assert rows.height > 100
    assert find_leaks(planted.project, raw, [name], fold.test_start, 6) == []


def test_each_month_alone_has_the_bits_of_the_range(planted, raw):
    months = planted.project.months
    everything = rebuild(planted.project, raw, HONEST, *whole(planted))
    for month in random.Random(5).sample(months, 3):
        start, end = planted.project.span(month, month)
        inside = pl.col("decision_at").is_between(start, end, closed="left")
        alone = rebuild(planted.project, raw, HONEST, month, month)
        for name in HONEST:
            found, wanted = alone[name].filter(inside), everything[name].filter(inside)
            assert frame_hash(found) == frame_hash(wanted), (name, month)
            assert wanted.height > 0 or month == months[0]


def test_an_entry_before_the_decision_breaks_the_contract(planted, raw):
    month, asset = "2005-02-01", planted.project.assets[BEFORE]
    rows = rebuild(planted.project, raw, [BEFORE], month, month)[BEFORE]
    outcome = judge(planted.project, asset, asset.outputs[0], rows, [month], {})
    assert list(outcome.failed) == [month]
    assert any("entry_at" in reason for reason in outcome.failed[month])
