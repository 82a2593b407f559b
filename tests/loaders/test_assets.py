"""Add a file, get an asset (promise 1); and what a run through Dagster records."""

import shutil

import dagster as dg
import pytest

from tests.house import FILES, ROOT, TOY_MONTHS, House
from tests.loaders.in_process import definitions, run

JAN, FEB, MAR = TOY_MONTHS[:3]
NEW_SQL = """
    -- One row per (symbol, decision_at): how much the price rose over the tick before.
    -- Ticks of the month before are looked at for the first of a month.
    -- lookback: 1 months
    select symbol, decision_at, price - price_before as rise
    from features.change
    where decision_at >= $start and decision_at < $end and price_before is not null
    """
NEW_PYTHON = '''
    """One row per (symbol, decision_at): the price twice, for those who like more of it."""

    from tapehouse.tables import reads, table


    @table(reads("features.change"))
    def build(b):
        b.note(liked=2)
        rows = b.read("features.change")
        return rows.select("symbol", "decision_at", twice=rows["price"] * 2.0)
    '''
NEW_CHECKS = """
    owner: team:toys
    columns:
      symbol: {type: varchar, doc: "Ticker."}
      decision_at: {type: timestamptz, doc: "When it was decided."}
      twice: {type: double, doc: "Two prices."}
    """


def asset_node(house: House, name: str):
    return definitions(house).resolve_asset_graph().get(dg.AssetKey(name.split(".")))


# ---------------------------------------------------------------------- promise 1


def test_one_new_sql_file_is_an_asset_with_all_that_belongs_to_one(toy):
    toy.write("sql/features/rise.sql", NEW_SQL)
    node = asset_node(toy, "features.rise")
    assert {k.to_user_string() for k in node.parent_keys} == {"features/change"}
    assert node.description.startswith("One row per (symbol, decision_at): how much the price rose")
    assert "lookback" not in node.description
    assert node.group_name == "features"
    assert node.partitions_def.get_partition_keys() == list(TOY_MONTHS)
    (read,) = node.partition_mappings.values()
    assert (read.start_offset, read.end_offset) == (-1, 0)
    columns = {c.name: c.type for c in node.metadata["dagster/column_schema"].columns}
    assert columns == {"symbol": "varchar", "decision_at": "timestamptz", "rise": "double"}
    lineage = node.metadata["dagster/column_lineage"].deps_by_column
    assert {(d.asset_key.to_user_string(), d.column_name) for d in lineage["rise"]} == {
        ("features/change", "price"),
        ("features/change", "price_before"),
    }
    assert node.metadata["rows_decided_by"] == ["features.change.decision_at", "features.change.price_before"]
    assert node.metadata["grain"] == "symbol, decision_at"  # from the header, for there is no check file
    assert {check.name for check in node.check_keys} == {"contract", "no_leak"}

    # It is made for one month and for a range, through Dagster, like any other.
    for name in ("raw.ticks", "staging.ticks", "features.change"):
        toy.make(name)
    one = run(toy, "features.rise", first=FEB)
    assert one.success
    assert one.materialised == {("features/rise", FEB)}
    assert toy.rows("select count(*), min(rise) from features.rise") == [(6, 0.25)]
    several = run(toy, "features.rise", first=JAN, last=MAR)
    assert several.success
    assert several.materialised == {("features/rise", month) for month in (JAN, FEB, MAR)}
    assert toy.rows("select count(*) from features.rise") == [(16,)]  # the first tick of each symbol has none before it
    (contract,) = [e for e in several.evaluations if e.check_name == "contract"]
    assert contract.passed
    assert "grain(symbol, decision_at)" in contract.metadata["expectations"].value


def test_a_new_sql_file_whose_keys_are_doubled_fails_its_contract(toy):
    toy.write(
        "sql/features/rise.sql", NEW_SQL.replace("symbol, decision_at, price - price_before", "'X' as symbol, decision_at, 1.0")
    )
    for name in ("raw.ticks", "staging.ticks", "features.change"):
        toy.make(name)
    result = run(toy, "features.rise", first=FEB)
    assert not result.success
    assert "grain(symbol, decision_at): 6 rows share or lack a key" in result.failure


def test_one_new_python_file_is_an_asset(toy):
    toy.write("assets/features/twice.py", NEW_PYTHON)
    toy.write("checks/features/twice.yaml", NEW_CHECKS)
    node = asset_node(toy, "features.twice")
    assert {k.to_user_string() for k in node.parent_keys} == {"features/change"}
    assert node.owners == ["team:toys"]
    for name in ("raw.ticks", "staging.ticks", "features.change"):
        toy.make(name)
    result = run(toy, "features.twice", first=JAN, last=MAR)
    assert result.success
    assert result.materialised == {("features/twice", month) for month in (JAN, FEB, MAR)}
    assert toy.rows("select count(*), max(twice) from features.twice") == [(18, 45.0)]
    said = result.metadata("features.twice", JAN)
    assert said["liked"] == 2
    assert said["dagster/partition_row_count"] == 6
    assert said["content_hash"] == toy.state()["features.twice", JAN].out_hash


