"""Tables made by day, beside and between tables made by month: the same engine, another step."""

import textwrap
from datetime import date

import pytest

from tapehouse.errors import TapehouseError
from tapehouse.hashing import frame_hash
from tapehouse.partitions import contiguous, key_of, key_span, keys_between
from tests.house import House, toy_project

DAYS = {
    "assets/raw/pulses.py": '''
        """One row per (symbol, known_at): a pulse as the file pulses.csv gives it."""

        from tapehouse.tables import table


        def pulses(settings, start, end):
            import polars as pl

            rows = pl.read_csv(settings.home / "pulses.csv", try_parse_dates=True)
            stamps = pl.col("known_at").cast(pl.Datetime("us", "UTC"))
            return rows.with_columns(stamps).filter(pl.col("known_at").is_between(start, end, closed="left"))


        def fingerprint(settings, start, end):
            from tapehouse.hashing import frame_hash

            return frame_hash(pulses(settings, start, end))


        @table(fingerprint=fingerprint, cadence="days")
        def build(b):
            return pulses(b.settings, b.start, b.end)
        ''',
    "checks/raw/pulses.yaml": """
        time: known_at
        columns:
          symbol: {type: varchar, doc: "Ticker."}
          known_at: {type: timestamptz, doc: "When it came, UTC."}
          level: {type: bigint, doc: "How high it was."}
        contract:
          - expect_column_values_to_be_between: {column: level, min_value: 0}
        """,
    "sql/staging/pulses.sql": """
        -- One row per (symbol, known_at): a pulse, and the one before it of that day or the day before.
        -- cadence: days
        -- lookback: 1 days
        with

        seen as (
            select symbol, known_at, level, lag(level) over (partition by symbol order by known_at) as level_before,
                lead(known_at) over (partition by symbol, level order by known_at) as superseded_at
            from raw.pulses
        )

        select symbol, known_at, level, level_before, superseded_at
        from seen
        where known_at >= $start and known_at < $end
        """,
    "checks/staging/pulses.yaml": "time: known_at\n",
    "sql/features/pulses.sql": """
        -- One row per (symbol, decision_at): the highest pulse of the month, as the tables made by day hold it.
        select symbol, date_trunc('month', known_at) as decision_at, max(level) as highest
        from staging.pulses
        where known_at >= $start and known_at < $end
        group by symbol, date_trunc('month', known_at)
        """,
    "sql/reports/midnight.sql": """
        -- One row per (symbol): the pulses in force at one midnight.
        select symbol, count(*) as pulses
        from staging.pulses_as_known(timestamptz '2005-02-01')
        group by symbol
        """,
}


@pytest.fixture
def house(tmp_path) -> House:
    toy_project(tmp_path)
    for path in [*(tmp_path / "sql").glob("*/*.sql"), tmp_path / "checks/staging/ticks.yaml"]:
        path.unlink()
    text = (tmp_path / "sources.yaml").read_text().splitlines()
    text = ["days: {start: 2005-01-30, end: 2005-02-04}" if line.startswith("days:") else line for line in text]
    (tmp_path / "sources.yaml").write_text("\n".join(text) + "\n")
    lines = ["symbol,known_at,level"]
    for number, day in enumerate(("01-30", "01-31", "02-01", "02-02", "02-03")):
        lines += [f"AAA,2005-{day}T0{hour}:00:00Z,{number * 3 + hour % 3}" for hour in (1, 2, 3)]
    (tmp_path / "pulses.csv").write_text("\n".join(lines) + "\n")
    for path, content in DAYS.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(content).lstrip("\n"))
    return House(tmp_path)


def hashes(house: House, *names: str) -> dict:
    return {key: made.out_hash for key, made in house.state().items() if key[0] in names}


