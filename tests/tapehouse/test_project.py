"""Declarations that are wrong: each error names the file, the line or key, and what to do."""

import pytest

from tapehouse.declarations import load_project
from tapehouse.errors import TapehouseError
from tapehouse.settings import load_settings
from tests.house import ROOT, TOY_MONTHS


def refused(house) -> str:
    with pytest.raises(TapehouseError) as caught:
        house.reload()
    return str(caught.value)


def recipe(toy, **changes) -> None:
    lines = {"method": "momentum", "description": "Buys what rose.", "params": "{column: momentum_30d}"} | changes
    toy.write("models_registry/adapters/mine.yaml", "".join(f"{key}: {value}\n" for key, value in lines.items()))


ADD = "a line added at the end"
WRONG = {
    # file, old, new (or ADD), words of the error
    "check: unknown key": ("checks/staging/ticks.yaml", ADD, "ownre: me\n", ["unknown key 'ownre'", "did you mean 'owner'"]),
    "check: unknown key of a column": (
        "checks/staging/ticks.yaml",
        '{doc: "Price paid."}',
        '{docs: "Price paid."}',
        ["columns.price.docs", "did you mean 'doc'", "columns.price.doc"],
    ),
    "check: two expectations in one entry": (
        "checks/staging/ticks.yaml",
        "  - expect_column_values_to_be_between: {column: price, min_value: 0, strict_min: true}",
        "  - {expect_a: {column: price}, expect_b: {}}",
        ["contract", "expect_a", "expect_b"],
    ),
    "check: not YAML": ("checks/staging/ticks.yaml", "owner: team:toys", "owner: [team", ["not YAML", "line"]),
    "check: a column that the query lacks": (
        "checks/staging/ticks.yaml",
        "  price: {doc",
        "  prise: {doc",
        ["['prise'] are not in", "sql/staging/ticks.sql", "'price'"],
    ),
    "check: a time column that there is not": (
        "checks/staging/ticks.yaml",
        "time: event_at",
        "time: happened_at",
        ["happened_at", "sql/staging/ticks.sql"],
    ),
    "sources: unknown key": ("sources.yaml", ADD, "benchmrk: x\n", ["benchmrk: unknown key"]),
    "sources: unknown key of an instrument": (
        "sources.yaml",
        "name: Apple Inc.,",
        "name: Apple Inc., colour: red,",
        ["universe.AAPL.colour: unknown key"],
    ),
    "sources: ill-typed": ("sources.yaml", "decision_lag_minutes: 5", "decision_lag_minutes: soon", ["decision_lag_minutes"]),
    "folds: unknown key": (
        "models_registry/folds.yaml",
        "count: 2",
        "counts: 2",
        ["counts"],
    ),
    "folds: ill-typed": ("models_registry/folds.yaml", "count: 2", "count: 0", ["count", "greater than or equal to 1"]),
    "sql: does not parse": (
        "sql/features/whole.sql",
        "from features.change",
        "form features.change",
        ["whole.sql:3: does not parse"],
    ),
    "sql: an unknown table": (
        "sql/features/whole.sql",
        "features.change",
        "features.changes",
        ["whole.sql", "reads features.changes, which no file in assets/ or sql/ makes"],
    ),
    "sql: a table without schema": ("sql/features/whole.sql", "features.change", "change", ["'change' has no schema"]),
    "sql: an unknown column": ("sql/features/whole.sql", "floor(price)", "floor(prise)", ["whole.sql", '"prise" not found']),
    "sql: no grain": (
        "sql/features/whole.sql",
        "One row per (symbol, decision_at): the",
        "The",
        ["say the grain", "One row per (column, …)"],
    ),
    "sql: a grain of no columns": (
        "sql/features/whole.sql",
        "One row per (symbol, decision_at)",
        "One row per (ticker, decision_at)",
        ["names ['ticker'], which are no columns", "'symbol'"],
    ),
    "sql: no header": (
        "sql/features/whole.sql",
        "-- One row per (symbol, decision_at): the price in whole units.\n",
        "",
        ["whole.sql:1: the first line must be a comment"],
    ),
    "sql: two statements": ("sql/features/whole.sql", ADD, ";\nselect 1\n", ["exactly one SELECT, found 2"]),
    "sql: not a select": ("sql/features/whole.sql", "select symbol", "create table t as select symbol", ["exactly one SELECT"]),
    "sql: a look-back that is misspelt": (
        "sql/features/change.sql",
        "-- lookback: 1 months",
        "-- lookback: one month",
        ["write it as 'lookback: 2 months'"],
    ),
    "sql: a sum of floats": (
        "sql/features/whole.sql",
        "cast(floor(price) as bigint) as units",
        "sum(price) over (partition by symbol order by decision_at) as units",
        ["sum(", "promise 3", "cast to a decimal"],
    ),
    "sql: a range without a time column": (
        "sql/features/whole.sql",
        "symbol, decision_at,",
        "symbol, decision_at as at,",
        ["decision_at"],
    ),
    "sql: rows with a time and no range": (
        "sql/features/whole.sql",
        "where decision_at >= $start and decision_at < $end",
        "",
        ["made by month", "bind $start and $end"],
    ),
    "python: two tables": (
        "assets/raw/ticks.py",
        ADD,
        "\n\n@table()\ndef other(b):\n    return None\n",
        ["raw/ticks.py", "exactly one function", "found 2"],
    ),
    "python: no table": ("assets/raw/ticks.py", "@table(fingerprint=fingerprint)\n", "", ["exactly one function", "found 0"]),
    "python: no docstring": (
        "assets/raw/ticks.py",
        '"""One row per (symbol, event_at): a price as the file ticks.csv gives it."""',
        "",
        ["raw/ticks.py:1: the first line must be a docstring"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_declaration_names_its_file_and_what_is_wrong(toy, case):
    path, old, new, words = WRONG[case]
    if old == ADD:
        file = toy.home / path
        file.write_text(file.read_text() + new)
    else:
        toy.edit(path, old, new)
    said = refused(toy)
    for word in (path.rsplit("/", 1)[-1], *words):
        assert word in said


def test_objectives_name_their_file_and_key(toy):
    from tapehouse.orders import load_objectives

    toy.edit("objectives.yaml", "near_tie_bps: 5.0", "near_tie: 5.0")
    with pytest.raises(TapehouseError) as caught:
        load_objectives(toy.home / "objectives.yaml")
    assert "objectives.yaml" in str(caught.value)
    assert "near_tie" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sed": 3}, ["sed: unknown key", "did you mean 'seed'"]),
        ({"seed": "three"}, ["seed"]),
        ({"method": "magic"}, ["method: 'magic' is none of", "momentum"]),
        ({"params": "{colunm: x}"}, ["params.colunm: unknown key", "did you mean 'column'"]),
        ({"name": "other"}, ["name: follows from the file's stem"]),
    ],
)
def test_a_wrong_recipe_names_its_file_and_key(toy, changes, words):
    recipe(toy, **changes)
    said = refused(toy)
    for word in ("models_registry/adapters/mine.yaml", *words):
        assert word in said


def test_one_table_is_one_file(toy):
    toy.write("assets/staging/ticks.py", (toy.home / "assets/raw/ticks.py").read_text())
    said = refused(toy)
    assert "sql/staging/ticks.sql" in said
    assert "assets/staging/ticks.py" in said
    assert "one table is one file" in said


def test_a_circle_is_told_with_its_tables(toy):
    toy.edit("sql/staging/ticks.sql", "from raw.ticks", "from (select symbol, decision_at as event_at, * from features.change)")
    said = refused(toy)
    assert "circle" in said
    for name in ("staging.ticks", "features.change"):
        assert name in said


def test_a_grain_that_header_and_check_file_tell_differently_is_refused(toy):
    toy.edit("checks/staging/ticks.yaml", "time: event_at", "time: event_at\ngrain: [symbol]")
    said = refused(toy)
    assert "the first line says the grain ('symbol', 'event_at'), its check file ('symbol',); make them agree" in said


# ---------------------------------------------------------------------- what a project knows


def test_partitions_and_spans(toy):
    project = toy.project
    assert project.months == list(TOY_MONTHS)
    assert [a.by for a in (project.assets[n] for n in ("raw.ticks", "staging.ticks", "reports.totals"))] == ["months"] * 2 + [
        "once"
    ]
    start, end = project.span("2005-02-01", "2005-03-01")
    assert (start.isoformat(), end.isoformat()) == ("2005-02-01T00:00:00+00:00", "2005-04-01T00:00:00+00:00")


def test_assets_come_in_the_order_of_their_dependencies():
    project = load_project(load_settings(ROOT))
    seen = set()
    for asset in project.assets.values():
        assert {w for r in asset.reads for w in project.writers_of(r)} <= seen, asset.name
        seen.add(asset.name)


def test_every_column_of_the_real_tables_is_described_once_with_its_type():
    project = load_project(load_settings(ROOT))
    for table in project.tables.values():
        assert table.types, table.name
        assert set(table.doc.columns) == set(table.types), table.name
        assert all(column.doc for column in table.doc.columns.values())
        assert table.doc.owner.startswith("team:")


def test_rows_of_recipes_and_folds_no_longer_declared_are_not_read():
    from tapehouse.reading import _selection

    project = load_project(load_settings(ROOT))
    leaderboard = project.assets["reports.leaderboard"]
    read = next(r for r in leaderboard.reads if r.table == "reports.backtests")
    query = _selection(project, read, leaderboard, [""])
    assert "'gbm'" in query and all(repr(fold) in query for fold in project.folds)
    assert '"subject" in (' in query and '"fold" in (' in query
