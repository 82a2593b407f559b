"""Membership by date and by what was known: staging.universe and its macro, over rows that instruments declare."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.instruments import SCHEMA

QUERY = (Path(__file__).parents[3] / "sql" / "staging" / "universe.sql").read_text()
AS_KNOWN = (
    "select * exclude (superseded_at) from members where known_at <= $at and (superseded_at is null or superseded_at > $at)"
)
MEMBERS = (
    f"with known as ({AS_KNOWN}) select ticker from known where valid_from <= $day and (valid_to is null or valid_to >= $day)"
)
OPENED = datetime(2001, 1, 2, 14, 30, tzinfo=UTC)
ROW = dict.fromkeys(SCHEMA) | {"kind": "equity", "tradable": True, "benchmark": False, "calendar": "XNYS"}


def row(instrument: str, ticker: str, valid_from: date, valid_to: date | None, known_at: datetime) -> dict:
    about = {"instrument_id": instrument, "symbol": instrument, "ticker": ticker}
    return ROW | about | {"valid_from": valid_from, "valid_to": valid_to, "known_at": known_at, "event_at": OPENED}


# GONE leaves after 28 September 2001, as announced on the 10th; OLD becomes NEW on 2 July, as announced on 1 June.
ROWS = [
    row("GONE", "GONE", date(2001, 1, 2), None, OPENED),
    row("GONE", "GONE", date(2001, 1, 2), date(2001, 9, 28), datetime(2001, 9, 10, 12, tzinfo=UTC)),
    row("NEW", "OLD", date(2001, 1, 2), None, OPENED),
    row("NEW", "OLD", date(2001, 1, 2), date(2001, 7, 1), datetime(2001, 6, 1, 4, tzinfo=UTC)),
    row("NEW", "NEW", date(2001, 7, 2), None, datetime(2001, 6, 1, 4, tzinfo=UTC)),
]


@pytest.fixture(scope="module")
def con():
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; create schema raw")
        con.register("declared", pl.DataFrame(ROWS, schema=SCHEMA))
        con.execute("create table raw.instruments as from declared")
        con.execute(f"create table members as {QUERY}")
        yield con


def members(con, day: date, at: datetime) -> list[str]:
    return sorted(ticker for (ticker,) in con.execute(MEMBERS, {"day": day, "at": at}).fetchall())


@pytest.mark.parametrize(
    ("day", "at", "there"),
    [
        (date(2001, 10, 1), datetime(2001, 9, 10, 11, tzinfo=UTC), ["GONE", "NEW"]),  # not yet announced: still a member
        (date(2001, 10, 1), datetime(2001, 9, 10, 12, tzinfo=UTC), ["NEW"]),
        (date(2001, 9, 28), datetime(2001, 12, 1, tzinfo=UTC), ["GONE", "NEW"]),  # its last session
        (date(2001, 3, 1), datetime(2020, 1, 1, tzinfo=UTC), ["GONE", "OLD"]),  # long gone, and still in the past
        (date(2001, 7, 2), datetime(2001, 5, 1, tzinfo=UTC), ["GONE", "OLD"]),  # the change is unknown
        (date(2001, 7, 2), datetime(2001, 6, 2, tzinfo=UTC), ["GONE", "NEW"]),
        (date(2001, 1, 1), datetime(2020, 1, 1, tzinfo=UTC), []),
    ],
)
def test_by_hand(con, day, at, there):
    assert members(con, day, at) == there


def test_versions_are_numbered_and_superseded(con):
    rows = con.execute("select ticker, version, superseded_at from members order by ticker, version").fetchall()
    assert [r[:2] for r in rows] == [("GONE", 1), ("GONE", 2), ("NEW", 1), ("OLD", 1), ("OLD", 2)]
    assert [r[2] is None for r in rows] == [False, True, True, False, True]


@given(day=st.integers(0, 400), at=st.integers(0, 400))
def test_one_instrument_is_there_at_most_once(day, at):
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; create schema raw")
        con.register("declared", pl.DataFrame(ROWS, schema=SCHEMA))
        con.execute(f"create table raw.instruments as from declared; create table members as {QUERY}")
        found = members(con, date(2001, 1, 2) + timedelta(days=day), OPENED + timedelta(days=at))
    assert len(found) == len(set(found)) <= 2 and not {"OLD", "NEW"} <= set(found)
