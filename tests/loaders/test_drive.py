"""Driving the project from the shell: waves as Dagster runs on the project's own instance."""

import os

import dagster as dg
import pytest

from loaders.crew import Crew
from loaders.drive import Driver, instance_environment
from tapehouse.errors import TapehouseError
from tapehouse.planning import Wave
from tests.house import TOY_MONTHS, TRAINED, TRAINED_CHECKS, House, toy_project

JAN, FEB, MAR = TOY_MONTHS[:3]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(toy_project(tmp_path_factory.mktemp("drive") / "toy"))


@pytest.fixture(scope="module")
def environment():
    """The process's environment, put back when the tests of this file are done."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def driver(house, environment):
    with_instance = Driver(house.settings)
    yield with_instance
    with_instance.instance.dispose()


def test_only_what_is_within_is_made(driver, house):
    waves = []
    assert driver.refresh({"raw.ticks"}, within={FEB, MAR}, on_wave=lambda wave, _: waves.append(wave)) == 2
    assert waves == [Wave("months", ("raw.ticks",), FEB, MAR)]
    assert set(house.state()) == {("raw.ticks", FEB), ("raw.ticks", MAR)}


def test_refreshing_twice(driver, house):
    """The first refresh makes whatever is missing, the second nothing."""
    everything, waves = set(driver.project.assets), []
    driver.refresh(everything)
    assert len(house.state()) == 6 * 6 + 1
    assert house.refresh() == []
    before = driver.instance.get_runs_count()
    assert driver.refresh(everything, on_wave=lambda wave, _: waves.append(wave)) == 0
    assert waves == []
    assert driver.instance.get_runs_count() == before
    # Each wave was a run of the instance that the UI serves, and every partition is seen there as made.
    runs = driver.instance.get_runs()
    assert {r.status for r in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert {r.tags["tapehouse/from"] for r in runs} == {"shell"}
    assert driver.instance.get_materialized_partitions(dg.AssetKey(["labels", "dear"])) == set(TOY_MONTHS)
    booked = {run_id for (run_id,) in house.rows("select distinct run_id from meta.partitions")}
    assert booked <= {r.run_id for r in runs}
    assert "" not in booked


def test_a_failed_run_is_told_with_its_cause(driver, house):
    text = (house.home / "ticks.csv").read_text()
    try:
        (house.home / "ticks.csv").write_text(text.replace("-02-15T21:00:00Z,11.25", "-02-15T21:00:00Z,-1.0"))
        with pytest.raises(TapehouseError) as caught:
            driver.refresh({"raw.ticks", "staging.ticks"})
        assert "failed:" in str(caught.value)
        assert f"staging.ticks {FEB}: expect_column_values_to_be_between" in str(caught.value)
        assert house.rows("select min(price) from staging.ticks") == [(10.0,)]
    finally:
        (house.home / "ticks.csv").write_text(text)
    assert driver.refresh({"raw.ticks", "staging.ticks"}) == 1  # the last good rows of staging are those of the mended file
    assert house.refresh() == []


@pytest.mark.parametrize(("jobs", "begun"), [(1, 0), (2, 1)])
def test_kernels_are_compiled_beside_a_run_that_has_something_to_make(driver, house, monkeypatch, jobs, begun):
    asked = []
    monkeypatch.setattr(Crew, "compile_ahead", lambda crew: asked.append(crew))
    monkeypatch.setattr(driver, "settings", driver.settings.model_copy(update={"jobs": jobs}))
    driver.refresh({"raw.ticks"})
    assert asked == []  # all is made
    text = (house.home / "ticks.csv").read_text()
    try:
        (house.home / "ticks.csv").write_text(text.replace("-02-15T21:00:00Z,11.25", "-02-15T21:00:00Z,11.5"))
        assert driver.refresh({"raw.ticks"}) == 1
        assert len(asked) == begun
    finally:
        (house.home / "ticks.csv").write_text(text)
    driver.refresh({"raw.ticks"})


def test_every_process_of_a_project_uses_the_instance_in_its_warehouse(house):
    said = instance_environment(house.settings)
    assert said["DAGSTER_HOME"] == str(house.settings.root / "dagster")
    assert (house.settings.root / "dagster" / "dagster.yaml").read_text() == (house.home / "dagster.yaml").read_text()
    assert said["TAPEHOUSE_WAREHOUSE"] == str(house.settings.root)
    assert said["DAGSTER_DISABLE_TELEMETRY"] == "1"


def test_folds_of_what_is_cheap_are_made_apart_while_training_is_left(driver, house):
    house.write("assets/models/dearest.py", TRAINED)
    house.write("checks/models/dearest.yaml", TRAINED_CHECKS)
    cheap = TRAINED.replace(", trains=True", "").replace("made_", "cheap_")
    house.write("assets/models/cheapest.py", cheap)
    house.write("checks/models/cheapest.yaml", TRAINED_CHECKS)
    both = Driver(house.settings)
    both.settings = house.settings.model_copy(update={"jobs": len(both.project.folds) + 1})
    try:
        both.refresh({"raw.ticks", "staging.ticks", "models.dearest", "models.cheapest"})
        apart = {(house.settings.root / f"cheap_{fold}").read_text() for fold in both.project.folds}
        assert len(apart) == 1 and str(os.getpid()) not in apart
    finally:
        both.instance.dispose()
        for path in ("assets/models/dearest.py", "assets/models/cheapest.py"):
            (house.home / path).unlink()
            (house.home / path.replace("assets", "checks").replace(".py", ".yaml")).unlink()


def test_training_runs_beside_the_shell_and_its_failure_is_told(driver, house):
    """Each fold in a process of its own, two at a time; what a failed one says reaches the shell."""
    house.write("assets/models/dearest.py", TRAINED)
    house.write("checks/models/dearest.yaml", TRAINED_CHECKS)
    beside = Driver(house.settings)
    try:
        assert beside.settings.jobs == 2
        beside.refresh({"raw.ticks", "staging.ticks", "models.dearest"})
        processes = {(house.settings.root / f"made_{fold}").read_text() for fold in beside.project.folds}
        assert len(processes) == len(beside.project.folds) and str(os.getpid()) not in processes
        fails = TRAINED.replace("import polars as pl\n", 'raise ValueError("no ticks, says the test")\n')
        house.write("assets/models/dearest.py", fails)
        broken = Driver(house.settings)
        with pytest.raises(TapehouseError, match="no ticks, says the test"):
            broken.refresh({"models.dearest"})
        broken.instance.dispose()
    finally:
        beside.instance.dispose()
        for path in ("assets/models/dearest.py", "checks/models/dearest.yaml"):
            (house.home / path).unlink()
