"""Decision points on fixture rows: whose market they stand beside, and which decisions cannot be taken."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.calendars import TIMESTAMP
from tapehouse.features.price import SCHEMA

QUERY = (Path(__file__).parents[3] / "sql" / "features" / "decision_points.sql").read_text()
CLOSE = datetime(2000, 3, 1, 21, tzinfo=UTC)
LAG = timedelta(minutes=5)
RANGE = {"start": datetime(2000, 3, 1, tzinfo=UTC), "end": datetime(2000, 4, 1, tzinfo=UTC)}
UNIVERSE = {"IBM": True, "^GSPC": False, "^IXIC": False}
MARKETS = {"^GSPC": 0.01, "^IXIC": 0.02}


def price(symbol: str, day: int, **values) -> dict:
    """A row of `features.price`, so many days after 1 March 2000; every feature is 0.5 unless it is given."""
    close = CLOSE + timedelta(days=day)
    row = {name: 1 if kind.is_integer() else 0.5 for name, kind in SCHEMA.items()}
    keys = {"symbol": symbol, "interval": "1d", "session": close.date(), "known_at": close, "decision_at": close + LAG}
    return row | keys | values


def points(rows: list[dict], benchmark: str) -> list[tuple]:
    """(symbol, day of the month, market_ret_20d)"""
    instruments = [(s, tradable, s == benchmark, date(1999, 1, 4), None) for s, tradable in UNIVERSE.items()]
    schema = {"symbol": pl.String, "tradable": pl.Boolean, "benchmark": pl.Boolean, "valid_from": pl.Date, "valid_to": pl.Date}
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; create schema raw; create schema features")
        con.register("declared", pl.DataFrame(instruments, schema=schema, orient="row"))
        con.register("prices", pl.DataFrame(rows, schema=dict(SCHEMA) | {"known_at": TIMESTAMP}))
        con.execute("create table raw.instruments as from declared; create table features.price as from prices")
        found = con.execute(QUERY, RANGE).pl().sort("symbol", "decision_at")
    return found.select("symbol", pl.col("session").dt.day(), "market_ret_20d").rows()


@pytest.mark.parametrize("benchmark", MARKETS)
def test_the_market_is_the_declared_benchmark(benchmark):
    rows = [price("IBM", 0), *(price(s, 0, ret_20d=ret) for s, ret in MARKETS.items())]
    assert points(rows, benchmark) == [("IBM", 1, MARKETS[benchmark])]


def test_by_hand():
    """The market has rows on days 0 and 1: day 1 sees its own, day 9 the one of day 1, day 12 finds it too old."""
    market = [price("^GSPC", 0, ret_20d=0.1), price("^GSPC", 1, ret_20d=0.2)]
    rows = [price("IBM", day) for day in (1, 9, 12)] + [price("IBM", 2, rsi_14=None)]
    assert points([*market, *rows], "^GSPC") == [("IBM", 2, 0.2), ("IBM", 10, 0.2)]


@given(st.integers(-3, 12))
def test_the_market_is_never_from_after_the_decision(day):
    found = points([price("IBM", 3), price("^GSPC", day)], "^GSPC")
    assert bool(found) == (3 - 10 < day <= 3)


def test_no_market_no_decision():
    assert points([price("IBM", 0)], "^GSPC") == []
