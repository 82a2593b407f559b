"""What Dagster is told of partitions agrees with what the library reads."""

import dagster as dg
import pytest

from loaders.assets import asset_key
from loaders.definitions import definitions_of
from loaders.partitions import partition_mapping, partitions_def
from tapehouse.declarations import load_project
from tapehouse.settings import load_settings
from tests.house import ROOT


@pytest.fixture(scope="module")
def project():
    return load_project(load_settings(ROOT))


def test_all_months_share_their_start_and_their_end(project):
    months = {partitions_def(project, a) for a in project.assets.values() if a.by == "months"}
    assert len(months) == 1
    (found,) = months
    assert found.get_partition_keys() == project.months
    assert (project.months[0], project.months[-1], len(project.months)) == ("2000-03-01", "2013-03-01", 157)


def test_days_share_a_span_of_their_own(project):
    days = {partitions_def(project, a) for a in project.assets.values() if a.by == "days"}
    assert len(days) == 1 and days.pop().get_partition_keys() == project.days == ["2013-03-25", "2013-03-26"]
    quotes = project.assets["staging.book_quotes"]
    (read,) = quotes.reads
    events = project.assets["raw.book_events"]
    mapping, definition = partition_mapping(read, quotes, events), partitions_def(project, quotes)
    subset = definition.subset_with_partition_keys(["2013-03-26"])
    found = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, definition, definition)
    assert list(found.partitions_subset.get_partition_keys()) == ["2013-03-25", "2013-03-26"]
    assert {day for _, day in project.upstream(quotes, "2013-03-26")} == {"2013-03-25", "2013-03-26"}


def test_folds_are_static_and_what_is_made_once_has_none(project):
    assert partitions_def(project, project.assets["models.gbm"]).get_partition_keys() == list(project.folds)
    assert partitions_def(project, project.assets["models.tokenizer"]) is None


def test_months_map_to_the_months_that_are_read(project):
    """For every input of every table by month: Dagster's upstream partitions are the library's."""
    definition = partitions_def(project, project.assets["raw.bars"])
    compared = 0
    for asset in (a for a in project.assets.values() if a.by == "months"):
        for read in asset.reads:
            (writer,) = (project.assets[name] for name in project.writers_of(read))
            mapping = partition_mapping(read, asset, writer)
            if writer.by != "months":
                assert (mapping is None) == (writer.by == "once")
                continue
            for month in (project.months[0], project.months[40], project.months[-1]):
                subset = definition.subset_with_partition_keys([month])
                found = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, definition, definition)
                wanted = {m for name, m in project.upstream(asset, month) if name == writer.name}
                assert set(found.partitions_subset.get_partition_keys()) == wanted, (asset.name, read.table, month)
                compared += 1
    assert compared > 30


def test_a_fold_depends_on_all_months_for_dagster_and_on_its_window_in_the_books(project):
    asset = project.assets["models.gbm"]
    (points, _) = asset.reads
    assert isinstance(partition_mapping(points, asset, project.assets[points.table]), dg.AllPartitionMapping)
    fold = next(iter(project.folds))
    months = [m for name, m in project.upstream(asset, fold) if name == points.table]
    assert months[0] == project.months[0]
    assert months[-1] == project.folds[fold].train_end.date().replace(day=1).isoformat()


def test_each_cadence_has_its_job(project):
    definitions = definitions_of(project)
    for name, cadence in (("tables_by_day", "days"), ("tables_by_month", "months"), ("models_by_fold", "folds")):
        job = definitions.resolve_job_def(name)
        keys = {asset_key(o.asset) for a in project.assets.values() if a.by == cadence for o in a.outputs}
        assert set(job.asset_layer.executable_asset_keys) == keys
