"""Decision points on fixture rows: whose market they stand beside, and which decisions cannot be taken."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapehouse.calendars import TIMESTAMP
from tapehouse.declarations import load_project
from tapehouse.features.price import SCHEMA
from tapehouse.frames import POLARS_TYPES
from tapehouse.settings import load_settings

QUERY = (Path(__file__).parents[3] / "sql" / "features" / "decision_points.sql").read_text()
CLOSE = datetime(2000, 3, 1, 21, tzinfo=UTC)
LAG = timedelta(minutes=5)
RANGE = {"start": datetime(2000, 3, 1, tzinfo=UTC), "end": datetime(2000, 4, 1, tzinfo=UTC)}
UNIVERSE = {"IBM": True, "^GSPC": False, "^IXIC": False}
MARKETS = {"^GSPC": 0.01, "^IXIC": 0.02}


def typed(name: str) -> dict:
    """Column to polars type of a feature table, as its check file or its query declares them."""
    return {column: POLARS_TYPES[kind] for column, kind in PROJECT.tables[f"features.{name}"].types.items()}


PROJECT = load_project(load_settings(Path(__file__).parents[3]))
OTHERS = {name: typed(name) for name in ("macro", "regime", "text", "book")}


def price(symbol: str, day: int, **values) -> dict:
    """A row of `features.price`, so many days after 1 March 2000; every feature is 0.5 unless it is given."""
    close = CLOSE + timedelta(days=day)
    row = {name: 1 if kind.is_integer() else 0.5 for name, kind in SCHEMA.items()}
    keys = {"symbol": symbol, "interval": "1d", "session": close.date(), "known_at": close, "decision_at": close + LAG}
    return row | keys | values


def declared(benchmark: str) -> list[dict]:
    """The universe as it has been since 1999, without an end."""
    open_ended = {"valid_from": date(1999, 1, 4), "valid_to": None, "known_at": datetime(1999, 1, 4, 14, 30, tzinfo=UTC)}
    return [
        {"instrument_id": s, "symbol": s, "tradable": t, "benchmark": s == benchmark} | open_ended for s, t in UNIVERSE.items()
    ]


def points(
    rows: list[dict],
    benchmark: str,
    instruments: list[dict] | None = None,
    others: dict[str, list[dict]] | None = None,
    columns: tuple[str, ...] = ("market_ret_20d",),
) -> list[tuple]:
    """(symbol, day of the month, market_ret_20d) or other `columns`; `others` are rows of the further feature tables."""
    schema = {"instrument_id": pl.String, "symbol": pl.String, "tradable": pl.Boolean, "benchmark": pl.Boolean}
    schema |= {"valid_from": pl.Date, "valid_to": pl.Date, "known_at": TIMESTAMP}
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'; create schema raw; create schema features")
        con.register("declared", pl.DataFrame(instruments or declared(benchmark), schema=schema))
        con.register("prices", pl.DataFrame(rows, schema=dict(SCHEMA) | {"known_at": TIMESTAMP}))
        con.execute("create table raw.instruments as from declared; create table features.price as from prices")
        for name in ("macro", "regime", "text", "book"):
            con.register("beside", pl.DataFrame((others or {}).get(name, []), schema=OTHERS[name]))
            con.execute(f"create table features.{name} as from beside")
            con.unregister("beside")
        found = con.execute(QUERY, RANGE).pl().sort("symbol", "decision_at")
    return found.select("symbol", pl.col("session").dt.day(), *columns).rows()


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


def test_a_delisted_instrument_decides_until_its_last_session_and_keeps_its_past():
    """The delisting of IBM after day 2 is announced on day 1, or only on day 5, when the decisions of days 3 and 4 are made."""
    rows = [*(price("^GSPC", day) for day in range(8)), *(price("IBM", day) for day in range(8))]
    for announced, deciding in ((1, [1, 2, 3]), (5, [1, 2, 3, 4, 5])):
        instruments = declared("^GSPC")
        ended = {"valid_to": date(2000, 3, 3), "known_at": CLOSE + timedelta(days=announced)}
        assert [day for _, day, _ in points(rows, "^GSPC", [*instruments, instruments[0] | ended])] == deciding


@given(changed=st.integers(1, 6), announced=st.integers(0, 6))
def test_a_changed_ticker_leaves_one_row_a_decision(changed, announced):
    """Whenever the change is announced: the old ticker's end and the new ticker become known together."""
    rows = [*(price("^GSPC", day) for day in range(8)), *(price("IBM", day) for day in range(8))]
    known = {"known_at": CLOSE + timedelta(days=announced, hours=-1)}
    new, old = date(2000, 3, 1) + timedelta(days=changed), date(2000, 3, 1) + timedelta(days=changed - 1)
    instruments = declared("^GSPC")
    instruments += [instruments[0] | known | {"valid_to": old}, instruments[0] | known | {"valid_from": new}]
    assert [day for _, day, _ in points(rows, "^GSPC", instruments)] == list(range(1, 9))


def test_what_else_was_known_stands_beside_it():
    """Regime, macro and text by their decision; the book's latest second, at most a minute old; known_at the latest of all."""
    keys = {"symbol": "IBM", "interval": "1d", "decision_at": CLOSE + LAG}
    late = CLOSE + timedelta(minutes=4)
    book = {"symbol": "IBM", "market": "spot", "source": "a"}
    others = {
        "regime": [keys | {"known_at": CLOSE, "regime": "bullish"}],
        "macro": [keys | {"known_at": late, "vix": 17.5}],
        "text": [keys | {"known_at": CLOSE, "news_7d": 3}],
        "book": [
            book | {"decision_at": at, "known_at": at, "spread_bps": spread}
            for at, spread in ((CLOSE, 1.0), (late + timedelta(seconds=30), 2.0), (CLOSE + LAG + timedelta(seconds=1), 3.0))
        ],
    }
    rows = [price("^GSPC", 0), price("IBM", 0)]
    asked = ("regime", "vix", "news_7d", "book_spread_bps", "known_at")
    found = points(rows, "^GSPC", others=others, columns=asked)
    assert found == [("IBM", 1, "bullish", 17.5, 3, 2.0, late + timedelta(seconds=30))]
    others["book"] = others["book"][:1]  # five minutes old: none
    assert points(rows, "^GSPC", others=others, columns=asked) == [("IBM", 1, "bullish", 17.5, 3, None, late)]
    assert points(rows, "^GSPC", columns=asked) == [("IBM", 1, None, None, None, None, CLOSE)]
