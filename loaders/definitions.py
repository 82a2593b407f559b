"""The four declarative folders as one set of Dagster definitions."""

import warnings
from pathlib import Path

import dagster as dg

from loaders.alerts import build_sensors
from loaders.assets import build_assets
from loaders.checks import build_checks
from loaders.jobs import build_jobs
from resources.alerts import AlertsResource
from resources.warehouse import WarehouseResource
from tapehouse.declarations import load_project
from tapehouse.project import Project
from tapehouse.settings import load_settings

LOADED: dict[Path, Project] = {}  # by home: a project that whoever loads the definitions next has just loaded himself


def build_definitions(home: Path) -> dg.Definitions:
    """Everything that the project at `home` declares."""
    # Partition mappings that allow missing upstream months are marked beta; said once for each dependency, it drowns the log.
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    settings, loaded = load_settings(home), LOADED.pop(home, None)
    return definitions_of(loaded if loaded is not None and loaded.settings == settings else load_project(settings))


def definitions_of(project: Project) -> dg.Definitions:
    """Dagster definitions of a loaded project."""
    settings = project.settings
    return dg.Definitions(
        assets=build_assets(project),
        asset_checks=build_checks(project),
        jobs=build_jobs(project),
        sensors=build_sensors(),
        resources={
            "warehouse": WarehouseResource(database=str(settings.root), home=str(settings.home)),
            "alerts": AlertsResource(urls=settings.alert_urls),
        },
        # One process a run: a step in a process of its own costs 0.8 s, and training starts its own process anyway.
        executor=dg.in_process_executor,
    )
