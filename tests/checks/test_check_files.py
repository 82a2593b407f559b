"""The check files of the project: each belongs to a table, and each of its expectations can be evaluated."""

import polars as pl
import pytest

from tapehouse.declarations import load_project
from tapehouse.expectations import evaluate
from tapehouse.frames import POLARS_TYPES
from tapehouse.settings import load_settings
from tests.house import ROOT

FILES = sorted((ROOT / "checks").glob("*/*.yaml"))


@pytest.fixture(scope="module")
def project():
    return load_project(load_settings(ROOT))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}.{f.stem}")
def test_a_check_file_is_about_the_columns_of_its_table(project, file):
    name = f"{file.parent.name}.{file.stem}"
    table = project.tables[name]  # a file for a table that nothing makes would be dead letters
    for entry in (*table.doc.contract, *table.doc.quality):
        ((_, arguments),) = entry.items()
        named = [v for k, v in arguments.items() if k in ("column", "column_A", "column_B")]
        assert set(named) <= set(table.types), entry


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}.{f.stem}")
def test_every_expectation_is_known_and_holds_for_no_rows(project, file):
    table = project.tables[f"{file.parent.name}.{file.stem}"]
    empty = pl.DataFrame(schema={column: POLARS_TYPES[kind] for column, kind in table.types.items()})
    assert all(result.success for result in evaluate(empty, table.doc.contract, str(file)))
    assert len(evaluate(empty, table.doc.quality, str(file))) == len(table.doc.quality)


def test_tables_about_decisions_say_by_when_they_were_known(project):
    """A row that is known after its decision has a cutoff of its own, and training is purged on it."""
    cutoffs = {t.name: t.doc.cutoff for t in project.tables.values() if t.time == "decision_at"}
    late = {name: cutoff for name, cutoff in cutoffs.items() if name.startswith(("labels.", "datasets."))}
    assert all(cutoff and cutoff.endswith("_known_at") for cutoff in late.values())
    assert not [name for name, cutoff in cutoffs.items() if cutoff is not None and name.startswith("features.")]
