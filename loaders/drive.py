"""Driving Dagster from the shell: the same definitions, the same instance, the same runs that the UI shows."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG, PARTITION_NAME_TAG

from loaders.assets import asset_key
from loaders.crew import Crew
from loaders.definitions import LOADED
from resources.event_log import BATCH
from resources.warehouse import open_warehouse
from tapehouse.declarations import load_project
from tapehouse.errors import TapehouseError
from tapehouse.files import replace_file
from tapehouse.lineage import Stale, State, newest_state
from tapehouse.partitions import FOLDED
from tapehouse.planning import Wave, next_wave, plan, shared_out, trains_next
from tapehouse.project import Project
from tapehouse.settings import Settings

log = logging.getLogger("tapehouse")
RUN_CONFIG = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}  # events go to the instance, not to the terminal


def instance_environment(settings: Settings) -> dict[str, str]:
    """Variables that make every Dagster process of the project use the instance inside the warehouse folder."""
    folder = settings.root / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / "dagster.yaml", (settings.home / "dagster.yaml").read_bytes())  # another process may be reading it
    return {
        "DAGSTER_HOME": str(folder),
        "DAGSTER_EVENT_BATCH_SIZE": str(BATCH),
        "TAPEHOUSE_WAREHOUSE": str(settings.root),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


class Driver:
    """Executes waves of a project on the project's Dagster instance."""

    def __init__(self, settings: Settings):
        warnings.filterwarnings("ignore", category=dg.BetaWarning)
        warnings.filterwarnings("ignore", category=dg.PreviewWarning)
        os.environ.update(instance_environment(settings))
        self.settings = settings
        self.instance = dg.DagsterInstance.get()
        self.project: Project = load_project(settings)
        LOADED[settings.home] = self.project
        self.lake = open_warehouse(settings.home, settings.root)
        self.lake.initialise()
        self.repository = ReconstructableRepository.for_file(
            str(settings.home / "definitions.py"), "defs", working_directory=str(settings.home)
        )

    def state(self) -> State:
        """The books as they are now."""
        with self.lake.reading() as (cursor, snapshot):
            return newest_state(self.lake, cursor, snapshot)

    def refresh(
        self,
        names: set[str],
        within: set[str] | None = None,
        on_wave: Callable[[Wave, int], None] | None = None,
        optional: bool = False,
    ) -> int:
        """Make whatever is stale among the assets `names`, wave by wave, until nothing is; see `tapehouse.planning.plan`.

        Returns:
            The number of partitions that were made.

        Raises:
            TapehouseError: a run failed (its causes are named), or a partition is stale again right after it was made.
        """
        done: set[tuple[str, str]] = set()
        with Crew(self.project, self.settings.home, self.settings.jobs) as crew:
            while True:
                while crew.look():
                    pass  # each run that has ended meanwhile
                todo = plan(self.project, self.state(), names, within, optional)
                wave = next_wave(self.project, todo, crew.busy, crew.room)
                if wave is None:
                    if not crew.busy:
                        return len(done)
                    crew.wait()
                    continue
                parts = self._parts(crew, todo, wave)
                keys = {(name, p) for part, _ in parts for name in part.assets for p in part.partitions(self.project)}
                if again := keys & done:
                    raise TapehouseError(f"{sorted(again)[0]} is stale right after it was made: does it read what it writes?")
                for part, apart in parts:
                    if on_wave:
                        on_wave(part, len({s.asset for s in todo}))
                    crew.start(part) if apart else self.execute(part)
                done |= keys

    def _parts(self, crew: Crew, todo: list[Stale], wave: Wave) -> list[tuple[Wave, bool]]:
        """What of a wave is made now: runs, each with whether a process beside the shell makes it, those first."""
        if self.settings.jobs == 1:
            return [(wave, False)]
        crew.compile_ahead()
        if trains_next(self.project, todo, wave):
            crew.prepare()
        if any(self.project.assets[name].trains for name in wave.assets):  # a fold each, so that others are made beside it
            return [(replace(wave, last=wave.first) if wave.by in FOLDED else wave, True)]
        if any(self.project.assets[item.asset].trains for item in todo):
            # All folds of what is cheap take minutes, in which the shell would not see that training is done and go on.
            return [(wave, wave.by == "folds" and crew.room)]
        first, beside = shared_out(self.project, wave) if crew.room else (wave, None)
        return [(beside, True), (first, False)] if beside else [(first, False)]

    def execute(self, wave: Wave) -> None:
        """One Dagster run.

        Raises:
            TapehouseError: the run failed; names the steps and their causes.
        """
        repository = self.repository.get_definition()
        keys = [asset_key(o.asset) for name in wave.assets for o in self.project.assets[name].outputs]
        job = repository.get_implicit_job_def_for_assets(keys)
        assert job is not None, f"assets of one wave share their partitions: {wave}"
        tags = {"tapehouse/from": "shell"}
        if wave.by in FOLDED and wave.first == wave.last:
            tags[PARTITION_NAME_TAG] = wave.first
        elif wave.by != "once":
            tags |= {ASSET_PARTITION_RANGE_START_TAG: wave.first, ASSET_PARTITION_RANGE_END_TAG: wave.last}
        started = time.monotonic()
        result = dg.execute_job(
            self.repository.get_reconstructable_job(job.name),
            instance=self.instance,
            asset_selection=keys,
            tags=tags,
            run_config=RUN_CONFIG,
        )
        if not result.success:
            causes = []
            for event in result.get_failed_step_events() if hasattr(result, "get_failed_step_events") else _failures(result):
                causes.append(f"  {event.step_key}: {_root(event.event_specific_data.error)}")
            raise TapehouseError(f"run {result.run_id} failed:\n" + "\n".join(causes))
        log.debug("run %s took %.1f s", result.run_id, time.monotonic() - started)


def _failures(result) -> list:
    return [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]


def _root(error) -> str:
    while error.cause is not None:
        error = error.cause
    return error.message.strip()


def serve(settings: Settings, port: int, host: str = "127.0.0.1") -> None:
    """Replace this process by Dagster's webserver and daemon on loopback."""
    os.environ.update(instance_environment(settings))
    os.chdir(settings.home)
    dagster = Path(sys.executable).parent / "dagster"
    os.execv(str(dagster), [str(dagster), "dev", "-w", "workspace.yaml", "-h", host, "-p", str(port)])
