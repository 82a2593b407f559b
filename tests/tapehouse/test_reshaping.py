"""Columns that change with a declaration: the table follows in one commit with its rows, or not at all."""

import pytest

from tapehouse import engine
from tapehouse.declarations import load_project
from tapehouse.errors import TapehouseError
from tapehouse.settings import load_settings
from tests.house import ROOT, TOY_MONTHS, House

JAN, FEB, MAR = TOY_MONTHS[:3]
NARROW = ("select symbol, event_at, known_at, price\n", "select symbol, event_at, known_at, cast(price as float) as price\n")


@pytest.fixture
def made(toy) -> House:
    for name in ("raw.ticks", "staging.ticks", "features.change", "features.whole"):
        toy.make(name)
    return toy


def narrow(house: House) -> None:
    house.edit("sql/staging/ticks.sql", *NARROW)
    house.reload()


def shape(house: House) -> str:
    return house.warehouse.tables()["staging.ticks"]["price"]


def test_a_build_that_dies_leaves_columns_rows_and_books(made, monkeypatch):
    before, books = made.rows("select price from staging.ticks order by all"), made.state()
    narrow(made)

    def die(build):
        raise RuntimeError("died")

    with monkeypatch.context() as patched:
        patched.setattr(engine, "run_build", die)
        with pytest.raises(RuntimeError, match="died"):
            made.make("staging.ticks")
    assert shape(made) == "double"
    assert made.rows("select price from staging.ticks order by all") == before
    assert made.state() == books


def test_a_reader_refuses_rows_of_another_declaration(made):
    narrow(made)
    with pytest.raises(TapehouseError, match=r"reads staging\.ticks, whose stored columns \['price'\] differ"):
        made.make("features.change")
    assert shape(made) == "double"


def test_one_month_of_a_new_shape_makes_the_others_missing(made):
    before = made.rows("select symbol, event_at, price from staging.ticks order by all")
    narrow(made)
    made.make("staging.ticks", [JAN])
    assert shape(made) == "float"
    assert {p for a, p in made.state() if a == "staging.ticks"} == {JAN}
    with pytest.raises(TapehouseError, match="have not been made"):
        made.make("features.change", [MAR])

    made.edit("sql/staging/ticks.sql", *NARROW[::-1])
    made.reload()
    made.refresh({"staging.ticks"})
    assert made.rows("select symbol, event_at, price from staging.ticks order by all") == before


def test_a_failed_month_keeps_the_old_shape_and_all_rows(made):
    before = made.rows("select symbol, event_at, price from staging.ticks order by all")
    narrow(made)
    bad = "cast(case when month(event_at) = 2 then -1 else price end as float)"
    made.edit("sql/staging/ticks.sql", "cast(price as float)", bad)
    made.reload()
    outcome = made.make("staging.ticks")
    reasons = outcome.failed["staging.ticks"]
    assert set(reasons) == set(TOY_MONTHS)
    assert "columns changed" in reasons[JAN][0]
    assert shape(made) == "double"
    assert made.rows("select symbol, event_at, price from staging.ticks order by all") == before


def test_a_report_is_not_made_of_stale_tables(made):
    made.make("reports.totals")
    made.edit("sql/features/change.sql", "select symbol, known_at + interval 5", "select symbol, known_at + interval 6")
    made.reload()
    with pytest.raises(TapehouseError, match=r"reports\.totals: not made, because features/change behind it changed"):
        made.make("reports.totals")
    made.make("features.change")
    made.make("reports.totals")


def test_a_fold_rests_on_its_own_fold_alone():
    from tapehouse.lineage import _behind

    project = load_project(load_settings(ROOT))
    *_, first, second = project.adapter_folds
    behind = _behind(project, project.assets["models.predictions.dpo_orders"], [first], {})
    assert ("models.sft_orders", first) in behind and ("models.dpo_orders", first) in behind
    assert not [key for key in behind if key[1] == second]
    assert ("raw.bars", project.months[0]) in behind
