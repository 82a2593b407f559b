"""A dataset through Dagster: its card with the materialisation, the scan in its contract, a leak that fails the run."""

import pytest

from tests.house import House, dataset_check, toy_project
from tests.loaders.in_process import run

POINT = """
    -- One row per (symbol, interval, decision_at): what an order's prompt shows, all of it made up of the price.
    select symbol, '1d' as interval, decision_at, price as close, price / 20 as atr_14, 50.0 as rsi_14, 0.011 as ret_1d,
           -0.022 as ret_5d, 0.033 as ret_20d, 0.2 as realised_vol_20d, 0.01 as vwap_distance_20d,
           0.02 as relative_strength_20d, 0.03 as market_ret_20d, 0.15 as market_vol_20d
    from features.change
    where decision_at >= $start and decision_at < $end
    """
ORDERS = '''
"""One row per (symbol, interval, decision_at): a prompt."""

from tapehouse.tables import reads, table


@table(reads("features.point"))
def build(b):
    import polars as pl

    from tapehouse.prompts.templates import render, selection

    points = b.read("features.point")
    prompt = render(points.with_columns(objective=pl.lit("a fast fill")), "order_v1")
    rows = points.select("symbol", "interval", "decision_at", prompt=prompt, template=pl.lit(selection("order_v1").version))
    march = pl.col("decision_at").dt.month() == 3
    return rows.with_columns(pl.when(march).then(pl.col("prompt") + "LEAK").otherwise("prompt").alias("prompt"))
'''
CHECK = dataset_check('prompt: {type: varchar, doc: "What is shown."}', cutoff=False)
FEB, MAR = "2005-02-01", "2005-03-01"


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> House:
    house = House(toy_project(tmp_path_factory.mktemp("datasets") / "home"))
    house.write("sql/features/point.sql", POINT)
    house.write("assets/datasets/orders.py", ORDERS.replace("LEAK", ""))
    house.write("checks/datasets/orders.yaml", CHECK)
    house.reload()
    for name in ("raw.ticks", "staging.ticks", "features.change", "features.point"):
        house.make(name)
    return house


def test_a_dataset_comes_with_its_card_and_a_leak_fails_the_run(toy):
    good = run(toy, "datasets.orders", first=FEB)
    assert good.success
    card = good.metadata("datasets.orders", FEB)["card"]
    file = toy.settings.reports_dir / "cards" / "datasets.orders.md"
    assert "# datasets.orders" in card and "| rows | 6 |" in card and file.read_text() == card
    (contract,) = good.evaluations
    assert contract.passed and "prompt_shows_only_numbers_of_its_own_decision_point" in str(
        contract.metadata["expectations"].value
    )

    toy.write("assets/datasets/orders.py", ORDERS.replace("LEAK", "touched the upper barrier 12.34"))
    bad = run(toy, "datasets.orders", first=FEB, last=MAR)
    assert not bad.success
    assert "12.34 (no value of its decision point)" in bad.failure and "tells a barrier" in bad.failure
    assert toy.rows("select count(*) from datasets.orders") == [(6,)]  # February's alone
    (failed,) = [e for e in bad.evaluations if not e.passed]
    assert failed.blocking and failed.metadata["partition"].value == MAR
    assert "| rows | 6 |" in file.read_text()
