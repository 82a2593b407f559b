"""Features of the price record on the real declarations: nothing from the future, and each month alone is as in the range."""

import random
from datetime import UTC, date, datetime

import polars as pl
import pytest

from tapehouse.hashing import frame_hash
from tapehouse.leakage import find_leaks
from tapehouse.scratch import read_raw, rebuild
from tests.house import House, copy_project

TABLES = ("features.price", "features.fractional", "features.normalised")
# The turn of a year, whose two sides have their own restarts; the evening of a split's ex-date; the eve of a dividend's.
CUTS = [
    datetime(2004, 12, 31, 18, tzinfo=UTC),
    datetime(2005, 2, 28, 21, 5, tzinfo=UTC),
    datetime(2004, 11, 12, 21, 4, tzinfo=UTC),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Raw tables of two years, from the packaged data."""
    house = House(copy_project(tmp_path_factory.mktemp("features"), date(2003, 7, 1), date(2005, 6, 1)))
    for name in ("raw.instruments", "raw.bars", "raw.corporate_actions"):
        house.make(name)
    return house


def raw_rows(house, first, last):
    with house.warehouse.reading() as (cursor, _):
        return read_raw(cursor, house.project, TABLES, first, last)


@pytest.mark.parametrize("cut", CUTS)
def test_what_was_known_after_a_cut_changes_no_row_before_it(house, cut):
    month = date(cut.year, cut.month, 1).isoformat()
    raw = raw_rows(house, house.project.months[0], month)
    assert [str(leak) for leak in find_leaks(house.project, raw, TABLES, cut, 7)] == []


def test_each_month_alone_has_the_bits_of_the_range(house):
    months = house.project.months
    raw = raw_rows(house, months[0], months[-1])
    everything = rebuild(house.project, raw, TABLES, months[0], months[-1])
    for month in [months[0], months[6], *random.Random(8).sample(months[7:], 2)]:
        start, end = house.project.span(month, month)
        inside = pl.col("decision_at").is_between(start, end, closed="left")
        alone = rebuild(house.project, raw, TABLES, month, month)
        for name in TABLES:
            found, wanted = alone[name].filter(inside), everything[name].filter(inside)
            assert frame_hash(found) == frame_hash(wanted), (name, month)
            assert wanted.height > 50
