"""Cards of datasets, and a fold of one as files: purged as for training, whole or not at all, with its card."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.dataset_cards import balance_columns, card_path, licences, write_card
from tapehouse.errors import TapehouseError
from tapehouse.export import export
from tests.house import House, dataset_check, toy_project

ORDERS = '''
"""One row per (symbol, interval, decision_at): an order, and by when its outcome was known."""

from tapehouse.tables import reads, table


@table(reads("features.change"))
def build(b):
    import polars as pl

    rows = b.read("features.change").with_row_index("n")
    day = pl.col("decision_at").dt.day()
    return rows.select(
        "symbol", "decision_at", interval=pl.lit("1d"), side=pl.when(day == 15).then(pl.lit("SELL")).otherwise(pl.lit("BUY")),
        filled=day > 10, reward=pl.col("price"), input_ids=pl.concat_list(day.cast(pl.Int32), pl.lit(7, pl.Int32)),
        tokenizer=pl.when(pl.col("symbol") == "AAA").then(pl.lit("d1")).otherwise(pl.lit("d2")),
        label_known_at=pl.col("decision_at").dt.offset_by("20d"), template=pl.lit("toy|v1"),
    )
'''
CHECK = dataset_check(
    """
    side: {type: varchar, doc: "BUY or SELL."}
    filled: {type: boolean, doc: "Whether | it was filled."}
    reward: {type: double, doc: "Paid, in bps."}
    input_ids: {type: "integer[]", doc: "Tokens."}
    tokenizer: {type: varchar, doc: "Digest of the tokenizer."}
    """,
    "contract:\n  - expect_column_values_to_be_in_set: {column: side, value_set: [BUY, SELL]}",
)
VIEWS = '''
"""One row per (fold, symbol, interval, decision_at): what a fold's fit says of a decision."""

from tapehouse.tables import reads, table


@table(reads("datasets.orders", window="fold"))
def build(b):
    import polars as pl

    rows = b.read("datasets.orders").select("symbol", "interval", "decision_at", "label_known_at")
    known = pl.max_horizontal("label_known_at", pl.lit(b.fold.train_end))
    return rows.with_columns(fold=pl.lit(b.fold.id), known_at=known)
