from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapehouse.calendars import TIMESTAMP
from tapehouse.declarations import load_project
from tapehouse.observations import MACRO_COLUMNS, Calendar, screen_macro
from tapehouse.scratch import rebuild
from tapehouse.settings import load_settings
from tapehouse.sources.delimited import read_delimited
from tests.house import ROOT

SQL = ROOT / "sql" / "staging"
VINTAGES = Path("/work/shared/data/macro/nowcast_vintages.csv.gz")
LONG_AGO, FAR_OFF = datetime(1980, 1, 1, tzinfo=UTC), datetime(2030, 1, 1, tzinfo=UTC)
SCHEMA = {
    "series_id": pl.String,
    "period": pl.Date,
    "frequency": pl.String,
    "event_at": TIMESTAMP,
    "known_at": TIMESTAMP,
    "value": pl.Float64,
    "vintage": pl.Date,
    "known_as": pl.String,
    "revised": pl.Boolean,
    "source": pl.String,
}


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def after(period: date) -> datetime:
    return at(period.year + period.month // 12, period.month % 12 + 1, 1, 5)


def row(period: date, known_at: datetime, value: float | None, source="a", known_as="vintage", revised=False) -> tuple:
    return ("PAYEMS", period, "m", after(period), known_at, value, known_at.date(), known_as, revised, source)


def received(*rows: tuple) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").with_columns(ingested_at=pl.lit(FAR_OFF, TIMESTAMP))


def stage(raw: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`staging.macro` and `staging.macro_latest` of raw rows, over all time."""
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; create schema raw; create schema staging")
        con.register("received", raw)
        con.execute("create table raw.macro_observations as select * from received")
        for name in ("macro", "macro_latest"):
            query = (SQL / f"{name}.sql").read_text()
            con.execute(f"create table staging.{name} as {query}", {"start": LONG_AGO, "end": FAR_OFF})
        versions = con.execute("from staging.macro order by series_id, period, revised, known_at").pl()
        return versions, con.execute("from staging.macro_latest order by series_id, known_at").pl()


def as_known(versions: pl.DataFrame, instant: datetime) -> pl.DataFrame:
    """What the macro `staging.macro_as_known` gives."""
    later = pl.col("superseded_at").is_null() | (pl.col("superseded_at") > instant)
    return versions.filter((pl.col("known_at") <= instant) & later).drop("superseded_at")


JUNE, JULY, AUGUST = date(2016, 6, 1), date(2016, 7, 1), date(2016, 8, 1)


def test_versions_by_hand():
    versions, _ = stage(
        received(
            row(JUNE, at(2016, 7, 1), None),  # nothing yet: no version
            row(JUNE, at(2016, 7, 9), 10.0),
            row(JUNE, at(2016, 7, 20), 10.0, "b"),  # the same again: no version
            row(JUNE, at(2016, 8, 6), 11.0, "b"),
            row(JUNE, at(2016, 8, 6), 12.0, "a"),  # at one instant the first source by name
            row(JUNE, at(2016, 9, 3), None),  # taken back
            row(JUNE, at(2016, 9, 9), 13.0),
            row(JUNE, at(2016, 7, 5), 99.0, revised=True),  # the latest value alone: apart
        )
    )
    assert versions.select("revised", "version", "value", "known_at", "superseded_at", "source").rows() == [
        (False, 1, 10.0, at(2016, 7, 9), at(2016, 8, 6), "a"),
        (False, 2, 12.0, at(2016, 8, 6), at(2016, 9, 3), "a"),
        (False, 3, None, at(2016, 9, 3), at(2016, 9, 9), "a"),
        (False, 4, 13.0, at(2016, 9, 9), None, "a"),
        (True, 1, 99.0, at(2016, 7, 5), None, "a"),
    ]


def test_the_latest_by_hand():
    _, latest = stage(
        received(
            row(date(2015, 1, 1), at(2016, 6, 30), 1.0, known_as="upper_bound"),  # all that was out by the first look
            row(date(2016, 4, 1), at(2016, 6, 30), 4.0, known_as="upper_bound"),
            row(date(2016, 5, 1), at(2016, 6, 30), 5.0, known_as="upper_bound"),
            row(JUNE, at(2016, 7, 9), 6.0),
            row(date(2016, 5, 1), at(2016, 7, 12), 5.5),  # a late revision of May: June stays the latest
            row(JUNE, at(2016, 7, 20), 6.5),  # a revision of the latest period
            row(JULY, at(2016, 7, 15), 7.0, revised=True),  # not what was known then
            row(JULY, at(2016, 7, 28), 7.0),  # a survey, out before the month is over
            row(JUNE, at(2016, 9, 3), 6.7),
            row(AUGUST, at(2016, 9, 3), 8.0),  # two periods at one instant: the later
            row(AUGUST, at(2016, 9, 10), None),  # taken back
        )
    )
    assert latest.select("known_at", "period", "value", "version").rows() == [
        (at(2016, 6, 30), date(2016, 5, 1), 5.0, 1),
        (at(2016, 7, 9), JUNE, 6.0, 1),
        (at(2016, 7, 20), JUNE, 6.5, 2),
        (at(2016, 7, 28), JULY, 7.0, 1),
        (at(2016, 9, 3), AUGUST, 8.0, 1),
        (at(2016, 9, 10), AUGUST, None, 2),
    ]


def test_what_came_a_year_late_or_long_ahead_is_not_the_latest():
    _, latest = stage(received(row(JUNE, at(2017, 7, 2), 1.0), row(date(2018, 12, 1), at(2018, 9, 1), 2.0)))
    assert latest.is_empty()
    _, latest = stage(received(row(JUNE, at(2017, 7, 1), 1.0), row(date(2018, 12, 1), at(2018, 10, 2), 2.0)))
    assert latest["value"].to_list() == [1.0, 2.0]


@pytest.fixture(scope="module")
def payrolls() -> tuple[pl.DataFrame, pl.DataFrame]:
    if not VINTAGES.is_file():
        pytest.skip(f"no file {VINTAGES}")
    columns = {"symbol": "series_id", "period": "observation_date", "vintage": "vintage", "value": "value"}
    records = read_delimited(VINTAGES, columns, "nowcast").filter(symbol="PAYEMS")
    screened = screen_macro(records, undated_at=LONG_AGO, dates=Calendar(), snapshot=date(2016, 6, 29))
    assert screened.rejected.is_empty() and screened.accepted.columns == list(MACRO_COLUMNS)
    return stage(screened.accepted.with_columns(ingested_at=pl.lit(FAR_OFF, TIMESTAMP)))


@pytest.mark.parametrize(
    ("day", "june", "latest"),
    [
        (date(2016, 6, 28), None, None),  # before the first look at the vintages nothing was known
        (date(2016, 7, 7), None, (date(2016, 5, 1), 143894.0)),  # the first look shows May
        (date(2016, 7, 8), 144175.0, (JUNE, 144175.0)),
        (date(2016, 8, 4), 144175.0, (JUNE, 144175.0)),
        (date(2016, 8, 5), 144193.0, (JULY, 144448.0)),
        (date(2016, 9, 1), 144193.0, (JULY, 144448.0)),
        (date(2016, 9, 2), 144172.0, (AUGUST, 144598.0)),
        (date(2016, 10, 6), 144172.0, (AUGUST, 144598.0)),
        (date(2016, 10, 7), 144172.0, (date(2016, 9, 1), 144747.0)),
    ],
)
def test_payrolls_of_june_2016_as_known_at_the_end_of_each_day(payrolls, day, june, latest):
    """A vintage is known at the end of its day in New York: at 04:00 UTC of the next, in summer."""
    versions, rows = payrolls
    instant = at(day.year, day.month, day.day, 4) + timedelta(days=1)
    known = as_known(versions, instant).filter(period=JUNE)
    assert known["value"].to_list() == ([] if june is None else [june])
    now = rows.filter(pl.col("known_at") <= instant).tail(1)
    assert now.select("period", "value").rows() == ([] if latest is None else [latest])


def test_no_revision_of_payrolls_displaces_a_newer_month(payrolls):
    versions, rows = payrolls
    late = versions.filter((pl.col("version") > 1) & (pl.col("period") >= JUNE))
    assert late.height == 11
    assert rows["period"].is_sorted()
    shown = rows.join(late, on=["period", "known_at"], how="semi")
    assert shown.is_empty()  # each revision came with a newer month, or after it
    first = versions.filter(known_as="upper_bound")
    assert first["known_at"].unique().to_list() == [at(2016, 6, 30, 4)] and first.height == 377


# ------------------------------------------------------------------ properties

MONTHS = [date(year, month, 1) for year in (2004, 2005, 2006) for month in range(1, 13)]
VERSION = st.tuples(
    st.sampled_from(MONTHS),
    st.integers(-40, 420),  # days from the period's end to its publication
    st.sampled_from([1.0, 2.0, 3.0]),
    st.sampled_from("ab"),
    st.booleans(),
)


def rows_of(versions: list[tuple]) -> pl.DataFrame:
    unique = {(period, days, source, revised): value for period, days, value, source, revised in versions}
    return received(
        *(
            row(period, after(period) + timedelta(days=days), value, source, revised=revised)
            for (period, days, source, revised), value in unique.items()
        )
    )


def reference(raw: pl.DataFrame, instant: datetime) -> tuple | None:
    """The latest period known at an instant and its latest version, the slow way."""
    known = [
        (r["period"], r["known_at"], r["source"], r["value"])
        for r in raw.to_dicts()
        if r["known_at"] <= instant and not r["revised"] and r["known_at"] <= r["event_at"].replace(year=r["event_at"].year + 1)
    ]
    if not known:
        return None
    period = max(k[0] for k in known)
    last = max(k[1] for k in known if k[0] == period)
    return period, min((k[2], k[3]) for k in known if k[:2] == (period, last))[1]


@settings(max_examples=60, deadline=None)
@given(st.lists(VERSION, min_size=1, max_size=20), st.integers(0, 1500))
def test_as_known_then_is_what_was_built_then(versions, days):
    raw, instant = rows_of(versions), at(2004, 1, 1) + timedelta(days=days)
    whole, latest = stage(raw)
    earlier, latest_then = stage(raw.filter(pl.col("known_at") <= instant))
    assert as_known(whole, instant).equals(as_known(earlier, instant))
    assert latest.filter(pl.col("known_at") <= instant).equals(latest_then)
    now = latest_then.tail(1).select("period", "value").rows()
    assert (now[0] if now else None) == reference(raw, instant)


@settings(max_examples=40, deadline=None)
@given(st.lists(VERSION, min_size=1, max_size=12))
def test_versions_tile_time(versions):
    whole, latest = stage(rows_of(versions))
    assert not latest.select("series_id", "known_at").is_duplicated().any() and latest["period"].is_sorted()
    for _, part in whole.group_by("period", "revised", maintain_order=True):
        assert part["version"].to_list() == list(range(1, part.height + 1))
        assert part["superseded_at"].to_list() == [*part["known_at"].to_list()[1:], None]
        assert (part["value"] != part["value"].shift(1)).fill_null(True).all()


@lru_cache(maxsize=1)
def project():
    return load_project(load_settings(ROOT))


@settings(max_examples=6, deadline=None)
@given(st.lists(VERSION, min_size=8, max_size=40))
def test_month_by_month_and_as_one_range(versions):
    """Each month is made from its declared window alone, and comes out as in one range."""
    raw, table = rows_of(versions), "staging.macro_latest"

    def made(first: str, last: str) -> pl.DataFrame:
        rows = rebuild(project(), {"raw.macro_observations": raw}, [table], first, last)[table]
        start, end = project().span(first, last)
        return rows.filter((pl.col("known_at") >= start) & (pl.col("known_at") < end)).sort("known_at")

    months = [month for month in project().months if "2005-01-01" <= month <= "2006-12-01"]
    whole = made(months[0], months[-1])
    assert pl.concat([made(month, month) for month in months]).equals(whole)
    start, end = project().span(months[0], months[-1])
    known = stage(raw)[1].filter((pl.col("known_at") >= start) & (pl.col("known_at") < end))
    assert whole.equals(known.select(whole.columns))


@pytest.mark.parametrize("name", ["macro", "macro_latest"])
def test_the_file_says_what_a_row_is(name):
    assert (SQL / f"{name}.sql").read_text().startswith("-- One row per (series_id, ")
