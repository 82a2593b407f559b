"""Dagster's event log on SQLite, with the events of a range of partitions stored in one transaction, not in one each.

A month that an asset makes is two events (planned and made), and Dagster's own storage opens a connection and commits twice for
each: 20,000 commits for the tables by month of a fresh warehouse. Dagster hands events over in batches where
`DAGSTER_EVENT_BATCH_SIZE` is set; its SQLite storage stores a batch one by one all the same. What is stored is the same.
"""

import os
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from dagster._core.events import ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlalchemy_compat import db_result

BATCH = 2_000  # events that are held back at most


class BatchedEventLog(SqliteEventLogStorage):
    """`event_log_storage` of dagster.yaml; its files lie where Dagster's own would, below DAGSTER_HOME."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "BatchedEventLog":
        # Without a home (`dg check defs`) there is no history to keep.
        home = os.environ.get("DAGSTER_HOME") or tempfile.mkdtemp(prefix="dagster-")
        return cls(base_dir=str(Path(home) / "history" / "runs"), inst_data=inst_data)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one run: those about assets together, any other as they come."""
        of_assets = [event for event in events if event.is_dagster_event and event.dagster_event_type in ASSET_EVENTS]
        for event in events:
            if not (event.is_dagster_event and event.dagster_event_type in ASSET_EVENTS):
                self.store_event(event)
        for run_id, found in groupby(of_assets, key=lambda event: event.run_id):
            self._store_together(run_id, list(found))

    def _store_together(self, run_id: str, events: list[EventLogEntry]) -> None:
        inserts = [self.prepare_insert_event(event) for event in events]
        with self.run_connection(run_id) as connection:
            for insert in inserts:
                connection.execute(insert)
        with self.index_transaction() as connection:  # the database across runs, as `store_event` mirrors each
            ids = []
            for insert in inserts:
                with db_result(connection, insert) as result:
                    ids.append(result.inserted_primary_key[0])
            self._store_asset_event_tags(connection, events, ids)
            # The entry of an asset holds its last event of each type.
            last = {(e.get_dagster_event().asset_key, e.dagster_event_type): (e, i) for e, i in zip(events, ids, strict=True)}
            for event, place in sorted(last.values(), key=lambda pair: pair[1]):
                self._store_asset_event(connection, event, place)
