"""Partitions and how they map: months of the span, days of books and trades, walk-forward folds, and what is made once."""

import dagster as dg

from tapehouse.partitions import DATED, FOLDED
from tapehouse.project import Asset, Project
from tapehouse.tables import Read


def partitions_def(project: Project, asset: Asset) -> dg.PartitionsDefinition | None:
    """The Dagster partitions of an asset; None for what is made once."""
    if asset.by == "months":
        span = project.settings.universe.span
        return dg.MonthlyPartitionsDefinition(
            start_date=span.start.isoformat(), end_date=span.end.isoformat(), timezone="UTC", fmt="%Y-%m-%d"
        )
    if asset.by == "days":
        days = project.settings.universe.days
        return dg.DailyPartitionsDefinition(start_date=days.start.isoformat(), end_date=days.end.isoformat(), timezone="UTC")
    return dg.StaticPartitionsDefinition(project.folds_of(asset.by)) if asset.by in FOLDED else None


def partition_mapping(read: Read, downstream: Asset, upstream: Asset) -> dg.PartitionMapping | None:
    """How partitions of `downstream` depend on those of `upstream`, as Dagster shows and uses it."""
    if downstream.by in DATED and upstream.by in DATED:
        # Between days and months whole partitions are named; the range that is read is in the input hash.
        back, ahead = (
            (read.lookback_months, read.lookahead_months)
            if upstream.by == "months"
            else (read.lookback_days, read.lookahead_days)
        )
        return dg.TimeWindowPartitionMapping(
            start_offset=-back, end_offset=ahead, allow_nonexistent_upstream_partitions=True
        )
    if downstream.by == upstream.by or upstream.by == "once":
        return None
    if downstream.by in FOLDED and upstream.by in FOLDED:
        return dg.IdentityPartitionMapping()  # of another list of folds, the one of the same name
    # The months that a fold truly reads are in the partition's input hash (`tapehouse.lineage`), which staleness follows.
    return dg.AllPartitionMapping()
