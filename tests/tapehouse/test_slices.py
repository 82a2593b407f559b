"""A range in slices: the same rows and books as in one, each slice in a commit of its own."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.lineage import Made
from tapehouse.slices import added, slices
from tests.house import TOY_MONTHS, House

TABLE = '''
"""One row per (symbol, event_at): the price in cents."""

from tapehouse.tables import reads, table


@table(reads("staging.ticks"){most})
def build(b):
    import polars as pl

    rows = b.read("staging.ticks")
    b.note(rows=rows.height, first=str(b.start.date()))
    return rows.select("symbol", "event_at", cents=(pl.col("price") * 100).round().cast(pl.Int64))
'''
CHECK = """
    time: event_at
    columns:
      symbol: {type: varchar, doc: "Ticker."}
      event_at: {type: timestamptz, doc: "When, UTC."}
      cents: {type: bigint, doc: "Price in cents."}
    contract:
      - expect_column_values_to_be_between: {column: cents, min_value: 1, max_value: 2250}
    """


@pytest.fixture
def house(toy) -> House:
    for name, most in (("whole", ""), ("sliced", ", most_rows=12")):  # a month has six rows
        toy.write(f"assets/features/{name}_cents.py", TABLE.replace("{most}", most))
        toy.write(f"checks/features/{name}_cents.yaml", CHECK if name == "sliced" else CHECK.replace("2250", "9999"))
    toy.reload()
    for name in ("raw.ticks", "staging.ticks"):
        toy.make(name)
    return toy


def test_slices_make_the_same_rows_in_more_commits(house):
    whole = house.make("features.whole_cents")
    house.write("checks/features/sliced_cents.yaml", CHECK.replace("2250", "9999"))
    house.reload()
    before = house.rows("select max(snapshot_id) from lake.snapshots()")[0][0]
    sliced = house.make("features.sliced_cents")
    assert house.rows("select max(snapshot_id) from lake.snapshots()")[0][0] == before + 4  # the table is defined, then three
    assert house.frame("features.sliced_cents").equals(house.frame("features.whole_cents"))
    assert [(m.partition, m.rows, m.out_hash) for m in sliced.outputs[0].made] == [
        (m.partition, m.rows, m.out_hash) for m in whole.outputs[0].made
    ]
    assert (sliced.notes["rows"], sliced.notes["first"]) == (36, "2005-05-01") and whole.notes["rows"] == 36
    assert all(result.success for result in sliced.outputs[0].contract)
    assert len(sliced.outputs[0].contract) == len(whole.outputs[0].contract)


def test_a_slice_that_fails_leaves_the_others(house):
    outcome = house.make("features.sliced_cents")  # prices above 22.50 come in April, May and June
    assert set(outcome.failed["features.sliced_cents"]) == set(TOY_MONTHS[3:])
    assert not all(result.success for result in outcome.outputs[0].contract)
    assert {partition for asset, partition in house.state() if asset == "features.sliced_cents"} == set(TOY_MONTHS[:3])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=6, max_size=6))
def test_every_partition_is_in_one_slice_and_no_slice_could_take_more(toy_project_loaded, counts):
    project, asset = toy_project_loaded
    state = {("staging.ticks", month): Made(rows, "", "", "", 0) for month, rows in zip(TOY_MONTHS, counts, strict=True)}
    found = slices(project, asset, list(TOY_MONTHS), state)
    assert [month for part in found for month in part] == list(TOY_MONTHS)
    rows = dict(zip(TOY_MONTHS, counts, strict=True))
    for part in found:
        assert len(part) == 1 or sum(rows[month] for month in part) <= asset.most_rows
    for part, following in pairwise(found):
        assert sum(rows[month] for month in part) + rows[following[0]] > asset.most_rows


@pytest.fixture(scope="module")
def toy_project_loaded(tmp_path_factory):
    from tests.house import toy_project

    toy = House(toy_project(tmp_path_factory.mktemp("slices") / "toy"))
    toy.write("assets/features/sliced_cents.py", TABLE.replace("{most}", ", most_rows=12"))
    toy.write("checks/features/sliced_cents.yaml", CHECK)
    project = toy.reload()
    return project, project.assets["features.sliced_cents"]


def test_counts_add_up():
    assert added([{"a": 1, "b": "x"}, {"a": 2, "b": "y", "c": 3}]) == {"a": 3, "b": "y", "c": 3}
