"""The leakage check through Dagster: it passes on the real tables, and fails where a leak is planted."""

from datetime import UTC, date, datetime

import dagster as dg
import pytest

from loaders.checks import CUTS, check_leakage
from tests.house import House, copy_project
from tests.loaders.in_process import definitions, run
from tests.tapehouse.planted_leaks import plant

REAL = ("features.price", "features.decision_points", "labels.triple_barrier")
PLANTED = ("features.lead", "features.corrected", "labels.unshifted")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Raw to labels over ten months of the real data, and three leaks that nothing has made yet."""
    house = House(copy_project(tmp_path_factory.mktemp("checks"), date(2003, 9, 1), date(2005, 6, 1)))
    plant(house, *PLANTED)
    needed = {*REAL, *(behind for name in REAL for behind in house.project.ancestors(name))}
    for name in house.data_assets():
        if name in needed:
            house.make(name)
    return house


def no_leak(result) -> dg.AssetCheckEvaluation:
    (found,) = [e for e in result.evaluations if e.check_name == "no_leak"]
    return found


@pytest.mark.parametrize("name", REAL)
def test_it_passes_on_the_real_tables(house, name):
    result = run(house, name, first="2005-01-01", last="2005-02-01")
    assert result.success
    assert no_leak(result).passed
    assert no_leak(result).metadata["leaks"].value == "none"
    assert len(no_leak(result).metadata["cuts"].value) == CUTS


@pytest.mark.parametrize("name", PLANTED)
def test_it_fails_where_a_leak_is_planted(house, name):
    months = house.project.months
    result = run(house, name, first=months[0], last=months[-1])
    found = no_leak(result)
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert found.asset_key.to_user_string() == name.replace(".", "/")
    assert name in found.metadata["leaks"].value


def test_it_looks_only_where_all_that_is_needed_has_been_made(house, tmp_path):
    empty = House(house.home, tmp_path / "empty")
    for name in ("raw.instruments", "raw.bars"):
        empty.make(name)
    assert check_leakage(empty.project, empty.warehouse, "features.price") == ([], [])


def test_it_catches_a_window_that_is_declared_too_short(house):
    """Made in a range the first bar of a month sees the one before it, made alone it does not (promise 3)."""
    file = house.write(
        "sql/features/short.sql",
        """
        -- One row per (symbol, decision_at): the close of the session before, with no look-back declared.
        with

        lagged as (
            select symbol, event_at, lag(close) over (partition by symbol order by event_at) as close_before
            from staging.bars
            where version = 1
        )

        select symbol, event_at + interval 5 minute as decision_at, close_before
        from lagged
        where event_at >= $start and event_at < $end
        """,
    )
    try:
        house.reload()
        house.make("features.short")
        cuts, leaks = check_leakage(house.project, house.warehouse, "features.short", cuts=8)
        assert any(leak.column == "close_before" for leak in leaks)
        assert len(leaks) <= len(cuts)
    finally:
        file.unlink()
        house.reload()


def test_it_passes_over_what_is_stale(house):
    """A changed query and rows of the old one differ, but not by a leak."""
    try:
        house.edit("sql/features/decision_points.sql", "    price.volume,\n", "    price.volume + 1 as volume,\n")
        assert check_leakage(house.reload(), house.warehouse, "features.decision_points") == ([], [])
    finally:
        house.edit("sql/features/decision_points.sql", "    price.volume + 1 as volume,\n", "    price.volume,\n")
        house.reload()


def test_its_cuts_follow_from_the_snapshot(house):
    first = check_leakage(house.project, house.warehouse, "features.decision_points")
    assert first == check_leakage(house.project, house.warehouse, "features.decision_points")
    assert len(set(first[0])) == CUTS
    start, end = (datetime.combine(day, datetime.min.time(), UTC) for day in (date(2003, 9, 1), date(2005, 6, 1)))
    assert all(start <= cut < end for cut in first[0])


def test_checks_are_described_where_they_stand(house):
    graph = definitions(house).resolve_asset_graph()
    spec = next(
        graph.get_check_spec(key) for key in graph.get(dg.AssetKey(["staging", "bars"])).check_keys if key.name == "contract"
    )
    assert spec.blocking
    assert "- grain(symbol, interval, session, known_at) is unique" in spec.description
    assert "expect_column" in spec.description
