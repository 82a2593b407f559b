"""Partitions and how they map: months of the span, walk-forward folds, and what is made once."""

import dagster as dg

from tapehouse.project import Asset, Project
from tapehouse.tables import Read


def partitions_def(project: Project, asset: Asset) -> dg.PartitionsDefinition | None:
    """The Dagster partitions of an asset; None for what is made once."""
    if asset.by == "months":
        span = project.settings.universe.span
        return dg.MonthlyPartitionsDefinition(
            start_date=span.start.isoformat(), end_date=span.end.isoformat(), timezone="UTC", fmt="%Y-%m-%d"
        )
    return dg.StaticPartitionsDefinition(list(project.folds)) if asset.by == "folds" else None


def partition_mapping(read: Read, downstream: Asset, upstream: Asset) -> dg.PartitionMapping | None:
    """How partitions of `downstream` depend on those of `upstream`, as Dagster shows and uses it."""
    if downstream.by == upstream.by == "months":
        return dg.TimeWindowPartitionMapping(
            start_offset=-read.lookback_months,
            end_offset=read.lookahead_months,
            allow_nonexistent_upstream_partitions=True,
        )
    if downstream.by == upstream.by or upstream.by == "once":
        return None
    # The months that a fold truly reads are in the partition's input hash (`tapehouse.lineage`), which staleness follows.
    return dg.AllPartitionMapping()