def test_one_new_recipe_is_a_model_and_all_that_is_said_of_it(tmp_path):
    for folder in ("assets", "sql", "checks", "models_registry"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, tmp_path)
    house = House(tmp_path)
    before = {k.to_user_string() for k in definitions(house).resolve_asset_graph().get_all_asset_keys()}
    adapters = tmp_path / "models_registry" / "adapters"
    shutil.copy(adapters / "gbm.yaml", adapters / "deeper.yaml")
    graph = definitions(house).resolve_asset_graph()
    after = {k.to_user_string() for k in graph.get_all_asset_keys()}
    tables = ("reports/backtests", "reports/backtest_equity", "reports/backtest_trades", "reports/sensitivity")
    examined = ("reports/importance", "reports/paths", "reports/pages")
    assert after - before == {
        "models/deeper",
        "models/predictions/deeper",
        "models/calibrations/deeper",
        "reports/evaluations/deeper",
        *(f"{table}/deeper" for table in (*tables, *examined)),
    }
    assert len([a for a in house.project.assets if a not in before and "deeper" in a]) == 7
    # SQL that reads a table of many writers depends on the new one too.
    leaderboard = graph.get(dg.AssetKey(["reports", "leaderboard"]))
    assert {"models/deeper", "reports/backtests/deeper", "reports/evaluations/deeper"} <= {
        k.to_user_string() for k in leaderboard.parent_keys
    }


# ---------------------------------------------------------------------- what a run records


@pytest.fixture
def spoiled(toy):
    """February of the staged ticks cannot be good any more; all was made once before."""
    toy.make("raw.ticks")
    toy.make("staging.ticks")
    text = (toy.home / "ticks.csv").read_text()
    for old, new in (("-02-15T21:00:00Z,11.25", "-02-15T21:00:00Z,-1.0"), ("-01-15T21:00:00Z,10.25", "-01-15T21:00:00Z,10.75")):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (toy.home / "ticks.csv").write_text(text)
    toy.make("raw.ticks")
    return toy


def test_a_failed_contract_fails_the_run_and_names_the_partition_alone(spoiled):
    result = run(spoiled, "staging.ticks", first=JAN, last=MAR)
    assert not result.success
    said = result.failure
    assert "staging.ticks: the contract failed; these partitions keep their last good rows" in said
    assert f"staging.ticks {FEB}: expect_column_values_to_be_between" in said
    # Good partitions are materialised, the failing one is not; the failed check says which it was.
    assert result.materialised == {("staging/ticks", JAN), ("staging/ticks", MAR)}
    (evaluation,) = result.evaluations
    assert (evaluation.check_name, evaluation.passed) == ("contract", False)
    assert evaluation.severity == dg.AssetCheckSeverity.ERROR
    assert evaluation.metadata["partition"].value == FEB
    assert "-1" in evaluation.metadata["reasons"].value
    assert result.instance.get_materialized_partitions(dg.AssetKey(["staging", "ticks"])) == {JAN, MAR}
    middle = "select price from staging.ticks where symbol = 'AAA' and day(event_at) = 15 order by event_at limit 2"
    assert spoiled.rows(middle) == [(10.75,), (11.25,)]


def test_a_failed_contract_stops_what_is_downstream(spoiled):
    result = run(spoiled, "staging.ticks", "features.change", first=FEB)
    assert not result.success
    assert result.materialised == set()
    assert ("features.change", FEB) not in spoiled.state()


def test_a_failed_quality_check_warns_and_lets_the_run_pass(toy):
    toy.edit("checks/staging/ticks.yaml", "max_value: 500", "max_value: 2")
    toy.make("raw.ticks")
    result = run(toy, "staging.ticks", first=FEB)
    assert result.success
    assert result.materialised == {("staging/ticks", FEB)}
    found = {e.check_name: e for e in result.evaluations}
    assert found["contract"].passed
    assert (found["quality"].passed, found["quality"].severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "**no**" in found["quality"].metadata["expectations"].value


def test_a_missing_upstream_fails_the_run_with_the_remedy(toy):
    result = run(toy, "staging.ticks", first=FEB)
    assert not result.success
    assert f"staging.ticks reads partitions that have not been made: raw.ticks {FEB}" in result.failure


def test_a_table_that_is_made_once_records_its_numbers(toy):
    toy.refresh()
    result = run(toy, "reports.totals")
    assert result.success
    said, made = result.metadata("reports.totals"), toy.state()["reports.totals", ""]
    assert said["dagster/row_count"] == 2
    assert said["partitions_changed"] == 0
    assert (said["read_at_snapshot"], said["content_hash"]) == (made.snapshot, made.out_hash)


def test_decimals_are_kept_to_the_last_digit(toy):
    """What the loader asks for where a query adds floating-point values."""
    toy.write(
        "sql/features/totals.sql",
        """
        -- One row per (symbol, decision_at): the sum of all prices of the month, exactly.
        select
            symbol,
            date_trunc('month', event_at) + interval 1 month - interval 1 second as decision_at,
            sum(cast(price as decimal(18, 4))) as total
        from staging.ticks
        where event_at >= $start and event_at < $end
        group by symbol, date_trunc('month', event_at)
        """,
    )
    for name in ("raw.ticks", "staging.ticks"):
        toy.make(name)
    result = run(toy, "features.totals", first=JAN, last=MAR)
    assert result.success
    totals = toy.rows("select cast(total as varchar) from features.totals where symbol = 'AAA' order by decision_at limit 2")
    assert totals == [("30.7500",), ("33.7500",)]
    one = run(toy, "features.totals", first=FEB)
    assert one.metadata("features.totals", FEB)["partitions_changed"] == 0