def test_keys_of_days_and_months():
    start, end = key_span("days", "2005-01-30", "2005-02-03")
    assert keys_between("days", start, end) == ["2005-01-30", "2005-01-31", "2005-02-01", "2005-02-02", "2005-02-03"]
    assert keys_between("months", start, end) == ["2005-01-01", "2005-02-01"]
    assert key_of("months", start) == "2005-01-01" and key_of("days", start) == "2005-01-30"
    assert contiguous("days", ["2005-02-01", "2005-01-31", "2005-02-03"]) == [
        ("2005-01-31", "2005-02-01"),
        ("2005-02-03", "2005-02-03"),
    ]
    assert contiguous("months", []) == []


def test_day_by_day_in_any_order_and_as_one_range_give_the_same_bits(house, tmp_path):
    assert house.project.assets["staging.pulses"].by == "days" and house.project.assets["features.pulses"].by == "months"
    house.make("raw.pulses")
    house.make("staging.pulses")
    ranged = hashes(house, "raw.pulses", "staging.pulses")
    other = House(tmp_path, tmp_path / "other")
    for day in ("2005-02-02", "2005-01-30", "2005-02-03", "2005-02-01", "2005-01-31"):
        other.make("raw.pulses", [day])
    for day in reversed(house.project.days):
        other.make("staging.pulses", [day])
    assert hashes(other, "raw.pulses", "staging.pulses") == ranged and len(ranged) == 10
    first = house.rows("select level_before from staging.pulses where known_at = '2005-02-01 01:00:00+00'")
    assert first == [(3,)]  # the last pulse of the day before
    assert frame_hash(house.frame("staging.pulses")) == frame_hash(other.frame("staging.pulses"))


def test_a_day_that_changes_wakes_its_own_day_and_those_that_look_back_to_it(house):
    house.refresh()
    assert house.refresh() == []
    house.edit("pulses.csv", "2005-02-01T03:00:00Z,6", "2005-02-01T03:00:00Z,60")
    made = house.refresh()
    assert [m for m in made if m[0] != "reports.midnight"] == [
        ("raw.pulses", "2005-02-01"),
        ("staging.pulses", "2005-02-01"),
        ("staging.pulses", "2005-02-02"),
        ("features.pulses", "2005-02-01"),
    ]
    highest = house.rows("select decision_at::date, highest from features.pulses order by 1")
    assert highest == [(date(2005, 1, 1), 5), (date(2005, 2, 1), 60)]


def test_months_read_the_days_that_lie_in_them(house):
    asset = house.project.assets["features.pulses"]
    assert house.project.upstream(asset, "2005-01-01") == [
        ("staging.pulses", "2005-01-30"),
        ("staging.pulses", "2005-01-31"),
    ]
    assert house.project.upstream(asset, "2005-06-01") == []
    with pytest.raises(TapehouseError, match=r"staging\.pulses 2005-02-01 … 2005-02-03 \(3\)"):
        house.make("raw.pulses")
        house.make("staging.pulses", ["2005-01-30", "2005-01-31"])
        house.make("features.pulses", ["2005-02-01"])


def test_a_bad_day_keeps_its_last_rows_and_the_others_go_on(house):
    house.refresh()
    house.edit("pulses.csv", "2005-02-01T03:00:00Z,6", "2005-02-01T03:00:00Z,-6")
    house.edit("pulses.csv", "2005-02-02T03:00:00Z,9", "2005-02-02T03:00:00Z,90")
    outcome = house.make("raw.pulses")
    assert list(outcome.failed["raw.pulses"]) == ["2005-02-01"]
    assert house.rows("select max(level) from raw.pulses") == [(90,)]
    assert house.rows("select level from raw.pulses where known_at = '2005-02-01 03:00:00+00'") == [(6,)]


def test_the_macro_is_there_for_assets_and_for_readers_also_at_a_snapshot(house):
    house.refresh()
    assert house.rows("select pulses from reports.midnight") == [(6,)]
    asked = "select level from staging.pulses_as_known(timestamptz '2005-01-30 02:30:00+00')"
    assert house.rows(asked) == [(1,), (2,)]
    with house.warehouse.reading(house.warehouse.snapshot()) as (cursor, _):
        assert cursor.execute(asked).fetchall() == [(1,), (2,)]
    assert "superseded_at" not in [row[0] for row in house.rows("describe from staging.pulses_as_known(now())")]
