"""What a table made by fold refuses is the fold's own share of the quarantine, swapped with its rows."""

import shutil

import pytest

from tapehouse.errors import TapehouseError
from tests.house import ROOT, House

TABLE = '''
"""One row per (fold, symbol): the symbols that a fold keeps."""

from tapehouse.tables import table


@table(rejects=True, files=("refused.txt",))
def build(b):
    from datetime import UTC, datetime

    import polars as pl

    from tapehouse.partitions import fold_origin
    from tapehouse.refusals import REFUSED, quarantined

    fold, at = b.fold.id, datetime(2005, 1, 5, tzinfo=UTC)
    named = (b.settings.home / "refused.txt").read_text().split()
    about = {"table_name": "datasets.kept", "filed_at": at, "reason": "no", "record": "{}"}
    refused = pl.DataFrame([{**about, "origin": ORIGIN + symbol, "symbol": symbol} for symbol in named], schema=REFUSED)
    share = quarantined([refused], b.existing("raw.quarantine"), b.ingested_at)
    return {"datasets.kept": pl.DataFrame({"fold": [fold], "symbol": ["AAA"]}), "raw.quarantine": share}
'''
CHECK = """
    grain: [fold, symbol]
    partition: fold
    columns:
      fold: {type: varchar, doc: "Fold."}
      symbol: {type: varchar, doc: "Ticker."}
    """


@pytest.fixture
def house(toy) -> House:
    shutil.copy(ROOT / "checks/raw/quarantine.yaml", toy.home / "checks/raw/quarantine.yaml")
    toy.write("assets/datasets/kept.py", TABLE.replace("ORIGIN + symbol", "fold_origin(fold) + symbol"))
    toy.write("checks/datasets/kept.yaml", CHECK)
    toy.write("refused.txt", "BBB CCC")
    toy.reload()
    return toy


def test_each_fold_has_its_own_share(house):
    first, second = house.project.folds
    for fold in (first, second):
        assert not house.make("datasets.kept", [fold]).failed
    refused = "select origin from raw.quarantine order by origin"
    both = [(f"fold {fold}: {symbol}",) for fold in sorted((first, second)) for symbol in ("BBB", "CCC")]
    assert house.rows(refused) == both
    house.write("refused.txt", "CCC")
    house.reload()
    house.make("datasets.kept", [first])
    assert house.rows(refused) == [row for row in both if row != (f"fold {first}: BBB",)]


def test_a_record_of_another_fold_is_refused(house):
    house.write("assets/datasets/kept.py", TABLE.replace("ORIGIN + symbol", '"fold 1999-01-01: " + symbol'))
    house.reload()
    with pytest.raises(TapehouseError, match="2 rows lie outside the range"):
        house.make("datasets.kept", [next(iter(house.project.folds))])
