"""A batch of events is stored as the same events one by one would be."""

import dagster as dg
import pytest
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from resources.event_log import BatchedEventLog

RUNS = ("11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222")
ASSETS = ("features/price", "labels/barrier")
MONTHS = ("2005-01-01", "2005-02-01", "2005-03-01")


def events():
    """What two runs say of two assets and three months: planned, made, and a step's own word in between."""
    at = 1_700_000_000.0
    for run in RUNS:
        for kind in ("planned", "made"):
            for name in ASSETS:
                key = dg.AssetKey(name.split("/"))
                for month in MONTHS:
                    at += 1.0
                    if kind == "planned":
                        data = AssetMaterializationPlannedData(key, partition=month)
                        event = DagsterEvent.build_asset_materialization_planned_event("job", "step", data)
                    else:
                        made = dg.AssetMaterialization(key, partition=month, tags={"dagster/data_version": f"v{at}"})
                        data = StepMaterializationData(made)
                        event = DagsterEvent("ASSET_MATERIALIZATION", "job", event_specific_data=data, step_key="step")
                    yield EventLogEntry(None, 10, "", run, at, "step", "job", event)
        at += 1.0
        yield EventLogEntry(None, 10, "", run, at, "step", "job", DagsterEvent("STEP_START", "job", step_key="step"))


@pytest.fixture
def logs(tmp_path):
    one_by_one, together = SqliteEventLogStorage(str(tmp_path / "one")), BatchedEventLog(str(tmp_path / "many"))
    found = list(events())
    for event in found:
        one_by_one.store_event(event)
    together.store_event_batch(found)
    yield one_by_one, together
    one_by_one.dispose()
    together.dispose()


def test_the_same_is_found_as_of_events_stored_one_by_one(logs):
    for kind in (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED):
        for name in ASSETS:
            asked = dg.EventRecordsFilter(kind, asset_key=dg.AssetKey(name.split("/")))
            one, many = ([(r.storage_id, r.event_log_entry) for r in log.get_event_records(asked)] for log in logs)
            assert one == many and len(one) == len(RUNS) * len(MONTHS)
    keys = [dg.AssetKey(name.split("/")) for name in ASSETS]
    one, many = (log.get_asset_records(keys) for log in logs)
    for a, b in zip(one, many, strict=True):
        assert a.asset_entry == b.asset_entry
        assert a.asset_entry.last_materialization.asset_materialization.partition == MONTHS[-1]
        assert a.asset_entry.last_run_id == RUNS[-1]
    one, many = (log.get_materialized_partitions(keys[0]) for log in logs)
    assert one == many == set(MONTHS)
    made, tags = dg.DagsterEventType.ASSET_MATERIALIZATION, ["dagster/data_version"]
    one, many = (log.get_latest_tags_by_partition(keys[0], made, tags) for log in logs)
    assert one == many and set(one) == set(MONTHS)


def test_each_run_has_its_own_events(logs):
    for run in RUNS:
        one, many = ([r.event_log_entry for r in log.get_records_for_run(run).records] for log in logs)
        assert sorted(map(str, one)) == sorted(map(str, many)) and len(one) == 2 * len(ASSETS) * len(MONTHS) + 1


def test_half_a_batch_is_none(tmp_path, monkeypatch):
    """What fails on its way to the database across runs leaves nothing there."""
    log = BatchedEventLog(str(tmp_path))
    monkeypatch.setattr(log, "_store_asset_event_tags", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        log.store_event_batch(list(events()))
    assert not log.get_event_records(dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION))
    log.dispose()


@pytest.mark.parametrize("named", [True, False])
def test_its_files_lie_in_the_instance_and_without_one_aside(tmp_path, monkeypatch, named):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "aside"))
    (tmp_path / "aside").mkdir()
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    if named:
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    log = BatchedEventLog.from_config_value(None, {})
    log.store_event_batch(list(events()))
    log.dispose()
    assert bool(list((tmp_path / "home").glob("history/runs/*.db"))) == named
    assert bool(list((tmp_path / "aside").glob("*/history/runs/*.db"))) != named
