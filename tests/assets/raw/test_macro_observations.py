"""Real vintages of 29 series through the engine, first those of the summer of 2016, then all: the past stays as it was."""

import gzip
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from tests.house import TOY_FOLDS, House, copy_project

VINTAGES = Path("/work/shared/data/macro/nowcast_vintages.csv.gz")
QUARTERLY = ("GDPC1", "A261RX1Q020SBEA", "ULCNFB")
TABLES = ("raw.macro_observations", "staging.macro", "staging.macro_latest")
SUMMER = date(2016, 8, 31)
THEN = "timestamptz '2016-09-01 04:00:00+00'"  # the end of that day in New York


def publish(house: House, until: date) -> None:
    """The vintages up to a date, as the file would have been then."""
    lines = gzip.decompress(VINTAGES.read_bytes()).decode().splitlines()
    kept = [lines[0], *(line for line in lines[1:] if line.split(",")[2] <= until.isoformat())]
    (house.home / "vintages.csv").write_text("\n".join(kept) + "\n")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> House:
    if not VINTAGES.is_file():
        pytest.skip(f"no file {VINTAGES}")
    home = copy_project(tmp_path_factory.mktemp("macro") / "home", date(2016, 1, 1), date(2017, 3, 1), TOY_FOLDS)
    series = sorted({line.split(",")[0] for line in gzip.decompress(VINTAGES.read_bytes()).decode().splitlines()[1:]})
    declared = yaml.safe_load((home / "sources.yaml").read_text())
    declared["sources"]["nowcast"] = {
        "kind": "files",
        "offer": "macro",
        "file": "vintages.csv",
        "columns": {"symbol": "series_id", "period": "observation_date", "vintage": "vintage", "value": "value"},
        "holds": series,
        "frequencies": dict.fromkeys(QUARTERLY, "q"),
        "quarter_named_by": "last_month",
        "first_vintage_is_snapshot": True,
    }
    declared["feeds"] = {"macro": [{"source": "nowcast"}]}
    (home / "sources.yaml").write_text(yaml.safe_dump(declared))
    return House(home)


def as_known(house: House) -> list[tuple]:
    return house.rows(f"select * from staging.macro_as_known({THEN}) order by series_id, period")


def latest(house: House, before: str = THEN) -> list[tuple]:
    return house.rows(f"select * from staging.macro_latest where known_at <= {before} order by series_id, known_at")


def test_the_table_as_known_then_is_the_table_that_was_built_then(house):
    publish(house, SUMMER)
    for name in TABLES:
        assert not house.make(name).failed
    built, current = as_known(house), latest(house)
    assert len({row[0] for row in built}) == 29 and len(built) > 150

    publish(house, date(2017, 1, 31))
    house.reload()
    made = house.refresh(set(TABLES))
    assert {name for name, _ in made} == set(TABLES)
    assert as_known(house) == built and latest(house) == current
    assert house.rows("select count(*) from staging.macro where version > 1")[0][0] > 100
    assert house.refresh(set(TABLES)) == []

    by_month = house.frame("staging.macro_latest")
    for month in house.project.months:
        house.make("staging.macro_latest", [month])
    assert house.frame("staging.macro_latest").equals(by_month)

    # Payrolls of June 2016: what a decision saw at the close of each of these days.
    joined = """
        select day, period, value
        from (select unnest([date '2016-07-07', date '2016-07-11', date '2016-08-08', date '2016-09-06']) as day) as days
        asof join (select * from staging.macro_latest where series_id = 'PAYEMS') as payrolls
            on timezone('America/New_York', day::timestamp + interval 16 hour) >= payrolls.known_at
        order by day
    """
    assert house.rows(joined) == [
        (date(2016, 7, 7), date(2016, 5, 1), 143894.0),
        (date(2016, 7, 11), date(2016, 6, 1), 144175.0),
        (date(2016, 8, 8), date(2016, 7, 1), 144448.0),
        (date(2016, 9, 6), date(2016, 8, 1), 144598.0),
    ]
    june = (
        "select value, known_as from staging.macro where series_id = 'PAYEMS' and period = date '2016-06-01' order by version"
    )
    assert house.rows(june) == [(144175.0, "vintage"), (144193.0, "vintage"), (144172.0, "vintage")]


def test_every_series_shows_its_latest_period(house):
    """Against the slow way: at the end of each vintage's day, the latest period in the file and its latest value."""
    publish(house, date(2017, 1, 31))
    house.reload()
    house.refresh(set(TABLES))
    months = pl.col("observation_date").dt.offset_by("-2mo")
    file = pl.read_csv(VINTAGES, try_parse_dates=True).with_columns(
        period=pl.when(pl.col("series_id").is_in(QUARTERLY)).then(months).otherwise("observation_date")
    )
    rows = house.frame("staging.macro_latest")
    for vintage in file["vintage"].unique().sort():
        known = file.filter(pl.col("vintage") <= vintage).sort("series_id", "period", "vintage")
        expected = known.group_by("series_id", maintain_order=True).last().select("series_id", "period", "value")
        instant = datetime(vintage.year, vintage.month, vintage.day, 23, 59, tzinfo=UTC)
        midnight = pl.lit(instant).dt.offset_by("6h")  # past midnight in New York, before the next vintage
        shown = rows.filter(pl.col("known_at") <= midnight).sort("series_id", "known_at")
        shown = shown.group_by("series_id", maintain_order=True).last().select("series_id", "period", "value")
        assert shown.equals(expected), vintage  # 80 vintages
