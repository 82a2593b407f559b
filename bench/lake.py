"""A project and its warehouse for the benchmarks that make tables, without Dagster."""

from tapehouse.engine import materialise
from tapehouse.lineage import newest_state
from tapehouse.planning import next_wave, plan
from tapehouse.project import Project
from tapehouse.warehouse import Warehouse


class Lake:
    """What a benchmark's house does with its `project` and `lake`, which it sets itself."""

    project: Project
    lake: Warehouse

    def make(self, name: str, partitions: list[str] | None = None) -> None:
        """Make one asset's partitions (default: all in one range)."""
        assert not materialise(self.project, self.lake, name, partitions).failed, name

    def refresh(self) -> set[tuple[str, str]]:
        """Make what is stale, upstream first, as `tapehouse refresh` does; the partitions that were made."""
        made: set[tuple[str, str]] = set()
        while (wave := next_wave(self.project, plan(self.project, self.state()))) is not None:
            partitions = wave.partitions(self.project)
            for name in wave.assets:
                self.make(name, partitions)
                made |= {(name, partition) for partition in partitions}
        return made

    def state(self):
        """The books: every partition with the hash of its rows."""
        with self.lake.reading() as (cursor, snapshot):
            return newest_state(self.lake, cursor, snapshot)

    def hashes(self) -> dict[tuple[str, str], str]:
        """(asset, partition) to the hash of its rows."""
        return {key: made.out_hash for key, made in self.state().items()}
