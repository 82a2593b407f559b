"""The raw and staging tables on the real engine, fed from a file of one's own that is corrected between two runs."""

import gzip
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from tapehouse.declarations import load_project
from tapehouse.engine import materialise
from tapehouse.settings import load_settings
from tapehouse.sources.files import locate
from tapehouse.warehouse import LAKE, Warehouse

ROOT = Path(__file__).parents[3]
TABLES = ("raw.instruments", "raw.bars", "raw.corporate_actions", "staging.bars")
CLOCK = datetime(2026, 1, 1, tzinfo=UTC)


class House:
    """A project folder with the raw and staging tables alone, over February and March 2005, and its warehouse."""

    def __init__(self, home: Path):
        for folder in ("assets/raw", "sql/staging", "checks/raw", "checks/staging"):
            shutil.copytree(ROOT / folder, home / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "workspace.yaml", home)
        content = yaml.safe_load((ROOT / "sources.yaml").read_text())
        packed = locate(content["sources"]["bokeh-sampledata"]["file"], ROOT)
        content["span"] = {"start": date(2005, 2, 1), "end": date(2005, 4, 1)}
        content["sources"]["bokeh-sampledata"]["file"] = "stocks.csv"
        (home / "sources.yaml").write_text(yaml.safe_dump(content))
        (home / "models_registry").mkdir()  # the project wants folds that fit its span; nothing here uses them
        (home / "models_registry" / "folds.yaml").write_text("{min_train_sessions: 20, test_sessions: 10, count: 1}\n")
        self.stocks = home / "stocks.csv"
        self.stocks.write_bytes(gzip.decompress(packed.read_bytes()))
        settings = load_settings(home, warehouse=home / "warehouse")
        self.project, self.warehouse = load_project(settings), Warehouse(settings)

    def make(self, days: int, tables=TABLES, partitions=None) -> dict[str, dict[str, str]]:
        """Make the tables with the clock at so many days; the content hash of each partition of each output."""
        made = {}
        for name in tables:
            clock = CLOCK + timedelta(days=days)
            outcome = materialise(self.project, self.warehouse, name, partitions, ingested_at=clock)
            assert not outcome.failed
            made |= {o.output.asset: {part.partition: part.out_hash for part in o.made} for o in outcome.outputs}
        return made

    def rows(self, query: str) -> list[tuple]:
        with self.warehouse.reading() as (cursor, _):
            cursor.execute(f"use {LAKE}")
            return cursor.execute(query).fetchall()

    def drop_stocks_but(self, *starts: str) -> None:
        header, *lines = self.stocks.read_text().splitlines()
        self.stocks.write_text("\n".join([header, *(x for x in lines if x.startswith(starts))]) + "\n")

    def edit(self, old: str, new: str) -> None:
        text = self.stocks.read_text()
        assert text.count(old) == 1
        self.stocks.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture(scope="module")
def first(house):
    return house.make(0)


def test_a_life_of_the_raw_tables(house, first):
    assert house.rows("select distinct ingested_at from raw.bars") == [(CLOCK,)]

    # A close is corrected (the adjusted one with it), a high is spoiled, a line comes twice.
    line = "IBM,2005-03-08,91.7,92.56,91.7,92.13,5087800,69.957798358617"
    house.edit(line, line.replace("92.13", "92.10").replace("69.957798358617", str(69.957798358617 / 92.13 * 92.10)))
    spoiled = next(text for text in house.stocks.read_text().splitlines() if text.startswith("MSFT,2005-02-03,"))
    cells = spoiled.split(",")
    house.edit(spoiled, ",".join([*cells[:3], "1", *cells[4:]]) + "\n" + house.stocks.read_text().splitlines()[9])
    second = house.make(2)
    changed = {name: sorted(p for p in second[name] if second[name][p] != first[name][p]) for name in second}
    assert changed == {
        "raw.instruments": [],
        "raw.bars": ["2005-03-01"],
        "raw.corporate_actions": [],
        "raw.quarantine.bars": ["2005-02-01"],
        "raw.quarantine.corporate_actions": [],
        "staging.bars": ["2005-03-01"],
    }
    versions = "select version, close, known_at, superseded_at from staging.bars"
    close, late = datetime(2005, 3, 8, 21, tzinfo=UTC), CLOCK + timedelta(days=2)
    assert house.rows(f"{versions} where symbol = 'IBM' and session = '2005-03-08' order by version") == [
        (1, 92.13, close, late),
        (2, 92.10, late, None),
    ]
    latest = "select close from staging.bars_as_known(now()) where symbol = 'IBM' and session = '2005-03-08'"
    assert house.rows(latest) == [(92.10,)]
    # The bar that can no longer be read was good when it came: it stays, and the spoiled record is in quarantine.
    assert house.rows("select count(*) from raw.bars where symbol = 'MSFT' and session = '2005-02-03'") == [(1,)]
    assert house.rows("select reason, ingested_at from raw.quarantine") == [
        ("high below low; open outside [low, high]; close outside [low, high]", late)
    ]
    assert house.make(3) == second