'''
VIEWS_CHECK = """
    grain: [fold, symbol, interval, decision_at]
    partition: fold
    cutoff: known_at
    owner: team:toys
    columns:
      fold: {type: varchar, doc: "Fold."}
      symbol: {type: varchar, doc: "Ticker."}
      interval: {type: varchar, doc: "Bars."}
      decision_at: {type: timestamptz, doc: "When, UTC."}
      label_known_at: {type: timestamptz, doc: "When the outcome was known, UTC."}
      known_at: {type: timestamptz, doc: "When the fit was known too, UTC."}
    """
NAME = "datasets.orders"


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> House:
    house = House(toy_project(tmp_path_factory.mktemp("export") / "home"))
    house.write("assets/datasets/orders.py", ORDERS)
    house.write("checks/datasets/orders.yaml", CHECK)
    house.write("assets/datasets/views.py", VIEWS)
    house.write("checks/datasets/views.yaml", VIEWS_CHECK)
    house.reload()
    for name in ("raw.ticks", "staging.ticks", "features.change", NAME):
        assert not house.make(name).failed
    for fold in house.project.folds:
        house.make("datasets.views", [fold])
    return house


@pytest.fixture(scope="module")
def fold(toy):
    return next(iter(toy.project.folds.values()))


def test_a_card_tells_rows_spans_balances_sources_and_columns(toy):
    text = write_card(toy.project, toy.warehouse, NAME)
    assert card_path(toy.project, NAME).read_text() == text
    for line in (
        "# datasets.orders",
        "| rows | 36 |",
        "| decided | 2005-01-05 21:05 to 2005-06-25 21:05 UTC |",
        "| outcomes known | 2005-01-25 21:05 to 2005-07-15 21:05 UTC |",
        f"| snapshot | {toy.warehouse.snapshot()} |",
        "| partitions | 6 |",
        "| BUY | 24 | 66.7% |",
        "| AAA | 18 | 50.0% |",
        "| True | 24 | 66.7% |",
        "| toy\\|v1 | 36 | 100.0% |",
        "| filled | boolean | Whether \\| it was filled. |",
    ):
        assert line in text, line
    assert balance_columns(toy.project.tables[NAME]) == ["side", "symbol", "interval", "filled"]
    assert "| interval | rows | share |" not in text  # one value has no balance


def test_licences_are_those_of_the_sources_behind(toy):
    assert licences(toy.project, NAME) == []  # the toys' ticks come from no declared source
    from tapehouse.declarations import load_project
    from tapehouse.settings import load_settings
    from tests.house import ROOT

    found = licences(load_project(load_settings(ROOT)), "datasets.preference_pairs")
    assert ("raw.bars", "arch-sp500", "NCSA (package)") in found
    assert all(licence != "not declared" for _, _, licence in found)


def test_what_is_exported_is_purged_as_for_training(toy, fold, tmp_path):
    done = export(toy.project, toy.warehouse, NAME, fold.id, tmp_path / "out", "jsonl")
    train, test = (pl.read_ndjson(tmp_path / "out" / f"{split}.jsonl") for split in ("train", "test"))
    whole = toy.frame(NAME)
    inside = whole.filter(pl.col("decision_at") < fold.train_end)
    kept = inside.filter(pl.col("label_known_at") < fold.train_end)
    assert 0 < kept.height < inside.height
    assert train["reward"].to_list() == kept["reward"].to_list()
    tested = whole.filter(pl.col("decision_at").is_between(fold.test_start, fold.test_end, closed="left"))
    assert test["decision_at"].to_list() == tested["decision_at"].dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_list()
    assert done.rows == {"train": kept.height, "test": tested.height}
    assert f"{inside.height - kept.height} more purged because label_known_at" in done.notes["train"]
    text = (tmp_path / "out" / "README.md").read_text()
    assert f"| rows | {kept.height + tested.height} |" in text and f"| fold | {fold.id} |" in text
    assert done.notes["train"] in text and "license: other" in text


def test_a_table_by_fold_gives_the_rows_of_its_fold_purged_by_their_outcomes(toy, fold, tmp_path):
    """Its own cutoff is the end of training or later, when the fit was known: purged by that, nothing would be left."""
    done = export(toy.project, toy.warehouse, "datasets.views", fold.id, tmp_path / "out", "jsonl")
    orders = export(toy.project, toy.warehouse, NAME, fold.id, tmp_path / "orders", "jsonl")
    assert done.rows == orders.rows
    assert set(pl.read_ndjson(tmp_path / "out" / "train.jsonl")["fold"]) == {fold.id}


def test_a_hugging_face_folder_loads_and_repeats(toy, fold, tmp_path):
    from datasets import load_from_disk

    for name in ("one", "two"):
        export(toy.project, toy.warehouse, NAME, fold.id, tmp_path / name)
    loaded = load_from_disk(str(tmp_path / "one"))
    assert set(loaded) == {"train", "test"}
    row, stored = loaded["test"][0], toy.frame(NAME).filter(pl.col("decision_at") >= fold.test_start).row(0, named=True)
    assert row == stored
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert Path("README.md") in files and Path("train/data-00000-of-00001.arrow") in files
    for file in files:
        same = (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
        assert same or file.name == "README.md", file  # which tells its own folder's name


def test_balance_and_packing_are_for_the_fold_that_is_exported(toy, fold, tmp_path):
    done = export(toy.project, toy.warehouse, NAME, fold.id, tmp_path / "even", "jsonl", ("train",), ("side",))
    assert set(pl.read_ndjson(tmp_path / "even" / "train.jsonl")["side"].value_counts()["count"]) == {done.rows["train"] // 2}
    assert "of each combination of side" in done.notes["balanced"]
    packed = export(toy.project, toy.warehouse, NAME, fold.id, tmp_path / "packed", "jsonl", packed=5, tokenizer="d1")
    rows = [json.loads(line) for line in (tmp_path / "packed" / "train.jsonl").read_text().splitlines()]
    assert rows[0]["position_ids"] == [0, 1, 0, 1] and rows[0]["block_lengths"] == [2, 2]
    assert packed.rows["train"] == len(rows) and "rows of at most 5 tokens" in packed.notes["packed"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "datasets.order"}, "no dataset; there are datasets.orders, datasets.views"),
        ({"fold": "2005"}, "--fold 2005: no such fold; there are 2005-"),
        ({"balance": ("regime",)}, "--balance regime: .*no column 'regime'"),
        ({"balance": ("side",), "splits": ("test",)}, "it is for training rows"),
        ({"packed": 5}, r"it has tokens of \['d1', 'd2'\]; choose one with --tokenizer"),
        ({"name": "datasets.views", "tokenizer": "d1"}, "--tokenizer d1: datasets.views holds no tokens"),
        ({"tokenizer": "d3"}, r"no train row in fold .* or a tokenizer of \['d1', 'd2'\]"),
        ({"packed": 1, "tokenizer": "d2"}, "--packed 1: .*nor is|no example is cut"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(toy, fold, tmp_path, change, said):
    given = {"name": NAME, "fold": fold.id, "to": tmp_path / "out", "form": "jsonl"} | change
    with pytest.raises(TapehouseError, match=said):
        export(toy.project, toy.warehouse, **given)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_kept(toy, fold, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TapehouseError, match="it holds something already; name a new folder"):
        export(toy.project, toy.warehouse, NAME, fold.id, tmp_path, "jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_command_says_what_it_wrote_and_where(toy, fold, tmp_path):
    program, to = Path(sys.executable).parent / "tapehouse", tmp_path / "out"
    arguments = [
        "export",
        NAME,
        "--fold",
        fold.id,
        "--to",
        str(to),
        "--split",
        "train",
        "--format",
        "jsonl",
        "--balance",
        "side",
    ]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("TAPEHOUSE_")}
    variables |= {"TAPEHOUSE_WAREHOUSE": str(toy.settings.root), "TAPEHOUSE_THREADS": "1"}
    done = subprocess.run([program, *arguments], cwd=toy.home, env=variables, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    rows = pl.read_ndjson(to / "train.jsonl").height
    assert f"train  {rows} rows" in done.stdout and f"Folder    {to}" in done.stdout and "balanced: " in done.stdout


def test_a_stale_dataset_is_not_exported(toy, fold, tmp_path):
    toy.write("assets/datasets/orders.py", ORDERS.replace("> 10", "> 11"))
    toy.reload()
    with pytest.raises(TapehouseError, match=r"changed since or were never made \(code\); `tapehouse run --select"):
        export(toy.project, toy.warehouse, NAME, fold.id, tmp_path / "out")
    toy.write("assets/datasets/orders.py", ORDERS)
    toy.reload()
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=8, deadline=None)
@given(days=st.integers(0, 90))
def test_no_exported_training_row_was_known_after_the_window(toy, fold, tmp_path_factory, days):
    """Whatever the lag of the labels: a row is exported just where its outcome was known in the training window."""
    from dataclasses import replace

    to = tmp_path_factory.mktemp("lag") / "out"
    early = replace(fold, train_end=fold.train_start + timedelta(days=60 + days))
    toy.project.folds["early"] = replace(early, id="early")
    try:
        export(toy.project, toy.warehouse, NAME, "early", to, "jsonl", ("train",))
    finally:
        del toy.project.folds["early"]
    known = pl.read_ndjson(to / "train.jsonl")["label_known_at"]
    assert known.str.to_datetime("%Y-%m-%dT%H:%M:%S%.6fZ", time_zone="UTC").max() < early.train_end
