"""Events a second that Dagster's log takes: ours in one transaction a batch, the peer is Dagster's own SQLite storage.

The events are those of an asset that makes a range of months: one planned and one made for each. Both logs then hold the same.
"""

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import dagster as dg  # noqa: E402
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent, StepMaterializationData  # noqa: E402
from dagster._core.events.log import EventLogEntry  # noqa: E402
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage  # noqa: E402

from bench.harness import report  # noqa: E402
from resources.event_log import BATCH, BatchedEventLog  # noqa: E402

AIM = 10.0
RUN = "11111111-1111-4111-8111-111111111111"


def events(months: int) -> list[EventLogEntry]:
    """Two events a month of one asset."""
    key, found = dg.AssetKey(["features", "price"]), []
    for month in range(months):
        planned = AssetMaterializationPlannedData(key, partition=f"month {month}")
        found.append(DagsterEvent.build_asset_materialization_planned_event("job", "step", planned))
    for month in range(months):
        made = StepMaterializationData(dg.AssetMaterialization(key, partition=f"month {month}"))
        found.append(DagsterEvent("ASSET_MATERIALIZATION", "job", event_specific_data=made, step_key="step"))
    return [EventLogEntry(None, 10, "", RUN, 1.7e9 + at, "step", "job", event) for at, event in enumerate(found)]


def compare(quick: bool) -> tuple[float, float, float]:
    """Events a second of ours and of the peer."""
    found, rates, stored = events(100 if quick else 1_000), [], []
    with tempfile.TemporaryDirectory() as folder:
        for log in (BatchedEventLog(f"{folder}/ours"), SqliteEventLogStorage(f"{folder}/peer")):
            log.store_event(found[0])  # makes its files
            started = time.perf_counter()
            if isinstance(log, BatchedEventLog):
                for first in range(1, len(found), BATCH):
                    log.store_event_batch(found[first : first + BATCH])
            else:
                for event in found[1:]:
                    log.store_event(event)
            rates.append((len(found) - 1) / (time.perf_counter() - started))
            made = dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION)
            stored.append([r.event_log_entry for r in log.get_event_records(made)])
            log.dispose()
    assert stored[0] == stored[1]
    return rates[0], rates[1], rates[0] / rates[1]


if __name__ == "__main__":
    report("events", AIM, compare, __doc__)
