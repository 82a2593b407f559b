"""Checks in Python: the leakage proof on a sample of cuts."""

import dagster as dg

from tapehouse.project import Project


def build_checks(project: Project) -> list[dg.AssetChecksDefinition]:
    return []