def test_months_in_any_order_are_the_range(first, tmp_path_factory):
    other = House(tmp_path_factory.mktemp("other"))
    other.make(0, tables=["raw.instruments"])
    for name in TABLES[1:]:
        # Bars first, because the others read them.
        made = {}
        for month in ("2005-03-01", "2005-02-01"):
            for output, hashes in other.make(0, tables=[name], partitions=[month]).items():
                made[output] = made.get(output, {}) | hashes
        assert made == {output: first[output] for output in made}


@pytest.mark.usefixtures("first")
def test_actions_of_the_span(house):
    found = pl.DataFrame(
        house.rows("select symbol, kind, ex_date, ratio, amount from raw.corporate_actions order by all"), orient="row"
    ).rows()
    assert found == [
        ("AAPL", "split", date(2005, 2, 28), 2.0, 0.0),
        ("IBM", "dividend", date(2005, 2, 8), 1.0, 0.18),
        ("MSFT", "dividend", date(2005, 2, 15), 1.0, 0.08),
    ]


def test_every_record_received_is_in_a_table_or_counted(tmp_path):
    house = House(tmp_path / "house")
    house.drop_stocks_but("IBM,2005-02-", "IBM,2005-03-")
    first, second, third, fourth, fifth = house.stocks.read_text().splitlines()[1:6]
    house.edit(first, first.replace("2005-", "2055-"))  # no session can lie there: it has no usable date
    house.edit(second, second.replace("2005-", "2004-"))  # a good bar, of a session before the span
    high = third.split(",")[3]
    house.edit(third, third.replace("2005-", "2003-").replace(f",{high},", ",0.5,", 1))  # bad, and before the span
    house.edit(fourth, fourth.replace("IBM", "IBN"))
    house.edit(fifth, f"{fifth}\n{fifth}")
    noted = materialise(house.project, house.warehouse, "raw.bars", ingested_at=CLOCK).notes
    stocks = "source = 'bokeh-sampledata'"
    kept = house.rows(f"select count(*) from raw.bars where {stocks}")[0][0]
    rejected = house.rows("select origin, filed_at from raw.quarantine where table_name = 'raw.bars' order by origin")
    start = datetime(2005, 2, 1, tzinfo=UTC)
    assert [origin for origin, _ in rejected] == ["stocks.csv:2", "stocks.csv:4", "stocks.csv:5"]
    assert [filed_at for _, filed_at in rejected[:2]] == [start, start] and rejected[2][1] > start
    lines = len(house.stocks.read_text().splitlines()) - 1
    assert lines == kept + 1 + len(rejected) + 1
    # And over all files, from the tables.
    ((bars,),) = house.rows("select count(*) from raw.bars")
    ((quarantined,),) = house.rows("select count(*) from raw.quarantine where table_name = 'raw.bars'")
    assert (noted["accepted"], noted["quarantined"], noted["duplicates"]) == (bars, quarantined, 1)
    assert noted["received"] == bars + noted["outside_span"] + quarantined + noted["duplicates"]
