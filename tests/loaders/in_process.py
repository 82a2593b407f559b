"""Running definitions of a test's own project in this process."""

from dataclasses import dataclass

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG, PARTITION_NAME_TAG

from loaders.definitions import definitions_of
from tests.house import House


@dataclass(frozen=True)
class Ran:
    """A run, and the instance that holds all its events: those that an asset logs are not among the run's own."""

    result: dg.ExecuteInProcessResult
    instance: dg.DagsterInstance

    @property
    def success(self) -> bool:
        return self.result.success

    @property
    def run_id(self) -> str:
        return self.result.run_id

    def events(self, kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
        """Every event of a kind, in order."""
        entries = self.instance.all_logs(self.run_id)
        return [e.dagster_event for e in entries if e.is_dagster_event and e.dagster_event.event_type == kind]

    @property
    def materialised(self) -> set[tuple[str, str | None]]:
        """(asset, partition) of every materialisation."""
        return {(e.asset_key.to_user_string(), e.partition) for e in self.events(dg.DagsterEventType.ASSET_MATERIALIZATION)}

    @property
    def evaluations(self) -> list[dg.AssetCheckEvaluation]:
        """Every evaluation of a check."""
        return [e.asset_check_evaluation_data for e in self.events(dg.DagsterEventType.ASSET_CHECK_EVALUATION)]

    def metadata(self, name: str, partition: str | None = None) -> dict:
        """Metadata of the one materialisation of an asset's partition."""
        (event,) = [
            e
            for e in self.events(dg.DagsterEventType.ASSET_MATERIALIZATION)
            if e.asset_key == dg.AssetKey(name.split(".")) and e.partition == partition
        ]
        return {key: found.value for key, found in event.step_materialization_data.materialization.metadata.items()}

    @property
    def failure(self) -> str:
        """What the first failed step said, causes included."""
        event = self.events(dg.DagsterEventType.STEP_FAILURE)[0]
        about = event.event_specific_data
        words, error = [about.user_failure_data.description if about.user_failure_data else None], about.error
        while error is not None:
            words.append(error.message)
            error = error.cause
        return "\n".join(filter(None, words))


def definitions(house: House) -> dg.Definitions:
    """Definitions of the house's project as its files are now."""
    return definitions_of(house.reload())


def run(house: House, *names: str, first: str | None = None, last: str | None = None) -> Ran:
    """Materialise assets (with their checks) for one partition or a range, as a backfill from the UI does."""
    defs = definitions(house)
    tags = {}
    if first and last:
        tags = {ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last}
    elif first:
        tags = {PARTITION_NAME_TAG: first}
    instance = dg.DagsterInstance.ephemeral()
    result = dg.materialize(
        [*defs.assets, *defs.asset_checks],
        instance=instance,
        selection=dg.AssetSelection.assets(*(dg.AssetKey(name.split(".")) for name in names)),
        resources=defs.resources,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        tags=tags,
        raise_on_error=False,
    )
    return Ran(result, instance)
