"""Jobs: one a cadence, so that the UI offers each part of the chain by name."""

import dagster as dg

from loaders.assets import asset_key
from tapehouse.project import Project

NAMES = {"days": "tables_by_day", "months": "tables_by_month", "folds": "models_by_fold", "adapter_folds": "adapters_by_fold"}


def build_jobs(project: Project) -> list:
    """`tables_by_day`, `tables_by_month`, `models_by_fold` and `adapters_by_fold`: every asset of that cadence."""
    jobs = []
    for cadence, name in NAMES.items():
        keys = [asset_key(o.asset) for a in project.assets.values() if a.by == cadence for o in a.outputs]
        if keys:
            jobs.append(dg.define_asset_job(name, selection=dg.AssetSelection.assets(*keys)))
    return jobs
